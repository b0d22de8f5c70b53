"""Publishes a state of AIID's newest snapshot, if the service serves a state of an earlier snapshot.

`jobs/refresh.py` calls this and logs the result.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, get_args

from similarity.encoder.loading import load_encoder
from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError, SimilarityError, StateError, one_line, reason_of
from similarity.inbox.bucket import STATE_KEY, Bucket, InboxError, Stored
from similarity.inbox.checks import LossError, require_about_as_many, require_most_incidents, served_state
from similarity.inbox.notes import SNAPSHOT_KIND, Hold, Served, iso, now
from similarity.inbox.publications import facts_of, publish
from similarity.incidents.collection import DEFAULT_COLLECTION, DEFAULT_LICENCE, DEFAULT_RECORD_URL
from similarity.incidents.facts import StateFacts
from similarity.incidents.points import kept_points, pca
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index
from similarity.refresh.bucket_store import fetch_vectors, share_vectors
from similarity.refresh.build import Built, VectorsFrom, build_state, token_limit
from similarity.refresh.changes import made_alike
from similarity.refresh.compute import Computer, TooManyTextsError
from similarity.refresh.questions import DEFAULT_WORDS_FROM, WordsFrom, words_from_option
from similarity.refresh.vector_store import StoreError, VectorStore
from similarity.settings import AIID_MAX_TOKENS, DEFAULT_PRECISION, Engine, Precision, Settings
from similarity.sources.database import Database, Responses
from similarity.sources.download import download
from similarity.sources.page import Snapshot, newest_snapshot, snapshots_url
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database

T = TypeVar("T")

# A week has about 50 new reports. The texts of AIID's length take a few minutes, see docs/refresh.md.
MOST_COMPUTED = 300
# Before the time limit, so that what was computed gets into the bucket. A text takes 10 s on the smallest Lambda.
RESERVE_S = 60.0

# So many bad rows are named.
_NAMED = 5

_FETCH = "python scripts/publish_state.py --fetch-vectors"
_BUILD = "python scripts/build_state.py --latest"
_PUBLISH = "python scripts/publish_state.py inference/model/incident_cls.pt"

_AGAIN = "Lambda tries again. If that doesn't help,"
_DISK = f"{_AGAIN} look at the reason; if the disk is full, give the function more ephemeral storage."
# Trouble that may pass.
_REMEDIES: dict[type[Exception], str] = {
    SourceError: f"{_AGAIN} look at the page of snapshots; the deployment option SNAPSHOTS_URL names another page. On "
    f"a laptop, with a snapshot in FILE: python scripts/build_state.py FILE; {_PUBLISH}",
    InboxError: f"{_AGAIN} look at the bucket, and at the function's permissions for it.",
    StoreError: _DISK,
    StateError: _DISK,
    OSError: _DISK,
}

log = logging.getLogger(__name__)


class RefreshError(Exception):
    """Another run may succeed. The message is one sentence. remedy: for a person, if no run succeeds."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class NotPublishedError(RefreshError):
    """A person must act: another run would come to the same result. snapshot: its name, None if nobody looked."""

    snapshot: str | None = None


class OutOfTimeError(RefreshError):
    """The time limit is near. The next run goes on with what was computed."""


@dataclass(frozen=True)
class Result:
    """published: the version of the new state, None without one; `reason` then says why, in one sentence.

    snapshot: the name of the newest snapshot, None if nobody looked. vectors: the number of reports by the origin of
    their vectors, see `Built`.
    """

    published: str | None = None
    reason: str = ""
    snapshot: str | None = None
    vectors: dict[str, int] = field(default_factory=dict)


class Refresher:
    """One run.

    settings: name the image's model, and the engine that computes. folder: an empty one, for snapshot, store and state.
    require_usable: raises SimilarityError if the image can't use a state. remaining_s: gives the seconds until the time
    limit.
    """

    def __init__(
        self,
        bucket: Bucket,
        settings: Settings,
        folder: Path,
        *,
        require_usable: Callable[[IncidentState], None],
        remaining_s: Callable[[], float],
    ) -> None:
        self._bucket, self._settings, self._folder = bucket, settings, folder
        self._require_usable, self._remaining_s = require_usable, remaining_s

    def run(self) -> Result:
        """Publishes a state, or tells why there is nothing to publish.

        Raises NotPublishedError if a person must act. OutOfTimeError and RefreshError may pass: trouble with page,
        archive, network, S3 or disk.
        """
        try:
            return self._run()
        except tuple(_REMEDIES) as error:
            remedy = next(remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind))
            raise RefreshError(reason_of(error), remedy) from error

    def _run(self) -> Result:
        served = Served.read(self._bucket)
        if reason := _not_ours(served):
            return Result(reason=reason)
        assert served is not None
        if reason := self._not_over_a_waiting_one(self._bucket.look_at(STATE_KEY), served):
            return Result(reason=reason)
        hold = Hold.read(self._bucket)
        snapshot = newest_snapshot(snapshots_url())
        if reason := _not_newer(snapshot, served, hold):
            return Result(reason=reason, snapshot=snapshot.name)
        try:
            return self._publish(snapshot, served)
        except NotPublishedError as error:
            error.snapshot = snapshot.name
            raise

    def _publish(self, snapshot: Snapshot, served: Served) -> Result:
        options = _Options.of(served)
        with self._computer(options) as computer:
            built = self._build(self._database(snapshot, options), options, computer)
        path = self._folder / "incident_cls.pt"
        before = served_state(self._bucket, served)
        state = replace(with_points(built.state, before), built_at=now())
        state.save(path)
        self._require_fit(state, served, before)
        # If somebody publishes or takes back after this look, the state isn't uploaded.
        newest = self._bucket.look_at(STATE_KEY)
        vectors, again = dict(built.reports), Served.read(self._bucket)
        if reason := _not_ours(again) or _not_newer(snapshot, again, Hold.read(self._bucket)):
            return Result(reason=f"While the state was built: {reason}", snapshot=snapshot.name, vectors=vectors)
        assert again is not None
        if reason := self._not_over_a_waiting_one(newest, again, snapshot):
            return Result(reason=f"While the state was built: {reason}", snapshot=snapshot.name, vectors=vectors)
        if (again.state.version, again.deployed) != (served.state.version, served.deployed):
            self._require_fit(state, again, served_state(self._bucket, again))
        version = publish(self._bucket, path, instead_of=newest.etag if newest else "")
        return Result(version, snapshot=snapshot.name, vectors=vectors)

    def _not_over_a_waiting_one(self, stored: Stored | None, served: Served, snapshot: Snapshot | None = None) -> str:
        """Why the newest published state, if it isn't served yet, mustn't be replaced; "" if it may.

        The job `shelve_state` takes seconds to serve it, or days if something is wrong with the file system.
        """
        if stored is None or stored.version_id == served.version_id or iso(stored.written_at) < served.published_at:
            return ""
        facts = facts_of(self._bucket, stored)
        if facts is None or not served.deployed.can_use(facts):
            return ""
        kind, date = facts.source.get("kind"), _facts_date(facts)
        if kind != SNAPSHOT_KIND:
            data = one_line(kind or "unknown data")
            return f"A state that isn't served yet isn't made of a snapshot of AIID, but of {data}."
        if snapshot and snapshot.date < date:
            return f"A state that isn't served yet is made of a later snapshot, of {one_line(date)}."
        return ""

    def _database(self, snapshot: Snapshot, options: _Options) -> Database:
        path = download(snapshot, self._folder, lambda *_: self._require_time("the snapshot was downloaded"))
        problems = _FirstProblems()
        database = read_database(path, problems, responses=options.responses)
        if problems.count:
            log.warning(
                "parts of the snapshot skipped",
                extra={"snapshot": snapshot.name, "count": problems.count, "first": problems.first},
            )
        path.unlink()  # It makes room for the store of vectors.
        if database.source.kind != SNAPSHOT_KIND:
            raise SourceError(f"{snapshot.name} wasn't read as a snapshot of AIID.")
        return replace(
            database,
            collection=options.collection,
            record_url=options.record_url,
            licence=options.licence or database.licence,
        )

    def _build(self, database: Database, options: _Options, computer: Computer | None) -> Built:
        self._require_time("the vectors were computed")
        try:
            return build_state(
                database,
                vectors=options.vectors,
                responses=options.responses,
                words_from=options.words_from,
                max_tokens=options.max_tokens,
                computer=computer,
            )
        except TooManyTextsError as error:
            raise NotPublishedError(str(error), options.on_a_laptop()) from error
        except SourceError as error:
            raise NotPublishedError(f"no state can be made of the snapshot: {error}", options.on_a_laptop()) from error
        except ModelError as error:
            raise NotPublishedError(f"the model fails: {error.detail}", options.on_a_laptop()) from error

    @contextmanager
    def _computer(self, options: _Options) -> Iterator[Computer | None]:
        """None if no text may be computed. In the end the store is put into the bucket, whatever has happened."""
        if options.vectors == "published":
            if options.max_tokens == AIID_MAX_TOKENS:
                yield None
                return
            # Its tokenizer counts tokens, and nothing else of it is used. So the precision doesn't matter.
            encoder = self._encoder(options, DEFAULT_PRECISION)
            with VectorStore(self._folder / "unused.sqlite") as store:
                yield Computer(encoder, store)
            return
        encoder = self._encoder(options, options.precision)
        path = self._folder / "vectors.sqlite"
        fetched = fetch_vectors(self._bucket, path)
        if fetched.damage:
            log.warning("store of vectors replaced", extra={"reason": fetched.damage})
        with VectorStore(path) as store:
            computer = Computer(
                encoder,
                store,
                equals=get_args(Engine),
                most=MOST_COMPUTED,
                before_part=lambda: self._require_time("all vectors were computed"),
            )
            try:
                yield computer
            except BaseException:
                if computer.done:
                    try:
                        share_vectors(self._bucket, path)
                    except (InboxError, StoreError, OSError) as error:  # The first error counts.
                        log.warning("vectors not kept", extra={"computed": computer.done, "reason": reason_of(error)})
                raise
        share_vectors(self._bucket, path)

    def _encoder(self, options: _Options, precision: Precision) -> TextEncoder:
        settings = self._settings
        try:
            return load_encoder(
                settings.model_dir,
                settings.model_filename,
                engine=settings.engine,
                precision=precision,
                max_tokens=options.max_tokens,
            )
        except ModelError as error:
            raise NotPublishedError(
                f"the deployed image can't compute vectors like those of the served state: {error.detail}",
                options.on_a_laptop(),
            ) from error

    def _require_time(self, before: str) -> None:
        if self._remaining_s() < RESERVE_S:
            raise OutOfTimeError(
                f"the time limit came before {before}.",
                "None: the next run takes the vectors that this one has computed. If it happens each time, give the "
                "function more memory, which buys more CPU.",
            )

    def _require_fit(self, state: IncidentState, served: Served, before: IncidentState | None) -> None:
        """Raises NotPublishedError if the deployed image can't use the state, or if it lacks too many incidents.

        before: the served state, None if it can't be read.
        """
        remedy = _Options.of(served).on_a_laptop()
        try:
            served.deployed.require_usable(state.facts())
            self._require_usable(state)
            Ranking(state).most_similar(state.means[0], 1)
        except SimilarityError as error:
            reason = error.detail or str(error)
            raise NotPublishedError(f"the service couldn't use the new state: {reason}", remedy) from error
        try:
            if before:
                require_most_incidents(state, before)
            else:
                require_about_as_many(state.facts(), served.state)
        except LossError as error:
            raise NotPublishedError(str(error), f"{remedy} --force, if the loss is right") from error


def with_points(state: IncidentState, before: IncidentState | None) -> IncidentState:
    """The state with the map of the state before. None, or one of another model, has no map to keep."""
    index = Index(state.means, state.fit.whitening)
    if before and made_alike(before, state):
        points = kept_points(index, state.incident_ids, before.incident_ids, before.points)
    else:
        points = pca(index)
    return replace(state, points=points)


@dataclass(frozen=True)
class _Options:
    """The build options of the served state, and the name, pages and licence that a new state takes over."""

    vectors: VectorsFrom
    responses: Responses
    precision: Precision
    words_from: tuple[WordsFrom, ...]
    max_tokens: int
    longest_input: int
    collection: str
    record_url: str
    licence: str

    @classmethod
    def of(cls, served: Served) -> _Options:
        """Raises NotPublishedError if the state doesn't say them."""
        facts, longest = served.state, served.deployed.longest_input
        vectors = _one_of(get_args(VectorsFrom), facts.options.get("vectors"))
        responses = _one_of(get_args(Responses), facts.options.get("responses"))
        precision = _one_of(get_args(Precision), facts.precision)
        if vectors is None or responses is None or precision is None:
            raise NotPublishedError(
                f"the served state doesn't say how it was built: vectors {one_line(repr(facts.options.get('vectors')))}"
                f", responses {one_line(repr(facts.options.get('responses')))}, precision "
                f"{one_line(repr(facts.precision))}.",
                f"On a laptop: {_BUILD}; {_PUBLISH}",
            )
        words_from = words_from_option(facts.options.get("words"))
        return cls(
            vectors,
            responses,
            precision,
            words_from,
            facts.max_tokens or longest,
            longest,
            facts.collection,
            facts.record_url,
            facts.licence,
        )

    def on_a_laptop(self) -> str:
        """The commands that do the same on a laptop."""
        flags = [f"--vectors {self.vectors}"] if self.vectors != "auto" else []
        if self.responses != "include":
            flags.append(f"--responses {self.responses}")
        if self.words_from != DEFAULT_WORDS_FROM:
            flags.append(f"--words {','.join(self.words_from)}")
        if self.precision != DEFAULT_PRECISION:
            flags.append(f"--precision {self.precision}")
        if self.max_tokens != token_limit(self.vectors, 0, self.longest_input):
            flags.append(f"--max-tokens {self.max_tokens}")
        if self.collection != DEFAULT_COLLECTION:
            flags.append(f"--collection-name {shlex.quote(self.collection)}")
        if self.record_url != DEFAULT_RECORD_URL:
            flags.append(f"--record-url {shlex.quote(self.record_url)}")
        if self.licence not in ("", DEFAULT_LICENCE):
            flags.append(f"--licence {shlex.quote(self.licence)}")
        return f"On a laptop: {_FETCH}; {' '.join([_BUILD, *flags])}; {_PUBLISH}"


class _FirstProblems(Problems):
    """Counts the bad rows and documents, and keeps the first messages."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[str] = []

    def say(self, message: str) -> None:
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(message)


def _one_of(allowed: tuple[T, ...], value: object) -> T | None:
    return next((each for each in allowed if each == value), None)


def _not_ours(served: Served | None) -> str:
    """Why the service's state mustn't be replaced by one of AIID's snapshots; "" if it may."""
    if served is None:
        return "The bucket has no served.json yet; the job shelve_state writes it."
    kind = served.state.source.get("kind")
    if kind != SNAPSHOT_KIND:
        return f"The served state isn't made of a snapshot of AIID, but of {one_line(kind or 'unknown data')}."
    return ""


def _not_newer(snapshot: Snapshot, served: Served | None, hold: Hold) -> str:
    """Why the snapshot isn't wanted; "" if it is."""
    date = _facts_date(served.state) if served else ""
    if snapshot.date <= date:
        return f"The served state is made of the newest snapshot or a later one, of {one_line(date)}."
    if snapshot.date <= hold.source_date:
        return f"A rollback has taken back the state of the snapshot of {one_line(hold.source_date)}."
    return ""


def _facts_date(facts: StateFacts) -> str:
    return facts.source.get("date", "")
