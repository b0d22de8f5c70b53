"""The whole chain: AIID's site, the bucket, both jobs as Lambdas of their own, the shelf, and a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.cloud import Cloud, running_cloud
from chain.deployment import Deployment, deployment, make_image
from chain.site import Content, Site
from similarity.encoder.torch_encoder import TorchEncoder
from snapshot_server import Host


@pytest.fixture(autouse=True)
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the Lambdas, whose job of the refresh has a folder with a fixed name there."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running_cloud() as cloud:
        yield cloud


@pytest.fixture
def site(host: Host, tiny_encoder: TorchEncoder, tmp_path: Path) -> Site:
    return Site(host, lambda text: tiny_encoder.encode(text).vector, tmp_path)


@pytest.fixture
def model_dir(site: Site, tiny_model_dir: Path, tmp_path: Path, one_thread: None) -> Path:
    """An image's, whose state was built of AIID's first snapshot, and that a day ago."""
    site.publish(Content())
    return make_image(site, tiny_model_dir, tmp_path / "image", days=1)


@pytest.fixture
def stack(
    cloud: Cloud, site: Site, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    monkeypatch.setattr("publishing.api._PAUSE_S", 0.05)
    monkeypatch.setattr("publish_state.CACHE_DIR", tmp_path / "cache")
    with deployment(cloud, site.url, model_dir, tmp_path) as running:
        yield running
