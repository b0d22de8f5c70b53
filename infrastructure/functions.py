"""The Lambdas of handler files and jobs, and the image that all of them run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infrastructure.config import Config, ConfigError
from infrastructure.logs import json_logs
from infrastructure.network import Network
from infrastructure.shelf import MOUNT_PATH
from similarity.api.routes import HandlerFile
from similarity.encoder.model_folder import GRAPH_FILENAMES
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_MODEL_DIR, DEFAULT_MODEL_FILENAME

_ARCHITECTURES = {
    "x86_64": (lambda_.Architecture.X86_64, ecr_assets.Platform.LINUX_AMD64),
    "arm64": (lambda_.Architecture.ARM_64, ecr_assets.Platform.LINUX_ARM64),
}


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
        network: Network,
        file_system: lambda_.FileSystem,
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
            ),
            architecture=architecture,
            # The setting is also a limit: new accounts get 3,008 MB at most, whatever a file asks for.
            memory_size=min(handler.memory_mib or config.memory_mib, config.memory_mib),
            timeout=cdk.Duration.seconds(handler.timeout_s or config.timeout_s),
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            security_groups=[network.functions_security_group],
            # The Lambdas call nothing outside the VPC, which is all that a public subnet would not give them.
            allow_public_subnet=True,
            filesystem=file_system,
            **json_logs(self),
            environment={
                "MODEL_DIR": DEFAULT_MODEL_DIR,
                "MODEL_FILENAME": DEFAULT_MODEL_FILENAME,
                "INCIDENTS_FILENAME": DEFAULT_INCIDENTS_FILENAME,
                "HF_MODEL_URI": config.hf_model_uri,
                "ENCODER_ENGINE": config.encoder_engine,
                "ENCODER_PRECISION": config.encoder_precision,
                "SHELF_DIR": f"{MOUNT_PATH}/shelf",
                "HF_HOME": f"{MOUNT_PATH}/huggingface",
                "MODEL_ON_EFS": str(config.model_on_efs).lower(),
            },
        )


def image_functions(
    scope: Construct,
    construct_id: str,
    *,
    handlers: Iterable[HandlerFile],
    handlers_dir: Path,
    config: Config,
    network: Network,
    file_system: lambda_.FileSystem,
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
            network=network,
            file_system=file_system,
        ).function
        for handler in handlers
    }


def warn_of_missing_files(scope: Construct, *, handlers_dir: Path, config: Config) -> None:
    """A warning for each file without which the image can't be built, with the script that makes it."""
    made_by = {DEFAULT_MODEL_FILENAME: "fetch_model.py", DEFAULT_INCIDENTS_FILENAME: "build_state.py"}
    if config.encoder_engine == "onnx":
        made_by[GRAPH_FILENAMES[config.encoder_precision]] = "export_onnx.py"
    for name, script in made_by.items():
        path = handlers_dir / DEFAULT_MODEL_DIR / name
        if not path.exists():
            dangling = any(part.is_symlink() and not part.exists() for part in (path, path.parent))
            cdk.Annotations.of(scope).add_warning_v2(
                f"similar-incidents:no-{name}",
                f"inference/{DEFAULT_MODEL_DIR}/{name} is not there, so the image can't be built: "
                f"{'remove the symbolic link that leads nowhere and ' if dangling else ''}"
                f"make it with scripts/{script}.",
            )


def require_no_link_around(handlers_dir: Path) -> None:
    """Raises ConfigError for a link in the model's folder to a folder around it: a copy would have no end."""
    model_dir = handlers_dir / DEFAULT_MODEL_DIR
    for path in (model_dir, *(Path(parent, name) for parent, names, _ in os.walk(model_dir) for name in names)):
        if path.is_symlink() and path.is_dir() and handlers_dir.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"inference/{path.relative_to(handlers_dir)} is a symbolic link to {path.resolve()}, which holds "
                "inference/ itself: let it lead to the model's folder."
            )
