"""Reads the files that sentence-transformers writes around an encoder: its modules, its pooling and its prompts.

modules.json lists the modules that a text goes through. Each has a folder with its own config.json. Older folders have
only 1_Pooling/config.json, and a plain encoder has neither. The encoder itself is read by `checkpoints`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoints import CheckpointError, is_there, read_object, require_content
from models.longformer import CONVERT, ConversionError, Pooling
from similarity.encoder.config import CONVERTIBLE_KINDS, LONGEST_PREFIX
from similarity.encoder.model_folder import CONFIG_FILENAME

MODULES_FILENAME = "modules.json"
PROMPTS_FILENAME = "config_sentence_transformers.json"
POOLING_DIRNAME = "1_Pooling"
# Named after the kind of the encoder once, now always after BERT.
OPTIONS_FILENAMES = tuple(f"sentence_{kind}_config.json" for kind in CONVERTIBLE_KINDS)

_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")

# The names of Pooling's modes: the value of `pooling_mode`, and in older folders a key with a boolean.
_MODES = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
# The sum divided by the root of the length has the direction of the mean, and only directions are compared.
_POOLINGS: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "mean_sqrt_len_tokens": "mean"}
_CHOOSE = "choose with --pooling cls or --pooling mean, and measure the result, because the encoder wasn't trained so"

# The first of these that a folder has is the prompt of a report, as in sentence-transformers' encode_document.
_QUERY, _REPORTS = "query", ("document", "passage", "corpus")


@dataclass(frozen=True)
class SentenceEncoder:
    """An encoder's folder as sentence-transformers sees it.

    encoder: the folder of the encoder's own files. pooling: the config of its Pooling module, None without one.
    prompts: by name. default_prompt: the name of the prompt for texts of no kind. longest: in tokens, 0 if it isn't
    said. lowercases: whether a text is put into lower case before it is tokenised.
    """

    folder: Path
    encoder: Path
    pooling: Mapping[str, Any] | None
    prompts: Mapping[str, str]
    default_prompt: str | None
    longest: int
    lowercases: bool

    @classmethod
    def read(cls, folder: Path) -> SentenceEncoder:
        """Raises CheckpointError for broken files, ConversionError for modules that a Longformer lacks, or OSError."""
        encoder, pooling = folder, None
        if is_there(folder / MODULES_FILENAME):
            encoder, pooling = _modules(folder)
        else:
            _require_known_folders(folder)
            if is_there(folder / POOLING_DIRNAME / CONFIG_FILENAME):
                pooling = folder / POOLING_DIRNAME
        prompts, default_prompt = _prompts(folder / PROMPTS_FILENAME)
        options = _options(encoder)
        longest = options.get("max_seq_length")
        return cls(
            folder=folder,
            encoder=encoder,
            pooling=None if pooling is None else read_object(pooling / CONFIG_FILENAME),
            prompts=prompts,
            default_prompt=default_prompt,
            longest=longest if type(longest) is int and longest > 0 else 0,
            lowercases=options.get("do_lower_case") is True,
        )

    def own_pooling(self, *, has_prompt: bool) -> Pooling | None:
        """The pooling that the folder asks for, None if it doesn't say. has_prompt: texts are given a prompt.

        Raises ConversionError for every pooling except CLS and mean.
        """
        if self.pooling is None:
            return None
        modes = _modes(self.pooling)
        if len(modes) != 1 or modes[0] not in _POOLINGS:
            what = f"{' and '.join(modes)} together" if len(modes) > 1 else modes[0] if modes else "nothing"
            raise ConversionError(
                f"the encoder pools {what}, but a Longformer's vector can only be that of CLS or the mean; {_CHOOSE}."
            )
        if has_prompt and self.pooling.get("include_prompt") is False:
            raise ConversionError(
                "the encoder leaves its prompt out of the mean (include_prompt is false), and a Longformer can't; "
                'convert it without prompts (--query-prefix "" --report-prefix ""), or count them (--pooling mean).'
            )
        return _POOLINGS[modes[0]]

    def query_prompt(self) -> str:
        return self._prompt(self._query_name())

    def report_prompt(self) -> str:
        return self._prompt(self._report_name())

    def unused_prompts(self) -> list[str]:
        """The names of the prompts that neither a query nor a report is given."""
        used = {self._query_name(), self._report_name()}
        return [name for name, prompt in self.prompts.items() if prompt and name not in used]

    def _query_name(self) -> str | None:
        return _QUERY if _QUERY in self.prompts else self.default_prompt

    def _report_name(self) -> str | None:
        return next((name for name in _REPORTS if name in self.prompts), self.default_prompt)

    def _prompt(self, name: str | None) -> str:
        prompt = "" if name is None else self.prompts[name]
        if len(prompt) > LONGEST_PREFIX:
            raise ConversionError(
                f"the prompt {name!r} in {self.folder / PROMPTS_FILENAME} has {len(prompt)} characters, but at most "
                f"{LONGEST_PREFIX} are possible; give a shorter one with --query-prefix and --report-prefix."
            )
        return prompt


def _modules(folder: Path) -> tuple[Path, Path | None]:
    """The folders of the encoder and of the Pooling module."""
    path = folder / MODULES_FILENAME
    require_content(path)
    remedy = "copy or fetch it again"
    try:
        modules = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read: it isn't JSON: {error}; {remedy}.") from error
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and isinstance(module.get("type"), str) and isinstance(module.get("path", ""), str)
        for module in modules
    ):
        raise CheckpointError(f"{path} must be a list of modules, each with a type and a path; {remedy}.")
    found: dict[str, Path] = {}
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        if kind not in _KNOWN_MODULES:
            raise _unknown_module(kind)
        if kind != "Normalize" and kind in found:
            raise ConversionError(
                f"the encoder has several modules {kind}, but a Longformer has one; choose an encoder with one."
            )
        found[kind] = folder / module.get("path", "")
    if "Transformer" not in found:
        raise CheckpointError(f"{path} lists no module Transformer; {remedy}.")
    return found["Transformer"], found.get("Pooling")


def _require_known_folders(folder: Path) -> None:
    """Raises ConversionError for the folder of a module, such as 2_Dense, where modules.json is missing."""
    for path in sorted(folder.iterdir()):
        found = re.fullmatch(r"\d+_(\w+)", path.name)
        if found and found[1] not in _KNOWN_MODULES and is_there(path / CONFIG_FILENAME):
            raise _unknown_module(found[1])


def _unknown_module(kind: str) -> ConversionError:
    return ConversionError(
        f"the encoder has a module {kind}, which a Longformer has no place for, so its vectors would differ; choose an "
        f"encoder whose modules are only {', '.join(_KNOWN_MODULES[:-1])} and {_KNOWN_MODULES[-1]}; {CONVERT}."
    )


def _modes(config: Mapping[str, Any]) -> list[str]:
    """The names of a Pooling module's modes. sentence-transformers prefers the new key, and its default is the mean."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [str(each) for each in mode] if isinstance(mode, list) else [str(mode)]
    # Keys of later releases count too, so that none is overlooked.
    old = {key: value for key, value in config.items() if key.startswith("pooling_mode_")}
    names = {key: name for name, key in _MODES.items()}
    return [names.get(key, key) for key, value in old.items() if value] if old else ["mean"]


def _prompts(path: Path) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default."""
    if not is_there(path):
        return {}, None
    config = read_object(path)
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise CheckpointError(f"prompts in {path} must be an object of strings; correct it.")
    if default is not None and default not in list(prompts):
        raise CheckpointError(f"{path} has no prompt {default!r}, but default_prompt_name says so; correct it.")
    return prompts, default


def _options(folder: Path) -> dict[str, Any]:
    for name in OPTIONS_FILENAMES:
        if is_there(folder / name):
            return read_object(folder / name)
    return {}
