"""The CDK app, run as a program: settings from the environment and from a file, and errors in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack import ACCOUNT, HANDLERS, JOBS, REGION, REQUIRED, Object, copy_project

SYNTHESIS_S = 120.0
SETTINGS = f"AWS_ACCOUNT_ID={ACCOUNT}\nAWS_REGION={REGION}\n"


@dataclass(frozen=True)
class Project:
    """A copy of the project in a folder of its own, on a machine without AWS credentials and without Docker."""

    folder: Path
    home: Path
    programs: Path

    @property
    def outdir(self) -> Path:
        return self.folder.parent / "assembly"

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.programs),
            "HOME": str(self.home),
            "CDK_OUTDIR": str(self.outdir),
            "PYTHONDONTWRITEBYTECODE": "1",
            # As the CDK's command line hands the context of cdk.json on.
            "CDK_CONTEXT_JSON": json.dumps(json.loads((self.folder / "cdk.json").read_text())["context"]),
            **variables,
        }
        assert shutil.which("docker", path=environment["PATH"]) is None
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.folder,
            timeout=SYNTHESIS_S,
        )

    def functions(self) -> list[Object]:
        """Properties of those that run the image, in the template that was written."""
        template = json.loads((self.outdir / "AiidSimilarIncidents.template.json").read_text())
        found = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
        return [properties for properties in found if properties.get("PackageType") == "Image"]

    def files(self) -> set[Path]:
        return set(self.folder.rglob("*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home; shared, because the CDK's bridge to Node unpacks its packages into it at the first run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Project:
    folder, programs = tmp_path / "project", tmp_path / "programs"
    copy_project(folder)
    node = shutil.which("node", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert node, "the CDK needs Node; requirements.txt installs it"
    programs.mkdir()
    (programs / "node").symlink_to(node)
    return Project(folder, home, programs)


def assert_one_line(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("app.py: ")
    for part in parts:
        assert part in line


@pytest.mark.slow
def test_it_synthesises_without_credentials_and_without_docker(project: Project) -> None:
    ended = project.run("app.py", **REQUIRED)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(project.functions()) == len(HANDLERS | JOBS)
    manifest = json.loads((project.outdir / "manifest.json").read_text())
    assert "missing" not in manifest
    assert manifest["artifacts"]["AiidSimilarIncidents"]["environment"] == f"aws://{ACCOUNT}/{REGION}"


@pytest.mark.slow
def test_settings_come_from_the_env_file_and_the_environment_wins(project: Project) -> None:
    (project.folder / "inference" / "plain.py").write_text("def handler(event, context): ...\n")
    (project.folder / ".env").write_text(
        f"# settings\nAWS_ACCOUNT_ID={ACCOUNT}\nAWS_REGION={REGION}\n"
        "LAMBDA_MEMORY_MIB=1024\nLAMBDA_TIMEOUT_S='77'\nHF_MODEL_URI=\n"
    )
    # An empty variable counts as one that is not set, so it hides no line of the file.
    ended = project.run("app.py", LAMBDA_MEMORY_MIB="2048", AWS_REGION="")
    assert (ended.returncode, ended.stderr) == (0, "")
    # A handler that asks for nothing gets what the settings say.
    functions = project.functions()
    assert {(f["MemorySize"], f["Timeout"]) for f in functions if "plain.handler" in f["ImageConfig"]["Command"]} == {
        (2048, 77)
    }
    assert {f["Environment"]["Variables"]["HF_MODEL_URI"] for f in functions} == {"allenai/longformer-base-4096"}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_a_file_of_settings_in_another_encoding_is_one_line(encoding: str, project: Project) -> None:
    (project.folder / ".env").write_bytes(f"{SETTINGS}# née\n".encode(encoding))
    assert_one_line(project.run("app.py"), ".env is not in UTF-8")


@pytest.mark.slow
def test_a_file_of_settings_that_can_not_be_read_is_one_line(project: Project) -> None:
    (project.folder / ".env").symlink_to(".env")
    assert_one_line(project.run("app.py"), ".env can't be read: Too many levels of symbolic links")


@pytest.mark.slow
def test_without_any_setting_it_says_what_is_missing_in_a_line_each(project: Project) -> None:
    ended = project.run("app.py")
    assert (ended.returncode, ended.stdout) == (1, "")
    account, region = ended.stderr.splitlines()
    assert account.startswith("app.py: AWS_ACCOUNT_ID is not set")
    assert region.startswith("app.py: AWS_REGION is not set")
    assert not project.outdir.exists()


@pytest.mark.slow
def test_a_bad_setting_is_one_line(project: Project) -> None:
    assert_one_line(project.run("app.py", **REQUIRED, LAMBDA_MEMORY_MIB="8 GB"), "LAMBDA_MEMORY_MIB", '"8 GB"')


@pytest.mark.slow
def test_a_handler_with_a_syntax_error_is_one_line(project: Project) -> None:
    (project.folder / "inference" / "broken.py").write_text("import json\ndef handler(event, context:\n    return 1\n")
    assert_one_line(project.run("app.py", **REQUIRED), "broken.py, line 2", "is not valid Python")


@pytest.mark.slow
def test_a_handler_that_asks_for_too_much_is_one_line(project: Project) -> None:
    (project.folder / "inference" / "long.py").write_text("TIMEOUT_S = 901\n\ndef handler(event, context): ...\n")
    assert_one_line(project.run("app.py", **REQUIRED), "long.py, line 1: TIMEOUT_S", "from 1 to 900", "TIMEOUT_S = 901")


@pytest.mark.slow
def test_a_project_without_the_job_that_a_deployment_calls_is_one_line(project: Project) -> None:
    (project.folder / "inference" / "jobs" / "shelve_state.py").unlink()
    assert_one_line(project.run("app.py", **REQUIRED), "jobs/shelve_state.py", "isn't there")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["app", "infrastructure", "infrastructure.stack"])
def test_importing_synthesises_nothing_and_says_nothing(module: str, project: Project) -> None:
    before = project.files()
    ended = project.run("-c", f"import sys; sys.path.insert(0, '.'); import {module}; print('imported')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "imported\n", "")
    assert project.files() == before
    assert not project.outdir.exists()
