"""The word index of a state: how well the words of a text fit each incident, by BM25.

BM25 counts rare words more than frequent ones, and a word that a document repeats less each time (Robertson and
Zaragoza 2009, section 3.2). The weights are those of Lucene's BM25 (Kamphuis et al. 2020, table 1). If n of N documents
have a word and one has it f times, it weighs there
    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length)).

bm25s computes the weights once, when the state is built. A query only adds them up, so that no handler loads bm25s.
Words are reduced to their stems (Snowball, English).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import Stemmer
from numpy.typing import NDArray

# Smaller than the usual 1.2 and 0.75: titles and descriptions hardly repeat a word, and their lengths differ little.
# docs/evaluation.md has the figures.
K1, B = 0.9, 0.4

# The words of a text are those in its beginning. The vector depends on a beginning too.
MOST_CHARS = 65_536

# Words with so many entries or more are added one by one. Collecting the entries of all other words at once takes less
# time for each word, but more for each entry.
_FREQUENT = 1000

_WORD = re.compile(r"\b\w\w+\b")
# Lucene's stop words, which bm25s calls STOPWORDS_EN.
_STOP_WORDS = """
    a an and are as at be but by for if in into is it no not of on or such
    that the their then there these they this to was will with
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def words_of(text: str) -> list[str]:
    """The stems of the words in the beginning of a prepared text, in order, without stop words and single letters."""
    found = [word for word in _WORD.findall(text[:MOST_CHARS].lower()) if word not in STOP_WORDS]
    stem_of = _stems(found)
    return [stem_of[word] for word in found]


def placed_words_of(text: str) -> list[tuple[str, int, int]]:
    """As `words_of`, each stem with the start and the end of its word in `text.lower()`."""
    found = [each for each in _WORD.finditer(text[:MOST_CHARS].lower()) if each[0] not in STOP_WORDS]
    stem_of = _stems([each[0] for each in found])
    return [(stem_of[each[0]], *each.span()) for each in found]


def _stems(words: Sequence[str]) -> dict[str, str]:
    # Threads mustn't share a stemmer. Its cache takes longer than stemming, because no word comes twice.
    stemmer = Stemmer.Stemmer("english", maxCacheSize=0)
    unique = list(dict.fromkeys(words))
    return dict(zip(unique, stemmer.stemWords(unique), strict=True))


@dataclass(frozen=True, eq=False)
class WordIndex:
    """The weights of the words in the documents of all incidents.

    words: all stems, ascending, unique. starts: int64 (words + 1,), ascending: the entries of word w are those from
    starts[w] to starts[w + 1]. rows: int32 (entries,), an entry's incident. weights: float32 (entries,), above 0.
    mean_length: words in a document on average. incidents: number of documents.
    """

    words: Sequence[str]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    mean_length: float
    incidents: int

    def __post_init__(self) -> None:
        """Raises ValueError if the parts don't fit together."""
        entries = self.rows.shape[0] if self.rows.ndim == 1 else -1
        kinds = [each.dtype.name for each in (self.starts, self.rows, self.weights)]
        if kinds != ["int64", "int32", "float32"] or self.weights.shape != (entries,):
            raise ValueError("the word index must have tensors of int64, int32 and float32, the last two of one length")
        if self.starts.shape != (len(self.words) + 1,) or self.starts[0] != 0 or self.starts[-1] != entries:
            raise ValueError("the word index must have a start for each word, from 0, and the number of its entries")
        # Differences of damaged numbers may be too large for int64.
        if (self.starts[1:] < self.starts[:-1]).any() or not ((self.rows >= 0) & (self.rows < self.incidents)).all():
            raise ValueError("the word index names entries or incidents that the state doesn't have")
        if not (np.isfinite(self.weights) & (self.weights >= 0)).all():
            raise ValueError("the word index has a weight that is NaN, infinite or negative")
        if type(self.mean_length) is not float or not 0 < self.mean_length < np.inf:
            raise ValueError("the word index must have a mean length above 0")

    @classmethod
    def of(cls, documents: Sequence[str]) -> WordIndex | None:
        """The index of the incidents' prepared documents, in the order of the incidents. None if no one has a word."""
        from bm25s import BM25
        from bm25s.tokenization import Tokenized

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # bm25s sets it to DEBUG.

        found = list(map(words_of, documents))
        # bm25s would number the words in an order of chance.
        words = sorted({word for each in found for word in each})
        if not words:
            return None
        number_of = {word: number for number, word in enumerate(words)}
        model = BM25(method="lucene", k1=K1, b=B, csc_backend="numpy")
        ids = [[number_of[word] for word in each] for each in found]
        model.index(Tokenized(ids=ids, vocab=number_of), create_empty_token=False, show_progress=False)
        return cls(
            words=words,
            starts=np.asarray(model.scores["indptr"], dtype=np.int64),
            rows=np.asarray(model.scores["indices"], dtype=np.int32),
            weights=np.asarray(model.scores["data"], dtype=np.float32),
            mean_length=sum(map(len, found)) / len(found),
            incidents=len(documents),
        )

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def scores(self, words: Sequence[str]) -> NDArray[np.float64]:
        """(incidents,): the sum of the weights of `words`, each of which counts once."""
        numbers = self._numbers(list(dict.fromkeys(words)))[1]
        is_frequent = self.starts[numbers + 1] - self.starts[numbers] >= _FREQUENT
        entries, _ = self._entries(numbers[~is_frequent])
        scores = np.bincount(self.rows[entries], self.weights[entries], minlength=self.incidents).astype(np.float64)
        for number in numbers[is_frequent].tolist():
            entry = slice(self.starts[number], self.starts[number + 1])
            # numpy adds many times faster if it needn't convert rows and weights.
            np.add.at(scores, self.rows[entry].astype(np.intp), self.weights[entry].astype(np.float64))
        return scores

    def entries(self, words: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.float32]]:
        """The entries of `words`, word by word, each (entries,): place in `words`, row of the incident, weight."""
        places, numbers = self._numbers(words)
        entries, counts = self._entries(numbers)
        return np.repeat(places, counts), self.rows[entries], self.weights[entries]

    def _numbers(self, words: Sequence[str]) -> NDArray[np.intp]:
        """The known ones of `words`: (2, known), their places in `words` and their numbers in the index."""
        found = [(place, self._number_of[word]) for place, word in enumerate(words) if word in self._number_of]
        return np.array(found, dtype=np.intp).reshape(-1, 2).T

    def _entries(self, numbers: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The places of the entries of some words: (words,) -> (entries,), word by word; how many each word has."""
        counts = self.starts[numbers + 1] - self.starts[numbers]
        ends = counts.cumsum()  # of the entries of each word in the answer
        return np.repeat(self.starts[numbers + 1] - ends, counts) + np.arange(counts.sum()), counts

    def score_of(self, document: str, words: Sequence[str]) -> float:
        """The score of another prepared document, as if it were an incident's. `scores` explains the words."""
        own = Counter(words_of(document))
        norm = K1 * (1 - B + B * own.total() / self.mean_length)
        score = 0.0
        for word in dict.fromkeys(words):
            if own[word]:
                number = self._number_of.get(word)
                having = int(self.starts[number + 1] - self.starts[number]) if number is not None else 0
                rarity = np.log1p((self.incidents - having + 0.5) / (having + 0.5))
                score += float(rarity) * own[word] / (own[word] + norm)
        return score
