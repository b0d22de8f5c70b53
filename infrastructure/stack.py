"""The stack that puts the parts together, and the app around it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infrastructure import INFERENCE_DIR
from infrastructure.api import http_api
from infrastructure.config import Config
from infrastructure.functions import image_functions, require_no_link_around, warn_of_missing_files
from infrastructure.keeping_warm import KeepingWarm
from infrastructure.network import Network
from infrastructure.priming import Priming
from infrastructure.shelf import Shelf
from similarity.api.routes import JOBS, HandlerFile, HandlerFileError, find_handlers
from similarity.settings import DEFAULT_STACK_NAME

# The job that each deployment calls first.
SHELVING_JOB = "shelve_state"


class SimilarIncidentsStack(cdk.Stack):
    """Everything there is, in one stack. `handlers_dir` holds the handler files and is the Docker build context."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: Config, handlers_dir: Path = INFERENCE_DIR
    ) -> None:
        super().__init__(
            scope, construct_id, env=cdk.Environment(account=config.account, region=config.region),
            description="Finds the recorded AI incidents most like a text",
        )  # fmt: skip
        network = Network(self, "Network", nat_gateway=config.nat_gateway)
        # It keeps the name under which stacks were deployed: another one would be another file system, and the mount
        # target of a second one in the same subnet fails with "already exists".
        shelf = Shelf(self, "ModelCache", network=network)

        functions = partial(image_functions, self, handlers_dir=handlers_dir, config=config, network=network)
        handlers = functions("Functions", handlers=find_handlers(handlers_dir), file_system=shelf.mounted_by_handlers())
        jobs = functions("Jobs", handlers=find_handlers(handlers_dir, JOBS), file_system=shelf.mounted_by_jobs())
        api = http_api(self, "Api", functions=handlers, config=config)
        by_name = {handler.module: function for handler, function in handlers.items()}
        Priming(self, "Priming", job=_shelving_job(jobs), handlers=by_name, after=[network, shelf], api=api)
        if config.keep_warm_minutes:
            KeepingWarm(self, "KeepingWarm", functions=by_name, minutes=config.keep_warm_minutes)
        warn_of_missing_files(self, handlers_dir=handlers_dir, config=config)
        cdk.CfnOutput(self, "apiUrl", value=api.url or "", description="URL of the API; add a route, e.g. similar")

    @property
    @jsii.member(jsii_name="availabilityZones")
    def availability_zones(self) -> list[str]:
        """The region's first two zones, named by CloudFormation at deployment: synthesis needs no credentials."""
        return [cdk.Fn.select(index, cdk.Fn.get_azs()) for index in range(2)]


def _shelving_job(jobs: dict[HandlerFile, lambda_.Function]) -> lambda_.Function:
    for job, function in jobs.items():
        if job.module == SHELVING_JOB:
            return function
    raise HandlerFileError(
        f"{JOBS}/{SHELVING_JOB}.py with a `handler` isn't there, but each deployment calls it first."
    )


def build_app(config: Config, *, handlers_dir: Path = INFERENCE_DIR, outdir: str | None = None) -> cdk.App:
    """The app with its one stack, not yet synthesised.

    Raises HandlerFileError for a broken handler file, ConfigError for a link that has no end.
    """
    require_no_link_around(handlers_dir)
    app = cdk.App(outdir=outdir)
    SimilarIncidentsStack(app, DEFAULT_STACK_NAME, config=config, handlers_dir=handlers_dir)
    return app
