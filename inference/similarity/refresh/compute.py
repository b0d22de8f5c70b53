"""Computes the vectors of many texts, each once: a store keeps them for the next build.

Each text is encoded alone, so its vector doesn't depend on other texts. Batches of several texts would be 1.4 times as
fast for texts of one sentence, and 1.04 times for reports. But their vectors differ in the last digits. A state that is
updated would then differ from a state that is built from scratch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from similarity.encoder.text_encoder import TextEncoder
from similarity.refresh.vector_store import MadeWith, VectorStore
from similarity.settings import Engine
from similarity.vectors import Vector

# Gets texts of reports: each as `tokens.prepare` gives it, not blank, unique. Yields CLS vectors (hidden,) by text, a
# part of the texts at a time, as soon as that part is done. The parts come in any order. Raises ModelError.
Compute = Callable[[Sequence[str]], Iterator[Mapping[str, Vector]]]

# Characters in a part. These are about 4,096 tokens, as many as in the longest text.
PART_CHARS = 16_384
# The number of texts that are looked up at a time. A vector has 3 KB.
_AT_ONCE = 10_000


def parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts, each once, longest first. A part has one text, or at most PART_CHARS characters."""
    part: list[str] = []
    size = 0
    for text in sorted(set(texts), key=lambda text: (-len(text), text)):
        if part and size + len(text) > PART_CHARS:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


def work(texts: Iterable[str]) -> int:
    """Characters to encode. The model cuts long texts, so a text counts as at most PART_CHARS characters."""
    return sum(min(len(text), PART_CHARS) for text in texts)


def encode_part(encoder: TextEncoder, part: Sequence[str]) -> dict[str, Vector]:
    """The CLS vectors (hidden,) of reports by text. Raises ModelError."""
    return _encoded(encoder.for_reports(), part)


def _encoded(encoder: TextEncoder, part: Sequence[str]) -> dict[str, Vector]:
    return {text: encoder.encode(text).vector for text in part}


def in_this_process(encoder: TextEncoder, before_part: Callable[[], None] = lambda: None) -> Compute:
    """Computes one text after the other. before_part: may raise, to stop before the next part."""
    return _computing(encoder.for_reports(), before_part)


def _computing(encoder: TextEncoder, before_part: Callable[[], None]) -> Compute:
    def compute(texts: Sequence[str]) -> Iterator[Mapping[str, Vector]]:
        for part in parts(texts):
            before_part()
            yield _encoded(encoder, part)

    return compute


class TooManyTextsError(Exception):
    """More texts would have to be computed than allowed. Nothing was computed for them. The message is one sentence."""

    def __init__(self, texts: int, most: int) -> None:
        super().__init__(f"{texts:,} texts would have to be computed, but at most {most:,} are allowed.")
        self.texts = texts


class Computer:
    """An encoder with the store of its vectors. All texts must be prepared, as for `Compute`.

    compute: computes the vectors that the store lacks; default `in_this_process`.
    progress: gets the work that is done and all work, in characters, before the first part and after each.
    equals: engines whose vectors count as the encoder's own, if the model, the precision and the limit of tokens are
        the same. The encoder's own vectors are preferred. torch and onnx share float32 only. There their vectors differ
        by rounding: by at most 4.3e-6 for Longformer-base with random weights and texts of 2 to 4,096 tokens, whose
        largest numbers are above 3.
    most: the most texts that this computer may compute in all; None for any number.
    before_part: as for `in_this_process`, which it needs.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        store: VectorStore,
        compute: Compute | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        equals: Sequence[Engine] = (),
        most: int | None = None,
        before_part: Callable[[], None] = lambda: None,
    ) -> None:
        self.encoder = encoder
        # The parts that were computed. `for_queries` shares them.
        self._parts_done: list[int] = []
        self._store = store
        self._compute = compute or in_this_process(encoder, before_part)
        self._before_part = before_part
        self._progress = progress or (lambda *_: None)
        self._made_with = MadeWith(encoder.fingerprint, encoder.engine, encoder.precision, encoder.max_tokens)
        self._equals = [replace(self._made_with, engine=each) for each in equals if each != encoder.engine]
        self._most = most

    def for_queries(self) -> Computer:
        """A computer of the same texts' vectors as queries. It is this one, unless the model has prefixes.

        It computes in this process. The texts that it computes count as this one's.
        """
        config = self.encoder.config
        if config.query_prefix == config.report_prefix:
            return self
        asked = copy.copy(self)
        asked._compute = _computing(self.encoder, self._before_part)
        asked._made_with = replace(self._made_with, fingerprint=f"{self._made_with.fingerprint} query")
        asked._equals = [replace(asked._made_with, engine=each.engine) for each in self._equals]
        return asked

    @property
    def done(self) -> int:
        """The number of texts that were computed."""
        return sum(self._parts_done)

    def room(self) -> int | None:
        """How many texts may still be computed; None for any number."""
        return None if self._most is None else self._most - self.done

    def get(self, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors (hidden,) of those `texts` that have been computed. Raises StoreError."""
        found = self._store.get(texts, self._made_with)
        for made_with in self._equals:
            found |= self._store.get([text for text in texts if text not in found], made_with)
        return found

    def computed(self, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors (hidden,) of `texts`, which `compute` got before. Raises StoreError."""
        found = self.get(texts)
        lost = [text for text in texts if text not in found]
        return found | self._store.get(lost, self._made_with, all_are_stored=True)

    def require_few(self, texts: Sequence[str]) -> None:
        """Raises TooManyTextsError if `compute` would raise it for `texts`. Raises StoreError."""
        if self._most is not None:
            self._require_few(self.missing(texts))

    def compute(self, texts: Sequence[str]) -> frozenset[str]:
        """Computes and stores the vectors that the store lacks. Returns their texts.

        Raises TooManyTextsError before it computes the first; ModelError, StoreError.
        """
        missing = self.missing(texts)
        self._require_few(missing)
        if missing:
            done, total = 0, work(missing)
            self._progress(done, total)
            for part in self._compute(missing):
                self._store.put(part, self._made_with)
                self._parts_done.append(len(part))
                done += work(part)
                self._progress(done, total)
        return frozenset(missing)

    def keep(self, texts: Sequence[str]) -> None:
        """Marks the vectors as used today, and removes those that no build has used for long. Raises StoreError."""
        self._store.keep(texts, self._made_with, *self._equals)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts without a vector, each once. Raises StoreError."""
        unique = list(dict.fromkeys(texts))
        missing: list[str] = []
        for start in range(0, len(unique), _AT_ONCE):
            some = unique[start : start + _AT_ONCE]
            known = self.get(some)
            missing += [text for text in some if text not in known]
        return missing

    def _require_few(self, missing: Sequence[str]) -> None:
        if self._most is not None and self.done + len(missing) > self._most:
            raise TooManyTextsError(self.done + len(missing), self._most)
