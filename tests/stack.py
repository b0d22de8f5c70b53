"""The stack as tests look at it: synthesised from a copy of inference/, or run as a project in a folder of its own.

The copy has no model, so that neither a model on this machine nor its size matters.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk.assertions import Annotations, Match, Template

from infrastructure.config import Config
from infrastructure.stack import build_app
from tiny import ROOT, copy_inference

Object = dict[str, Any]

ACCOUNT, REGION = "123456789012", "eu-central-1"
REQUIRED = {"AWS_ACCOUNT_ID": ACCOUNT, "AWS_REGION": REGION}
# With the two required settings only, and with every setting changed but the name, which is part of some ids.
DEFAULT = Config(account=ACCOUNT, region=REGION)
OTHER = Config(
    account="210987654321",
    region="us-gov-west-1",
    nat_gateway=True,
    memory_mib=3008,
    timeout_s=30,
    architecture="arm64",
    allowed_origins=("https://incidentdatabase.ai", "http://localhost:8000"),
    hf_model_uri="some/model",
    encoder_engine="torch",
    encoder_precision="bfloat16",
    keep_warm_minutes=5,
    model_on_efs=True,
    refresh_hours=6,
    snapshots_url="https://snapshots.example/page",
    tags=(("stage", "staging"), ("owner", "a team")),
    termination_protection=True,
    throttle_rate=50,
    throttle_burst=100,
    max_concurrency=5,
    api_auth="iam",
    domain_name="similar.example.org",
    certificate_arn="arn:aws-us-gov:acm:us-gov-west-1:210987654321:certificate/01234567-89ab-cdef-0123-456789abcdef",
    alarm_email="someone@example.org",
    max_state_age_days=30,
    max_usd_per_hour=0.5,
)

HANDLERS = {"similar", "text_to_db_similar", "embed_to_db_similar", "text_to_embed", "health", "openapi", "explore"}
# Those that a stack lacks whose requests have to be signed.
PAGES = {"explore"}
SHELVING, REFRESH = "jobs.shelve_state", "jobs.refresh"
JOBS = {SHELVING, REFRESH}
# Methods of a route that has others than the rest.
METHODS = {"health": ("GET",), "openapi": ("GET",), "explore": ("GET",)}


def routes_of(handlers: set[str]) -> dict[str, str]:
    """The module that answers each route, by the route's key."""
    return {
        f"{method} /{module.replace('_', '-')}": module
        for module in handlers
        for method in METHODS.get(module, ("GET", "POST"))
    }


def copy_project(folder: Path) -> Path:
    """All that `cdk deploy` needs, but for settings and the model."""
    copy_inference(folder / "inference")
    shutil.copytree(ROOT / "infrastructure", folder / "infrastructure", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "cdk.json"):
        shutil.copy(ROOT / name, folder)
    return folder


@dataclass(frozen=True)
class Synthesised:
    """A template, the parts of it that tests ask for, and the folder of the cloud assembly.

    expected: the modules of the project's own handlers that must be Lambdas.
    """

    template: Template
    outdir: Path
    handlers_dir: Path
    expected: set[str]

    def resources(self, kind: str) -> dict[str, Object]:
        return {id_: dict(resource) for id_, resource in self.template.find_resources(kind).items()}

    def properties(self, kind: str) -> list[Object]:
        return [resource["Properties"] for resource in self.resources(kind).values()]

    def all_resources(self) -> dict[str, Object]:
        return dict(self.template.to_json()["Resources"])

    def image_functions(self) -> dict[str, Object]:
        """Those that run the image, by logical id: handlers and jobs."""
        found = self.resources("AWS::Lambda::Function")
        return {
            id_: resource for id_, resource in found.items() if resource["Properties"].get("PackageType") == "Image"
        }

    def functions(self) -> dict[str, Object]:
        """Properties of the same, by the module that the command names."""
        return {self.module(id_): resource["Properties"] for id_, resource in self.image_functions().items()}

    def handlers(self) -> dict[str, Object]:
        return {module: properties for module, properties in self.functions().items() if module not in JOBS}

    def functions_in_vpc(self) -> dict[str, Object]:
        return {module: properties for module, properties in self.functions().items() if module != REFRESH}

    def function_behind(self, kind: str) -> str:
        """Logical id of the function that does the work of the custom resources of a kind."""
        (found,) = {found["ServiceToken"]["Fn::GetAtt"][0] for found in self.properties(kind)}
        return str(found)

    def invoker(self) -> Object:
        """Properties of the function that invokes others for CloudFormation."""
        id_ = self.function_behind("Custom::Invocation")
        return dict(self.resources("AWS::Lambda::Function")[id_]["Properties"])

    def policies(self, function: Object) -> dict[str, Object]:
        """The policies of a function's role, by logical id. AWS manages none of them."""
        role, _ = function["Role"]["Fn::GetAtt"]
        found = self.resources("AWS::IAM::Policy")
        return {id_: policy for id_, policy in found.items() if {"Ref": role} in policy["Properties"]["Roles"]}

    def statements(self, function: Object) -> list[Object]:
        """What a function's role may do, without what each role may: write its log, get a place in the network."""
        return [found for found in self.all_statements(function) if not _is_of_every_role(found)]

    def all_statements(self, function: Object) -> list[Object]:
        policies = self.policies(function).values()
        return [found for policy in policies for found in policy["Properties"]["PolicyDocument"]["Statement"]]

    def module(self, function_id: str) -> str:
        """The module of the function with a logical id."""
        (command,) = self.resources("AWS::Lambda::Function")[function_id]["Properties"]["ImageConfig"]["Command"]
        return str(command).removesuffix(".handler")

    def subnets(self, kind: str) -> set[str]:
        """Logical ids of the subnets tagged "Public" or "Private"."""
        tag = {"Key": "aws-cdk:subnet-type", "Value": kind}
        return {
            id_ for id_, subnet in self.resources("AWS::EC2::Subnet").items() if tag in subnet["Properties"]["Tags"]
        }

    def docker_images(self) -> list[Object]:
        (path,) = self.outdir.glob("*.assets.json")
        return list(json.loads(path.read_text())["dockerImages"].values())

    def manifest(self) -> Object:
        content: Object = json.loads((self.outdir / "manifest.json").read_text())
        return content


def stack_of(config: Config, handlers_dir: Path, outdir: Path) -> cdk.Stack:
    """The stack, not yet synthesised."""
    stack = build_app(config, handlers_dir=handlers_dir, outdir=str(outdir)).node.find_child(config.stack_name)
    assert isinstance(stack, cdk.Stack)
    return stack


def synthesise_from(handlers_dir: Path, outdir: Path, config: Config = DEFAULT) -> Synthesised:
    expected = HANDLERS - PAGES if config.api_auth == "iam" else HANDLERS
    return Synthesised(Template.from_stack(stack_of(config, handlers_dir, outdir)), outdir, handlers_dir, expected)


def synthesise(config: Config, folder: Path, **more: str) -> Synthesised:
    """From a copy of inference/ in a folder, with more files directly in it: sources by module."""
    handlers_dir = copy_inference(folder / "inference")
    for module, source in more.items():
        (handlers_dir / f"{module}.py").write_text(source, encoding="utf-8")
    return synthesise_from(handlers_dir, folder / "cdk.out", config)


def warnings_in(handlers_dir: Path, outdir: Path, config: Config = DEFAULT) -> list[str]:
    stack = stack_of(config, handlers_dir, outdir)
    return [str(found.entry.data) for found in Annotations.from_stack(stack).find_warning("*", Match.any_value())]


def asset_hash(handlers_dir: Path, outdir: Path, config: Config = DEFAULT) -> str:
    """The hash by which the CDK tells images apart."""
    assets = stack_of(config, handlers_dir, outdir).node.find_all()
    (hash_,) = {found.asset_hash for found in assets if isinstance(found, ecr_assets.DockerImageAsset)}
    return hash_


def _is_of_every_role(statement: Object) -> bool:
    return all(action.startswith(("logs:", "ec2:")) for action in actions_of(statement))


def actions_of(statement: Object) -> list[str]:
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else actions


def all_before(id_: str, template: dict[str, Object]) -> set[str]:
    """Logical ids of the resources that have to be there before the one with an id is made."""
    found: set[str] = set()
    to_follow = [id_]
    while to_follow:
        named = _named_in(template[to_follow.pop()]) & set(template) - found
        found |= named
        to_follow += named
    return found


def _named_in(part: Any) -> set[str]:
    """What a part of a template refers to or depends on."""
    match part:
        case {"Ref": str(name)}:
            return {name}
        case {"Fn::GetAtt": [str(name), *_]}:
            return {name}
        case dict():
            depends = part.get("DependsOn", [])
            found = {depends} if isinstance(depends, str) else {name for name in depends if isinstance(name, str)}
            return found.union(*(_named_in(value) for value in part.values()))
        case list():
            return set().union(*(_named_in(value) for value in part))
    return set()


def only(found: list[Object]) -> Object:
    assert len(found) == 1
    return found[0]
