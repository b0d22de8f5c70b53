"""The commands of the runbook, docs/operations.md, run and print what it shows.

The real AWS CLI runs them against moto's server in this process, which has what `Runbook` puts there: a stack with the
log groups, queues, Lambdas and API of this project's template, alarms, and logs. Our handlers write the lines, and the
stage's format makes those of the access log.

moto lacks some things, which stand here (`_completed`): the API in CloudFormation, `update-stage`, patterns for JSON,
and Lambdas of images. It doesn't calculate a query of Logs Insights: only its fields are checked. Commands without
`aws` run in `test_docs.py`.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import operator
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from awslambdaric.lambda_runtime_log_utils import JsonFormatter  # type: ignore[import-untyped]
from moto.apigatewayv2.models import apigatewayv2_backends
from moto.apigatewayv2.responses import ApiGatewayV2Response
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.cloudformation import parsing
from moto.cloudformation.models import cloudformation_backends
from moto.logs.utils import EventMessageFilter

from aws.settings import region_of, stack_name_of
from chain.cloud import REGION, Cloud, running_cloud
from example_project import COMMAND_S, shell_environment
from infrastructure.config import Config
from infrastructure.stack import build_app
from pages import DOTS, OPERATIONS, SHELL, Block, asks_aws, literal, table, text_of
from similarity.metrics import Metric
from similarity.settings import DEFAULT_STACK_NAME
from tiny import Deployed

pytestmark = pytest.mark.slow

Object = dict[str, Any]

ACCOUNT = "123456789012"
API_URL = f"https://a1b2c3d4e5.execute-api.{REGION}.amazonaws.com"
ALARMS = table(OPERATIONS, "| alarm | rings when | at | section |")
BLOCKS = [block for block in SHELL if asks_aws(block)]
# No command may reach AWS, whose addresses begin with https.
NOWHERE = "http://127.0.0.1:9"
# In the place of aws, whose version 1 asks SQS at AWS whatever AWS_ENDPOINT_URL says.
AWS = """#!/usr/bin/env bash
exec {aws} --endpoint-url "$AWS_ENDPOINT_URL" "$@"
"""
# What all others need.
SETUP, *WITH_AWS = BLOCKS
# Blocks of which the page says that nothing can run them here.
NEEDS_AWS = "It needs AWS: the stand-in doesn't know it."
UNCALCULATED = "The stand-in takes\nit, but doesn't count."


@pytest.fixture(scope="module")
def template() -> Object:
    app = build_app(Config(account=ACCOUNT, region=REGION, alarm_email="me@example.org"))
    [stack] = [child for child in app.node.children if isinstance(child, cdk.Stack)]
    return dict(cdk.assertions.Template.from_stack(stack).to_json())


def properties_of(template: Object, kind: str) -> list[Object]:
    return [each["Properties"] for each in template["Resources"].values() if each["Type"] == kind]


def access_log_of(template: Object) -> str:
    """The format of its lines."""
    [stage] = properties_of(template, "AWS::ApiGatewayV2::Stage")
    return str(stage["AccessLogSettings"]["Format"])


class HttpApi:
    """API Gateway's API in CloudFormation."""

    @staticmethod
    def create_from_cloudformation_json(name: str, resource: Object, account: str, region: str, **_: object) -> Any:
        del name
        given: Object = {"api_key_selection_expression": "", "cors_configuration": None, "description": ""}
        given |= {"disable_schema_validation": False, "disable_execute_api_endpoint": False, "tags": {}}
        given |= {"route_selection_expression": "", "version": "", "protocol_type": "HTTP"}
        api = apigatewayv2_backends[account][region].create_api(name=resource["Properties"]["Name"], **given)
        api.physical_resource_id, api.is_created = api.api_id, lambda: True
        return api


def _update_stage(response: ApiGatewayV2Response) -> tuple[int, Object, str]:
    """Changes what is given: https://docs.aws.amazon.com/apigatewayv2/latest/api-reference/apis-apiid-stages-stagename.html"""
    _, _, _, api_id, _, name = response.path.split("/")
    stage = response.apigatewayv2_backend.get_stage(api_id, name.replace("%24", "$"))
    stage.default_route_settings |= json.loads(response.body)["defaultRouteSettings"]
    return 200, {}, json.dumps(stage.to_json())


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge, "<": operator.lt,
}  # fmt: skip


def _fits(pattern: str, line: str) -> bool:
    """Patterns such as { $.a = "b" && $.c > 1 }, of one kind of conjunction:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
    """
    inner = re.fullmatch(r"\{ (.+) \}", pattern)
    assert inner, pattern
    found = []
    for term in re.split(r" (?:&&|\|\|) ", inner[1]):
        parts = re.fullmatch(r'\$\.([\w.]+) (=|!=|>|>=|<) ("[^"]*"|\d+)', term)
        assert parts, term
        value: Any = json.loads(line)
        for name in parts[1].split("."):
            value = value.get(name) if isinstance(value, dict) else None
        wanted = json.loads(parts[3])
        found.append(type(value) in (type(wanted), float) and _COMPARE[parts[2]](value, wanted))
    return any(found) if "||" in pattern else all(found)


def _answer(backend: LambdaSimpleBackend, name: str, qualifier: object, body: Any, *_: object) -> bytes:
    """Runs a handler of this project. Jobs are called for events only, whose answers nobody gets."""
    event, description = json.loads(body), backend.get_function(name, qualifier).description
    if not description.startswith("Answers /"):
        return b""
    module = description.removeprefix("Answers /").replace("-", "_")
    return json.dumps(importlib.import_module(module).handler(event, None)).encode()


@contextmanager
def _completed(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """What moto lacks."""
    class_of = parsing.resource_class_from_type
    patch.setattr(
        parsing, "resource_class_from_type", lambda kind: HttpApi if kind.endswith("V2::Api") else class_of(kind)
    )
    patch.setattr(ApiGatewayV2Response, "update_stage", _update_stage, raising=False)
    patch.setattr(EventMessageFilter, "__init__", lambda own, pattern: setattr(own, "pattern", pattern))
    patch.setattr(EventMessageFilter, "matches", lambda own, line: _fits(own.pattern, line))
    patch.setattr(LambdaSimpleBackend, "invoke", _answer)
    patch.setitem(importlib.import_module("moto.core.config").default_user_config, "lambda", {"use_docker": False})
    yield


def _small(template: Object) -> Object:
    """What the commands ask for, with the template's own ids, and of their properties what moto takes."""
    role = f"arn:aws:iam::{ACCOUNT}:role/a-role"
    properties: dict[str, Callable[[Object], Object]] = {
        "AWS::Logs::LogGroup": lambda _: {},
        "AWS::SQS::Queue": lambda _: {},
        "AWS::EFS::FileSystem": lambda _: {},
        "AWS::SNS::Topic": lambda _: {},
        "AWS::ApiGatewayV2::Api": lambda own: {"Name": own["Name"]},
        "AWS::Lambda::Function": lambda own: {
            # That of one Lambda is put together by CloudFormation.
            "Description": own["Description"] if isinstance(own.get("Description"), str) else "", "Role": role,
            "Code": {"ZipFile": "-"}, "Runtime": "python3.14", "Handler": "index.handler",
        },
    }  # fmt: skip
    resources = {
        name: {"Type": found["Type"], "Properties": properties[found["Type"]](found["Properties"])}
        for name, found in template["Resources"].items()
        if found["Type"] in properties
    }
    return {"Resources": resources, "Outputs": {"apiUrl": {"Value": API_URL}}}


@dataclass
class Runbook:
    """A shell in which `SETUP` was pasted, and the cloud to which it leads."""

    cloud: Cloud
    folder: Path
    template: Object

    def resource(self, kind: str, prefix: str) -> str:
        summaries = self.cloud.client("cloudformation").list_stack_resources(StackName=DEFAULT_STACK_NAME)
        [found] = [
            each["PhysicalResourceId"]
            for each in summaries["StackResourceSummaries"]
            if each["ResourceType"] == f"AWS::{kind}" and each["LogicalResourceId"].startswith(prefix)
        ]
        return str(found)

    def log(self, prefix: str, *lines: str) -> None:
        logs, group = self.cloud.client("logs"), self.resource("Logs::LogGroup", prefix)
        now = int(1000 * time.time()) - 60_000
        events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
        logs.create_log_stream(logGroupName=group, logStreamName="a-stream")
        logs.put_log_events(logGroupName=group, logStreamName="a-stream", logEvents=events)

    def accessed(self, status: int, route: str, **values: str) -> str:
        """A line of the access log, in the stage's own format."""
        log = access_log_of(self.template)
        known = {"status": status, "requestId": "a-request=", "identity.sourceIp": "203.0.113.7", "routeKey": route}
        known |= {name.replace("_", "."): value for name, value in values.items()}
        line = re.sub(r"\$context\.([\w.]+)", lambda found: str(known.get(found[1], "-")), log)
        json.loads(line)
        return line

    def run(self, block: Block) -> list[str]:
        """What each command of a block prints. They run one after the other in one shell."""
        commands = [*SETUP.commands(), *block.commands()]
        script = "\n".join(
            f"{{ {command.line}\n}} > {self.folder}/{number}.out" for number, command in enumerate(commands)
        )
        environment = shell_environment(**self.cloud.variables, HTTPS_PROXY=NOWHERE)
        environment["PATH"] = f"{self.folder.parent / 'bin'}{os.pathsep}{environment['PATH']}"
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=environment, timeout=COMMAND_S,
            capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        printed = [(self.folder / f"{number}.out").read_text() for number, _ in enumerate(commands)]
        return printed[len(SETUP.commands()) :]


def report(status: str, **more: object) -> str:
    """Lambda's own line about a call: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html"""
    metrics = {"durationMs": 30.1, "billedDurationMs": 31, "memorySizeMB": 8096, "maxMemoryUsedMB": 780}
    record = {"requestId": "a-request", "metrics": metrics | more.pop("metrics", {}), "status": status, **more}  # type: ignore[operator]
    line = {"time": "2026-11-26T07:04:05.000Z", "type": "platform.report", "record": record}
    return json.dumps(line, separators=(",", ":"))


@contextmanager
def lines_of(logger: str) -> Iterator[Callable[[], list[str]]]:
    """The lines that a logger writes in Lambda."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.terminator = ""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield lambda: stream.getvalue().splitlines()
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def written(message: str, level: int = logging.INFO, **fields: object) -> str:
    """A line of a job."""
    with lines_of("similarity.written") as found:
        logging.getLogger("similarity.written").log(level, message, extra=fields)
    [line] = found()
    return line


def handled(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a handler writes that answers, meets an error that nobody foresaw, and has no state."""
    similar = importlib.import_module("similar")
    with lines_of("similarity") as found:
        similar.handler({"text": "a"}, None)
        with monkeypatch.context() as patch:
            patch.setattr("similar.service", lambda: None)
            similar.handler({"text": "a"}, None)
        content = deployed.state_path.read_bytes()
        deployed.state_path.write_bytes(b"broken")
        importlib.import_module("similarity.service").service.cache_clear()
        similar.handler({"text": "a"}, None)
        deployed.state_path.write_bytes(content)
        importlib.import_module("similarity.service").service.cache_clear()
    lines = found()
    answered = next(line for line in lines if '"encoding_ms"' in line)
    slow = json.dumps(json.loads(answered) | {"tokens": 2000, "encoding_ms": 1900.5, "cold_start": False})
    return [*lines, slow]


@pytest.fixture
def runbook(template: Object, deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runbook]:
    """The stack on a bad day."""
    for name in ("bin", "shell"):
        (tmp_path / name).mkdir()
    aws = tmp_path / "bin" / "aws"
    aws.write_text(AWS.format(aws=Path(sys.executable).parent / "aws"))
    aws.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch, _completed(patch), running_cloud() as cloud:
        # moto's own is at AWS's address.
        address = property(lambda queue: f"{cloud.url}/{ACCOUNT}/{queue.name}")
        patch.setattr("moto.sqs.models.Queue.physical_resource_id", address)
        trust = {
            "Statement": {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "lambda.amazonaws.com"},
            }
        }
        cloud.client("iam").create_role(RoleName="a-role", AssumeRolePolicyDocument=json.dumps(trust))
        cloud.client("cloudformation").create_stack(
            StackName=DEFAULT_STACK_NAME, TemplateBody=json.dumps(_small(template))
        )
        made = Runbook(cloud, tmp_path / "shell", template)
        api = made.resource("ApiGatewayV2::Api", "Api")
        cloud.client("apigatewayv2").create_stage(
            ApiId=api,
            StageName="$default",
            DefaultRouteSettings={"ThrottlingRateLimit": 10, "ThrottlingBurstLimit": 20},
        )
        fill_logs(made, handled(deployed, monkeypatch))
        fill_the_rest(made)
        yield made


def alarms_of(template: Object) -> dict[str, Object]:
    return {alarm["AlarmName"]: alarm for alarm in properties_of(template, "AWS::CloudWatch::Alarm")}


def fill_logs(made: Runbook, of_handler: list[str]) -> None:
    made.log(
        "ApiAccessLog",
        made.accessed(200, "GET /similar", integration_status="200"),
        made.accessed(500, "POST /similar", integration_status="500"),
        made.accessed(500, "GET /similar", error_message="Internal Server Error", integrationErrorMessage="EFS"),
        made.accessed(429, "POST /similar", error_message="Too Many Requests"),
    )
    made.log(
        "Functionssimilar",
        *of_handler,
        report("success", metrics={"initDurationMs": 2310.5}),
        report("success"),
        report("error", errorType="Runtime.ExitError"),
    )
    made.log(
        "Functionshealth",
        written("state served", state="a", incidents=1400),
        written("state refused", logging.ERROR, state="b", reason="it is damaged", serves="a"),
    )
    made.log(
        "Jobsrefresh",
        written("nothing to refresh", published=None, reason="the newest is served", snapshot="a", vectors={}),
        written("refresh failed", logging.ERROR, reason="the page can't be reached", remedy="Wait."),
    )
    made.log(
        "Jobsshelvestate",
        written("state shelved", shelved="a", published=None, serves="a", removed=[], model=None, note=""),
        written("trouble with the bucket", logging.ERROR, reason="s3://a can't be listed"),
    )


def fill_the_rest(made: Runbook) -> None:
    cloud = made.cloud
    sqs, queue = cloud.client("sqs"), made.resource("SQS::Queue", "Jobsshelvestate")
    reason = {"ErrorMessage": {"DataType": "String", "StringValue": "s3://a can't be listed: timeout"}}
    sqs.send_message(QueueUrl=queue, MessageBody="{}", MessageAttributes=reason)
    cloudwatch = cloud.client("cloudwatch")
    for name in alarms_of(made.template):
        cloudwatch.put_metric_alarm(
            AlarmName=name, Namespace="a", MetricName="b", Statistic="Sum", Period=60, EvaluationPeriods=1,
            Threshold=1, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="Fine")
    cloudwatch.set_alarm_state(
        AlarmName=f"{DEFAULT_STACK_NAME}-FailedAnswers", StateValue="ALARM", StateReason="Threshold Crossed: 1"
    )
    function = made.resource("Lambda::Function", "Functionssimilar")
    dimensions = [{"Name": "FunctionName", "Value": function}]
    for value in (200_000.0, 300_000.0):
        duration = {"MetricName": "Duration", "Dimensions": dimensions, "Value": value, "Timestamp": time.time() - 60}
        cloudwatch.put_metric_data(Namespace="AWS/Lambda", MetricData=[duration])
    age = {"MetricName": Metric.STATE_AGE_DAYS, "Value": 4.5, "Timestamp": time.time() - 60}
    cloudwatch.put_metric_data(Namespace=DEFAULT_STACK_NAME, MetricData=[age])
    [subscription] = properties_of(made.template, "AWS::SNS::Subscription")
    cloud.client("sns").subscribe(
        TopicArn=made.resource("SNS::Topic", ""), Protocol=subscription["Protocol"], Endpoint=subscription["Endpoint"]
    )
    efs, subnets = cloud.client("efs"), cloud.client("ec2").describe_subnets()["Subnets"]
    for subnet in subnets[:2]:
        file_system = made.resource("EFS::FileSystem", "ModelCache")
        efs.create_mount_target(FileSystemId=file_system, SubnetId=subnet["SubnetId"])
    stack = cloudformation_backends[ACCOUNT][REGION].get_stack(DEFAULT_STACK_NAME)
    stack._add_stack_event("UPDATE_ROLLBACK_FAILED", resource_status_reason="A handler can't load its state")
    stack.events[-1].logical_resource_id = "PrimingHandlerssimilar01234567"


def pattern_of(line: str) -> str:
    """Of a shown line, in which dots stand for anything."""
    return ".*".join(re.escape(part) for part in line.split(DOTS))


def require_shown(shown: list[str], printed: str) -> None:
    """Every line that a page shows was printed, in the page's order, and nothing else."""
    lines = printed.splitlines()
    assert len(shown) == len(lines), printed
    for line, found in zip(shown, lines, strict=True):
        assert re.fullmatch(pattern_of(line), found), f"{line!r} isn't {found!r}"


def said_above(block: Block, sentence: str) -> bool:
    return block.before.rstrip().endswith(sentence)


RUN = [block for block in WITH_AWS if not said_above(block, NEEDS_AWS)]


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in RUN])
def test_commands_print_what_is_shown(block: Block, runbook: Runbook) -> None:
    printed = runbook.run(block)
    for command, found in zip(block.commands(), printed, strict=True):
        if said_above(block, UNCALCULATED):
            assert found.splitlines()[:1] == command.output[:1]
        elif command.output == ["…"]:
            assert len(found.split()) == 1
        else:
            require_shown(command.output, found)
    assert block.commands()[-1].output


def test_every_command_is_run_or_said_to_need_aws() -> None:
    assert len(RUN) > 20
    assert len(WITH_AWS) - len(RUN) == text_of(OPERATIONS).count(NEEDS_AWS) == 1
    assert text_of(OPERATIONS).count(UNCALCULATED) == 1


def test_scripts_and_cdk_act_on_the_stack_that_the_commands_ask(tmp_path: Path) -> None:
    """Else somebody who looks at one stack would take back the state of another one."""
    ours = SETUP.code.replace(f"={DEFAULT_STACK_NAME}\n", "=Staging\n").replace("us-east-1", "eu-west-1")
    show = f"{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    printed = subprocess.check_output(
        ["bash", "-euc", f'{ours}echo "$STACK"; {show}'],
        env=shell_environment(), text=True, timeout=COMMAND_S,
    )  # fmt: skip
    asked, environment = printed.splitlines()
    others = tmp_path / ".env"
    others.write_text("STACK_NAME=Production\nAWS_REGION=us-east-1\n")
    assert asked == stack_name_of(json.loads(environment), others) == "Staging"
    assert region_of(json.loads(environment), others) == "eu-west-1"


def test_nothing_is_printed_on_a_good_day(runbook: Runbook) -> None:
    """What the page says of the alarms and of the logs' errors."""
    cloudwatch = runbook.cloud.client("cloudwatch")
    cloudwatch.set_alarm_state(AlarmName=f"{DEFAULT_STACK_NAME}-FailedAnswers", StateValue="OK", StateReason="Fine")
    logs = runbook.cloud.client("logs")
    for prefix in ("ApiAccessLog", "Functionssimilar"):
        group = runbook.resource("Logs::LogGroup", prefix)
        logs.delete_log_stream(logGroupName=group, logStreamName="a-stream")
        runbook.log(prefix, runbook.accessed(200, "GET /similar"), written("answered", status=200))
    quiet = [block for block in RUN if f"{block.code}```\n\nIt prints nothing if" in text_of(OPERATIONS)]
    assert len(quiet) == 3
    for block in quiet:
        assert runbook.run(block) == [""]


def test_queries_name_fields_of_the_access_log(template: Object) -> None:
    fields = set(re.findall(r'"(\w+)":', access_log_of(template)))
    queries = re.findall(r"--query-string '([^']+)'", text_of(OPERATIONS))
    assert queries
    for query in queries:
        aliases = set(re.findall(r"\bas (\w+)", query))
        words = set(re.findall(r"[A-Za-z]\w*", query)) - {"stats", "count", "sum", "as", "by", "sort", "desc", "limit"}
        assert words - aliases <= fields
        assert "ip" in words


def test_each_name_means_one_thing_of_the_stack(template: Object) -> None:
    """What a command inserts into another one is one name."""
    found = re.findall(r"\$\(resource ([\w:]+) (\w+)\)", text_of(OPERATIONS))
    found += [("Logs::LogGroup", name) for name in re.findall(r"\blines (\w+) '", text_of(OPERATIONS))]
    assert len(set(found)) > 8
    for kind, prefix in set(found):
        names = [
            name
            for name, each in template["Resources"].items()
            if each["Type"] == f"AWS::{kind}" and name.startswith(prefix)
        ]
        assert len(names) == 1, (kind, prefix, names)


def test_the_metrics_are_those_of_the_table() -> None:
    rows = table(OPERATIONS, "| metric | unit | meaning |")
    assert [literal(name) for name, *_ in rows] == [metric.value for metric in Metric]
    assert [literal(name) for name, unit, _ in rows if unit == "milliseconds"] == [
        metric.value for metric in Metric if metric.endswith("Time")
    ]


PERIODS = {"5 minutes": 300, "an hour": 3600, "a day": 86_400}


def test_the_alarms_are_those_of_the_table(template: Object) -> None:
    alarms = alarms_of(template)
    assert {f"{DEFAULT_STACK_NAME}-{literal(name)}" for name, *_ in ALARMS} == set(alarms)
    for name, _, at, section in ALARMS:
        alarm = alarms[f"{DEFAULT_STACK_NAME}-{literal(name)}"]
        found = re.fullmatch(r"(more than )?\$?([\d,]+).* in (5 minutes|an hour|a day)", at)
        assert found, at
        assert float(found[2].replace(",", "")) == alarm["Threshold"]
        assert bool(found[1]) == (alarm["ComparisonOperator"] == "GreaterThanThreshold")
        measured = [alarm, *(each.get("MetricStat", {}) for each in alarm.get("Metrics", []))]
        assert {each["Period"] for each in measured if "Period" in each} == {PERIODS[found[3]]}
        [link] = re.findall(r"\(#([\w-]+)\)$", section)
        assert alarm["AlarmDescription"].endswith(f" See docs/operations.md#{link}")
