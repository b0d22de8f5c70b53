"""Converts the encoder of a folder into the folder of a Longformer: reads it, makes the weights, compares, installs.

`sentence_encoder` and `checkpoints` read the folder, `longformer` makes the weights, `self_check` compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.checkpoints import read_config, read_encoder
from models.longformer import (
    FIRST_POSITION_IS_BEHIND_PADDING,
    POOLING_WINDOW,
    ConversionError,
    Form,
    Pooling,
    longformer_config,
    longformer_weights,
    own_positions,
    require_convertible,
)
from models.self_check import Comparison, compare
from models.sentence_encoder import SentenceEncoder
from models.source_tokenizer import SourceTokenizer
from models.write_model import write_model
from similarity.errors import ModelError
from similarity.settings import TextPreparation


@dataclass(frozen=True)
class Choices:
    """What the user chose. None and "auto" stand for what the encoder's folder says, or its vocabulary.

    pooling_window: in tokens, only for mean pooling.
    """

    pooling: Literal["auto"] | Pooling = "auto"
    pooling_window: int | None = None
    query_prefix: str | None = None
    report_prefix: str | None = None
    text_preparation: Literal["auto"] | TextPreparation = "auto"


AUTO = Choices()


@dataclass(frozen=True)
class Report:
    """What to tell the user. lines: of the result. notes: of what may be otherwise than expected."""

    lines: list[str]
    notes: list[str]


def convert(
    source: Path,
    out: Path,
    *,
    name: str,
    revision: str = "",
    window: int = 512,
    max_tokens: int = 4096,
    choices: Choices = AUTO,
) -> Report:
    """Converts the encoder in `source` (config.json, tokenizer and weights, as `checkpoints` reads them) into `out`.

    Raises CheckpointError if `source` is incomplete or broken, ConversionError if it is another kind of model or if the
    Longformer gives other vectors, OSError if a file can't be read or written.
    """
    folder = SentenceEncoder.read(source)
    config = read_config(folder.encoder)
    require_convertible(config)
    pooling, prefixes, notes = _chosen(folder, choices)
    form = Form(window, max_tokens, (choices.pooling_window or POOLING_WINDOW) if pooling == "mean" else None)
    tokenizer = SourceTokenizer.read(folder.encoder, lowercases=folder.lowercases)
    default_pad = config.get("pad_token_id", int(FIRST_POSITION_IS_BEHIND_PADDING[config["model_type"]]))
    tokenizer.require_special_tokens()
    pad = tokenizer.require_padding(default_pad if tokenizer.padding is None else tokenizer.padding)
    try:
        target = longformer_config(config, form, pad=pad)
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{folder.encoder / 'config.json'} doesn't describe an encoder: {type(error).__name__}: {error}"
        ) from error
    preparation = tokenizer.text_preparation if choices.text_preparation == "auto" else choices.text_preparation
    target |= {"text_preparation": preparation, **prefixes}
    weights = read_encoder(folder.encoder)
    tokenizer.require_words(len(weights["embeddings.word_embeddings.weight"]), pad=pad)
    compared: list[Comparison] = []

    def check(converted: Path) -> None:
        positions = min(own_positions(weights, config), max_tokens)
        longest = {positions, min(folder.longest or positions, positions)}
        compared.append(compare(converted, weights, config, pooling=pooling, fitting=form.fitting, longest=longest))
        compared[0].require_close()

    try:
        write_model(
            out,
            config=target,
            tokenizer_json=tokenizer.content.encode(),
            weights=longformer_weights(weights, config, target, form),
            source={"model": name, "revision": revision, "made_by": f"convert_encoder.py, {_described(form)}"},
            check=check,
        )
    except ModelError as error:
        raise ConversionError(f"{source} can't be converted into a usable Longformer: {error.detail}") from error
    lines = [
        f"{_described(form)}, text preparation {preparation} ({tokenizer.share:.1%} of the tokens have letters beyond "
        "ASCII)",
        *(comparison.line() for comparison in compared),
    ]
    named = f"prefix of a query {prefixes['query_prefix']!r}, of a report {prefixes['report_prefix']!r}"
    lines.insert(1, named if any(prefixes.values()) else "no prefixes; some encoders need them, for example e5")
    return Report(lines, [*notes, *(note for comparison in compared for note in comparison.notes())])


def _chosen(folder: SentenceEncoder, choices: Choices) -> tuple[Pooling, dict[str, str], list[str]]:
    """The pooling, the two prefixes under their names in config.json, and notes for the user."""
    query = folder.query_prompt() if choices.query_prefix is None else choices.query_prefix
    report = folder.report_prompt() if choices.report_prefix is None else choices.report_prefix
    notes = []
    pooling = folder.own_pooling(has_prompt=bool(query or report)) if choices.pooling == "auto" else choices.pooling
    if pooling is None:
        pooling = "cls"
        notes.append(
            f"{folder.folder} doesn't say how it pools, so its CLS vector is taken; --pooling mean takes the mean"
        )
    if pooling == "cls" and choices.pooling_window is not None:
        raise ConversionError(
            "--pooling-window is only for mean pooling, but this encoder's CLS vector is taken; leave the option out."
        )
    if (choices.query_prefix is None or choices.report_prefix is None) and (unused := folder.unused_prompts()):
        notes.append(
            f"prompts of {folder.folder} that aren't used: {', '.join(unused)}; --query-prefix and --report-prefix "
            "take any text"
        )
    return pooling, {"query_prefix": query, "report_prefix": report}, notes


def _described(form: Form) -> str:
    if form.pooling_window is None:
        return f"window {form.window}, CLS pooling"
    return f"window {form.window}, mean pooling, its window {form.pooling_window}"
