"""The folder that the image is built from. `test_image.py` has what links make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrastructure.build_context import SHELVING_JOB, find_jobs, require_no_link_around
from infrastructure.config import ConfigError
from similarity.api.routes import HandlerFileError
from stack import DEFAULT, stack_of
from tiny import ROOT, copy_inference


def test_the_jobs_are_found() -> None:
    assert [job.module for job in find_jobs(ROOT / "inference")] == ["refresh", SHELVING_JOB]


def test_no_stack_is_made_without_the_job_that_a_deployment_calls(tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / "jobs" / f"{SHELVING_JOB}.py").write_text("def handle(): ...\n")
    for find in (find_jobs, lambda folder: stack_of(DEFAULT, folder, tmp_path / "cdk.out")):
        with pytest.raises(HandlerFileError, match=r"^jobs/shelve_state\.py with a `handler` isn't there, but each "):
            find(handlers_dir)


@pytest.mark.parametrize("target", ["..", "../.."])
def test_a_link_around_is_refused_and_one_elsewhere_is_not(target: str, tmp_path: Path) -> None:
    model = tmp_path / "inference" / "model"
    model.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (model / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (model / "again").symlink_to(".")
    require_no_link_around(tmp_path / "inference")
    (model / "more").symlink_to(target)
    with pytest.raises(ConfigError, match=r"^inference/model/more is a symbolic link to "):
        require_no_link_around(tmp_path / "inference")
