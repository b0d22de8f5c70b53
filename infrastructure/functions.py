"""The Lambdas of handler files and jobs, and the image that all of them run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infrastructure.build_context import left_out
from infrastructure.config import Config
from infrastructure.logs import json_logs
from infrastructure.network import Network
from infrastructure.roles import allow_only_its_own_log, allow_place_in_network
from infrastructure.shelf import MOUNT_PATH
from similarity.api.routes import HandlerFile
from similarity.encoder.loading import choose
from similarity.encoder.model_folder import GRAPH_FILENAMES, INT8_WEIGHTS_FILENAME, ModelFiles
from similarity.metrics import NAMESPACE_VARIABLE
from similarity.settings import (
    DEFAULT_INCIDENTS_FILENAME,
    DEFAULT_MODEL_DIR,
    DEFAULT_MODEL_FILENAME,
    DEFAULT_PRECISION,
    PRECISIONS,
)

_ARCHITECTURES = {
    "x86_64": (lambda_.Architecture.X86_64, ecr_assets.Platform.LINUX_AMD64),
    "arm64": (lambda_.Architecture.ARM_64, ecr_assets.Platform.LINUX_ARM64),
}

# Lambda's own number. Here so that it doesn't depend on a default.
RETRIES = 2


class PlaceSettings(TypedDict, total=False):
    """Arguments of a Lambda's construct."""

    vpc: ec2.IVpc
    vpc_subnets: ec2.SubnetSelection
    security_groups: list[ec2.ISecurityGroup]
    allow_public_subnet: bool
    filesystem: lambda_.FileSystem


@dataclass(frozen=True)
class Place:
    """Where a Lambda runs: in the network, as a member of a security group, with a file system."""

    network: Network
    security_group: ec2.ISecurityGroup
    file_system: lambda_.FileSystem

    def settings(self) -> PlaceSettings:
        return {
            "vpc": self.network.vpc,
            "vpc_subnets": self.network.subnets,
            "security_groups": [self.security_group],
            # A public subnet doesn't give these Lambdas the internet. They don't call it.
            "allow_public_subnet": True,
            "filesystem": self.file_system,
        }


@dataclass(frozen=True)
class Needs:
    """What a Lambda gets that not all of them get, beside what its file asks for.

    place: None for outside the VPC. There the internet can be reached, but no file system.
    environment: variables.
    storage_mib: the size of /tmp; None for Lambda's 512.
    concurrency: how many copies may run at once; None reserves nothing.
    takes_events: whether events and schedules invoke it. It then has a queue for the events with which it failed in all
    tries.
    """

    place: Place | None
    environment: Mapping[str, str] = field(default_factory=dict)
    storage_mib: int | None = None
    concurrency: int | None = None
    takes_events: bool = False


class ImageFunction(Construct):
    """The Lambda of one handler file or job. All of them run the same image; the command says which file."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        handler: HandlerFile,
        handlers_dir: Path,
        config: Config,
        needs: Needs,
    ) -> None:
        super().__init__(scope, construct_id)
        architecture, platform = _ARCHITECTURES[config.architecture]
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            description=f"Job {handler.module}" if handler.package else f"Answers {handler.route}",
            # Lambda rejects a list of images. One platform makes none, and the CDK's command line has Docker leave out
            # provenance attestations (BUILDX_NO_DEFAULT_ATTESTATIONS=1), which would make one again.
            code=lambda_.DockerImageCode.from_image_asset(
                str(handlers_dir),
                cmd=[handler.command],
                platform=platform,
                # A model may be a link. By default the CDK leaves links within the folder as they are, although what
                # they lead to is not among the files that go into the build.
                follow_symlinks=cdk.SymlinkFollowMode.ALWAYS,
                build_args={"ENCODER_ENGINE": config.encoder_engine},
                exclude=left_out(config),
            ),
            architecture=architecture,
            memory_size=config.memory_of(handler),
            timeout=cdk.Duration.seconds(handler.timeout_s or config.timeout_s),
            ephemeral_storage_size=cdk.Size.mebibytes(needs.storage_mib) if needs.storage_mib else None,
            reserved_concurrent_executions=needs.concurrency,
            retry_attempts=RETRIES if needs.takes_events else None,
            dead_letter_queue=self._dead_letters() if needs.takes_events else None,
            **(needs.place.settings() if needs.place else {}),
            **json_logs(self),
            environment={
                "MODEL_DIR": DEFAULT_MODEL_DIR,
                "MODEL_FILENAME": DEFAULT_MODEL_FILENAME,
                "INCIDENTS_FILENAME": DEFAULT_INCIDENTS_FILENAME,
                "HF_MODEL_URI": config.hf_model_uri,
                "ENCODER_ENGINE": config.encoder_engine,
                "ENCODER_PRECISION": config.encoder_precision,
                NAMESPACE_VARIABLE: config.stack_name,
                **(_on_the_file_system(config) if needs.place else {}),
                **needs.environment,
            },
        )
        allow_only_its_own_log(self.function)
        if needs.place:
            allow_place_in_network(self.function)

    def _dead_letters(self) -> sqs.Queue:
        """A queue of its own, because a dead letter doesn't say which Lambda failed."""
        return sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )


def _on_the_file_system(config: Config) -> dict[str, str]:
    return {
        "SHELF_DIR": f"{MOUNT_PATH}/shelf",
        "HF_HOME": f"{MOUNT_PATH}/huggingface",
        "MODEL_ON_EFS": str(config.model_on_efs).lower(),
    }


def image_functions(
    scope: Construct,
    construct_id: str,
    *,
    handlers: Iterable[HandlerFile],
    handlers_dir: Path,
    config: Config,
    needs: Callable[[HandlerFile], Needs],
) -> dict[HandlerFile, lambda_.Function]:
    """A Lambda for each. They have a scope of their own, so that a file may be called like a part of the stack."""
    own = Construct(scope, construct_id)
    return {
        handler: ImageFunction(
            own,
            handler.module,
            handler=handler,
            handlers_dir=handlers_dir,
            config=config,
            needs=needs(handler),
        ).function
        for handler in handlers
    }


def warn_of_missing_files(scope: Construct, *, handlers_dir: Path, config: Config) -> None:
    """A warning for each file without which the deployment would fail, with the script that makes it.

    With ENCODER_PRECISION=auto, also one if float32 will serve.
    """
    folder = handlers_dir / DEFAULT_MODEL_DIR
    made_by = {DEFAULT_MODEL_FILENAME: "fetch_model.py", DEFAULT_INCIDENTS_FILENAME: "build_state.py"}
    if config.encoder_engine == "onnx":
        # float32 also serves where another precision can't.
        made_by[GRAPH_FILENAMES[DEFAULT_PRECISION]] = "export_onnx.py"
        if config.encoder_precision == "int8":
            made_by |= dict.fromkeys(
                (GRAPH_FILENAMES["int8"], INT8_WEIGHTS_FILENAME), "export_onnx.py --precision int8"
            )
    for name, script in made_by.items():
        path = folder / name
        if not path.exists():
            dangling = any(part.is_symlink() and not part.exists() for part in (path, path.parent))
            cdk.Annotations.of(scope).add_warning_v2(
                f"similar-incidents:no-{name}",
                f"inference/{DEFAULT_MODEL_DIR}/{name} is not there, so the deployment would fail: "
                f"{'remove the symbolic link that leads nowhere and ' if dangling else ''}"
                f"make it with scripts/{script}.",
            )
    reason = choose(ModelFiles(folder), config.encoder_engine, "auto", any_cpu=True).reason
    if config.encoder_precision == "auto" and reason:
        precision = PRECISIONS[config.encoder_engine][-1]
        cdk.Annotations.of(scope).add_warning_v2(
            "similar-incidents:float32-serves",
            f"ENCODER_PRECISION=auto, but float32 will serve: {reason}. With a state in the folder, "
            f"scripts/export_onnx.py inference/{DEFAULT_MODEL_DIR} --precision {precision} measures the agreement.",
        )
