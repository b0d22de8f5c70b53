"""Reading a checkpoint's tokenizer: tokenizer.json, or the two files of a byte-level BPE that older ones have."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing

from models.checkpoints import CheckpointError, is_there, read_object, require_content
from similarity.encoder.model_folder import TOKENIZER_FILENAME
from similarity.encoder.tokens import TextTokenizer
from similarity.errors import ModelError

VOCABULARY_FILENAME, MERGES_FILENAME = "vocab.json", "merges.txt"
# They may change what the two above mean.
OPTIONS_FILENAME, ADDED_TOKENS_FILENAME = "tokenizer_config.json", "added_tokens.json"

_SPECIAL_TOKENS = [
    AddedToken(content, lstrip=lstrip, special=True)
    for content, lstrip in (("<s>", False), ("<pad>", False), ("</s>", False), ("<unk>", False), ("<mask>", True))
]


def read_tokenizer(folder: Path) -> bytes:
    """tokenizer.json, or what it would be of a byte-level BPE's two files. Raises CheckpointError or OSError."""
    path = folder / TOKENIZER_FILENAME
    if not is_there(path):
        return _byte_level_bpe(folder).to_str().encode()
    require_content(path)
    try:
        TextTokenizer.load(path, max_tokens=1)
    except ModelError as error:
        raise CheckpointError(f"{error.detail}; copy or fetch it again.") from error
    return path.read_text(encoding="utf-8-sig").encode()


def _byte_level_bpe(folder: Path) -> Tokenizer:
    """The tokenizer that transformers' `RobertaTokenizerFast` makes of vocab.json and merges.txt."""
    remedy = "make tokenizer.json with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
    paths = folder / VOCABULARY_FILENAME, folder / MERGES_FILENAME
    if not all(map(is_there, paths)):
        raise CheckpointError(f"{folder} has neither {TOKENIZER_FILENAME} nor vocab.json and merges.txt; {remedy}")
    for path in paths:
        require_content(path)
    options, added = (
        read_object(folder / name) if is_there(folder / name) else {}
        for name in (OPTIONS_FILENAME, ADDED_TOKENS_FILENAME)
    )
    vocabulary = read_object(paths[0])
    if missing := [token for token in ("<s>", "</s>") if token not in vocabulary]:
        raise CheckpointError(f"{paths[0]} has no token {' and no token '.join(missing)}; {remedy}")
    if unknown := sorted(set(added) - set(vocabulary)):
        raise CheckpointError(
            f"{folder / ADDED_TOKENS_FILENAME} has {len(unknown)} tokens that vocab.json lacks; {remedy}"
        )
    try:
        tokenizer = Tokenizer(BPE.from_file(*map(str, paths)))
    except Exception as error:  # tokenizers raises nothing more special
        raise CheckpointError(
            f"{folder}: vocab.json and merges.txt aren't a valid tokenizer: {error}; {remedy}"
        ) from error
    prefix_space = options.get("add_prefix_space") is True
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.post_processor = RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), add_prefix_space=prefix_space
    )
    tokenizer.add_special_tokens([token for token in _SPECIAL_TOKENS if token.content in vocabulary])
    return tokenizer
