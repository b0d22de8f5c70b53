"""AWS for the rehearsal: moto's server, with what a deployment of this stack needs of it and moto lacks.

- A Lambda runs without Docker: one of Python in Python, one of Node in Node, with the packages in the folder that
  REHEARSAL_NODE_PATH names; functions of an image answer nothing. Every invocation is a line of JSON in the file that
  REHEARSAL_INVOCATIONS names.
- A function that CloudFormation makes keeps all that its template says of it.
- The version of a function is known by its ARN, an access point by its id; a custom resource whose properties change
  is asked again, and is told when it goes; that a change set is not there is said as CloudFormation says it.
- A bucket that CloudFormation makes is versioned where its template says so, and isn't removed while it is full.
- A file system tells its ARN. So does an alarm, which is a name and nothing else here.
- What moto makes of a VPC in CloudFormation can be removed again.
- A stack that a change set makes has its description and its outputs. The API's URL is that in REHEARSAL_API_URL.
- A stack can be protected from removal.
- Images whose tags are in the file that REHEARSAL_OLD_IMAGES names were pushed two days ago.
- Lambda tells its limits, and Service Quotas lists Lambda's quotas.

Run as a program with the port to listen on. `test_rehearsal.py` says what is missing still.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from moto.awslambda.models import ImageConfig, LambdaFunction, LambdaVersion
from moto.awslambda.responses import LambdaResponse
from moto.awslambda.urls import url_paths as lambda_paths
from moto.awslambda.utils import get_backend as get_lambda_backend
from moto.cloudformation.custom_model import CustomModel
from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.models import Stack as FakeStack
from moto.cloudformation.parsing import ResourceMap
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.ec2.models import ec2_backends
from moto.ec2.models.internet_gateways import InternetGateway
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.ecr.models import ECRBackend
from moto.efs.models import AccessPoint, FileSystem
from moto.s3.models import FakeBucket, s3_backends
from moto.server import main
from moto.servicequotas.responses import ServiceQuotasResponse
from moto.utilities.utils import get_partition

from protection import delete_stack, update_termination_protection

RUN_S = 60.0
# Plays Lambda's part: takes the reply to CloudFormation instead of sending it.
RUN_IN_PYTHON = """
import io, json, os, sys, urllib.request

def take(request, timeout):
    assert request.get_method() == "PUT"
    print(request.data.decode())
    return io.BytesIO()

class Context:
    def get_remaining_time_in_millis(self):
        return 900_000

urllib.request.urlopen = take
import index
index.handler(json.loads(os.environ["REHEARSAL_EVENT"]), Context())
"""

RUN_IN_NODE = """
const https = require("https");
const replies = [];
https.request = (options, answered) => ({
  on() {},
  write(body) { replies.push(body); },
  end() { answered({ statusCode: 200, resume() {} }); },
});
require("./index").handler(JSON.parse(process.env.REHEARSAL_EVENT), {}).then(() => console.log(replies.join("\\n")));
"""

lock = threading.Lock()


def record(**fields: Any) -> None:
    with lock, Path(os.environ["REHEARSAL_INVOCATIONS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


def invoke(function: LambdaFunction, body: Any, request_headers: Any, response_headers: Any) -> bytes:
    del request_headers, response_headers
    payload = body.decode() if isinstance(body, bytes) else body or ""
    reply = None
    if runtime := function.run_time:
        command = [sys.executable, "-c", RUN_IN_PYTHON] if runtime.startswith("python") else ["node", "-e", RUN_IN_NODE]
        with tempfile.TemporaryDirectory() as folder:
            zipfile.ZipFile(io.BytesIO(function.code_bytes)).extractall(folder)
            ended = subprocess.run(
                command,
                cwd=folder,
                env={
                    **os.environ,
                    "REHEARSAL_EVENT": payload,
                    "AWS_DEFAULT_REGION": function.region,
                    # The SDK would put a bucket's name before that of a host.
                    "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"].replace("localhost", "127.0.0.1"),
                    "NODE_PATH": os.environ["REHEARSAL_NODE_PATH"],
                },
                capture_output=True,
                text=True,
                timeout=RUN_S,
            )
        assert ended.returncode == 0, ended.stderr
        reply = ended.stdout
    record(function=function.function_name, version=function.version, payload=payload, reply=reply)
    return b"null"


def create_function(cls: type[LambdaFunction], name: str, resource: Any, account: str, region: str, **kw: Any) -> Any:
    function = original_create_function(name, resource, account, region, **kw)
    properties = resource["Properties"]
    function.package_type = properties.get("PackageType", "Zip")
    function.image_config = ImageConfig(properties.get("ImageConfig", {}))
    function.architectures = properties.get("Architectures", ["x86_64"])
    kept = ("FileSystemConfigs", "LoggingConfig", "DeadLetterConfig")
    function.kept = {key: properties[key] for key in kept if key in properties}
    return function


def get_configuration(function: LambdaFunction, on_create: bool = False) -> dict[str, Any]:
    return {**original_get_configuration(function, on_create), **getattr(function, "kept", {})}


def create_version(cls: type[LambdaVersion], name: str, resource: Any, account: str, region: str, **kw: Any) -> Any:
    version = original_create_version(name, resource, account, region, **kw)
    version.physical_resource_id = (
        f"arn:aws:lambda:{region}:{account}:function:{resource['Properties']['FunctionName']}"
    )
    version.physical_resource_id += f":{version.version}"
    return version


def create_custom(
    cls: type[CustomModel],
    resource_name: str,
    cloudformation_json: Any,
    account_id: str,
    region_name: str,
    **kwargs: Any,
) -> Any:
    custom = original_create_custom(resource_name, cloudformation_json, account_id, region_name, **kwargs)
    custom.created_with = kwargs
    properties = cloudformation_json["Properties"]
    custom.function = get_lambda_backend(account_id, region_name).get_function(properties["ServiceToken"])
    custom.properties = properties
    return custom


def delete_custom(custom: CustomModel, account: str, region: str) -> None:
    event = {
        "RequestType": "Delete",
        "ResponseURL": "https://cloudformation.example/answer",
        "StackId": custom.created_with["StackId"],
        "RequestId": "removal",
        "LogicalResourceId": custom.logical_id,
        "PhysicalResourceId": custom.physical_resource_id,
        "ResourceType": custom.created_with["ResourceType"],
        "ResourceProperties": custom.properties,
    }
    invoke(custom.function, json.dumps(event), {}, {})


def create_bucket(cls: type[FakeBucket], name: str, resource: Any, account: str, region: str, **kw: Any) -> Any:
    bucket = original_create_bucket(name, resource, account, region, **kw)
    bucket.versioning_status = resource["Properties"].get("VersioningConfiguration", {}).get("Status")
    return bucket


def delete_bucket(cls: type[FakeBucket], name: str, resource: Any, account: str, region: str) -> None:
    """moto leaves a full bucket where it is, and says nothing. What raises is tried again when more is removed."""
    if s3_backends[account][get_partition(region)].get_bucket(name).keys:
        raise ValueError(f"{name} isn't empty")
    original_delete_bucket(name, resource, account, region)


def update_custom(cls: type[CustomModel], original_resource: Any, new_resource_name: str, **kwargs: Any) -> Any:
    return cls.create_from_cloudformation_json(new_resource_name, **kwargs, **original_resource.created_with)


def delete_change_set(backend: CloudFormationBackend, change_set_name: str) -> None:
    for id_, change_set in list(backend.change_sets.items()):
        if change_set_name in (id_, change_set.change_set_name):
            del backend.change_sets[id_]


def describe_change_set(backend: CloudFormationBackend, change_set_name: str) -> Any:
    try:
        return original_describe_change_set(backend, change_set_name)
    except ValidationError as error:
        raise ChangeSetNotFoundError(str(error)) from error


class ChangeSetNotFoundError(CloudFormationError):  # type: ignore[misc]  # moto is not looked into
    code = "ChangeSetNotFound"


def parse_ssm_parameter(resources: ResourceMap, value: str, value_type: str) -> Any:
    """In an update moto looks the parameter's value up again, as if that were its name."""
    return original_parse_ssm_parameter(resources, value, value_type) if value.startswith("/") else value


def file_system_attribute(file_system: FileSystem, name: str) -> str:
    assert name == "Arn"
    return str(file_system.file_system_arn)


class Alarm(CloudFormationModel):  # type: ignore[misc]  # moto is not looked into
    """moto makes alarms, but not in CloudFormation. It finds this class as one of its own."""

    # moto reads the service's name there.
    __module__ = "moto.cloudwatch.models"

    @staticmethod
    def cloudformation_name_type() -> str:
        return "AlarmName"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::CloudWatch::Alarm"

    def __init__(self, name: str, account: str, region: str) -> None:
        self.physical_resource_id = name
        self._arn = f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}"

    @classmethod
    def create_from_cloudformation_json(cls, name: str, resource: Any, account: str, region: str, **kw: Any) -> Any:
        return cls(resource["Properties"]["AlarmName"], account, region)

    @classmethod
    def update_from_cloudformation_json(
        cls, *, new_resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kw: Any
    ) -> Any:
        return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)

    @classmethod
    def delete_from_cloudformation_json(cls, name: str, resource: Any, account: str, region: str) -> None:
        """Nothing is left of it."""

    def get_cfn_attribute(self, name: str) -> str:
        assert name == "Arn"
        return self._arn


def delete_route_table(table: RouteTable, account: str, region: str) -> None:
    for association in list(table._associations):
        ec2_backends[account][region].disassociate_route_table(association)
    ec2_backends[account][region].delete_route_table(table.id)


def delete_internet_gateway(gateway: InternetGateway, account: str, region: str) -> None:
    gateway.vpc = None
    ec2_backends[account][region].delete_internet_gateway(gateway.id)


def delete_endpoint(endpoint: VPCEndPoint, account: str, region: str) -> None:
    del ec2_backends[account][region].vpc_end_points[endpoint.id]


def execute_change_set(backend: CloudFormationBackend, change_set_name: str, stack_name: str | None = None) -> None:
    """moto goes on looking for description and outputs in the empty template of before."""
    original_execute_change_set(backend, change_set_name, stack_name)
    for stack in backend.stacks.values():
        if stack.template:
            stack._parse_template()
            stack.description = stack.template_description
            stack.output_map = stack._create_output_map()


def outputs(stack: FakeStack) -> Any:
    """moto knows no API to which an output could refer."""
    found = original_outputs(stack) or []
    for output in found:
        if output["OutputKey"] in ("apiUrl", "pageUrl"):
            page = "/explore" if output["OutputKey"] == "pageUrl" else ""
            output["OutputValue"] = os.environ["REHEARSAL_API_URL"] + page
    return found


def describe_images(backend: ECRBackend, *args: Any, **kw: Any) -> Any:
    old = Path(os.environ["REHEARSAL_OLD_IMAGES"])
    tags = set(old.read_text().split()) if old.exists() else set()
    found = list(original_describe_images(backend, *args, **kw))
    for image in found:
        if tags.intersection(image.image_tags):
            image.image_pushed_at = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    return found


def get_account_settings(response: LambdaResponse) -> str:
    """Those of an account whose limits were never changed."""
    functions = response.backend.list_functions(None)
    return json.dumps(
        {
            "AccountLimit": {
                "TotalCodeSize": 80_530_636_800,
                "CodeSizeUnzipped": 262_144_000,
                "CodeSizeZipped": 52_428_800,
                "ConcurrentExecutions": 1000,
                "UnreservedConcurrentExecutions": 1000,
            },
            "AccountUsage": {"TotalCodeSize": 0, "FunctionCount": len(list(functions))},
        }
    )


def list_service_quotas(response: ServiceQuotasResponse) -> str:
    """That of memory isn't among those of Lambda."""
    service = json.loads(response.body)["ServiceCode"]
    quotas = [
        ("L-B99A9384", "Concurrent executions", 1000.0, "None"),
        ("L-2ACBD22F", "Function and layer storage", 75.0, "Gigabytes"),
    ]
    return json.dumps(
        {
            "Quotas": [
                {"ServiceCode": service, "QuotaCode": code, "QuotaName": name, "Value": value, "Unit": unit}
                for code, name, value, unit in quotas
                if service == "lambda"
            ]
        }
    )


def class_method(function: Any) -> Any:
    return classmethod(function)


original_execute_change_set = CloudFormationBackend.execute_change_set
original_outputs = FakeStack.outputs.fget
original_describe_images = ECRBackend.describe_images
original_create_function = LambdaFunction.create_from_cloudformation_json
original_get_configuration = LambdaFunction.get_configuration
original_create_version = LambdaVersion.create_from_cloudformation_json
original_create_custom = CustomModel.create_from_cloudformation_json
original_create_bucket = FakeBucket.create_from_cloudformation_json
original_delete_bucket = FakeBucket.delete_from_cloudformation_json
original_describe_change_set = CloudFormationBackend.describe_change_set
original_parse_ssm_parameter = ResourceMap.parse_ssm_parameter

if __name__ == "__main__":
    LambdaFunction.invoke = invoke
    LambdaFunction.create_from_cloudformation_json = class_method(create_function)
    LambdaFunction.get_configuration = get_configuration
    LambdaVersion.create_from_cloudformation_json = class_method(create_version)
    CustomModel.create_from_cloudformation_json = class_method(create_custom)
    CustomModel.update_from_cloudformation_json = class_method(update_custom)
    CustomModel.delete = delete_custom
    FakeBucket.create_from_cloudformation_json = class_method(create_bucket)
    FakeBucket.delete_from_cloudformation_json = class_method(delete_bucket)
    ResourceMap.parse_ssm_parameter = parse_ssm_parameter
    CloudFormationBackend.describe_change_set = describe_change_set
    CloudFormationBackend.delete_change_set = delete_change_set
    FileSystem.get_cfn_attribute = file_system_attribute
    AccessPoint.physical_resource_id = property(lambda access_point: access_point.access_point_id)
    RouteTable.delete = delete_route_table
    InternetGateway.delete = delete_internet_gateway
    VPCEndPoint.delete = delete_endpoint
    CloudFormationBackend.execute_change_set = execute_change_set
    FakeStack.outputs = property(outputs)
    CloudFormationBackend.delete_stack = delete_stack
    CloudFormationResponse.update_termination_protection = update_termination_protection
    ECRBackend.describe_images = describe_images
    LambdaResponse.get_account_settings = get_account_settings
    lambda_paths[r"{0}/(?P<api_version>[^/]+)/account-settings/$"] = LambdaResponse.dispatch
    ServiceQuotasResponse.list_service_quotas = list_service_quotas
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
