"""The CDK app: what would be deployed, what the image is made of, and what is said of settings that can't be.

Templates are synthesised from a copy of inference/ without the model, so that neither a model on this machine nor its
size matters. Properties and sets are compared, never logical ids.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_apigatewayv2, aws_apigatewayv2_integrations
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk.assertions import Annotations, Match, Template

import app
from app import Config, ConfigError
from tiny import ROOT

ACCOUNT, REGION = "123456789012", "eu-central-1"
REQUIRED = {"AWS_ACCOUNT_ID": ACCOUNT, "AWS_REGION": REGION}
SYNTHESIS_S = 120.0

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
)


def copy_inference(folder: Path) -> Path:
    shutil.copytree(ROOT / "inference", folder, ignore=shutil.ignore_patterns("model", "__pycache__"))
    return folder


@dataclass(frozen=True)
class Synthesised:
    """A template, the parts of it that tests ask for, and the folder of the cloud assembly."""

    template: Template
    outdir: Path
    handlers_dir: Path

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        return dict(self.template.find_resources(kind))

    def properties(self, kind: str) -> list[dict[str, Any]]:
        return [resource["Properties"] for resource in self.resources(kind).values()]

    def handler_functions(self) -> dict[str, dict[str, Any]]:
        """Those that run the image, by logical id; the one behind the triggers, which the CDK makes, runs none."""
        found = self.resources("AWS::Lambda::Function")
        return {
            id_: resource for id_, resource in found.items() if resource["Properties"].get("PackageType") == "Image"
        }

    @property
    def functions(self) -> list[dict[str, Any]]:
        return [resource["Properties"] for resource in self.handler_functions().values()]

    def command(self, function_id: str) -> str:
        """The command of the function with a logical id."""
        (command,) = self.handler_functions()[function_id]["Properties"]["ImageConfig"]["Command"]
        return str(command)

    def subnets(self, kind: str) -> set[str]:
        """Logical ids of the subnets tagged "Public" or "Private"."""
        tag = {"Key": "aws-cdk:subnet-type", "Value": kind}
        return {
            id_ for id_, subnet in self.resources("AWS::EC2::Subnet").items() if tag in subnet["Properties"]["Tags"]
        }

    def docker_images(self) -> list[dict[str, Any]]:
        (path,) = self.outdir.glob("*.assets.json")
        return list(json.loads(path.read_text())["dockerImages"].values())

    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.outdir / "manifest.json").read_text())
        return content


def synthesise(config: Config, folder: Path) -> Synthesised:
    handlers_dir = copy_inference(folder / "inference")
    made = app.build_app(config, handlers_dir=handlers_dir, outdir=str(folder / "cdk.out"))
    stack = made.node.find_child(app.STACK_NAME)
    assert isinstance(stack, cdk.Stack)
    return Synthesised(Template.from_stack(stack), folder / "cdk.out", handlers_dir)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    """With the two required settings only."""
    return synthesise(Config(account=ACCOUNT, region=REGION), tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    """With every setting changed."""
    return synthesise(OTHER, tmp_path_factory.mktemp("other"))


@pytest.fixture(params=["default", "other"])
def each(request: pytest.FixtureRequest) -> Synthesised:
    """What holds whatever the settings are."""
    synthesised = request.getfixturevalue(request.param)
    assert isinstance(synthesised, Synthesised)
    return synthesised


def only(found: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(found) == 1
    return found[0]


HANDLERS = {"similar", "text_to_db_similar", "embed_to_db_similar", "text_to_embed"}


def test_every_handler_file_is_a_function(each: Synthesised) -> None:
    assert {path.stem for path in each.handlers_dir.glob("*.py")} == HANDLERS
    assert sorted(function["ImageConfig"]["Command"] for function in each.functions) == sorted(
        [f"{module}.handler"] for module in HANDLERS
    )


def test_every_handler_file_has_a_route_for_get_and_post_that_leads_to_its_function(each: Synthesised) -> None:
    integrations = each.resources("AWS::ApiGatewayV2::Integration")
    leads_to = {}
    for route in each.properties("AWS::ApiGatewayV2::Route"):
        (integration,) = [part["Ref"] for part in route["Target"]["Fn::Join"][1] if isinstance(part, dict)]
        function, _ = integrations[integration]["Properties"]["IntegrationUri"]["Fn::GetAtt"]
        leads_to[route["RouteKey"]] = each.command(function)
    assert leads_to == {
        f"{method} /{module.replace('_', '-')}": f"{module}.handler"
        for module in HANDLERS
        for method in ("GET", "POST")
    }


def test_functions_get_events_of_format_2(each: Synthesised) -> None:
    assert {found["PayloadFormatVersion"] for found in each.properties("AWS::ApiGatewayV2::Integration")} == {"2.0"}


def test_the_api_may_call_each_function_by_its_route_only(each: Synthesised) -> None:
    allowed = set()
    for permission in each.properties("AWS::Lambda::Permission"):
        if permission["Principal"] == "events.amazonaws.com":
            continue  # keeps the functions warm
        assert permission["Principal"] == "apigateway.amazonaws.com"
        path = permission["SourceArn"]["Fn::Join"][1][-1].rpartition("/")[2]
        allowed.add((each.command(permission["FunctionName"]["Fn::GetAtt"][0]), path))
    assert allowed == {(f"{module}.handler", module.replace("_", "-")) for module in HANDLERS}


def test_a_new_handler_file_is_a_new_function_and_a_helper_is_none(tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / "sentiment_of_text.py").write_text("def handler(event, context): ...\n")
    (handlers_dir / "helper.py").write_text("def help(): ...\n")
    made = app.build_app(Config(ACCOUNT, REGION), handlers_dir=handlers_dir, outdir=str(tmp_path / "cdk.out"))
    functions = [found for found in made.node.find_all() if isinstance(found, app.lambda_.DockerImageFunction)]
    assert len(functions) == 5
    assert "sentiment_of_text" in {function.node.path.split("/")[2] for function in functions}


@pytest.mark.parametrize("name", ["Api", "Network", "ModelCache", "Functions"])
def test_a_handler_may_be_called_like_a_part_of_the_stack(name: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / f"{name}.py").write_text("def handler(event, context): ...\n")
    made = app.build_app(Config(ACCOUNT, REGION), handlers_dir=handlers_dir, outdir=str(tmp_path / "cdk.out"))
    assert sum(isinstance(found, app.lambda_.DockerImageFunction) for found in made.node.find_all()) == 5


def test_all_functions_share_one_image_built_from_the_handlers_folder(each: Synthesised) -> None:
    image = only(each.docker_images())
    assert len({json.dumps(function["Code"]["ImageUri"]) for function in each.functions}) == 1
    (destination,) = image["destinations"].values()
    assert f":{destination['imageTag']}" in json.dumps(each.functions[0]["Code"]["ImageUri"])
    built_from = each.outdir / image["source"]["directory"]
    assert {path.name for path in built_from.iterdir() if path.suffix == ".py"} == {f"{name}.py" for name in HANDLERS}
    assert (built_from / "similarity" / "encoder.py").is_file()
    assert (built_from / "requirements.txt").is_file()


def test_functions_have_8096_mib_600_s_and_x86_64_by_default(default: Synthesised) -> None:
    assert {(f["MemorySize"], f["Timeout"], *f["Architectures"]) for f in default.functions} == {(8096, 600, "x86_64")}
    assert only(default.docker_images())["source"]["platform"] == "linux/amd64"


def test_memory_timeout_and_architecture_can_be_set(other: Synthesised) -> None:
    assert {(f["MemorySize"], f["Timeout"], *f["Architectures"]) for f in other.functions} == {(3008, 30, "arm64")}
    assert only(other.docker_images())["source"]["platform"] == "linux/arm64"


@pytest.mark.parametrize(
    ("synthesised", "model", "engine"),
    [("default", "allenai/longformer-base-4096", "onnx"), ("other", "some/model", "torch")],
)
def test_functions_find_model_state_and_cache_by_their_environment(
    synthesised: str, model: str, engine: str, request: pytest.FixtureRequest
) -> None:
    for function in request.getfixturevalue(synthesised).functions:
        assert function["Environment"]["Variables"] == {
            "MODEL_DIR": "model",
            "MODEL_FILENAME": "model.safetensors",
            "INCIDENTS_FILENAME": "incident_cls.pt",
            "HF_MODEL_URI": model,
            "ENCODER_ENGINE": engine,
            "ENCODER_PRECISION": {"onnx": "float32", "torch": "bfloat16"}[engine],
            "HF_HOME": "/mnt/hf_models_cache/huggingface",
            "INCIDENT_CACHE_DIR": "/mnt/hf_models_cache/incidents",
        }


@pytest.mark.parametrize(("synthesised", "engine"), [("default", "onnx"), ("other", "torch")])
def test_the_image_is_built_for_one_platform_and_one_engine(
    synthesised: str, engine: str, request: pytest.FixtureRequest
) -> None:
    source = only(request.getfixturevalue(synthesised).docker_images())["source"]
    assert source["dockerBuildArgs"] == {"ENCODER_ENGINE": engine}
    assert source["platform"].count("/") == 1
    assert "," not in source["platform"]


def test_every_function_mounts_the_access_point_and_waits_for_the_mount_targets(each: Synthesised) -> None:
    (access_point,) = each.resources("AWS::EFS::AccessPoint")
    mount_targets = set(each.resources("AWS::EFS::MountTarget"))
    for function in each.handler_functions().values():
        mount = only(function["Properties"]["FileSystemConfigs"])
        assert mount["LocalMountPath"] == "/mnt/hf_models_cache"
        assert {"Ref": access_point} in mount["Arn"]["Fn::Join"][1]
        # A function that is made before them can't start.
        assert mount_targets <= set(function["DependsOn"])


def test_every_function_can_reach_the_file_system_over_nfs(each: Synthesised) -> None:
    groups = {only(function["VpcConfig"]["SecurityGroupIds"])["Fn::GetAtt"][0] for function in each.functions}
    rules = each.properties("AWS::EC2::SecurityGroupIngress")
    assert {rule["SourceSecurityGroupId"]["Fn::GetAtt"][0] for rule in rules} == groups
    assert {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in rules} == {("tcp", 2049, 2049)}
    protected = {
        group["Fn::GetAtt"][0] for t in each.properties("AWS::EFS::MountTarget") for group in t["SecurityGroups"]
    }
    assert {rule["GroupId"]["Fn::GetAtt"][0] for rule in rules} == protected


def test_the_file_system_is_encrypted_elastic_and_goes_with_the_stack(each: Synthesised) -> None:
    (file_system,) = each.resources("AWS::EFS::FileSystem").values()
    assert file_system["Properties"]["Encrypted"] is True
    assert file_system["Properties"]["ThroughputMode"] == "elastic"
    assert file_system["DeletionPolicy"] == "Delete"


def test_the_access_point_makes_its_folder_for_the_user_of_the_image(each: Synthesised) -> None:
    access_point = only(each.properties("AWS::EFS::AccessPoint"))
    assert access_point["PosixUser"] == {"Uid": "1001", "Gid": "1001"}
    assert access_point["RootDirectory"] == {
        "Path": "/export/models",
        "CreationInfo": {"OwnerUid": "1001", "OwnerGid": "1001", "Permissions": "750"},
    }
    assert "USER 1001:1001" in (ROOT / "inference" / "Dockerfile").read_text()


def test_every_function_logs_to_a_group_of_its_own_that_goes_with_the_stack(each: Synthesised) -> None:
    groups = each.resources("AWS::Logs::LogGroup")
    # The one behind the triggers included: Lambda would make a group for it that nothing removes.
    used = [function["LoggingConfig"]["LogGroup"]["Ref"] for function in each.properties("AWS::Lambda::Function")]
    assert len(used) == len(HANDLERS) + 1
    assert sorted(used) == sorted(groups)
    for group in groups.values():
        assert group["DeletionPolicy"] == "Delete"
        assert group["Properties"]["RetentionInDays"] == 30


def test_nothing_is_kept_when_the_stack_is_destroyed(each: Synthesised) -> None:
    resources = each.template.to_json()["Resources"].values()
    policies = {
        resource.get(key, "Delete") for resource in resources for key in ("DeletionPolicy", "UpdateReplacePolicy")
    }
    assert policies == {"Delete"}


def test_after_a_deployment_each_function_is_invoked_once_and_has_to_answer(each: Synthesised) -> None:
    versions = each.resources("AWS::Lambda::Version")
    primed = []
    for trigger in each.properties("Custom::Trigger"):
        assert trigger["InvocationType"] == "RequestResponse"
        # A version's id is made of what the function is: another image or setting is another version, primed anew.
        assert trigger["ExecuteOnHandlerChange"] is True
        primed.append(each.command(versions[trigger["HandlerArn"]["Ref"]]["Properties"]["FunctionName"]["Ref"]))
    assert sorted(primed) == sorted(f"{module}.handler" for module in HANDLERS)


def test_a_function_is_invoked_when_all_that_it_needs_and_the_api_are_there(each: Synthesised) -> None:
    template = each.template.to_json()["Resources"]
    kinds = (
        "AWS::EFS::MountTarget",
        "AWS::EC2::SecurityGroupIngress",
        "AWS::EC2::Route",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::ApiGatewayV2::Route",
        "AWS::ApiGatewayV2::Stage",
    )
    for trigger in each.resources("Custom::Trigger"):
        before = all_before(trigger, template)
        for kind in kinds:
            assert set(each.resources(kind)) <= before
        version = template[trigger]["Properties"]["HandlerArn"]["Ref"]
        function = template[version]["Properties"]["FunctionName"]["Ref"]
        (role, _) = template[function]["Properties"]["Role"]["Fn::GetAtt"]
        policies = {
            id_ for id_, policy in each.resources("AWS::IAM::Policy").items()
            if {"Ref": role} in policy["Properties"]["Roles"]
        }  # fmt: skip
        assert policies
        assert policies <= before


def all_before(id_: str, template: dict[str, Any]) -> set[str]:
    """Logical ids of the resources that have to be there before the one with an id is made."""
    found: set[str] = set()
    to_follow = [id_]
    while to_follow:
        named = resources_named_in(template[to_follow.pop()]) & set(template) - found
        found |= named
        to_follow += named
    return found


def resources_named_in(part: Any) -> set[str]:
    """What a part of a template refers to or depends on."""
    match part:
        case {"Ref": str(name)}:
            return {name}
        case {"Fn::GetAtt": [str(name), *_]}:
            return {name}
        case dict():
            depends = part.get("DependsOn", [])
            found = {depends} if isinstance(depends, str) else {name for name in depends if isinstance(name, str)}
            return found.union(*(resources_named_in(value) for value in part.values()))
        case list():
            return set().union(*(resources_named_in(value) for value in part))
    return set()


@pytest.mark.parametrize(("timeout_s", "expected_s"), [(30, 90), (600, 660), (900, 840)])
def test_a_trigger_waits_longer_than_the_function_may_take_but_not_longer_than_its_own_lambda(
    timeout_s: int, expected_s: int, tmp_path: Path
) -> None:
    synthesised = synthesise(Config(ACCOUNT, REGION, timeout_s=timeout_s), tmp_path)
    assert {found["Timeout"] for found in synthesised.properties("Custom::Trigger")} == {str(expected_s * 1000)}
    (provider,) = (f for f in synthesised.properties("AWS::Lambda::Function") if f.get("PackageType") != "Image")
    assert provider["Timeout"] == 900


def test_by_default_nothing_is_invoked_on_a_schedule(default: Synthesised) -> None:
    default.template.resource_count_is("AWS::Events::Rule", 0)


def test_every_function_can_be_kept_warm_by_a_rule_that_may_invoke_it(other: Synthesised) -> None:
    rules = other.resources("AWS::Events::Rule")
    warmed = {}
    for id_, rule in rules.items():
        assert (rule["Properties"]["ScheduleExpression"], rule["Properties"]["State"]) == ("rate(5 minutes)", "ENABLED")
        target = only(rule["Properties"]["Targets"])
        assert json.loads(target["Input"]) == {"warm": True}
        warmed[id_] = other.command(target["Arn"]["Fn::GetAtt"][0])
    assert sorted(warmed.values()) == sorted(f"{module}.handler" for module in HANDLERS)
    may_invoke = {
        found["SourceArn"]["Fn::GetAtt"][0]: other.command(found["FunctionName"]["Fn::GetAtt"][0])
        for found in other.properties("AWS::Lambda::Permission")
        if found["Principal"] == "events.amazonaws.com"
    }
    assert may_invoke == warmed


def test_a_function_kept_warm_every_minute_has_a_rate_that_eventbridge_takes(tmp_path: Path) -> None:
    # "rate(1 minutes)" would be refused.
    synthesised = synthesise(Config(ACCOUNT, REGION, keep_warm_minutes=1), tmp_path)
    assert {r["ScheduleExpression"] for r in synthesised.properties("AWS::Events::Rule")} == {"rate(1 minute)"}


def test_by_default_there_is_one_public_subnet_and_no_nat_gateway(default: Synthesised) -> None:
    assert only(default.properties("AWS::EC2::VPC"))["CidrBlock"] == "10.0.0.0/16"
    subnet = only(default.properties("AWS::EC2::Subnet"))
    assert subnet["CidrBlock"] == "10.0.0.0/24"
    assert len(default.subnets("Public")) == 1
    default.template.resource_count_is("AWS::EC2::NatGateway", 0)
    default.template.resource_count_is("AWS::EC2::EIP", 0)


def test_by_default_functions_and_mount_target_are_in_the_public_subnet(default: Synthesised) -> None:
    for function in default.functions:
        assert {subnet["Ref"] for subnet in function["VpcConfig"]["SubnetIds"]} == default.subnets("Public")
    mount_targets = default.properties("AWS::EFS::MountTarget")
    assert {target["SubnetId"]["Ref"] for target in mount_targets} == default.subnets("Public")


def test_with_a_nat_gateway_there_are_two_zones_with_a_public_and_a_private_subnet_each(other: Synthesised) -> None:
    assert only(other.properties("AWS::EC2::VPC"))["CidrBlock"] == "10.0.0.0/16"
    subnets = other.resources("AWS::EC2::Subnet")
    for kind in ("Public", "Private"):
        zones = {json.dumps(subnets[subnet]["Properties"]["AvailabilityZone"]) for subnet in other.subnets(kind)}
        assert len(other.subnets(kind)) == len(zones) == 2
    assert len(subnets) == 4
    blocks = {subnet["Properties"]["CidrBlock"] for subnet in subnets.values()}
    assert blocks == {f"10.0.{number}.0/24" for number in range(4)}


def test_with_a_nat_gateway_the_private_subnets_reach_the_internet_through_it(other: Synthesised) -> None:
    ((gateway, found),) = other.resources("AWS::EC2::NatGateway").items()
    assert found["Properties"]["SubnetId"]["Ref"] in other.subnets("Public")
    tables = {
        association["RouteTableId"]["Ref"]
        for association in other.properties("AWS::EC2::SubnetRouteTableAssociation")
        if association["SubnetId"]["Ref"] in other.subnets("Private")
    }
    through_it = {
        route["RouteTableId"]["Ref"]
        for route in other.properties("AWS::EC2::Route")
        if route.get("NatGatewayId") == {"Ref": gateway} and route["DestinationCidrBlock"] == "0.0.0.0/0"
    }
    assert len(tables) == 2
    assert tables == through_it


def test_with_a_nat_gateway_functions_and_mount_targets_are_in_the_private_subnets(other: Synthesised) -> None:
    for function in other.functions:
        assert {subnet["Ref"] for subnet in function["VpcConfig"]["SubnetIds"]} == other.subnets("Private")
    mount_targets = other.properties("AWS::EFS::MountTarget")
    assert {target["SubnetId"]["Ref"] for target in mount_targets} == other.subnets("Private")


@pytest.mark.parametrize(
    ("synthesised", "origins"),
    [
        ("default", ["http://localhost:3000"]),
        ("other", ["https://incidentdatabase.ai", "http://localhost:8000"]),
    ],
)
def test_allowed_origins_may_call_from_a_browser(
    synthesised: str, origins: list[str], request: pytest.FixtureRequest
) -> None:
    api = only(request.getfixturevalue(synthesised).properties("AWS::ApiGatewayV2::Api"))
    assert api["ProtocolType"] == "HTTP"
    assert api["CorsConfiguration"] == {
        "AllowMethods": ["GET", "POST"],
        "AllowHeaders": ["Content-Type", "X-Amz-Date", "Authorization", "X-Api-Key"],
        "AllowOrigins": origins,
        "AllowCredentials": True,
    }


def test_the_url_of_the_api_is_put_out(each: Synthesised) -> None:
    (api,) = each.resources("AWS::ApiGatewayV2::Api")
    output = each.template.to_json()["Outputs"]
    assert set(output) == {"apiUrl"}
    assert output["apiUrl"]["Value"]["Fn::Join"][1][:2] == ["https://", {"Ref": api}]


def test_the_graduated_modules_give_the_same_template(
    default: Synthesised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "apigatewayv2", aws_apigatewayv2)
    monkeypatch.setattr(app, "integrations", aws_apigatewayv2_integrations)
    graduated = synthesise(Config(account=ACCOUNT, region=REGION), tmp_path)
    assert graduated.template.to_json() == default.template.to_json()


def test_synthesis_needs_to_look_up_nothing(each: Synthesised) -> None:
    assert "missing" not in each.manifest()


def test_the_stack_goes_to_the_account_and_region_that_were_set(each: Synthesised) -> None:
    expected = {"default": f"aws://{ACCOUNT}/{REGION}", "other": "aws://210987654321/us-gov-west-1"}
    stack = each.manifest()["artifacts"]["AiidSimilarIncidents"]
    assert stack["environment"] == expected["other" if len(each.subnets("Private")) else "default"]


def warnings_of(folder: Path, *, files: tuple[str, ...], engine: str = "onnx") -> list[str]:
    handlers_dir = copy_inference(folder / "inference")
    (handlers_dir / "model").mkdir()
    for name in files:
        (handlers_dir / "model" / name).write_bytes(b"a file")
    return warnings_in(handlers_dir, folder / "cdk.out", engine)


def warnings_in(handlers_dir: Path, outdir: Path, engine: str = "onnx") -> list[str]:
    made = app.build_app(Config(ACCOUNT, REGION, encoder_engine=engine), handlers_dir=handlers_dir, outdir=str(outdir))
    stack = made.node.find_child(app.STACK_NAME)
    assert isinstance(stack, cdk.Stack)
    return [str(found.entry.data) for found in Annotations.from_stack(stack).find_warning("*", Match.any_value())]


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("model.safetensors", "fetch_model.py"),
        ("encoder.onnx", "export_onnx.py"),
        ("incident_cls.pt", "build_state.py"),
    ],
)
def test_a_missing_part_of_the_model_is_a_warning_that_says_what_makes_it(
    name: str, script: str, tmp_path: Path
) -> None:
    files = tuple(found for found in ("model.safetensors", "encoder.onnx", "incident_cls.pt") if found != name)
    (warning,) = warnings_of(tmp_path, files=files)
    assert f"inference/model/{name} is not there" in warning
    assert f"scripts/{script}" in warning


def test_every_missing_part_is_a_warning_and_nothing_else_is(tmp_path: Path) -> None:
    assert len(warnings_of(tmp_path / "none", files=())) == 3
    assert len(warnings_of(tmp_path / "torch", files=(), engine="torch")) == 2


def test_a_model_with_its_state_gives_no_warning(tmp_path: Path) -> None:
    assert warnings_of(tmp_path / "onnx", files=("model.safetensors", "encoder.onnx", "incident_cls.pt")) == []
    assert warnings_of(tmp_path / "torch", files=("model.safetensors", "incident_cls.pt"), engine="torch") == []


def asset_hash(handlers_dir: Path, outdir: Path, engine: str = "onnx") -> str:
    made = app.build_app(Config(ACCOUNT, REGION, encoder_engine=engine), handlers_dir=handlers_dir, outdir=str(outdir))
    (hash_,) = {found.asset_hash for found in made.node.find_all() if isinstance(found, ecr_assets.DockerImageAsset)}
    return hash_


def write_model(handlers_dir: Path) -> None:
    (handlers_dir / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "provenance.json", "model.safetensors", "incident_cls.pt"):
        (handlers_dir / "model" / name).write_text(f"content of {name}")


@pytest.fixture(scope="module")
def clean_hash(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clean")
    write_model(copy_inference(folder / "inference"))
    return asset_hash(folder / "inference", folder / "cdk.out")


def test_the_same_files_give_the_same_image(clean_hash: str, tmp_path: Path) -> None:
    write_model(copy_inference(tmp_path / "inference"))
    assert asset_hash(tmp_path / "inference", tmp_path / "cdk.out") == clean_hash


CLUTTER = (
    "__pycache__/similar.cpython-311.pyc",
    "similarity/__pycache__/encoder.cpython-311.pyc",
    "similar.pyc",
    "tests/test_similar.py",
    ".venv/lib/similar.py",
    ".git/HEAD",
    ".DS_Store",
    "similarity/.DS_Store",
    "model/.DS_Store",
    "._similar.py",
    "similarity/._encoder.py",
    ".env",
    "notes.txt",
    "README.md",
    "cdk.out/manifest.json",
    "model/model.safetensors.partial",
    "model/incident_cls.pt.abc.tmp",
    "model/.cache/huggingface/lock",
)


def test_clutter_beside_the_handlers_does_not_change_the_image(clean_hash: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    for name in CLUTTER:
        (handlers_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (handlers_dir / name).write_bytes(b"\x00\x05\x16\x07")
    (handlers_dir / ".#similar.py").symlink_to("someone@somewhere.1234")
    found = asset_hash(handlers_dir, tmp_path / "cdk.out")
    (staged,) = (path.parent for path in (tmp_path / "cdk.out").glob("asset.*/Dockerfile"))
    assert {str(path.relative_to(staged)) for path in staged.rglob("*")}.isdisjoint(CLUTTER)
    assert found == clean_hash


@pytest.mark.parametrize(
    "name",
    [
        "similar.py",
        "similarity/encoder.py",
        "requirements.txt",
        "Dockerfile",
        "model/incident_cls.pt",
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "model/provenance.json",
    ],
)
def test_a_change_of_what_the_image_holds_changes_it(name: str, clean_hash: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    with (handlers_dir / name).open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert asset_hash(handlers_dir, tmp_path / "cdk.out") != clean_hash


def link_to_folder(model: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    model.rename(target)
    model.symlink_to(os.path.relpath(target, model.parent))


def link_to_files(model: Path, target: Path) -> None:
    """As in a snapshot of the hub's cache."""
    files = sorted(model.iterdir())
    target.mkdir(parents=True)
    for number, file in enumerate(files):
        file.rename(target / str(number))
        file.symlink_to(os.path.relpath(target / str(number), model))


def link_to_links(model: Path, target: Path) -> None:
    link_to_files(model, target)
    link_to_folder(model, target.with_name("snapshot"))


def link_by_an_absolute_path(model: Path, target: Path) -> None:
    link_to_folder(model, target)
    model.unlink()
    model.symlink_to(target)


LINKS = (link_to_folder, link_to_files, link_to_links, link_by_an_absolute_path)


@pytest.mark.parametrize(
    ("link", "place"),
    [
        *((link, place) for link in LINKS for place in ("inference/longformer", "models/longformer")),
        (link_to_files, "inference/model/.blobs"),
    ],
)
def test_a_model_behind_links_gives_the_same_image(
    link: Callable[[Path, Path], None], place: str, clean_hash: str, tmp_path: Path
) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    names = {path.name for path in (handlers_dir / "model").iterdir()}
    link(handlers_dir / "model", tmp_path / place)
    assert asset_hash(handlers_dir, tmp_path / "cdk.out") == clean_hash
    (staged,) = (path.parent for path in (tmp_path / "cdk.out").glob("asset.*/Dockerfile"))
    assert not [path for path in staged.rglob("*") if path.is_symlink()]
    assert {path.name for path in (staged / "model").iterdir()} == names
    for name in names:
        assert (staged / "model" / name).read_text() == f"content of {name}"


def test_the_folder_of_the_handlers_may_be_a_link(clean_hash: str, tmp_path: Path) -> None:
    write_model(copy_inference(tmp_path / "elsewhere"))
    (tmp_path / "inference").symlink_to("elsewhere")
    assert asset_hash(tmp_path / "inference", tmp_path / "cdk.out") == clean_hash


def test_a_link_back_to_its_own_folder_changes_nothing(clean_hash: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    (handlers_dir / "model" / "again").symlink_to(".")
    assert asset_hash(handlers_dir, tmp_path / "cdk.out") == clean_hash


@pytest.mark.parametrize("name", ["model", "model/more"])
@pytest.mark.parametrize("target", [".", ".."])
def test_a_link_to_a_folder_that_holds_the_handlers_is_refused(name: str, target: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / name).parent.mkdir(exist_ok=True)
    (handlers_dir / name).symlink_to(handlers_dir / target)
    with pytest.raises(ConfigError, match=f"^inference/{name} is a symbolic link to .*") as caught:
        app.build_app(Config(ACCOUNT, REGION), handlers_dir=handlers_dir, outdir=str(tmp_path / "cdk.out"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["gone", "model"])
def test_a_link_that_leads_nowhere_is_a_warning_that_says_so(target: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / "model").symlink_to(target)
    warnings = warnings_in(handlers_dir, tmp_path / "cdk.out")
    assert len(warnings) == 3
    for warning in warnings:
        assert "remove the symbolic link that leads nowhere and make it with" in warning
    (handlers_dir / "model").unlink()
    write_model(handlers_dir)
    (handlers_dir / "model" / "encoder.onnx").symlink_to(target)
    (warning,) = warnings_in(handlers_dir, tmp_path / "cdk.out")
    assert "inference/model/encoder.onnx is not there" in warning
    assert "remove the symbolic link that leads nowhere and make it with scripts/export_onnx.py" in warning


def test_another_engine_changes_the_image(clean_hash: str, tmp_path: Path) -> None:
    write_model(copy_inference(tmp_path / "inference"))
    assert asset_hash(tmp_path / "inference", tmp_path / "cdk.out", engine="torch") != clean_hash


def test_only_account_and_region_are_required() -> None:
    assert Config.from_environment(REQUIRED) == Config(
        account=ACCOUNT,
        region=REGION,
        nat_gateway=False,
        memory_mib=8096,
        timeout_s=600,
        architecture="x86_64",
        allowed_origins=("http://localhost:3000",),
        hf_model_uri="allenai/longformer-base-4096",
        encoder_engine="onnx",
        encoder_precision="float32",
        keep_warm_minutes=0,
    )


def test_every_setting_can_be_set() -> None:
    environment = {
        "AWS_ACCOUNT_ID": "210987654321",
        "AWS_REGION": "us-gov-west-1",
        "NAT_GATEWAY": "true",
        "LAMBDA_MEMORY_MIB": "3008",
        "LAMBDA_TIMEOUT_S": "30",
        "LAMBDA_ARCHITECTURE": "arm64",
        "ALLOWED_ORIGINS": "https://incidentdatabase.ai,http://localhost:8000",
        "HF_MODEL_URI": "some/model",
        "ENCODER_ENGINE": "torch",
        "ENCODER_PRECISION": "bfloat16",
        "KEEP_WARM_MINUTES": "5",
    }
    assert Config.from_environment(environment) == OTHER


def test_every_setting_is_in_the_example_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(example) == {
        "AWS_ACCOUNT_ID",
        "AWS_REGION",
        "NAT_GATEWAY",
        "LAMBDA_MEMORY_MIB",
        "LAMBDA_TIMEOUT_S",
        "LAMBDA_ARCHITECTURE",
        "ALLOWED_ORIGINS",
        "HF_MODEL_URI",
        "ENCODER_ENGINE",
        "ENCODER_PRECISION",
        "KEEP_WARM_MINUTES",
    }
    assert Config.from_environment({**example, **REQUIRED}) == Config(account=ACCOUNT, region=REGION)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("AWS_ACCOUNT_ID", " 000000000001 ", "account", "000000000001"),
        ("AWS_REGION", "us-east-1", "region", "us-east-1"),
        ("AWS_REGION", "ap-southeast-4", "region", "ap-southeast-4"),
        ("AWS_REGION", "us-iso-east-1", "region", "us-iso-east-1"),
        ("NAT_GATEWAY", "false", "nat_gateway", False),
        ("LAMBDA_MEMORY_MIB", "128", "memory_mib", 128),
        ("LAMBDA_MEMORY_MIB", "10240", "memory_mib", 10240),
        ("LAMBDA_TIMEOUT_S", "1", "timeout_s", 1),
        ("LAMBDA_TIMEOUT_S", "900", "timeout_s", 900),
        ("LAMBDA_ARCHITECTURE", "x86_64", "architecture", "x86_64"),
        ("ALLOWED_ORIGINS", "https://a.example", "allowed_origins", ("https://a.example",)),
        (
            "ALLOWED_ORIGINS",
            " https://a.example , http://b:1 ,",
            "allowed_origins",
            ("https://a.example", "http://b:1"),
        ),
        ("HF_MODEL_URI", "gpt2", "hf_model_uri", "gpt2"),
        ("ENCODER_ENGINE", "onnx", "encoder_engine", "onnx"),
        ("ENCODER_PRECISION", "int8", "encoder_precision", "int8"),
        ("KEEP_WARM_MINUTES", "0", "keep_warm_minutes", 0),
        ("KEEP_WARM_MINUTES", "60", "keep_warm_minutes", 60),
    ],
)
def test_good_values(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(Config.from_environment({**REQUIRED, name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCOUNT_ID", "12345678901"),
        ("AWS_ACCOUNT_ID", "1234567890123"),
        ("AWS_ACCOUNT_ID", "1234-5678-9012"),
        ("AWS_ACCOUNT_ID", "١٢٣٤٥٦٧٨٩٠١٢"),
        ("AWS_REGION", "Frankfurt"),
        ("AWS_REGION", "us-east"),
        ("AWS_REGION", "us-east-1a"),
        ("AWS_REGION", "US-EAST-1"),
        ("NAT_GATEWAY", "yes"),
        ("NAT_GATEWAY", "True"),
        ("NAT_GATEWAY", "1"),
        ("LAMBDA_MEMORY_MIB", "127"),
        ("LAMBDA_MEMORY_MIB", "10241"),
        ("LAMBDA_MEMORY_MIB", "8 GB"),
        ("LAMBDA_MEMORY_MIB", "2048.5"),
        ("LAMBDA_MEMORY_MIB", "-2048"),
        ("LAMBDA_MEMORY_MIB", "9" * 5000),
        ("LAMBDA_TIMEOUT_S", "0"),
        ("LAMBDA_TIMEOUT_S", "901"),
        ("LAMBDA_TIMEOUT_S", "10m"),
        ("LAMBDA_ARCHITECTURE", "amd64"),
        ("LAMBDA_ARCHITECTURE", "ARM64"),
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "https://*.example"),
        ("ALLOWED_ORIGINS", "incidentdatabase.ai"),
        ("ALLOWED_ORIGINS", "https://incidentdatabase.ai/"),
        ("ALLOWED_ORIGINS", "https://incidentdatabase.ai/discover"),
        ("ALLOWED_ORIGINS", "ftp://incidentdatabase.ai"),
        ("HF_MODEL_URI", "a/b/c"),
        ("HF_MODEL_URI", "some model"),
        ("HF_MODEL_URI", "https://models.example/a"),
        ("ENCODER_ENGINE", "tensorflow"),
        ("ENCODER_ENGINE", "ONNX"),
        ("ENCODER_PRECISION", "bfloat16"),
        ("ENCODER_PRECISION", "fp32"),
        ("KEEP_WARM_MINUTES", "61"),
        ("KEEP_WARM_MINUTES", "-1"),
        ("KEEP_WARM_MINUTES", "5m"),
    ],
)
def test_a_bad_value_is_named_with_its_variable_in_one_line(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_environment({**REQUIRED, name: value})
    message = str(caught.value)
    assert message.startswith(name)
    assert f'"{value}"' in message
    assert "\n" not in message


def test_of_several_origins_the_bad_one_is_named() -> None:
    with pytest.raises(ConfigError, match=r"https://b\.example/path") as caught:
        Config.from_environment({**REQUIRED, "ALLOWED_ORIGINS": "https://a.example,https://b.example/path"})
    assert "https://a.example" not in str(caught.value)


@pytest.mark.parametrize("value", ["*", "https://*", "https://*.example", "https://a.example,*"])
def test_a_wildcard_is_refused_for_the_reason_that_browsers_have(value: str) -> None:
    with pytest.raises(ConfigError, match="the API allows credentials"):
        Config.from_environment({**REQUIRED, "ALLOWED_ORIGINS": value})


def test_an_origin_with_a_path_is_refused_for_another_reason() -> None:
    with pytest.raises(ConfigError, match="without a path") as caught:
        Config.from_environment({**REQUIRED, "ALLOWED_ORIGINS": "https://a.example/"})
    assert "credentials" not in str(caught.value)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_required_setting_that_is_missing_or_empty_is_named(name: str, value: str | None) -> None:
    for environment in (
        {**REQUIRED, name: value},
        {other_name: REQUIRED[other_name] for other_name in REQUIRED if other_name != name},
    ):
        with pytest.raises(ConfigError, match=f"^{name} is not set"):
            Config.from_environment(environment)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_optional_setting_that_is_empty_counts_as_not_set(value: str | None) -> None:
    names = (
        "NAT_GATEWAY",
        "LAMBDA_MEMORY_MIB",
        "LAMBDA_TIMEOUT_S",
        "LAMBDA_ARCHITECTURE",
        "ALLOWED_ORIGINS",
        "HF_MODEL_URI",
        "ENCODER_ENGINE",
        "ENCODER_PRECISION",
        "KEEP_WARM_MINUTES",
    )
    empty = {**REQUIRED, **dict.fromkeys(names, value)}
    assert Config.from_environment(empty) == Config(account=ACCOUNT, region=REGION)


@dataclass(frozen=True)
class Project:
    """A copy of the project in a folder of its own, on a machine without AWS credentials and without Docker."""

    folder: Path
    home: Path
    programs: Path

    @property
    def outdir(self) -> Path:
        return self.folder.parent / "assembly"

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.programs),
            "HOME": str(self.home),
            "CDK_OUTDIR": str(self.outdir),
            "PYTHONDONTWRITEBYTECODE": "1",
            # As the CDK's command line hands the context of cdk.json on.
            "CDK_CONTEXT_JSON": json.dumps(json.loads((self.folder / "cdk.json").read_text())["context"]),
            **variables,
        }
        assert shutil.which("docker", path=environment["PATH"]) is None
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.folder,
            timeout=SYNTHESIS_S,
        )

    def functions(self) -> list[dict[str, Any]]:
        """Properties of those that run the image, in the template that was written."""
        template = json.loads((self.outdir / "AiidSimilarIncidents.template.json").read_text())
        found = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
        return [properties for properties in found if properties.get("PackageType") == "Image"]

    def files(self) -> set[Path]:
        return set(self.folder.rglob("*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home; shared, because the CDK's bridge to Node unpacks its packages into it at the first run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Project:
    folder, programs = tmp_path / "project", tmp_path / "programs"
    copy_inference(folder / "inference")
    for name in ("app.py", "cdk.json"):
        shutil.copy(ROOT / name, folder)
    node = shutil.which("node", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert node, "the CDK needs Node; requirements.txt installs it"
    programs.mkdir()
    (programs / "node").symlink_to(node)
    return Project(folder, home, programs)


def assert_one_line(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("app.py: ")
    for part in parts:
        assert part in line


def test_it_synthesises_without_credentials_and_without_docker(project: Project) -> None:
    ended = project.run("app.py", **REQUIRED)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(project.functions()) == 4
    manifest = json.loads((project.outdir / "manifest.json").read_text())
    assert "missing" not in manifest
    assert manifest["artifacts"]["AiidSimilarIncidents"]["environment"] == f"aws://{ACCOUNT}/{REGION}"


def test_settings_come_from_the_env_file_and_the_environment_wins(project: Project) -> None:
    (project.folder / ".env").write_text(
        f"# settings\nAWS_ACCOUNT_ID={ACCOUNT}\nAWS_REGION={REGION}\n"
        "LAMBDA_MEMORY_MIB=1024\nLAMBDA_TIMEOUT_S='77'\nHF_MODEL_URI=\n"
    )
    # An empty variable counts as one that is not set, so it hides no line of the file.
    ended = project.run("app.py", LAMBDA_MEMORY_MIB="2048", AWS_REGION="")
    assert (ended.returncode, ended.stderr) == (0, "")
    functions = project.functions()
    assert {(f["MemorySize"], f["Timeout"]) for f in functions} == {(2048, 77)}
    assert {f["Environment"]["Variables"]["HF_MODEL_URI"] for f in functions} == {"allenai/longformer-base-4096"}


SETTINGS = f"AWS_ACCOUNT_ID={ACCOUNT}\nAWS_REGION={REGION}\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_a_file_of_settings_in_another_encoding_is_one_line(encoding: str, project: Project) -> None:
    (project.folder / ".env").write_bytes(f"{SETTINGS}# née\n".encode(encoding))
    assert_one_line(project.run("app.py"), ".env is not in UTF-8")


def test_a_file_of_settings_that_can_not_be_read_is_one_line(project: Project) -> None:
    (project.folder / ".env").symlink_to(".env")
    assert_one_line(project.run("app.py"), ".env can't be read: Too many levels of symbolic links")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_of_settings_may_begin_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{SETTINGS}# née\n", encoding=encoding)
    assert app.env_file(tmp_path / ".env") == REQUIRED


def test_a_missing_file_or_a_folder_of_that_name_sets_nothing(tmp_path: Path) -> None:
    assert app.env_file(tmp_path / ".env") == {}
    (tmp_path / ".env").mkdir()
    assert app.env_file(tmp_path / ".env") == {}


def test_without_any_setting_it_says_what_is_missing_in_one_line(project: Project) -> None:
    assert_one_line(project.run("app.py"), "AWS_ACCOUNT_ID is not set")
    assert not project.outdir.exists()


def test_a_bad_setting_is_one_line(project: Project) -> None:
    assert_one_line(project.run("app.py", **REQUIRED, LAMBDA_MEMORY_MIB="8 GB"), "LAMBDA_MEMORY_MIB", '"8 GB"')


def test_a_handler_with_a_syntax_error_is_one_line(project: Project) -> None:
    (project.folder / "inference" / "broken.py").write_text("import json\ndef handler(event, context:\n    return 1\n")
    assert_one_line(project.run("app.py", **REQUIRED), "broken.py, line 2", "is not valid Python")


def test_importing_it_synthesises_nothing(project: Project) -> None:
    before = project.files()
    ended = project.run("-c", "import sys; sys.path.insert(0, '.'); import app; print(app.STACK_NAME)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "AiidSimilarIncidents\n", "")
    assert project.files() == before
    assert not project.outdir.exists()
