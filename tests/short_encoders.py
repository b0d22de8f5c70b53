"""Short encoders as sentence-transformers has them, at tiny sizes, in folders that the converter reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import NFKC
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import UnigramTrainer
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from tiny import bert_tokenizer, roberta_tokenizer

SOURCE_POSITIONS = 40
POOLING_KEYS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")

_SENTENCES = (
    "Ein Roboter verletzte einen Arbeiter, während er die Maschine prüfte.",
    "Un robot a blessé un employé à l'entrepôt, près de la chaîne d'assemblage.",
    "Робот ранил рабочего на складе, и никто его не остановил.",  # noqa: RUF001 (meant)
    "ロボットが倉庫で作業員を負傷させた。誰も止めなかった。",
    "机器人在仓库里伤害了工人，没有人阻止它。",  # noqa: RUF001 (meant)
    "أصاب روبوت عاملا في مستودع ولم يوقفه أحد.",
    "रोबोट ने गोदाम में एक मज़दूर को घायल कर दिया।",
    "A robot in a warehouse hurt a worker, and nobody stopped it.",
)


def unigram_tokenizer() -> Tokenizer:
    """A Unigram tokenizer with the special tokens of XLM-R's, learned from sentences in several scripts."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = NFKC()
    tokenizer.pre_tokenizer = Metaspace()
    special = [AddedToken(token, special=True) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    trainer = UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(_SENTENCES * 8, trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def write_source(folder: Path, kind: str, *, spread: float = 0.05) -> PreTrainedModel:
    """A random encoder of two layers with a tokenizer that cuts and pads, as those of sentence encoders do.

    kind: a model_type, or "multilingual bert", a BERT with XLM-R's tokens and BERT's config, as
    paraphrase-multilingual-MiniLM-L12-v2 is. spread: of the noise in all weights.
    """
    behind_padding = kind in ("roberta", "xlm-roberta", "camembert")
    torch.manual_seed(1)
    model: PreTrainedModel = AutoModel.from_config(_config(kind, behind_padding))  # type: ignore[no-untyped-call]
    # A row for a padding index starts as zeros, and biases do: random ones show a mistake.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape))
    model.train(False)
    model.save_pretrained(folder)
    tokenizer = {"roberta": roberta_tokenizer, "camembert": roberta_tokenizer}.get(kind, bert_tokenizer)()
    if kind in ("xlm-roberta", "multilingual bert"):
        tokenizer = unigram_tokenizer()
    tokenizer.enable_truncation(12)
    tokenizer.enable_padding(length=12, pad_id=0 if kind in ("bert", "distilbert") else 1)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def _config(kind: str, behind_padding: bool) -> Any:
    common = {"vocab_size": 600, "initializer_range": 0.2}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": SOURCE_POSITIONS}
        return AutoConfig.for_model(kind, **common, **sizes)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    if not behind_padding:
        return AutoConfig.for_model("bert", max_position_embeddings=SOURCE_POSITIONS, **common, **sizes)
    # As in roberta-base, whose table has 514 rows for 512 positions.
    roberta: dict[str, Any] = {"max_position_embeddings": SOURCE_POSITIONS + 2, "type_vocab_size": 1}
    return AutoConfig.for_model(kind, layer_norm_eps=1e-5, **roberta, **common, **sizes)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def write_modules(folder: Path, *kinds: str) -> None:
    """modules.json as sentence-transformers 2 writes it. The first module's files are in the folder itself."""
    modules = []
    for index, kind in enumerate(kinds):
        path, type_ = f"{index}_{kind}" if index else "", f"sentence_transformers.models.{kind}"
        modules.append({"idx": index, "name": str(index), "path": path, "type": type_})
    write_json(folder / "modules.json", modules)


def write_pooling(folder: Path, *modes: str) -> Path:
    """The config of 1_Pooling as sentence-transformers 2 writes it; modes: the parts of the keys that are true."""
    keys = {f"pooling_mode_{mode}": mode in modes for mode in POOLING_KEYS}
    path = folder / "1_Pooling" / "config.json"
    write_json(path, {"word_embedding_dimension": 32, **keys})
    return path


def token_vectors(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """(tokens,) -> (tokens, hidden): the last layer's, with all tokens counted."""
    with torch.no_grad():
        hidden: Tensor = model(ids.unsqueeze(0), attention_mask=torch.ones(1, len(ids), dtype=torch.int64))[0][0]
    return hidden
