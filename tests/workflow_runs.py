"""GitHub's workflows, read and run here: the part of their expressions that ours use, and the steps that are scripts.

It follows https://docs.github.com/en/actions/reference/workflows-and-actions/expressions. An expression that it doesn't
know is an error.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tiny import ROOT

Object = dict[str, Any]

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(path.name for path in FOLDER.glob("*.yml"))
_TOKEN = re.compile(
    r"(?P<text>'[^']*')|(?P<operator>&&|\|\||==|!=|[()])|(?P<status>failure\(\)|hashFiles\([^)]*\))"
    r"|(?P<value>[a-z]+(\.[\w-]+)+)|(?P<space>\s+)"
)


def load(name: str) -> Object:
    found: dict[Any, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    # YAML 1.1, which PyYAML reads, takes `on` for true.
    return {"on" if key is True else key: value for key, value in found.items()}


def job(workflow: str, name: str = "") -> Object:
    """The job of that name, or the only one."""
    jobs = load(workflow)["jobs"]
    return dict(jobs[name] if name else next(iter(jobs.values())))


def steps_of(job: Object) -> list[Object]:
    return [dict(step) for step in job.get("steps", [])]


def evaluated(expression: str, contexts: Mapping[str, Any], *, failed: bool = False) -> Any:
    """The value of an expression. What isn't there is "". failed: what failure() gives."""
    python, place = [], 0
    while place < len(expression):
        match = _TOKEN.match(expression, place)
        assert match, f"{expression!r} can't be read here from {expression[place:]!r}"
        place = match.end()
        if match["text"]:
            python.append(match["text"])
        elif match["operator"]:
            python.append({"&&": " and ", "||": " or "}.get(match[0], match[0]))
        elif match["status"]:
            python.append(repr(failed) if match[0] == "failure()" else "'a-hash'")
        elif match["value"]:
            found: Any = contexts
            for name in match[0].split("."):
                found = found.get(name) if isinstance(found, Mapping) else None
            python.append(repr("" if found is None else found))
    return eval("".join(python), {})


def filled(text: Any, contexts: Mapping[str, Any]) -> str:
    """A text of a workflow with its expressions replaced by their values."""

    def value(match: re.Match[str]) -> str:
        found = evaluated(match[1].strip(), contexts)
        return str(found).lower() if isinstance(found, bool) else str(found)

    return re.sub(r"\$\{\{(.*?)\}\}", value, str(text))


def is_run(job: Object, contexts: Mapping[str, Any]) -> bool:
    """Whether a job's `if` lets it run, where all jobs that it needs have passed."""
    return bool(evaluated(str(job.get("if", "'yes'")), contexts))


@dataclass
class Run:
    """A job that was run here.

    done: the names of its steps that ran, or of the actions that they use. failed: whether the job has failed.
    printed: by its scripts.
    """

    done: list[str] = field(default_factory=list)
    failed: bool = False
    printed: str = ""


def run_job(job: Object, folder: Path, contexts: Object, environment: Mapping[str, str]) -> Run:
    """Runs the scripts among the steps of a job in `folder`. Actions do nothing.

    environment: for the scripts; what the job and its steps set comes on top.
    """
    run, steps = Run(), contexts.setdefault("steps", {})
    for step in steps_of(job):
        condition = str(step.get("if", "'yes'"))
        if not evaluated(condition, contexts, failed=run.failed) or (run.failed and "failure()" not in condition):
            continue
        run.done.append(str(step.get("name") or step["uses"].partition("@")[0]))
        if "run" in step:
            outputs = folder.parent / "outputs"
            outputs.write_text("")
            given = {**job.get("env", {}), **step.get("env", {})}
            ended = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=folder,
                env={
                    **environment,
                    **{name: filled(value, contexts) for name, value in given.items()},
                    "GITHUB_OUTPUT": str(outputs),
                    "GITHUB_PATH": str(folder.parent / "path"),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            run.printed += ended.stdout
            run.failed = run.failed or ended.returncode != 0
            written = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
            conclusion = "failure" if ended.returncode else "success"
            steps[step.get("id", "")] = {"conclusion": conclusion, "outputs": written}
    return run
