"""New states for the shelf, as a deployment brings them: the job puts each there, and removes old ones."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread

import numpy as np

from chain.function import Function, FunctionError, running_function
from lambdas import days_ago, make_old
from load.mixture import text_of
from similarity.incidents.state import IncidentState, state_version
from similarity.incidents.whitening import whitening
from similarity.incidents.words import WordIndex
from similarity.shelf.versions import STATE_FILENAME, STATES
from similarity.shelf.writer import KEPT_S

PAUSE_S = 5.0
INCIDENTS = 1400
_SHELVE = "jobs.shelve_state"


class Shelving:
    """versions: of the states that were put on the shelf, in order. removed: names. wrong: why one wasn't put there."""

    def __init__(self, job: Function, image: Path, shelf: Path) -> None:
        self._job = job
        self._state_path = image / STATE_FILENAME
        self._states = shelf / STATES
        self._state = IncidentState.load(self._state_path)
        self.versions: list[str] = []
        self.removed: list[str] = []
        self.wrong: list[str] = []

    def run(self, end: Event) -> None:
        while not end.is_set():
            start_s = time.monotonic()
            self.shelve()
            end.wait(max(0.0, start_s + PAUSE_S - time.monotonic()))

    def shelve(self) -> None:
        """The image's next state, which differs from the one before in its time."""
        for folder in self._states.glob("[!.]*"):  # old enough to be removed
            make_old(folder, 2 * KEPT_S)
        dataclasses.replace(self._state, built_at=days_ago(0)).save(self._state_path)
        try:
            answer = self._job.invoke({})
        except FunctionError as error:
            self.wrong.append(str(error))
            return
        self.removed += answer["removed"]
        if answer["note"]:
            self.wrong.append(answer["note"])
        self.versions.append(state_version(self._state_path))

    @property
    def on_shelf(self) -> list[str]:
        return [path.name for path in self._states.glob("[!.]*")]


def make_image(model_dir: Path, state: IncidentState, folder: Path) -> Path:
    """A model's folder as an image has it, with a state."""
    shutil.copytree(model_dir, folder, copy_function=os.symlink)
    state.save(folder / STATE_FILENAME)
    return folder


def state_as_large_as_aiids(path: Path) -> IncidentState:
    """A state with random incidents, and all that a state of the same model at `path` can be searched by.

    So it takes megabytes, and memory that isn't given back when the next state is served soon shows.
    """
    small, chance = IncidentState.load(path), np.random.default_rng(0)
    means = small.means[chance.integers(len(small), size=INCIDENTS)]
    means = means + chance.normal(scale=means.std() / 10, size=means.shape).astype(np.float32)
    titles = [text_of(12, Random(number)) for number in range(INCIDENTS)]
    documents = [text_of(200, Random(number)) for number in range(INCIDENTS)]
    fit = dataclasses.replace(small.fit, whitening=whitening(means, small.fit.power), words=WordIndex.of(documents))
    return dataclasses.replace(
        small,
        incident_ids=np.arange(1, INCIDENTS + 1),
        report_counts=np.ones(INCIDENTS, dtype=np.int64),
        means=means,
        titles=titles,
        dates=[],
        points=chance.uniform(-1, 1, size=(INCIDENTS, 2)).astype(np.float32),
        fit=fit,
    )


@contextmanager
def shelving(image: Path, shelf: Path, folder: Path) -> Iterator[Shelving]:
    """The first state is on the shelf at once. folder: takes the job's log."""
    variables = {"MODEL_DIR": str(image), "SHELF_DIR": str(shelf), "OMP_NUM_THREADS": "1"}
    with running_function(_SHELVE, folder, variables) as job:
        running, end = Shelving(job, image, shelf), Event()
        running.shelve()
        thread = Thread(target=running.run, args=(end,))
        thread.start()
        try:
            yield running
        finally:
            end.set()
            thread.join()
