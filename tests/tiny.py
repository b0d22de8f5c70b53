"""What tests are made of: a tiny random Longformer with a real tokenizer, states for it, and where data is."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, SentencePieceUnigramTokenizer, Tokenizer
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from models.export import export
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.confidence import EVIDENCE, Confidence
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import METRICS
from similarity.incidents.state import IncidentState
from similarity.incidents.whitening import whitening
from similarity.incidents.words import WordIndex

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_DIR = ROOT / "scripts" / "sample"
AIID_DIR = ROOT.parent / "shared" / "aiid"
LONGFORMER_DIR = ROOT.parent / "shared" / "longformer"

# The variables that the handlers read.
VARIABLES = (
    *("MODEL_DIR", "MODEL_FILENAME", "INCIDENTS_FILENAME", "HF_MODEL_URI"),
    *("ENCODER_ENGINE", "ENCODER_PRECISION", "SHELF_DIR", "MODEL_ON_EFS", "STATE_BUCKET"),
)

TINY_WINDOW = 16
TINY_MAX_TOKENS = 128


def sample_texts() -> list[str]:
    """The reports of the sample snapshot."""
    with (SAMPLE_DIR / "reports.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def roberta_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer as RoBERTa's and Longformer's, with 600 tokens learned from the sample."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        sample_texts(), vocab_size=600, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False
    )
    tokenizer = Tokenizer.from_str(bpe.to_str())
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def bert_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer as BERT's, which drops white space and makes one token of a word of over 100 characters."""
    wordpiece = BertWordPieceTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    wordpiece.train_from_iterator(sample_texts(), vocab_size=600, special_tokens=special, show_progress=False)
    trained = json.loads(wordpiece.to_str())["model"]["vocab"]
    # Made of its words anew, it puts [CLS] and [SEP] around a text.
    return Tokenizer.from_str(BertWordPieceTokenizer(trained).to_str())


# The same sentence in several scripts, in our own words.
MANY_SCRIPTS = (
    "A car without a driver hit a fire engine that stood on the road.",
    "運転手のいない車が、道路に停まっていた消防車に衝突した。",
    "Автомобиль без водителя врезался в пожарную машину, стоявшую на дороге.",
    "Ein Auto ohne Fahrer fuhr auf ein Löschfahrzeug auf, das auf der Straße stand.",
    "اصطدمت سيارة بلا سائق بسيارة إطفاء كانت متوقفة على الطريق.",
    "ένα αυτοκίνητο χωρίς οδηγό έπεσε πάνω σε πυροσβεστικό όχημα.",
)


def multilingual_tokenizer() -> Tokenizer:
    """A Unigram tokenizer as XLM-RoBERTa's, for several scripts: <s> is 0, <pad> is 1, </s> is 2."""
    return Tokenizer.from_str(_multilingual())


@cache  # because each training may learn other tokens
def _multilingual() -> str:
    unigram = SentencePieceUnigramTokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    unigram.train_from_iterator(
        MANY_SCRIPTS * 20, vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer = Tokenizer.from_str(unigram.to_str())
    tokenizer.post_processor = TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    learned: str = tokenizer.to_str()
    return learned


def write_tiny_longformer(
    folder: Path,
    *,
    seed: int = 0,
    hidden_size: int = 32,
    dtype: str = "float32",
    max_tokens: int = TINY_MAX_TOKENS,
    name: str = "tiny",
) -> Path:
    """A random Longformer of three layers whose windows differ, saved by transformers."""
    from transformers import LongformerConfig, LongformerModel

    torch.manual_seed(seed)
    config = LongformerConfig(
        vocab_size=600,
        hidden_size=hidden_size,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        attention_window=[TINY_WINDOW, 2 * TINY_WINDOW, TINY_WINDOW],
        max_position_embeddings=max_tokens + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        # Ten times the usual spread, so that attention matters and a wrong mask shows.
        initializer_range=0.2,
    )
    LongformerModel(config).to(getattr(torch, dtype)).save_pretrained(folder)
    roberta_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "provenance.json").write_text(json.dumps({"model": name}))
    export(folder)
    return folder


def state_of_texts(encoder: TextEncoder, texts: dict[int, str]) -> IncidentState:
    """A state in which each incident has one text, its title."""
    ids, of_reports = sorted(texts), encoder.for_reports()
    return IncidentState(
        incident_ids=np.array(ids),
        report_counts=np.ones(len(ids), dtype=np.int64),
        means=np.stack([of_reports.encode(texts[incident_id]).vector for incident_id in ids]),
        titles=[texts[incident_id] for incident_id in ids],
        model=encoder.name or "",
        model_fingerprint=encoder.fingerprint,
        text_preparation=encoder.text_preparation,
    )


TINY_TEXTS = {
    1: "A car without a driver hit a pedestrian",
    4: "A chatbot learned to insult people",
    7: "Risk scores of a court were biased",
    10: "A trading program crashed the market",
    23: "A robot in a warehouse hurt workers",
}


def fitted_state(state: IncidentState, first: float, later: float = -5.0, none_below: float = 0.1) -> IncidentState:
    """`state` with data for each metric. All confidences are the same: of a first match, and of later ones.

    first, later: the logarithms of the odds, so that 0 is a confidence of 0.5, and -5 one of 0.0067.
    """
    calibration = {}
    for metric in METRICS:
        weights = (0.0,) * (2 * len(EVIDENCE[metric]))
        calibration[metric] = Confidence((*weights, first), (*weights, later), none_below)
    words = WordIndex.of([title.lower() for title in state.titles])
    fit = Fit(whitening(state.means, 0.125), 0.125, words, calibration)
    return dataclasses.replace(state, fit=fit)


def copy_inference(folder: Path) -> Path:
    """Copies inference/ without a model: whether one is on this machine must not matter."""
    return Path(shutil.copytree(ROOT / "inference", folder, ignore=shutil.ignore_patterns("model", "__pycache__")))


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file, and b"" for each folder."""
    return {path.name: b"" if path.is_dir() else path.read_bytes() for path in folder.iterdir()}


def edit_config(folder: Path, **values: object) -> None:
    """Sets values in a model's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def write_multilingual_longformer(folder: Path, **values: object) -> Path:
    """A tiny Longformer with the tokenizer above, which gets its texts as they are. values: more for config.json."""
    write_tiny_longformer(folder, name="tiny multilingual")
    multilingual_tokenizer().save(str(folder / "tokenizer.json"))
    edit_config(folder, **{"text_preparation": "none", **values})
    export(folder)
    return folder


def cleared(path: Path) -> Path:
    """Removes a file or a folder, and gives its path, at which something else may be made."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return path


@dataclass(frozen=True)
class Deployed:
    """A model folder and a state file of a test's own, which the handlers of this process are set to."""

    model_dir: Path
    state_path: Path


class RunsCode:
    """Unpickling this makes the file `path`, unless what unpickles refuses to run code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)
