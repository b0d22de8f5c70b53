#!/usr/bin/env python3
"""The CDK app: VPC, EFS, HTTP API and a container-image Lambda with a route for every handler file in `inference/`.

Reads the environment and `.env`; `.env.example` explains every variable. Importing this module synthesises nothing.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# Read when aws_cdk is first imported; without it the two alpha packages print some 80 lines saying that they graduated.
os.environ.setdefault("JSII_DEPRECATED", "quiet")

import aws_cdk as cdk
import jsii
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_efs as efs
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as events_targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import triggers

# The one place that names the alpha packages. aws_cdk.aws_apigatewayv2 and .aws_apigatewayv2_integrations are the same
# constructs under their graduated names; a test compares the templates.
from aws_cdk import aws_apigatewayv2_alpha as apigatewayv2  # isort: skip
from aws_cdk import aws_apigatewayv2_integrations_alpha as integrations  # isort: skip
from constructs import Construct
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent
INFERENCE_DIR = ROOT / "inference"
sys.path.insert(0, str(INFERENCE_DIR))

from similarity.api.routes import (  # noqa: E402
    ALLOWED_HEADERS,
    DEFAULT_ALLOWED_ORIGINS,
    METHODS,
    HandlerFile,
    HandlerFileError,
    find_handlers,
)
from similarity.encoder.model_folder import GRAPH_FILENAMES  # noqa: E402
from similarity.settings import (  # noqa: E402
    DEFAULT_ENGINE,
    DEFAULT_INCIDENTS_FILENAME,
    DEFAULT_MODEL_DIR,
    DEFAULT_MODEL_FILENAME,
    DEFAULT_MODEL_URI,
    DEFAULT_PRECISION,
    PRECISIONS,
    Engine,
    Precision,
)

T = TypeVar("T", bound=str)

STACK_NAME = "AiidSimilarIncidents"
MOUNT_PATH = "/mnt/hf_models_cache"

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MEMORY_MIB_RANGE = (128, 10240)
TIMEOUT_S_RANGE = (1, 900)
# 0 is off. Lambda takes what was idle for longer away anyway.
KEEP_WARM_MINUTES_RANGE = (0, 60)
# The Lambda that waits for a trigger's answer ends after 15 minutes; it needs some of them to say how it went.
MAX_TRIGGER_TIMEOUT_S = 14 * 60


ARCHITECTURES = {
    "x86_64": (lambda_.Architecture.X86_64, ecr_assets.Platform.LINUX_AMD64),
    "arm64": (lambda_.Architecture.ARM_64, ecr_assets.Platform.LINUX_ARM64),
}


class ConfigError(Exception):
    """A variable that is missing or has a bad value, in one sentence."""


@dataclass(frozen=True)
class Config:
    """What a deployment can be told, each field from the variable of its name in capitals.

    memory_mib and timeout_s are those of every Lambda (LAMBDA_MEMORY_MIB, LAMBDA_TIMEOUT_S), architecture is
    LAMBDA_ARCHITECTURE, account and region are AWS_ACCOUNT_ID and AWS_REGION. keep_warm_minutes is the pause between
    two invocations that keep a Lambda warm; 0 means that there are none.
    """

    account: str
    region: str
    nat_gateway: bool = False
    memory_mib: int = 8096
    timeout_s: int = 600
    architecture: str = "x86_64"
    allowed_origins: tuple[str, ...] = DEFAULT_ALLOWED_ORIGINS
    hf_model_uri: str = DEFAULT_MODEL_URI
    encoder_engine: Engine = DEFAULT_ENGINE
    encoder_precision: Precision = DEFAULT_PRECISION
    keep_warm_minutes: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str | None]) -> Config:
        """Raises ConfigError. An empty variable counts as one that is not set."""
        given = _Variables(environment)
        engine = given.one_of("ENCODER_ENGINE", tuple(PRECISIONS), cls.encoder_engine)
        return cls(
            account=given.matching("AWS_ACCOUNT_ID", r"[0-9]{12}", "the 12 digits of an AWS account"),
            region=given.matching("AWS_REGION", r"[a-z]{2}(-[a-z]+)+-[0-9]", "an AWS region such as us-east-1"),
            nat_gateway=given.one_of("NAT_GATEWAY", ("true", "false"), "false") == "true",
            memory_mib=given.integer("LAMBDA_MEMORY_MIB", MEMORY_MIB_RANGE, cls.memory_mib),
            timeout_s=given.integer("LAMBDA_TIMEOUT_S", TIMEOUT_S_RANGE, cls.timeout_s),
            architecture=given.one_of("LAMBDA_ARCHITECTURE", tuple(ARCHITECTURES), cls.architecture),
            allowed_origins=given.origins("ALLOWED_ORIGINS", cls.allowed_origins),
            hf_model_uri=given.matching("HF_MODEL_URI", r"[\w.-]+(/[\w.-]+)?", "a model's name", cls.hf_model_uri),
            encoder_engine=engine,
            encoder_precision=given.one_of("ENCODER_PRECISION", PRECISIONS[engine], cls.encoder_precision),
            keep_warm_minutes=given.integer("KEEP_WARM_MINUTES", KEEP_WARM_MINUTES_RANGE, cls.keep_warm_minutes),
        )


class _Variables:
    """Environment variables, each read with its rule."""

    def __init__(self, environment: Mapping[str, str | None]) -> None:
        self._environment = environment

    def _get(self, name: str) -> str:
        return (self._environment.get(name) or "").strip()

    def matching(self, name: str, pattern: str, meaning: str, default: str = "") -> str:
        value = self._get(name) or default
        if not value:
            raise ConfigError(f"{name} is not set: give {meaning}, in the environment or in .env (see .env.example).")
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ConfigError(f'{name} must be {meaning}, not "{value}".')
        return value

    def one_of(self, name: str, allowed: Sequence[T], default: T) -> T:
        value = self._get(name) or default
        for known in allowed:
            if value == known:
                return known
        raise ConfigError(f'{name} must be {" or ".join(allowed)}, not "{value}".')

    def integer(self, name: str, limits: tuple[int, int], default: int) -> int:
        value = self._get(name) or str(default)
        low, high = limits
        if not re.fullmatch(r"[0-9]{1,6}", value, re.ASCII) or not low <= int(value) <= high:
            raise ConfigError(f'{name} must be a whole number from {low} to {high}, not "{value}".')
        return int(value)

    def origins(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.strip() for origin in self._get(name).split(",") if origin.strip()) or default
        for origin in origins:
            # https://fetch.spec.whatwg.org/#cors-protocol-and-credentials
            if "*" in origin:
                raise ConfigError(
                    f'{name} can\'t have a wildcard, as in "{origin}": the API allows credentials, and a wildcard '
                    "doesn't go with those. List each origin, such as https://example.org."
                )
            if not re.fullmatch(r"https?://[^\s/]+", origin):
                raise ConfigError(
                    f'{name} must list origins such as https://example.org, without a path, not "{origin}".'
                )
        return origins


class Network(Construct):
    """The VPC: one public subnet at no cost, or two zones with private subnets behind a NAT gateway."""

    def __init__(self, scope: Construct, construct_id: str, *, nat_gateway: bool) -> None:
        super().__init__(scope, construct_id)
        public = ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=24)
        private = ec2.SubnetConfiguration(name="Private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=24)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/16"),
            max_azs=2 if nat_gateway else 1,
            nat_gateways=1 if nat_gateway else 0,
            subnet_configuration=[public, private] if nat_gateway else [public],
        )
        self.subnets = ec2.SubnetSelection(subnet_type=(private if nat_gateway else public).subnet_type)
        # One for all functions. Without a NAT gateway nothing outside can be reached anyway; EFS adds its own rule.
        self.functions_security_group = ec2.SecurityGroup(
            self,
            "FunctionsSecurityGroup",
            vpc=self.vpc,
            description="Lambdas: file system, and the internet where there is a NAT gateway",
            allow_all_outbound=nat_gateway,
        )
        # With all outbound traffic allowed that rule is superfluous, of which the CDK would warn.
        cdk.Annotations.of(self.functions_security_group).acknowledge_warning(
            "@aws-cdk/aws-ec2:ipv4IgnoreEgressRule", "EFS adds a rule that is covered already"
        )


class ModelCache(Construct):
    """The EFS file system that all Lambdas mount, and its access point."""

    def __init__(self, scope: Construct, construct_id: str, *, network: Network) -> None:
        super().__init__(scope, construct_id)
        file_system = efs.FileSystem(
            self,
            "FileSystem",
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            encrypted=True,
            # It holds copies only.
            removal_policy=cdk.RemovalPolicy.DESTROY,
            # Bursting credits grow with the data stored: a file system of 1 GB would be held to a fraction of 1 MiB/s.
            throughput_mode=efs.ThroughputMode.ELASTIC,
        )
        self.access_point = file_system.add_access_point(
            "AccessPoint",
            path="/export/models",
            create_acl=efs.Acl(owner_uid="1001", owner_gid="1001", permissions="750"),
            posix_user=efs.PosixUser(uid="1001", gid="1001"),
        )


class HandlerFunction(Construct):
    """The Lambda of one handler file. All of them run the same image; the command says which handler."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        handler: HandlerFile,
        config: Config,
        network: Network,
        cache: ModelCache,
    ) -> None:
        super().__init__(scope, construct_id)
        architecture, platform = ARCHITECTURES[config.architecture]
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            description=f"Answers {handler.route}",
            # Lambda rejects a list of images. One platform makes none, and the CDK's command line has Docker leave out
            # provenance attestations (BUILDX_NO_DEFAULT_ATTESTATIONS=1), which would make one again.
            code=lambda_.DockerImageCode.from_image_asset(
                str(handler.path.parent),
                cmd=[handler.command],
                platform=platform,
                # A model may be a link. By default the CDK leaves links within the folder as they are, although what
                # they lead to is not among the files that go into the build.
                follow_symlinks=cdk.SymlinkFollowMode.ALWAYS,
                build_args={"ENCODER_ENGINE": config.encoder_engine},
            ),
            architecture=architecture,
            memory_size=config.memory_mib,
            timeout=cdk.Duration.seconds(config.timeout_s),
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            security_groups=[network.functions_security_group],
            # The Lambdas call nothing outside the VPC, which is all that a public subnet would not give them.
            allow_public_subnet=True,
            filesystem=lambda_.FileSystem.from_efs_access_point(cache.access_point, MOUNT_PATH),
            # A group of the stack's own goes with the stack; the one that Lambda makes by itself stays for ever.
            log_group=logs.LogGroup(
                self, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY
            ),
            environment={
                "MODEL_DIR": DEFAULT_MODEL_DIR,
                "MODEL_FILENAME": DEFAULT_MODEL_FILENAME,
                "INCIDENTS_FILENAME": DEFAULT_INCIDENTS_FILENAME,
                "HF_MODEL_URI": config.hf_model_uri,
                "ENCODER_ENGINE": config.encoder_engine,
                "ENCODER_PRECISION": config.encoder_precision,
                "HF_HOME": f"{MOUNT_PATH}/huggingface",
                "INCIDENT_CACHE_DIR": f"{MOUNT_PATH}/incidents",
            },
        )


class Priming(Construct):
    """Invokes each Lambda once when a deployment made or changed it, so that no caller waits while the cache is filled.

    A Lambda that can't load its model or state raises, which fails the deployment and takes it back.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: Mapping[str, lambda_.Function],
        after: Sequence[Construct],
        timeout_s: int,
    ) -> None:
        super().__init__(scope, construct_id)
        # Longer than the Lambda itself may take: a trigger that gives up first tries again beside the one that runs.
        timeout = cdk.Duration.seconds(min(timeout_s + 60, MAX_TRIGGER_TIMEOUT_S))
        for name, function in functions.items():
            # The API calls the function itself, for which its permissions are.
            cdk.Annotations.of(function).acknowledge_warning(
                "@aws-cdk/aws-lambda:addPermissionsToVersionOrAlias", "no caller but the trigger names a version"
            )
            triggers.Trigger(self, name, handler=function, timeout=timeout, execute_after=list(after))
        self._log_with_the_stack()

    def _log_with_the_stack(self) -> None:
        """Gives the Lambda behind the triggers, which the CDK makes, a log group that goes with the stack."""
        stack = cdk.Stack.of(self)
        log_group = logs.LogGroup(
            self, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY
        )
        for child in stack.node.children:
            if child.node.id.startswith("AWSCDK.Trigger"):
                handler = child.node.find_child("Handler")
                assert isinstance(handler, cdk.CfnResource)
                handler.add_property_override("LoggingConfig", {"LogGroup": log_group.log_group_name})


class KeepingWarm(Construct):
    """Invokes each Lambda on a schedule. A rule for each: one rule has five targets at most."""

    def __init__(
        self, scope: Construct, construct_id: str, *, functions: Mapping[str, lambda_.Function], minutes: int
    ) -> None:
        super().__init__(scope, construct_id)
        for name, function in functions.items():
            target = events_targets.LambdaFunction(
                function,
                event=events.RuleTargetInput.from_object({"warm": True}),
                # The next one comes soon enough.
                retry_attempts=0,
            )
            schedule = events.Schedule.rate(cdk.Duration.minutes(minutes))
            events.Rule(self, name, description="Keeps the Lambda warm", schedule=schedule, targets=[target])


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
        cache = ModelCache(self, "ModelCache", network=network)
        api = apigatewayv2.HttpApi(
            self,
            "Api",
            description="AI incidents most like a text",
            cors_preflight=apigatewayv2.CorsPreflightOptions(
                allow_methods=[apigatewayv2.CorsHttpMethod[method] for method in METHODS],
                allow_headers=list(ALLOWED_HEADERS),
                allow_origins=list(config.allowed_origins),
                allow_credentials=True,
            ),
        )
        # A scope of their own keeps handlers' names apart from those of the stack's other parts.
        functions_scope = Construct(self, "Functions")
        functions: dict[str, lambda_.Function] = {}
        for handler in find_handlers(handlers_dir):
            function = HandlerFunction(
                functions_scope, handler.module, handler=handler, config=config, network=network, cache=cache
            ).function
            functions[handler.module] = function
            api.add_routes(
                path=handler.route,
                methods=[apigatewayv2.HttpMethod[method] for method in METHODS],
                integration=integrations.HttpLambdaIntegration(f"{handler.module}-integration", function),
            )
        Priming(self, "Priming", functions=functions, after=[network, cache, api], timeout_s=config.timeout_s)
        if config.keep_warm_minutes:
            KeepingWarm(self, "KeepingWarm", functions=functions, minutes=config.keep_warm_minutes)
        made_by = {DEFAULT_MODEL_FILENAME: "fetch_model.py", DEFAULT_INCIDENTS_FILENAME: "build_state.py"}
        if config.encoder_engine == "onnx":
            made_by[GRAPH_FILENAMES[config.encoder_precision]] = "export_onnx.py"
        for name, script in made_by.items():
            path = handlers_dir / DEFAULT_MODEL_DIR / name
            if not path.exists():
                dangling = any(part.is_symlink() and not part.exists() for part in (path, path.parent))
                cdk.Annotations.of(self).add_warning_v2(
                    f"similar-incidents:no-{name}",
                    f"inference/{DEFAULT_MODEL_DIR}/{name} is not there, so the image can't be built: "
                    f"{'remove the symbolic link that leads nowhere and ' if dangling else ''}"
                    f"make it with scripts/{script}.",
                )
        cdk.CfnOutput(self, "apiUrl", value=api.url or "", description="URL of the API; add a route, e.g. similar")

    @property
    @jsii.member(jsii_name="availabilityZones")
    def availability_zones(self) -> list[str]:
        """The region's first two zones, named by CloudFormation at deployment: synthesis needs no credentials."""
        return [cdk.Fn.select(index, cdk.Fn.get_azs()) for index in range(2)]


def _require_no_link_around(handlers_dir: Path) -> None:
    """Raises ConfigError for a link in the model's folder to a folder around it, of which a copy would have no end."""
    model_dir = handlers_dir / DEFAULT_MODEL_DIR
    for path in (model_dir, *(Path(parent, name) for parent, names, _ in os.walk(model_dir) for name in names)):
        if path.is_symlink() and path.is_dir() and handlers_dir.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"inference/{path.relative_to(handlers_dir)} is a symbolic link to {path.resolve()}, which holds "
                "inference/ itself: let it lead to the model's folder."
            )


def build_app(config: Config, *, handlers_dir: Path = INFERENCE_DIR, outdir: str | None = None) -> cdk.App:
    """The app with its one stack, not yet synthesised.

    Raises HandlerFileError for a broken handler file, ConfigError for a link that has no end.
    """
    _require_no_link_around(handlers_dir)
    app = cdk.App(outdir=outdir)
    SimilarIncidentsStack(app, STACK_NAME, config=config, handlers_dir=handlers_dir)
    return app


def env_file(path: Path) -> dict[str, str | None]:
    """The variables in a .env file, none where there is no such file. Raises ConfigError."""
    not_utf8 = ConfigError(f"{path.name} is not in UTF-8: save it as UTF-8 (Windows PowerShell writes UTF-16).")
    try:
        text = path.read_text(encoding="utf-8-sig")
    # A folder of that name may be a virtual environment.
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path.name} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise not_utf8 from error
    if "\0" in text:  # UTF-16 without a byte order mark
        raise not_utf8
    return dotenv_values(stream=io.StringIO(text))


def main() -> int:
    try:
        # A variable that is empty in the shell counts as not set there, so it doesn't hide the line in .env.
        environment = {
            **env_file(ROOT / ".env"),
            **{name: value for name, value in os.environ.items() if value.strip()},
        }
        # The CDK's command line names the folder that it reads; by hand it is the one that it would name.
        app = build_app(
            Config.from_environment(environment), outdir=os.environ.get("CDK_OUTDIR", str(ROOT / "cdk.out"))
        )
    except (ConfigError, HandlerFileError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
