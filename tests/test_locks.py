"""The locks fit the requirements files, and whatever is pinned is pinned wholly, with a reason, and kept up to date."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import lock
from local.locks import UNLOCKED, canonical, differences, pins
from processes import PATIENCE_S
from tiny import ROOT

ALL = {**lock.LOCKS, **lock.APART}
REQUIREMENTS = [ROOT / name for name in ALL]
LOCKS = [ROOT / name for name in lock.LOCKS.values()]
ALL_LOCKS = [*(ROOT / name for name in ALL.values()), lock.UV_LOCK]
PAIRS = [(ROOT / requirements, ROOT / name) for requirements, name in ALL.items()]
# Those whose packages may be installed here.
HERE = PAIRS[: len(LOCKS)]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def short(path: object) -> str:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else ""


def hashes(path: Path) -> dict[str, list[str]]:
    """The hashes of a lock by pin, e.g. `numpy==2.4.6`. A line that is none of a lock's fails."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("    --hash="):
            found[list(found)[-1]].append(line.strip().removesuffix(" \\"))
        elif line and not line.startswith("#") and line != "--only-binary :all:":
            assert line.endswith(" \\"), f"{line} has no hash"
            found[line.removesuffix(" \\")] = []
    return found


@pytest.mark.parametrize(("requirements", "path"), PAIRS, ids=short)
def test_a_lock_has_what_its_requirements_file_pins(requirements: Path, path: Path) -> None:
    assert differences(requirements, path) == []


def test_every_requirements_file_has_a_lock() -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    found = {ROOT / name for name in listed.stdout.splitlines() if re.search(r"requirements[^/]*\.txt$", name)}
    assert found == {*REQUIREMENTS, *ALL_LOCKS}


@pytest.mark.parametrize("path", ALL_LOCKS, ids=short)
def test_a_lock_is_nothing_but_versions_with_hashes(path: Path) -> None:
    found = hashes(path)
    assert found
    for pin, its in found.items():
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==[0-9][^\s;]*( ; .+)?$", pin), pin
        assert its, f"{pin} has no hash"
        assert [one for one in its if not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one)] == []
    # A source package would fetch what it is built with, and nothing checks that.
    assert "\n--only-binary :all:\n" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ALL_LOCKS, ids=short)
def test_no_lock_has_torch_or_what_only_its_gpu_build_needs_or_a_file_of_a_machine(path: Path) -> None:
    named = re.compile(r"torch|\+cpu|nvidia|cuda|triton|file:", re.IGNORECASE)
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if named.search(line)] == []


@pytest.mark.slow
def test_all_locks_have_the_same_version_of_a_package() -> None:
    assert len(LOCKS) == 6
    for larger, smaller in pairwise(LOCKS):
        assert pins(smaller).items() < pins(larger).items()
        assert hashes(smaller).values()
        for pin, its in hashes(smaller).items():
            name = pin.partition("==")[0]
            assert its in [others for other, others in hashes(larger).items() if other.partition("==")[0] == name]


def asked_for(path: Path) -> Iterator[Requirement]:
    """The requirements in a file and in those that it includes."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from asked_for(path.parent / line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            yield Requirement(line)


def with_what_they_ask_for(requirements: Iterator[Requirement]) -> list[Requirement]:
    """All requirements that count here, and those of what is installed."""
    found: list[Requirement] = []
    seen = set()
    left = list(requirements)
    while left:
        one = left.pop()
        name = canonical(one.name)
        if name in lock.EXCLUDED or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found.append(one)
        key = (name, *sorted(one.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            asked = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in asked:
            further = Requirement(text)
            if further.marker and not any(further.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                continue
            further.marker = None
            left.append(further)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("requirements", "path"), HERE, ids=short)
def test_a_lock_has_all_that_its_packages_ask_for_and_nothing_else(requirements: Path, path: Path) -> None:
    """A lock that lacks a package can't be installed: pip refuses packages without hashes."""
    locked = pins(path)
    needed = with_what_they_ask_for(asked_for(requirements))
    assert len({canonical(one.name) for one in needed}) > len(pins(requirements))
    for one in needed:
        name = canonical(one.name)
        if name != UNLOCKED:
            assert name in locked, f"{one} is not in the lock"
            assert one.specifier.contains(locked[name], prereleases=True), f"{one}, but locked is {locked[name]}"
    here = {canonical(pin.name) for pin in map(Requirement, hashes(path)) if not pin.marker or pin.marker.evaluate()}
    installed = {canonical(found.name) for found in importlib.metadata.distributions()}
    if set(pins(requirements)) <= installed:
        assert here == {canonical(one.name) for one in needed} - {UNLOCKED}


# Which requirements file has to declare what this code imports; the first that fits counts.
DECLARED_IN = {
    "inference/": "inference/requirements-torch.txt",
    # It runs with the boto3 of AWS's Python, and in the tests with theirs.
    "infrastructure/invoker/": "requirements-dev.txt",
    "infrastructure/": "requirements.txt",
    "app.py": "requirements.txt",
    "scripts/benchmark": "scripts/benchmarks/requirements.txt",
    "scripts/states/": "scripts/states/requirements-ray.txt",
    "scripts/": "requirements.txt",
    "tests/": "requirements-dev.txt",
}


def imports(path: Path) -> set[str]:
    """The top-level names that a file imports, less those of the standard library."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["inference", "infrastructure", "scripts", "tests", "app.py"])
def test_what_is_imported_is_declared(folder: str) -> None:
    """What another package happens to bring along may go with its next version."""
    roots = [ROOT, *(ROOT / name for name in ("inference", "scripts", "tests"))]
    ours = {path.stem for root in roots for path in root.iterdir() if path.is_dir() or path.suffix == ".py"}
    distributions = importlib.metadata.packages_distributions()
    files = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
    assert files
    undeclared: dict[str, str] = {}
    for path in files:
        name = short(path)
        declared = pins(ROOT / next(file for start, file in DECLARED_IN.items() if name.startswith(start)))
        for module in imports(path) - ours:
            if declared.keys().isdisjoint(map(canonical, distributions.get(module, [module]))):
                undeclared.setdefault(module, name)
    assert undeclared == {}


# The image's Python and glibc, Debian 12's, on arm64. pip has to be told each older glibc whose wheels run there too.
ON_ARM = (
    *("--implementation=cp", "--python-version=3.11", "--platform=manylinux2014_aarch64"),
    *(f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 37)),
)


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("RUN_CONTAINER"),
    reason="asks the package index: RUN_CONTAINER=1 scripts/test tests/test_locks.py",
)
def test_the_image_can_be_built_for_arm(tmp_path: Path) -> None:
    """Every package of either engine has a wheel for arm64 whose hash is in the lock. torch is in no lock."""
    lock_of_image = ROOT / "inference" / "locks" / "requirements-torch.txt"  # with those of the other engine's lock
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"]
    command += ["--report=-", "--target", str(tmp_path), "--no-deps", "--require-hashes", *ON_ARM]
    done = subprocess.run([*command, "-r", str(lock_of_image)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    wheels = {
        canonical(found["metadata"]["name"]): found["download_info"]["url"].rpartition("/")[2]
        for found in json.loads(done.stdout)["install"]
    }
    wanted = {
        canonical(pin.name)
        for pin in map(Requirement, hashes(lock_of_image))
        if not pin.marker or pin.marker.evaluate({"sys_platform": "linux", "platform_machine": "aarch64"})
    }
    assert wheels.keys() == wanted
    # pip found builds for ARM, rather than those of this machine.
    assert [name for name in wheels.values() if not name.endswith(("_aarch64.whl", "-any.whl"))] == []
    assert wheels["onnxruntime"].endswith("_aarch64.whl")


PINNED = re.compile(r"^[^#]*(==\d|@sha256:|uses: \S+@|runs-on: )")


@pytest.mark.parametrize(
    "path", [*REQUIREMENTS, lock.UV_LOCK, *WORKFLOWS, ROOT / "inference" / "Dockerfile"], ids=short
)
def test_every_pin_has_its_reason_on_the_line_above(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    pinned = [number for number, line in enumerate(lines) if PINNED.match(line)]
    assert pinned
    for number in pinned:
        above = lines[number - 1].strip()
        assert above.startswith("# "), f"{lines[number]} has no reason above it"
        assert len(above) > 8


@pytest.mark.parametrize("path", REQUIREMENTS, ids=short)
def test_no_package_is_pinned_twice(path: Path) -> None:
    names = [canonical(one.name) for one in asked_for(path)]
    assert sorted(names) == sorted(set(names))
    assert [str(one) for one in asked_for(path) if not re.fullmatch(r"==[^*,]+", str(one.specifier))] == []


def test_actions_are_pinned_by_commit_with_the_version_where_dependabot_finds_it() -> None:
    used = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    # A workflow of the same commit needs no pin.
    used = [line for line in used if not line.startswith("uses: ./")]
    assert used
    assert [line for line in used if not re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$", line)] == []


def test_the_base_image_is_named_once_by_tag_and_digest_and_no_stage_is_built_on_another() -> None:
    """Dependabot changes only what stands literally in FROM."""
    froms = re.findall(r"^FROM (.+)$", (ROOT / "inference" / "Dockerfile").read_text(), re.MULTILINE)
    assert len(froms) > 1
    assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64} AS base", froms[0])
    assert [stage for stage in froms[1:] if stage.split()[0] != "base"] == []


def test_dependabot_looks_at_every_kind_of_pin_and_waits_a_week() -> None:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    assert found["version"] == 2
    updates = {update["package-ecosystem"]: update for update in found["updates"]}
    assert len(updates) == len(found["updates"])
    assert set(updates) == {"pip", "docker", "github-actions"}
    for update in updates.values():
        assert update["schedule"] == {"interval": "weekly"}
        # The keys for major and minor versions aren't allowed for docker and github-actions.
        assert update["cooldown"] == {"default-days": 7}
    assert (ROOT / updates["docker"]["directory"].strip("/") / "Dockerfile").is_file()
    assert updates["github-actions"]["directory"] == "/"
    # For pip it looks into a directory and the folders in it, and leaves files of 500 kB and more aside.
    looked_at = {ROOT / directory.strip("/") for directory in updates["pip"]["directories"]}
    for path in (*REQUIREMENTS, *ALL_LOCKS):
        assert {path.parent, path.parent.parent} & looked_at, path
        assert path.stat().st_size < 500_000


FAKE_UV = """#!{python}
import json, sys
from pathlib import Path
options = dict(one.partition("=")[::2] for one in sys.argv[3:] if one.startswith("--"))
made = Path(options["--output-file"])
calls = Path({calls!r})
before = made.read_text() if made.exists() else None
with calls.open("a") as file:
    file.write(json.dumps([sys.argv[-1], "--upgrade" in options, before]) + "\\n")
if sys.argv[-1] == {broken!r}:
    sys.exit(2)
made.write_text("lock of " + sys.argv[-1])
"""


def run_with_fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, *arguments: str) -> int:
    def install(folder: Path) -> Path:
        uv = tmp_path / "uv"
        uv.write_text(FAKE_UV.format(python=sys.executable, calls=str(tmp_path / "calls"), broken=broken))
        uv.chmod(0o755)
        return uv

    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock, "install_uv", install)
    for name in ALL.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"old {name}")
    return lock.main(list(arguments))


@pytest.mark.parametrize("upgrade", [False, True])
def test_each_lock_is_made_from_the_versions_of_the_larger_one(
    upgrade: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with_fake_uv(tmp_path, monkeypatch, "none", *["--upgrade"] * upgrade) == 0
    names = list(lock.LOCKS)
    befores = [f"old {next(iter(lock.LOCKS.values()))}", *(f"lock of {name}" for name in names[:-1])]
    upgrades = [upgrade, *[False] * (len(names) - 1)]
    expected = [list(call) for call in zip(names, upgrades, befores, strict=True)]
    # An environment of its own keeps its own versions.
    expected += [[name, upgrade, f"old {path}"] for name, path in lock.APART.items()]
    assert [yaml.safe_load(line) for line in (tmp_path / "calls").read_text().splitlines()] == expected
    for name, path in ALL.items():
        assert (tmp_path / path).read_text() == f"lock of {name}"
    assert capsys.readouterr().out.splitlines() == list(ALL.values())


def test_where_one_lock_can_not_be_made_none_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with_fake_uv(tmp_path, monkeypatch, "inference/requirements.txt") == 1
    assert capsys.readouterr().err == "lock: no lock was changed, because uv failed\n"
    for path in ALL.values():
        assert (tmp_path / path).read_text() == f"old {path}"
