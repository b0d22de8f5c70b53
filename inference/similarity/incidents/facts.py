"""The facts of a state without its vectors, and whether a model can use the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from similarity.errors import StateError
from similarity.incidents.collection import DEFAULT_COLLECTION, DEFAULT_RECORD_URL
from similarity.settings import DEFAULT_TEXT_PREPARATION

_REMEDY = "build the state again with this model (scripts/build_state.py)"


class MadeBy(Protocol):
    """The properties of an encoder that a state is compared with."""

    @property
    def dimension(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def longest_input(self) -> int:
        """The most tokens that the model takes."""

    @property
    def text_preparation(self) -> str: ...


@dataclass(frozen=True)
class StateFacts:
    """The facts of a state. `similarity.incidents.state` explains the fields, which have the same names there.

    version: the first 16 hex digits of the file's SHA-256, "" if unknown. incidents, reports: their numbers.
    """

    version: str
    incidents: int
    reports: int
    dimension: int
    model: str = ""
    model_fingerprint: str = ""
    precision: str = "float32"
    built_at: str = ""
    source: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int = 0
    text_preparation: str = DEFAULT_TEXT_PREPARATION
    collection: str = DEFAULT_COLLECTION
    record_url: str = DEFAULT_RECORD_URL
    licence: str = ""

    def require_made_by(self, encoder: MadeBy, name: str) -> None:
        """Raises StateError if another model than `encoder` made this state. name: the encoder's name."""
        if self.dimension != encoder.dimension:
            raise StateError(
                f"the state has {self.dimension} dimensions, but the model has {encoder.dimension}; {_REMEDY}"
            )
        if self.model_fingerprint:
            if self.model_fingerprint != encoder.fingerprint:
                made = (
                    f"another model of the name {name} (other weights, pooling, prefixes or preparation of texts)"
                    if self.model == name
                    else f"another model ({self.model or 'unnamed'}) than {name}"
                )
                raise StateError(f"the state was made with {made}; {_REMEDY}")
        elif self.model and self.model != name:
            raise StateError(f"the state was made with the model {self.model}, but {name} is loaded; {_REMEDY}")
        if self.text_preparation != encoder.text_preparation:
            raise StateError(
                f"the texts of the state were prepared with {self.text_preparation or 'nothing'}, but the loaded model "
                f"uses {encoder.text_preparation}; {_REMEDY}"
            )
        self.require_limit_within(encoder.longest_input)

    def require_limit_within(self, longest_input: int) -> None:
        """Raises StateError if the state's limit is more than the `longest_input` tokens that a model takes."""
        if self.max_tokens > longest_input:
            raise StateError(
                f"the texts of the state were cut at {self.max_tokens} tokens, but the model takes at most "
                f"{longest_input}; build the state again with a lower MAX_TOKENS"
            )

    def require_limit(self, here: int, longest_input: int) -> None:
        """Raises StateError if texts are cut at another number of tokens `here`. longest_input: of the model."""
        limit = self.max_tokens or longest_input
        if limit != here:
            raise StateError(
                f"the texts of the state were cut at {limit} tokens, but here texts are cut at {here}, as in the state "
                f"in the model's folder; build the state again with MAX_TOKENS={here}, or deploy an image that has it"
            )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "source": dict(self.source), "options": dict(self.options)}

    @classmethod
    def from_json(cls, content: Any) -> StateFacts:
        """Raises ValueError if `content` isn't what `to_json` gives. Unknown fields are ignored."""
        if not isinstance(content, dict):
            raise ValueError("the facts of a state must be an object")
        known = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        try:
            facts = cls(**known)
        except TypeError as error:
            raise ValueError(f"facts of a state are missing: {error}") from error
        for each in fields(cls):
            _require_type(each.name, getattr(facts, each.name))
        return facts


_NUMBERS = ("incidents", "reports", "dimension", "max_tokens")
_MAPPINGS = ("source", "options")


def _require_type(name: str, value: object) -> None:
    """Raises ValueError if a fact hasn't its type: a whole number from 0, a mapping of strings, or a string."""
    if name in _NUMBERS:
        right = type(value) is int and value >= 0
    elif name in _MAPPINGS:
        right = isinstance(value, Mapping) and all(isinstance(s, str) for s in (*value, *value.values()))
    else:
        right = isinstance(value, str)
    if not right:
        raise ValueError(f"the fact {name} of a state has the wrong type, {type(value).__name__}")
