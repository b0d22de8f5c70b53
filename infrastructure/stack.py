"""The stack that puts the parts together, and the app around it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infrastructure import DESCRIPTION, IMAGE_TAG_PREFIX, INFERENCE_DIR
from infrastructure.api import http_api, log_requests, own_domain
from infrastructure.build_context import SHELVING_JOB, find_jobs, require_no_link_around
from infrastructure.config import Config
from infrastructure.functions import Needs, Place, image_functions, warn_of_missing_files
from infrastructure.inbox import Inbox
from infrastructure.jobs import InvokingJobs, allow_inbox, needs_of_jobs
from infrastructure.keeping_warm import KeepingWarm
from infrastructure.monitoring import Monitoring
from infrastructure.network import Network
from infrastructure.priming import Priming
from infrastructure.shelf import Shelf
from similarity.api.routes import HandlerFile, find_handlers


class SimilarIncidentsStack(cdk.Stack):
    """Everything there is, in one stack. `handlers_dir` holds the handler files and is the Docker build context."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: Config, handlers_dir: Path = INFERENCE_DIR
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=cdk.Environment(account=config.account, region=config.region),
            description=DESCRIPTION,
            tags=dict(config.tags),
            termination_protection=config.termination_protection,
            # The repository is that of all CDK apps of the account and region.
            synthesizer=cdk.DefaultStackSynthesizer(docker_tag_prefix=IMAGE_TAG_PREFIX),
        )
        network = Network(self, "Network", nat_gateway=config.nat_gateway)
        # It keeps the name under which stacks were deployed: another one would be another file system, and the mount
        # target of a second one in the same subnet fails with "already exists".
        shelf = Shelf(self, "ModelCache", network=network)
        inbox = Inbox(self, "Inbox")

        functions = partial(image_functions, self, handlers_dir=handlers_dir, config=config)
        serving = Needs(
            Place(network, network.functions_security_group, shelf.mounted_by_handlers()),
            concurrency=config.max_concurrency,
        )
        deployed = filter(config.deploys, find_handlers(handlers_dir))
        handlers = functions("Functions", handlers=deployed, needs=lambda _: serving)
        needs = needs_of_jobs(config=config, network=network, shelf=shelf, inbox=inbox)
        jobs = _by_name(functions("Jobs", handlers=find_jobs(handlers_dir), needs=needs))
        allow_inbox(inbox, jobs)
        InvokingJobs(self, "InvokingJobs", jobs=jobs, inbox=inbox, refresh_hours=config.refresh_hours)

        api = http_api(self, "Api", functions=handlers, config=config)
        access_log = log_requests(api)
        served = _by_name(handlers)
        Priming(self, "Priming", job=jobs[SHELVING_JOB], handlers=served, after=[network, shelf, inbox], api=api)
        KeepingWarm(self, "KeepingWarm", functions=served, minutes=config.keep_warm_minutes)
        if config.alarms:
            monitoring = Monitoring(
                self,
                "Monitoring",
                api_id=api.http_api_id,
                access_log=access_log,
                handlers=served,
                jobs=jobs,
                config=config,
            )
            self._put_out("dashboardUrl", monitoring.dashboard_url, "The dashboard, for a browser with a login to AWS")
        warn_of_missing_files(self, handlers_dir=handlers_dir, config=config)
        # `api.url` ends with a slash, and "$URL/similar" would become //similar.
        url = f"https://{api.http_api_id}.execute-api.{self.region}.{self.url_suffix}"
        self._put_out("apiUrl", url, "URL of the API; add a route, e.g. /similar")
        # A browser asks for a page by its address. All else is a program's.
        pages = [f"{url}{handler.route}" for handler in handlers if handler.page]
        if pages:
            self._put_out("pageUrl", " ".join(pages), "URL of the page for people, for a browser")
        self._put_out("apiAuth", config.api_auth, "none, or iam if requests must be signed")
        self._put_out("stateBucketName", inbox.bucket.bucket_name, "Bucket to which states are published")
        if config.domain_name:
            target = own_domain(
                self, "Domain", api=api, name=config.domain_name, certificate_arn=config.certificate_arn
            )
            self._put_out("domainTarget", target, f"What the CNAME record of {config.domain_name} must lead to")

    def _put_out(self, name: str, value: str, description: str) -> None:
        cdk.CfnOutput(self, name, value=value, description=description)

    @property
    @jsii.member(jsii_name="availabilityZones")
    def availability_zones(self) -> list[str]:
        """The region's first two zones, named by CloudFormation at deployment: synthesis needs no credentials."""
        return [cdk.Fn.select(index, cdk.Fn.get_azs()) for index in range(2)]


def _by_name(functions: dict[HandlerFile, lambda_.Function]) -> dict[str, lambda_.Function]:
    return {handler.module: function for handler, function in functions.items()}


def build_app(config: Config, *, handlers_dir: Path = INFERENCE_DIR, outdir: str | None = None) -> cdk.App:
    """The app with its one stack, not yet synthesised.

    Raises HandlerFileError for a broken handler file, ConfigError for a link that has no end.
    """
    require_no_link_around(handlers_dir)
    app = cdk.App(outdir=outdir)
    SimilarIncidentsStack(app, config.stack_name, config=config, handlers_dir=handlers_dir)
    return app
