"""publish_state.py publishes what can be served, refuses mistakes, takes back, and says in one line why it can't."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, SSOTokenLoadError
from botocore.model import OperationModel
from moto.cloudformation.models import cloudformation_backends
from moto.core import DEFAULT_ACCOUNT_ID

import publish_state
from aws.remedies import explained
from aws.settings import SettingError, region_of, stack_name_of
from aws.stack import StackError, find_stack
from buckets import BUCKET, REGION, make_bucket, our_client, put_by_hand, raw_client, stand_in_for_aws, versions_of
from http_servers import running
from pages import JSON, PUBLISHING, SHELL, require_same_shape
from publish_state import main
from published import DEPLOYED, run_job, saved, state
from publishing.api import client
from signatures import Gate, Key, Received
from similarity.inbox import publications
from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY, STATE_KEY, STORE_KEY, Bucket, s3_client
from similarity.inbox.notes import Deployed, Hold, Served
from similarity.inbox.publications import keep_deployed
from similarity.incidents.facts import StateFacts
from similarity.refresh.vector_store import MadeWith, VectorStore
from similarity.settings import DEFAULT_STACK_NAME, Settings
from similarity.shelf.usable import FolderModel

# Each test has a stand-in for AWS, and an API.
pytestmark = pytest.mark.slow

Output = pytest.CaptureFixture[str]
EARLY, LATE, LATER = "2026-11-16T10:00:00Z", "2026-11-23T10:00:00Z", "2026-11-30T10:00:00Z"
MADE_WITH = MadeWith("0123abcd", "torch", "float32", 2000)


class Service:
    """The deployed service: GET /health answers with the state that the job has shelved.

    works: whether the job runs. status: of the answers. gate: lets only signed requests through.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.works = True
        self.status = 200
        self.gate: Gate | None = None
        self.api_url = ""
        self.deployed = DEPLOYED
        self.asked = 0

    def health(self) -> dict[str, object]:
        self.asked += 1
        served = run_job(self.bucket, self.deployed) if self.works else Served.read(self.bucket)
        facts = served.state.to_json() if served else {}
        body = {"warnings": [], "state": {name: facts.get(name) for name in ("version", "incidents", "reports")}}
        return {"statusCode": self.status, "body": body}


class Deployment:
    """What a test needs: the bucket, the service, and files to publish."""

    def __init__(self, bucket: Bucket, service: Service, folder: Path) -> None:
        self.bucket, self.service, self.folder = bucket, service, folder

    def file(self, number: int, *args: object, **options: object) -> tuple[Path, StateFacts]:
        path = self.folder / f"{number}.pt"
        return path, saved(path, state(number, *args, **options))  # type: ignore[arg-type]

    def publish(self, number: int, *, force: bool = False, **options: object) -> StateFacts:
        path, facts = self.file(number, **options)
        assert run("--force", path) if force else run(path)
        return facts

    def deploy(self, number: int, built_at: str, **options: object) -> StateFacts:
        """The job in a deployment."""
        path, facts = self.file(number, built_at=built_at, **options)
        keep_deployed(self.bucket, path, facts)
        run_job(self.bucket, self.service.deployed)
        return facts

    @property
    def served(self) -> str:
        served = run_job(self.bucket, self.service.deployed)
        assert served
        return served.state.version


def run(*arguments: object) -> bool:
    """Whether the command succeeds."""
    code = main([str(each) for each in arguments])
    assert code in (0, 1)
    return code == 0


def write_stack(outputs: dict[str, str], name: str = DEFAULT_STACK_NAME) -> None:
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    raw_client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A stack that serves a state of 20 incidents, that came with the deployment."""
    monkeypatch.setattr("publishing.api._PAUSE_S", 0.01)
    monkeypatch.setattr("publish_state.CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr("publish_state.s3_client", our_client)
    with stand_in_for_aws(monkeypatch):
        service = Service(make_bucket())

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/health"
                received = Received("GET", self.path, self.headers.items())
                if service.gate and service.gate.refusal(received):
                    status, content = 403, b'{"message":"Forbidden"}'
                else:
                    content = json.dumps(service.health()).encode()
                    status = service.status
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        with running(Handler) as url:
            service.api_url = f"{url}/"
            write_stack({"stateBucketName": BUCKET, "apiUrl": service.api_url, "apiAuth": "none"})
            made = Deployment(service.bucket, service, tmp_path)
            made.deploy(0, "2026-01-01T00:00:00Z", date=EARLY)
            yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publishing.api.WAIT_S", 0.05)


def error(capsys: Output) -> str:
    """The one line that says why the command failed."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if "waiting up to" not in line]
    assert line.startswith("publish_state: ")
    return line


def columns(printed: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]


def store(deployment: Deployment, *texts: str) -> None:
    with VectorStore(deployment.folder / "cache" / "vectors.sqlite") as found:
        found.put(dict.fromkeys(texts, np.ones(2, dtype=np.float32)), MADE_WITH)


def stored(deployment: Deployment) -> set[str]:
    """The texts of a to e whose vectors the bucket has."""
    path = deployment.folder / "downloaded.sqlite"
    if deployment.bucket.download(STORE_KEY, path) is None:
        return set()
    with VectorStore(path) as found:
        return set(found.get([*"abcde"], MADE_WITH))


# Publishing.


def test_a_published_state_is_served_and_compared_with_the_one_before(deployment: Deployment, capsys: Output) -> None:
    before = deployment.served
    path, facts = deployment.file(1, range(1, 23), date=LATE, built_at="2026-11-24T00:00:00Z")
    assert run(path)
    assert deployment.served == facts.version
    assert columns(capsys.readouterr().out) == [
        ["before", "published"],
        ["version", before, facts.version],
        ["incidents", "20", "22"],
        ["reports", "20", "22"],
        ["built at", "2026-01-01T00:00:00Z", "2026-11-24T00:00:00Z"],
        ["source date", EARLY, LATE],
    ]
    [stored] = deployment.bucket.versions(STATE_KEY)
    assert deployment.bucket.download(STATE_KEY, deployment.folder / "downloaded.pt", stored.version_id)
    assert (deployment.folder / "downloaded.pt").read_bytes() == path.read_bytes()


def test_the_command_waits_until_the_api_switches(deployment: Deployment, capsys: Output) -> None:
    path, facts = deployment.file(1)
    health, seen = deployment.service.health, []

    def late() -> dict[str, object]:
        seen.append(1)
        deployment.service.works = len(seen) > 3
        return health()

    deployment.service.health = late  # type: ignore[method-assign]
    assert run(path)
    assert len(seen) == 4
    assert f"{facts.version} is published; waiting up to 120 s" in capsys.readouterr().err


@pytest.mark.parametrize("shelved", [True, False])
@pytest.mark.usefixtures("impatient")
def test_it_says_where_to_look_if_the_api_does_not_switch(
    deployment: Deployment, shelved: bool, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = deployment.served
    path, facts = deployment.file(1)
    deployment.service.works = False
    if shelved:
        publish = publications.publish
        # The job runs, but the API doesn't see what it has shelved.
        old = deployment.service.health()
        monkeypatch.setattr(deployment.service, "health", lambda: old)
        monkeypatch.setattr(publish_state, "publish", lambda *args: (publish(*args), run_job(deployment.bucket)))
    assert not run(path)
    said = error(capsys)
    assert f"{facts.version} is published, but the API doesn't answer with it" in said
    assert f"it answers with {before}. " in said
    assert ("has put it on the shelf" in said) is shelved
    assert ("dead-letter queue" in said) is not shelved
    assert "docs/publishing.md#if-the-api-doesnt-switch" in said


@pytest.mark.usefixtures("impatient")
def test_it_says_what_an_api_that_fails_answers(deployment: Deployment, capsys: Output) -> None:
    deployment.service.status = 503
    assert not run(deployment.file(1)[0])
    assert "GET /health: status 503 instead of 200" in error(capsys)


def test_the_served_state_is_not_published_again_but_its_vectors_are(deployment: Deployment, capsys: Output) -> None:
    facts = deployment.publish(1)
    store(deployment, "a")
    capsys.readouterr()
    assert run(deployment.folder / "1.pt")
    assert capsys.readouterr().out == (
        "Vectors: 1 published that the bucket lacked\n"
        f"{facts.version} is served already; the state wasn't published again.\n"
    )
    assert len(versions_of()) == 1
    assert stored(deployment) == {"a"}


def test_an_earlier_state_that_is_published_again_is_served_again(deployment: Deployment) -> None:
    first = deployment.publish(1)
    deployment.publish(2)
    assert run(deployment.folder / "1.pt")
    assert deployment.served == first.version
    assert len(versions_of()) == 3


def test_a_newer_state_of_another_model_in_the_bucket_changes_nothing(deployment: Deployment, capsys: Output) -> None:
    deployment.publish(1)
    other, _ = deployment.file(2, model_fingerprint="f2")
    put_by_hand(other.read_bytes())
    assert run(deployment.folder / "1.pt")
    assert "is served already" in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
def test_a_state_that_is_published_but_not_served_is_published_again(deployment: Deployment) -> None:
    path, facts = deployment.file(1)
    deployment.service.works = False
    assert not run(path)
    deployment.service.works = True
    assert run(path)
    assert (deployment.served, len(versions_of())) == (facts.version, 2)


# Refusing.


REFUSED: dict[str, tuple[Callable[[Deployment], Path], str, bool]] = {
    "loss": (lambda made: made.file(1, range(4, 21))[0], r"lacks 3 of the 20 incidents .*give --force", True),
    "age": (lambda made: made.file(1, date="2026-11-09T10:00:00Z")[0], r"served one of newer data.*give --force", True),
    "database": (
        lambda made: made.file(1, kind="other", collection="Aviation events")[0],
        r"of Aviation events, the served one of AI Incident Database\. .*give --force",
        True,
    ),
    "model": (lambda made: made.file(1, model_fingerprint="f2")[0], r"another model .*comes with a deployment", False),
    "dimension": (lambda made: made.file(1, dimension=5)[0], r"has 5 dimensions.*comes with a deployment", False),
    "limit": (lambda made: made.file(1, max_tokens=64)[0], r"cut at 64 tokens.*comes with a deployment", False),
    "preparation": (
        lambda made: made.file(1, text_preparation="")[0],
        r"prepared with nothing.*comes with a deployment",
        False,
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_mistake_is_refused_and_nothing_is_uploaded(deployment: Deployment, kind: str, capsys: Output) -> None:
    make, problem, can_be_forced = REFUSED[kind]
    store(deployment, "a")
    path = make(deployment)
    before = deployment.served
    assert not run(path)
    assert re.search(problem, error(capsys))
    assert (deployment.served, versions_of(), stored(deployment)) == (before, [], set())
    assert run("--force", path) is can_be_forced
    assert len(versions_of()) == can_be_forced
    assert ("publish_state: forced, although " in capsys.readouterr().err) is can_be_forced


def test_aiids_snapshot_does_not_replace_other_records(deployment: Deployment, capsys: Output) -> None:
    other = deployment.publish(1, kind="csv")
    path, facts = deployment.file(2, date=LATER)
    assert not run(path)
    assert re.search(r"the served one of other records \(csv\).*give --force", error(capsys))
    assert deployment.served == other.version
    assert run(path, "--force")
    assert deployment.served == facts.version
    assert run(deployment.file(3, kind="csv")[0]), "the other way round it is a person's wish"


def test_a_file_that_is_no_state_is_refused(deployment: Deployment, capsys: Output) -> None:
    path = deployment.file(1)[0]
    path.write_bytes(path.read_bytes()[:-50])
    assert not run("--force", path)
    assert f"{path} isn't an incident state that can be used" in error(capsys)
    assert versions_of() == []


def test_loss_is_counted_if_the_bucket_has_not_the_served_state(deployment: Deployment, capsys: Output) -> None:
    for each in deployment.bucket.versions("deployed/"):
        raw_client().delete_object(Bucket=BUCKET, Key=each.key, VersionId=each.version_id)
    deployment.service.works = False
    assert not run(deployment.file(1, range(4, 21))[0])
    assert "the new state has 17 incidents, the served one 20" in error(capsys)


def test_without_served_json_nothing_is_published(deployment: Deployment, capsys: Output) -> None:
    path = deployment.file(1)[0]
    raw_client().delete_object(Bucket=BUCKET, Key=SERVED_KEY)
    for arguments in ([path], ["--rollback"]):
        assert not run(*arguments)
        assert re.search("has no served.json, so .*; deploy this version", error(capsys))
    assert versions_of() == []


def test_a_served_json_that_is_nonsense_is_told(deployment: Deployment, capsys: Output) -> None:
    put_by_hand(b"[]", SERVED_KEY)
    assert not run(deployment.file(1)[0])
    assert f"s3://{BUCKET}/served.json isn't a JSON object" in error(capsys)


# The vectors.


def test_vectors_are_published_with_the_state(deployment: Deployment, capsys: Output) -> None:
    store(deployment, "a", "b")
    deployment.publish(1)
    assert "Vectors: 2 published" in capsys.readouterr().out
    assert stored(deployment) == {"a", "b"}


def test_vectors_go_first_so_that_no_state_is_without_them(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(deployment, "a")
    path = deployment.file(1)[0]
    monkeypatch.setattr(publish_state, "publish", killed)
    with pytest.raises(Killed):
        main([str(path)])
    assert (stored(deployment), versions_of()) == ({"a"}, [])


def test_a_damaged_store_of_this_machine_does_not_stop_a_publication(deployment: Deployment, capsys: Output) -> None:
    store(deployment, "a")
    (deployment.folder / "cache" / "vectors.sqlite").write_bytes(b"nonsense" * 1000)
    facts = deployment.publish(1)
    assert "the vectors aren't published: the store of vectors" in capsys.readouterr().err
    assert deployment.served == facts.version


def test_vectors_come_from_the_bucket(deployment: Deployment, capsys: Output) -> None:
    cache = deployment.folder / "another cache"
    assert run("--fetch-vectors", "--cache", cache)
    assert capsys.readouterr().out == "The bucket has no vectors yet.\n"
    store(deployment, "a", "b")
    deployment.publish(1)
    capsys.readouterr()
    assert run("--fetch-vectors", "--cache", cache)
    assert capsys.readouterr().out == f"{cache / 'vectors.sqlite'}: 2 vectors from the bucket\n"
    with VectorStore(cache / "vectors.sqlite") as found:
        assert found.get(["a", "b"], MADE_WITH).keys() == {"a", "b"}
    put_by_hand(b"nonsense" * 1000, STORE_KEY)
    assert run("--fetch-vectors", "--cache", cache)
    assert "the bucket's store of vectors is damaged; the next publication replaces it" in capsys.readouterr().err


# Taking back.


class Killed(BaseException):
    """The process ends here."""


def killed(*_: object) -> None:
    raise Killed


def test_rollbacks_go_back_one_state_each(deployment: Deployment, capsys: Output) -> None:
    deployed = deployment.served
    first, second, third = (
        deployment.publish(number, date=date) for number, date in enumerate((EARLY, LATE, LATER), start=1)
    )
    capsys.readouterr()
    for target, held, date in (
        (second, [third], LATER),
        (first, [third, second], LATER),
        (None, [third, second, first], LATER),
    ):
        assert run("--rollback")
        assert deployment.served == (target.version if target else deployed)
        assert Hold.read(deployment.bucket) == Hold(date, frozenset(each.version for each in held))
        assert columns(capsys.readouterr().out)[1][-1] == deployment.served
    assert not run("--rollback")
    assert "there is no earlier state" in error(capsys)


@pytest.mark.parametrize("command", ["--rollback", "FILE"])
def test_nonsense_that_was_put_there_last_is_replaced_by_the_served_state(deployment: Deployment, command: str) -> None:
    facts = deployment.publish(1)
    put_by_hand(b"nonsense")
    assert run(command if command == "--rollback" else deployment.folder / "1.pt")
    newest = publications.publications(deployment.bucket)[0]
    assert newest.facts
    assert newest.facts.version == facts.version
    assert Hold.read(deployment.bucket) == Hold()


def test_nonsense_below_a_deployed_state_is_replaced_by_that_state(deployment: Deployment, capsys: Output) -> None:
    deployment.publish(1)
    put_by_hand(b"nonsense")
    deployed = deployment.deploy(2, "2100-01-01T00:00:00Z")
    assert run("--rollback")
    assert f"{deployed.version}, which is served, replaces it" in capsys.readouterr().err
    newest = next(each for each in publications.publications(deployment.bucket) if not each.is_deployed)
    assert newest.facts
    assert newest.facts.version == deployed.version
    assert Hold.read(deployment.bucket) == Hold()


def test_a_rollback_that_was_killed_is_completed_by_the_same_command(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = deployment.publish(1)
    second = deployment.publish(2)
    third = deployment.publish(3)
    for target, held in ((second, [third]), (first, [third, second])):
        before = deployment.served
        with monkeypatch.context() as here:
            here.setattr(publish_state, "publish_again", killed)
            for _ in range(2):
                with pytest.raises(Killed):
                    main(["--rollback"])
                assert deployment.served == before
                assert Hold.read(deployment.bucket).versions == {each.version for each in held}
        assert run("--rollback")
        assert deployment.served == target.version
        assert Hold.read(deployment.bucket).versions == {each.version for each in held}


def test_a_version_can_be_named_also_to_go_forward_again(deployment: Deployment, capsys: Output) -> None:
    first = deployment.publish(1)
    deployment.publish(2)
    third = deployment.publish(3)
    assert run("--rollback", first.version)
    assert deployment.served == first.version
    capsys.readouterr()
    assert run("--rollback", third.version)
    assert deployment.served == third.version
    assert f"{third.version} doesn't count as taken back any more.\n" in capsys.readouterr().out
    assert third.version not in Hold.read(deployment.bucket).versions
    assert run("--rollback"), "the state left behind isn't bad"
    assert deployment.served == first.version


def test_a_rollback_that_was_killed_can_be_called_off(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    deployment.publish(1)
    second = deployment.publish(2)
    with monkeypatch.context() as here:
        here.setattr(publish_state, "publish_again", killed)
        with pytest.raises(Killed):
            main(["--rollback"])
    count = len(versions_of())
    assert run("--rollback", second.version)
    assert (deployment.served, len(versions_of()), Hold.read(deployment.bucket)) == (second.version, count, Hold())
    assert not run("--rollback", second.version)
    assert "already the newest state" in error(capsys)


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("0123456789abcdef", "no usable state of the version 0123456789abcdef; --list shows all"),
        ("current", "is already the newest state"),
        ("other model", "can't use .* another model .*; or deploy the image that belongs to it"),
    ],
)
def test_a_version_that_can_not_be_gone_back_to_is_told(
    deployment: Deployment, version: str, problem: str, capsys: Output
) -> None:
    other, facts = deployment.file(2, model_fingerprint="f2")
    put_by_hand(other.read_bytes())
    named = {"current": deployment.publish(1).version, "other model": facts.version}
    capsys.readouterr()
    assert not run("--rollback", named.get(version, version))
    assert re.search(problem, error(capsys))
    assert len(versions_of()) == 2
    assert deployment.bucket.read_note(HOLD_KEY) is None


def test_damaged_objects_in_the_history_are_passed_over(deployment: Deployment) -> None:
    first = deployment.publish(1)
    put_by_hand(b"nonsense")
    put_by_hand(b"")
    second = deployment.publish(2)
    put_by_hand(b"nonsense", Metadata={"facts": "{"})
    for version in (second.version, first.version):
        assert run("--rollback")
        assert deployment.served == version


def test_a_target_whose_content_is_not_what_it_says_is_not_published(deployment: Deployment, capsys: Output) -> None:
    path, facts = deployment.file(1)
    metadata = {"facts": json.dumps(facts.to_json())}
    for content in (b"nonsense", deployment.file(2)[0].read_bytes()):
        put_by_hand(content, Metadata=metadata)
        deployment.publish(3)
        capsys.readouterr()
        assert not run("--rollback", facts.version)
        assert f"{facts.version} can't be published again: " in error(capsys)
        assert Hold.read(deployment.bucket) == Hold()
    assert path.exists()


def test_what_was_taken_back_is_published_again_only_by_force(deployment: Deployment, capsys: Output) -> None:
    first = deployment.publish(1, date=LATE)
    second = deployment.publish(2, date=LATER)
    assert run("--rollback")
    capsys.readouterr()
    # The same file, and another one of the same snapshot.
    for path, problem in (
        (deployment.folder / "2.pt", f"a rollback has taken this state back, {second.version}. If"),
        (deployment.file(3, date=LATER)[0], "only a later snapshot can be published. If it is right, give --force."),
    ):
        assert not run(path)
        assert problem in error(capsys)
    assert deployment.served == first.version
    assert run("--force", deployment.folder / "2.pt")
    assert deployment.served == second.version
    assert Hold.read(deployment.bucket) == Hold()
    assert run("--rollback"), "the state that was forced counts as any other"
    assert deployment.served == first.version


def test_a_later_snapshot_can_be_published_after_a_rollback(deployment: Deployment) -> None:
    deployment.publish(1, date=LATE)
    assert run("--rollback")
    later = deployment.publish(2, date=LATER)
    assert deployment.served == later.version


def test_force_ends_a_rollback_that_was_killed(
    deployment: Deployment, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = deployment.publish(1)
    with monkeypatch.context() as here:
        here.setattr(publish_state, "publish_again", killed)
        with pytest.raises(Killed):
            main(["--rollback"])
    capsys.readouterr()
    path = deployment.folder / "1.pt"
    assert not run(path)
    assert "a rollback has taken this state back" in error(capsys)
    assert run("--force", path)
    assert (deployment.served, len(versions_of()), Hold.read(deployment.bucket)) == (facts.version, 1, Hold())


# The list.


def test_the_list_says_what_became_of_each_state(deployment: Deployment, capsys: Output) -> None:
    deployed = deployment.served
    first = deployment.publish(1, date=LATE, model="some/very-long-name-of-a-model-that-nobody-needs-to-read")
    second = deployment.publish(2, date=LATER)
    assert run("--rollback")
    put_by_hand(b"nonsense")
    for number, options in ((3, {"model_fingerprint": "f2"}), (4, {"max_tokens": 64})):
        put_by_hand(deployment.file(number, **options)[0].read_bytes())
    capsys.readouterr()
    assert run("--list")
    heading, *rows = columns(capsys.readouterr().out)
    assert heading == ["time", "version", "incidents", "reports", "source date", "model"]
    assert [(row[1], row[6:]) for row in rows[3:]] == [
        (first.version, ["served"]),
        (second.version, ["taken back"]),
        (first.version, []),
        (deployed, ["deployed"]),
    ]
    assert [row[-1] for row in rows[:3]] == ["other limit", "other model", "unusable"]
    assert rows[3][2:6] == ["20", "20", LATE, "very-long-name-of-a-model-t…"]
    deployment.service.works = False
    run_job_before = deployment.bucket.read_note(SERVED_KEY)
    put_by_hand(deployment.file(5)[0].read_bytes())
    assert run("--list")
    assert deployment.bucket.read_note(SERVED_KEY) == run_job_before
    assert columns(capsys.readouterr().out)[1][-1] == "not served yet"


def test_the_list_needs_no_served_json(deployment: Deployment, capsys: Output) -> None:
    raw_client().delete_object(Bucket=BUCKET, Key=SERVED_KEY)
    assert run("--list")
    captured = capsys.readouterr()
    assert columns(captured.out)[1][-1] == "deployed"
    assert "there is no served.json yet" in captured.err
    for each in deployment.bucket.versions(""):
        raw_client().delete_object(Bucket=BUCKET, Key=each.key, VersionId=each.version_id)
    assert run("--list")
    assert capsys.readouterr().out == "Nothing has been published or deployed yet.\n"


# The page about it.

HOLD_NOTE, POLICY = (json.loads(block.code) for block in JSON if block.page == PUBLISHING)
# An operation of S3, and the actions that it needs.
ACTIONS = {
    "PutObject": {"s3:PutObject"},
    "GetObject": {"s3:GetObject", "s3:GetObjectVersion"},
    "HeadObject": {"s3:GetObject", "s3:GetObjectVersion"},
    "CopyObject": {"s3:PutObject", "s3:GetObjectVersion"},
    "ListObjectVersions": {"s3:ListBucketVersions"},
}


def test_the_page_shows_the_hold_and_the_list_as_they_are(deployment: Deployment, capsys: Output) -> None:
    deployment.publish(1, date=LATE)
    assert run("--rollback")
    note = deployment.bucket.read_note(HOLD_KEY)
    assert note
    require_same_shape(HOLD_NOTE, note)
    capsys.readouterr()
    assert run("--list")
    line = "python scripts/publish_state.py --list"
    [shown] = [c.output for block in SHELL for c in block.commands() if c.line == line and c.output]
    assert shown[0] == capsys.readouterr().out.splitlines()[0]


def test_the_policy_of_the_page_is_enough_and_no_more(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    needed: set[tuple[str, str]] = set()

    def note(params: dict[str, str], model: OperationModel, **_: object) -> None:
        for action in ACTIONS[model.name]:
            key = "" if model.name == "ListObjectVersions" else f"/{params['Key']}"
            source = params.get("CopySource")
            if source and action != "s3:PutObject":
                key = f"/{source['Key']}"  # type: ignore[index]
            needed.add((action, f"arn:aws:s3:::BUCKET{key}"))

    client = s3_client(REGION)
    client.meta.events.register("provide-client-params.s3", note)
    monkeypatch.setattr(publish_state, "s3_client", lambda _: client)
    store(deployment, "a")
    deployment.publish(1)
    deployment.publish(2)
    fetched_to = deployment.folder / "fetched.pt"
    for arguments in (["--rollback"], ["--rollback"], ["--fetch-vectors"], ["--list"], ["--fetch-state", fetched_to]):
        assert run(*arguments)

    def listed(value: object) -> list[str]:
        return value if isinstance(value, list) else [str(value)]

    cloudformation, *of_s3, execute_api = POLICY["Statement"]
    assert cloudformation["Action"] == "cloudformation:DescribeStacks"
    assert f"stack/{DEFAULT_STACK_NAME}/" in cloudformation["Resource"]
    assert execute_api["Action"] == "execute-api:Invoke"
    assert execute_api["Resource"] == "arn:aws:execute-api:*:*:API/*/GET/health"
    allowed = {
        (action, resource)
        for each in of_s3
        for action in listed(each["Action"])
        for resource in listed(each["Resource"])
    }
    used = {
        (action, pattern)
        for action, resource in needed
        for allowed_action, pattern in allowed
        if action == allowed_action and fnmatch(resource, pattern)
    }
    assert all(any(a == action and fnmatch(resource, pattern) for a, pattern in allowed) for action, resource in needed)
    # Without it, S3 answers 403 for a missing object.
    assert allowed - used == {("s3:ListBucket", "arn:aws:s3:::BUCKET")}


# Fetching the state that is served.


def fetched(path: Path) -> int:
    """The exit code of the command."""
    return main(["--fetch-state", str(path)])


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A file in the place of the state. Its content must stay if nothing is fetched."""
    path = tmp_path / "model" / "incident_cls.pt"
    path.parent.mkdir()
    path.write_bytes(b"before")
    return path


def require_untouched(path: Path, *others: str) -> None:
    assert path.read_bytes() == b"before"
    assert {each.name for each in path.parent.iterdir()} == {path.name, *others}


def test_the_served_state_is_fetched_also_after_a_rollback(deployment: Deployment, there: Path, capsys: Output) -> None:
    first = deployment.publish(1, date=EARLY)
    for number, expected in ((2, deployment.publish(2, date=LATE)), (1, first)):
        capsys.readouterr()
        assert fetched(there) == 0
        assert there.read_bytes() == (deployment.folder / f"{number}.pt").read_bytes()
        assert capsys.readouterr().out == f"{there}: {expected.version}, 20 incidents, 20 reports, as it is served\n"
        assert [each.name for each in there.parent.iterdir()] == [there.name]
        assert there.stat().st_mode & 0o777 == 0o644
        if number == 2:
            assert run("--rollback")


def test_a_state_that_came_with_the_deployment_is_fetched_too(deployment: Deployment, there: Path) -> None:
    assert fetched(there) == 0
    assert there.read_bytes() == (deployment.folder / "0.pt").read_bytes()


def test_without_a_stack_or_a_served_state_the_code_is_3(
    deployment: Deployment, there: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_client().delete_object(Bucket=BUCKET, Key=SERVED_KEY)
    assert fetched(there) == 3
    assert error(capsys) == f"publish_state: nothing is served yet: s3://{BUCKET} has no served.json"
    monkeypatch.setenv("STACK_NAME", "Another")
    assert fetched(there) == 3
    assert f"there is no stack Another in {REGION}" in error(capsys)
    write_stack({}, "Another")
    for status, code in (
        ("ROLLBACK_COMPLETE", 3),
        ("REVIEW_IN_PROGRESS", 3),
        ("UPDATE_ROLLBACK_COMPLETE", 1),
        ("CREATE_IN_PROGRESS", 1),
        ("DELETE_FAILED", 1),
    ):
        for stack in cloudformation_backends[DEFAULT_ACCOUNT_ID][REGION].stacks.values():
            stack.status = status
        assert fetched(there) == code, status
        assert f"is {status} and has no output stateBucketName" in error(capsys)
    require_untouched(there)
    # Other commands don't know this code.
    assert not run("--list")


def test_a_state_that_the_model_beside_it_can_not_use_is_left(
    deployment: Deployment, there: Path, capsys: Output, tiny_model_dir: Path
) -> None:
    shutil.copytree(tiny_model_dir, there.parent, dirs_exist_ok=True)
    names = [each.name for each in tiny_model_dir.iterdir()]
    assert fetched(there) == 3
    said = error(capsys)
    assert f"the model in {there.parent} can't use {deployment.served}, which is served: the state has 4 dim" in said
    require_untouched(there, *names)
    model = FolderModel(Settings.from_environment({"MODEL_DIR": str(tiny_model_dir)}))
    made = {"model": model.name, "model_fingerprint": model.fingerprint, "dimension": model.dimension}
    deployment.service.deployed = replace(
        DEPLOYED, model=model.name, fingerprint=model.fingerprint, dimension=model.dimension
    )
    deployment.deploy(3, LATER, **made)
    assert fetched(there) == 0
    assert there.read_bytes() == (deployment.folder / "3.pt").read_bytes()
    # Nobody knows whether a model that can't be read could use it.
    (there.parent / "config.json").write_text("{}")
    there.write_bytes(b"before")
    assert fetched(there) == 1
    assert f"the model in {there.parent} can't be used: " in error(capsys)
    require_untouched(there, *names)


def test_the_name_of_the_model_is_that_of_the_settings(
    deployment: Deployment, there: Path, capsys: Output, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older states know their model by its name alone, and older folders of models don't tell it."""
    shutil.copytree(tiny_model_dir, there.parent, dirs_exist_ok=True)
    (there.parent / "provenance.json").unlink()
    model = FolderModel(Settings.from_environment({"MODEL_DIR": str(tiny_model_dir)}))
    deployment.service.deployed = replace(DEPLOYED, model="some/model", dimension=model.dimension)
    deployment.deploy(3, LATER, model="some/model", model_fingerprint="", dimension=model.dimension)
    assert fetched(there) == 3
    assert "was made with the model some/model, but allenai/longformer-base-4096 is loaded" in error(capsys)
    monkeypatch.setattr(publish_state, "ROOT", deployment.folder)
    (deployment.folder / ".env").write_text("HF_MODEL_URI=some/model\n")
    assert fetched(there) == 0


def test_what_goes_wrong_is_never_taken_for_a_stack_without_a_state(
    deployment: Deployment, there: Path, capsys: Output, refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a pipeline would build a state, and deploy it over the one that is served."""
    served = Served.read(deployment.bucket)
    assert served

    def fails(problem: str) -> None:
        assert fetched(there) == 1
        assert problem in error(capsys)
        require_untouched(there)

    for key in (SERVED_KEY, served.key):
        refuse("GetObject", "AccessDenied", key)
        fails("docs/publishing.md#permissions lists the permissions that you need")
    monkeypatch.setattr(publish_state, "s3_client", our_client)
    replace(served, key="").write(deployment.bucket)
    fails(f"hasn't got {served.state.version}, which is served; the next run of the job shelve_state")
    replace(served, key="deployed/gone.pt", version_id="").write(deployment.bucket)
    fails(f"hasn't got {served.state.version}, which is served")
    other = put_by_hand(b"no state")
    replace(served, key=STATE_KEY, version_id=other).write(deployment.bucket)
    fails(f"s3://{BUCKET}/{STATE_KEY} isn't {served.state.version}, as served.json says")
    digest = hashlib.sha256(b"no state").hexdigest()[:16]
    facts = replace(served.state, version=digest)
    replace(served, state=facts, key=STATE_KEY, version_id=other).write(deployment.bucket)
    fails(f"s3://{BUCKET}/{STATE_KEY} can't be used: ")
    put_by_hand(b"[]", SERVED_KEY)
    fails("served.json isn't a JSON object")
    monkeypatch.setenv("AWS_REGION", "moon")
    fails("AWS_REGION must be an AWS region")


def test_a_fetch_that_is_stopped_leaves_the_file_as_it_was(
    deployment: Deployment, there: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("publishing.fetching.tried", stop)
    assert fetched(there) == 1
    assert f"stopped; {there} is as it was." in capsys.readouterr().err
    require_untouched(there)


# AWS says no.


def refusing(operation: str, code: str, key: str = "") -> Callable[..., None]:
    """Makes S3 refuse an operation."""

    def refuse(params: dict[str, str], **_: object) -> None:
        if not key or params["Key"] == key:
            raise ClientError({"Error": {"Code": code, "Message": "No."}}, operation)

    return refuse


@pytest.fixture
def refuse(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def refuse(operation: str, code: str, key: str = "") -> None:
        def refused_client(region: str) -> object:
            client = s3_client(region)
            client.meta.events.register(f"provide-client-params.s3.{operation}", refusing(operation, code, key))
            return client

        monkeypatch.setattr(publish_state, "s3_client", refused_client)

    return refuse


@pytest.mark.parametrize(
    ("operation", "key", "code", "remedy"),
    [
        ("PutObject", STATE_KEY, "AccessDenied", "docs/publishing.md#permissions lists"),
        ("PutObject", STORE_KEY, "AccessDenied", "docs/publishing.md#permissions lists"),
        ("PutObject", STATE_KEY, "ExpiredToken", "log in to AWS again"),
        ("GetObject", SERVED_KEY, "AccessDenied", "docs/publishing.md#permissions lists"),
        ("ListObjectVersions", "", "AccessDenied", "docs/publishing.md#permissions lists"),
    ],
)
def test_s3_refuses(
    deployment: Deployment,
    refuse: Callable[..., None],
    operation: str,
    key: str,
    code: str,
    remedy: str,
    capsys: Output,
) -> None:
    refuse(operation, code, key)
    store(deployment, "a")
    before = deployment.served
    assert not run(deployment.file(1)[0])
    said = error(capsys)
    assert f"s3://{BUCKET}/{key or STATE_KEY}" in said
    assert code in said
    assert remedy in said
    assert (deployment.served, versions_of()) == (before, [])


def test_s3_refuses_in_the_middle_of_a_rollback(
    deployment: Deployment, refuse: Callable[..., None], capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = deployment.publish(1), deployment.publish(2)
    capsys.readouterr()
    refuse("CopyObject", "AccessDenied")
    assert not run("--rollback")
    assert "give the same command again to finish" in error(capsys)
    assert deployment.served == second.version
    monkeypatch.setattr(publish_state, "s3_client", our_client)
    assert run("--rollback")
    assert deployment.served == first.version


def test_ctrl_c_says_how_far_it_is(deployment: Deployment, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    deployment.publish(1)
    path, facts = deployment.file(2)
    capsys.readouterr()
    for name, arguments, said in (
        ("find_stack", [path], "nothing was done."),
        ("require_wanted", [path], "nothing was published."),
        ("publish", [path], "--list shows whether the state was published."),
        ("publish_again", ["--rollback"], "give the same command again to finish."),
        ("wait_for", [path], f"{facts.version} is published; the API follows by itself."),
    ):
        deployment.service.works = name != "wait_for"
        with monkeypatch.context() as here:
            here.setattr(publish_state, name, stop)
            assert not run(*arguments)
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        (None, f"there is no stack {DEFAULT_STACK_NAME} in {REGION}: name another with --stack"),
        ({"apiUrl": "https://example.org"}, "has no output stateBucketName: deploy this version of it"),
        ({"stateBucketName": BUCKET}, "has no output apiUrl: deploy this version of it"),
    ],
)
def test_a_stack_that_can_not_be_used_is_told(
    outputs: dict[str, str] | None, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    with stand_in_for_aws(monkeypatch):
        if outputs:
            write_stack(outputs)
        assert not run("--list")
    assert problem in error(capsys)


def test_another_stack_can_be_named(deployment: Deployment, capsys: Output) -> None:
    write_stack({"stateBucketName": "another-bucket", "apiUrl": "https://example.org"}, "Another")
    assert not run("--list", "--stack", "Another")
    assert "s3://another-bucket/" in error(capsys)


def test_the_stack_that_stack_name_names_is_used_unless_another_is_given(
    deployment: Deployment, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_state, "ROOT", tmp_path)
    for name in ("Staging", "Testing"):
        write_stack({"stateBucketName": f"{name.lower()}-bucket", "apiUrl": "https://example.org"}, name)
    (tmp_path / ".env").write_text("STACK_NAME=Staging\n")
    assert not run("--list")
    assert "s3://staging-bucket/" in error(capsys)
    monkeypatch.setenv("STACK_NAME", "Testing")
    assert not run("--list")
    assert "s3://testing-bucket/" in error(capsys)
    assert run("--list", "--stack", DEFAULT_STACK_NAME)
    monkeypatch.setenv("STACK_NAME", "not/this")
    assert not run("--list")
    assert "STACK_NAME must be letters, digits and hyphens, with a letter first, not 'not/this'" in error(capsys)


# An API that takes signed requests only.


@pytest.mark.parametrize(
    ("outputs", "signs"), [({"apiAuth": "iam"}, True), ({"apiAuth": "none"}, False), ({}, False)], ids=str
)
def test_requests_are_signed_if_the_stack_says_so_and_not_if_it_is_older(
    outputs: dict[str, str], signs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in_for_aws(monkeypatch):
        write_stack({"stateBucketName": BUCKET, "apiUrl": "https://example.org", **outputs})
        assert client(find_stack(DEFAULT_STACK_NAME, REGION), REGION).signs == signs


@pytest.fixture
def guarded(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    write_stack({"stateBucketName": BUCKET, "apiUrl": deployment.service.api_url, "apiAuth": "iam"}, "Guarded")
    monkeypatch.setenv("STACK_NAME", "Guarded")
    key = Key(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    deployment.service.gate = Gate([key], REGION)
    return deployment


@pytest.mark.parametrize("token", ["", "a token/of+a=role"], ids=["user", "role"])
def test_an_api_that_takes_signed_requests_only_is_asked_with_a_signature(
    token: str, guarded: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    key = Key(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], token)
    guarded.service.gate = Gate([key], REGION)
    path, facts = guarded.file(1)
    assert run(path)
    assert guarded.served == facts.version
    assert guarded.service.asked > 0
    assert run("--rollback")


def test_if_the_api_refuses_the_signature_the_permission_is_named_without_a_wait(
    guarded: Deployment, capsys: Output
) -> None:
    guarded.service.gate = Gate([Key("another", "key")], REGION)
    path, facts = guarded.file(1)
    assert not run(path)
    said = error(capsys)
    assert f"{facts.version} is published, but the API doesn't tell whether it answers with it" in said
    assert 'GET /health: status 403, "Forbidden"; the permission execute-api:Invoke is needed' in said
    assert "docs/publishing.md#permissions" in said
    assert guarded.service.asked == 0
    assert guarded.served == facts.version


def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", REGION)
    # Nothing listens there.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for profile, said in (("", "Unable to locate credentials"), ("nobody", "The config profile (nobody) could not be")):
        if profile:
            monkeypatch.setenv("AWS_PROFILE", profile)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        assert not run("--list")
        line = error(capsys)
        assert said in line
        log_in = "log in to AWS, e.g. with `aws configure`"
        assert line.endswith(f"; {log_in}, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (NoCredentialsError(), "AWS_PROFILE"),
        (SSOTokenLoadError(error_msg="no token"), "aws sso login"),
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "DescribeStacks"), "aws sso login"),
        (ClientError({"Error": {"Code": "SignatureDoesNotMatch"}}, "DescribeStacks"), "this machine's clock"),
        (ClientError({"Error": {"Code": "InvalidClientTokenId"}}, "DescribeStacks"), "check the AWS credentials"),
        (ClientError({"Error": {"Code": "AccessDenied"}}, "DescribeStacks"), "docs/publishing.md#permissions"),
        (ClientError({"Error": {"Code": "403"}}, "HeadObject"), "docs/publishing.md#permissions"),
    ],
)
def test_errors_of_aws_come_with_a_remedy(cause: Exception, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise cause

    monkeypatch.setattr(boto3, "client", refuse)
    with pytest.raises(StackError) as caught:
        find_stack("Stack", REGION)
    assert str(caught.value) == f"the stack Stack in {REGION} can't be looked at: {explained(cause)}"
    assert remedy in str(caught.value)


def test_the_region_is_that_of_the_environment_else_of_the_env_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with pytest.raises(SettingError, match="AWS_REGION isn't set"):
        region_of({}, path)
    path.write_text("\ufeffAWS_REGION=eu-north-1\nAWS_DEFAULT_REGION=eu-west-9\n", encoding="utf-8")
    assert region_of({"AWS_REGION": " "}, path) == "eu-north-1"
    assert region_of({"AWS_DEFAULT_REGION": "eu-west-2"}, path) == "eu-west-2"
    assert region_of({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, path) == "eu-west-1"
    with pytest.raises(SettingError, match="must be an AWS region such as us-east-1, not 'moon'"):
        region_of({"AWS_REGION": "moon"}, path)
    path.write_bytes("AWS_REGION=eu-north-1\n".encode("utf-16"))
    with pytest.raises(SettingError, match=r"\.env can't be read"):
        region_of({}, path)


def test_the_name_of_the_stack_is_that_of_the_environment_else_of_the_env_file_else_the_default(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert stack_name_of({}, path) == DEFAULT_STACK_NAME
    path.write_text("\ufeffSTACK_NAME=Staging\n", encoding="utf-8")
    assert stack_name_of({"STACK_NAME": " "}, path) == "Staging"
    assert stack_name_of({"STACK_NAME": "Testing-2"}, path) == "Testing-2"
    for wrong in ("2nd", "a b", "a" * 129, "ä"):
        with pytest.raises(SettingError, match="STACK_NAME must be letters"):
            stack_name_of({"STACK_NAME": wrong}, path)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give one of FILE, --list, --rollback, --fetch-vectors and --fetch-state"),
        (["--rollback", "--list"], "give one of FILE"),
        (["a.pt", "--list"], "give one of FILE"),
        (["a.pt"], "there is no file a.pt"),
        (["--list", "--force"], "--force is for FILE"),
        (["--rollback", ""], "'' isn't a version"),
        (["--rollback", "a.pt"], "'a.pt' isn't a version such as 0123456789abcdef"),
        (["--fetch-state", "a.pt", "--list"], "give one of FILE"),
        (["--fetch-state", "no/folder/a.pt"], "no/folder/a.pt must be a file in a folder that exists"),
        (["--fetch-state", "/"], "/ must be a file in a folder that exists"),
        (["--list", "--stack", "a b"], "'a b' isn't the name of a stack"),
    ],
)
def test_arguments_are_checked_before_anything_else(arguments: list[str], problem: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_deployment_of_another_model_hides_the_states_of_the_former(deployment: Deployment, capsys: Output) -> None:
    deployment.publish(1)
    deployment.service.deployed = replace(DEPLOYED, fingerprint="f2")
    assert isinstance(deployment.service.deployed, Deployed)
    facts = deployment.deploy(2, "2026-02-01T00:00:00Z", model_fingerprint="f2")
    assert deployment.served == facts.version
    capsys.readouterr()
    assert not run("--rollback")
    assert "there is no earlier state of the deployed model" in error(capsys)
