"""Why an incident was found, in the words of the text: those that speak most for it by BM25.

`words` has the weights. A text that was transliterated is quoted as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.words import WordIndex


@dataclass(frozen=True)
class Why:
    """words: up to three of the text, best first. sentence: one of the text.

    Without a word that speaks for the incident there are no words, and the sentence is None.
    """

    words: tuple[str, ...] = ()
    sentence: str | None = None


def explain(index: WordIndex, rows: NDArray[np.intp], text: str, prepare: Callable[[str], str]) -> list[Why]:
    """The reasons for the incidents in `rows` (matches,) of the index.

    text: the query, as it came. prepare: prepares a part of it as the texts of the state.
    """
    raise NotImplementedError
