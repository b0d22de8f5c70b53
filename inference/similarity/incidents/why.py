"""Why an incident was found, in the words of the text: those that speak most for it by BM25.

`words` has the weights, `sentences` the sentences. A text that was transliterated is quoted as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.sentences import sentences
from similarity.incidents.words import MOST_CHARS, WordIndex, placed_words_of

MOST_WORDS = 3
# A longer word, e.g. a line of Japanese, is no word to quote.
_MOST_WORD_CHARS = 50

_RUN = re.compile(r"\w+")


@dataclass(frozen=True)
class Why:
    """words: up to three of the text, best first. sentence: one of the text.

    Without a word that speaks for the incident there are no words, and the sentence is None.
    """

    words: tuple[str, ...] = ()
    sentence: str | None = None


def explain(index: WordIndex, rows: NDArray[np.intp], text: str, prepare: Callable[[str], str]) -> list[Why]:
    """The reasons for the incidents in `rows` (matches,) of the index.

    A part of the text weighs as much as its different stems together, among equals the first counts. Each stem speaks
    through one word.
    text: the query, as it came. Its first MOST_CHARS characters count.
    prepare: prepares a part of it as the texts of the state, each character by itself.
    """
    said = sentences(text[:MOST_CHARS])
    words = list(_words("\n".join(said), prepare))
    stems = list(dict.fromkeys(stem for word in words for stem in word.stems))
    places, of_rows, weights = index.entries(stems)
    # The text's stems in each incident, incident by incident: three times (entries,).
    used = np.flatnonzero(np.isin(of_rows, rows) & (weights > 0))
    used = used[np.argsort(of_rows[used], kind="stable")]
    places, of_rows, weights = places[used], of_rows[used], weights[used]
    starts, ends = (np.searchsorted(of_rows, rows, side) for side in ("left", "right"))

    number_of = {stems[place]: place for place in np.unique(places).tolist()}
    # Of the words with the same known stems, the first is quoted.
    quotes: dict[tuple[int, ...], str] = {}
    in_sentence: list[tuple[int, int]] = []
    for word in words:
        known = tuple(sorted({number_of[stem] for stem in word.stems if stem in number_of}))
        in_sentence += [(stem, word.sentence) for stem in known]
        if known and len(word.quote) <= _MOST_WORD_CHARS:
            quotes.setdefault(known, word.quote)
    of_sentences = _Parts(in_sentence, len(stems), len(said))
    of_quotes = _Parts(
        [(stem, number) for number, known in enumerate(quotes) for stem in known], len(stems), len(quotes)
    )
    quoted = list(quotes.items())
    reasons = {}
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if start == end:
            reasons[row] = Why()
        elif row not in reasons:
            mine, weigh = places[start:end], weights[start:end]
            sentence = said[int(of_sentences.weights(mine, weigh).argmax())]
            left, chosen = of_quotes.weights(mine, weigh), list[str]()
            while len(chosen) < min(MOST_WORDS, len(quoted)) and left.max() > 0:
                known, quote = quoted[int(left.argmax())]
                chosen.append(quote)
                for stem in set(known).intersection(mine.tolist()):
                    left[of_quotes.having[stem]] = 0
            reasons[row] = Why(tuple(chosen), sentence)
    return [reasons[row] for row in rows.tolist()]


@dataclass(frozen=True)
class _Word:
    """A word as the text has it, the number of its sentence, and the stems that it has when it is prepared."""

    quote: str
    sentence: int
    stems: Sequence[str]


def _words(lines: str, prepare: Callable[[str], str]) -> Iterator[_Word]:
    """The words of lines, each of which is a sentence, with their stems.

    Preparing may make several words of one, e.g. of Chinese ones. It may also make one of two, if it drops what is
    between them. Such two are quoted as one.
    """
    prepared_of = {c: prepare(c) for c in set(lines)}
    lengths = [len(prepared_of[c].lower()) for c in lines]
    # The place in `lines` of each character of the prepared ones.
    place_of = np.repeat(np.arange(len(lines)), lengths)
    runs = [run.span() for run in _RUN.finditer(lines)]
    start_of, end_of = np.arange(len(lines)), np.arange(1, len(lines) + 1)
    for start, end in runs:
        start_of[start:end], end_of[start:end] = start, end
    line_of = np.cumsum([c == "\n" for c in lines], dtype=np.intp)
    first, last, stems = 0, 0, list[str]()
    for stem, begin, stop in placed_words_of("".join(prepared_of[c] for c in lines)):
        start, end = int(start_of[place_of[begin]]), int(end_of[place_of[stop - 1]])
        if start >= last:
            if stems:
                yield _Word(lines[first:last], int(line_of[first]), stems)
            first, stems = start, []
        last = max(end, last)
        stems.append(stem)
    if stems:
        yield _Word(lines[first:last], int(line_of[first]), stems)


class _Parts:
    """Parts of the text, words or sentences. having: the numbers of the parts that have a stem, by its number."""

    def __init__(self, pairs: Iterable[tuple[int, int]], stems: int, count: int) -> None:
        """pairs: a stem's number and that of a part, each counted from 0. stems, count: how many of each there are."""
        # In the order of the stems: parts with the same stems are as heavy to the last digit.
        ordered = np.array(sorted(set(pairs)), dtype=np.intp).reshape(-1, 2)
        self.having = np.split(ordered[:, 1], np.searchsorted(ordered[:, 0], np.arange(1, stems)))
        self._count = count

    def weights(self, stems: NDArray[np.intp], weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """The weight of each part if these stems weigh anything: (stems,), (stems,) -> (parts,)."""
        having = [self.having[stem] for stem in stems.tolist()]
        each = np.repeat(weights, [len(parts) for parts in having])
        return np.bincount(np.concatenate(having), each, minlength=self._count).astype(np.float64)
