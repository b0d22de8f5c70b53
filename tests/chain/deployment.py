"""A deployed stack in processes of this machine: two jobs, the shelf, a server, and the events between them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import build_state
from chain.cloud import BUCKET, DAILY, Cloud
from chain.function import Function, FunctionError, running_function
from chain.site import Site
from lambdas import days_ago
from processes import repeating
from serving import Server, serving
from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY
from similarity.incidents.state import IncidentState, state_version
from similarity.shelf.versions import STATES

REFRESH, SHELVE, HANDLERS = "jobs.refresh", "jobs.shelve_state", "handlers"
LOOKING_OFTEN = Path(__file__).with_name("looking_often.py")


@dataclass
class Deployment:
    """refresh, shelve: the jobs. failed: what the job said of events that it couldn't do with."""

    cloud: Cloud
    server: Server
    refresh: Function
    shelve: Function
    model_dir: Path
    shelf: Path
    failed: list[str] = field(default_factory=list)

    @property
    def image_version(self) -> str:
        return state_version(self.model_dir / "incident_cls.pt")

    def served(self) -> dict[str, Any]:
        """What served.json says of the state."""
        note = self.cloud.bucket.read_note(SERVED_KEY)
        assert note is not None
        return dict(note["state"])

    def hold(self) -> dict[str, Any] | None:
        return self.cloud.bucket.read_note(HOLD_KEY)

    def health(self) -> dict[str, Any]:
        response = self.server.get("/health")
        assert response.status_code == 200, response.text
        return dict(response.json()["body"])

    def shelved(self) -> list[str]:
        """The versions on the shelf, newest first."""
        names = sorted((path.name for path in (self.shelf / STATES).glob("[!.]*")), reverse=True)
        return [name.rpartition("-")[2] for name in names]

    def hand_on_events(self) -> int:
        """Hands S3's events to the job, every second one twice. Returns their number."""
        events = self.cloud.events()
        for number, event in enumerate(events):
            for _ in range(1 + number % 2):
                self.try_to_shelve(event)
        return len(events)

    def try_to_shelve(self, event: object) -> None:
        try:
            self.shelve.invoke(event)
        except FunctionError as error:
            self.failed.append(str(error))

    def daily(self) -> dict[str, Any]:
        return self.shelve.invoke(DAILY)

    def lose_events(self) -> int:
        return len(self.cloud.events())

    def handing_on_events(self) -> AbstractContextManager[None]:
        """All the time, as a person's command waits for the API's answer."""
        return repeating(self.hand_on_events)


def job_variables(cloud: Cloud, job: str, model_dir: Path) -> dict[str, str]:
    return cloud.variables_of(job) | {"MODEL_DIR": str(model_dir), "STATE_BUCKET": BUCKET, "OMP_NUM_THREADS": "1"}


def make_image(site: Site, model_dir: Path, folder: Path, *, days: float, vectors: str = "auto") -> Path:
    """Makes the model's folder of an image, with a state of AIID's newest snapshot, built so many days ago."""
    shutil.copytree(model_dir, folder)
    path = folder / "incident_cls.pt"
    snapshot = site.folder / max(site.host.files).strip("/")
    options = ["--model", folder, "--vectors", vectors, "--cache", folder.parent / "cache"]
    assert build_state.main([str(each) for each in (snapshot, *options)]) == 0
    replace(IncidentState.load(path), built_at=days_ago(days)).save(path)
    return folder


@contextmanager
def deployment(cloud: Cloud, snapshots_url: str, model_dir: Path, folder: Path) -> Iterator[Deployment]:
    """Deployed, with the image's state on the shelf. A later one in the same folder has the same file system."""
    mount, own = folder / "mount", folder / f"deployment-{model_dir.name}"
    mount.mkdir(exist_ok=True)
    own.mkdir()
    on_shelf = {"SHELF_DIR": str(mount / "shelf")}
    of_server = {**cloud.variables_of(HANDLERS), **on_shelf, "OMP_NUM_THREADS": "1"}
    of_refresh = {**job_variables(cloud, REFRESH, model_dir), "SNAPSHOTS_URL": snapshots_url}
    of_shelve = {**job_variables(cloud, SHELVE, model_dir), **on_shelf}
    with (
        serving(own, "--model", model_dir, program=(LOOKING_OFTEN,), variables=of_server) as server,
        running_function(REFRESH, own, of_refresh) as refresh,
        running_function(SHELVE, own, of_shelve) as shelve,
    ):
        cloud.deploy(server.url)
        stack = Deployment(cloud, server, refresh, shelve, model_dir, mount / "shelf")
        stack.shelve.invoke({})
        yield stack
