"""The functions as Lambda would run them: what they answer, and that they do with what they are left."""

from __future__ import annotations

import ast
import base64
import gzip
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.engine import DockerError, Image, docker
from container.instance import LAMBDAS_USER, Function, Instance
from container.runtime_api import RuntimeApiError
from metric_lines import parsed
from similarity.metrics import NAMESPACE_VARIABLE
from tiny import ROOT

TEXT = "A self-driving car hit a woman pushing a bicycle"
LONG_TEXT = "car " * 5000

# API Gateway gives a request 30 s, Lambda an init 10 s.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
REQUEST_S, INIT_S = 30, 10

InProcess = Callable[[str, object], dict[str, Any]]


def event(path: str, **parameters: object) -> dict[str, Any]:
    """API Gateway's event for a POST of these parameters."""
    template = json.loads((ROOT / "tests" / "events" / "similar_post_v2.json").read_text())
    return {**template, "rawPath": path, "body": json.dumps(parameters), "isBase64Encoded": False}


def matches(envelope: dict[str, Any]) -> dict[int, float]:
    """Incident ids and similarities, best first, from `msg` as its readers take it."""
    pairs = ast.literal_eval(envelope["body"]["msg"])
    return {incident_id: similarity for similarity, incident_id in pairs}


def test_every_handler_answers_as_it_does_in_process(functions: dict[str, Function], in_process: InProcess) -> None:
    handlers = {"similar", "text_to_db_similar", "embed_to_db_similar", "text_to_embed"}
    assert set(functions) == {*handlers, "health", "openapi", "explore", "jobs.refresh", "jobs.shelve_state"}
    vector = in_process("text_to_embed", {"text": TEXT})["body"]["embedding"]["vector"]
    events = {name: event(f"/{name}", text=TEXT, num=-1) for name in handlers}
    events["embed_to_db_similar"] = event("/embed-to-db-similar", embed=vector, num=-1)
    for name in sorted(handlers):
        with Instance(functions[name]) as instance:
            envelope = instance.ask(events[name])
            direct = instance.ask(json.loads(events[name]["body"]))
            assert not instance.api.refused
        expected = in_process(name, json.loads(events[name]["body"]))
        for answered in (envelope, direct):
            assert answered["statusCode"] == 200
            if name == "text_to_embed":
                theirs, ours = answered["body"]["embedding"], expected["body"]["embedding"]
                assert theirs["from_text_hash"] == ours["from_text_hash"]
                assert theirs["vector"] == pytest.approx(ours["vector"], abs=1e-5)
            else:
                assert len(matches(expected)) == 52
                assert matches(answered) == pytest.approx(matches(expected), abs=1e-5)
                assert next(iter(matches(answered))) == 4
                assert [row["title"] for row in answered["body"]["incidents"]] == [
                    row["title"] for row in expected["body"]["incidents"]
                ]


def test_health_is_what_it_is_in_process(functions: dict[str, Function], in_process: InProcess) -> None:
    get = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/health"}
    with Instance(functions["health"]) as instance:
        assert instance.ask(get) == in_process("health", {})
        assert not instance.api.refused


def test_auto_serves_in_int8_if_it_was_exported_and_agrees(
    image_of_int8: Image, functions: dict[str, Function], in_process: InProcess
) -> None:
    get = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/health"}
    exact = np.array(in_process("text_to_embed", {"text": TEXT})["body"]["embedding"]["vector"])

    def auto(name: str, image: str) -> Function:
        environment = {**functions[name].environment, "ENCODER_PRECISION": "auto"}
        return replace(functions[name], image=image, environment=environment)

    for image, precision in ((image_of_int8.name, "int8"), (functions["health"].image, "float32")):
        with Instance(auto("health", image)) as instance:
            assert instance.ask(get)["body"]["precision"] == precision
        with Instance(auto("text_to_embed", image)) as instance:
            vector = np.array(instance.ask({"text": TEXT})["body"]["embedding"]["vector"])
            assert not instance.api.refused
        cosine = vector @ exact / np.linalg.norm(vector) / np.linalg.norm(exact)
        assert cosine > 0.999
        is_exact = bool(np.abs(vector - exact).max() < 1e-5)
        assert is_exact == (precision == "float32")


def test_the_document_is_what_it_is_in_process(functions: dict[str, Function], in_process: InProcess) -> None:
    get = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/openapi"}
    with Instance(functions["openapi"]) as instance:
        assert instance.ask(get) == json.loads(in_process("openapi", {})["body"])
        assert not instance.api.refused


def test_the_page_is_what_it_is_in_process(functions: dict[str, Function], in_process: InProcess) -> None:
    headers = {"accept-encoding": "gzip, br"}
    get = {"version": "2.0", "requestContext": {"http": {"method": "GET"}}, "rawPath": "/explore", "headers": headers}
    expected = in_process("explore", {})["body"]
    assert '"total":52' in expected
    with Instance(functions["explore"]) as instance:
        answer = instance.invoke(get).json()
        assert not instance.api.refused
    assert (answer["statusCode"], answer["headers"]["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(base64.b64decode(answer["body"])).decode() == expected


def test_it_does_without_what_lambda_takes_away(functions: dict[str, Function], similar: Function) -> None:
    with Instance(similar) as instance:
        assert instance.ask(event("/similar", text=TEXT))["statusCode"] == 200
        for path in ("/", "/var/task", "/var/task/model", "/opt/venv", "/home", "/var/tmp", "/etc", "/run"):
            with pytest.raises(DockerError, match=r"Read-only file system|Permission denied"):
                instance.run("touch", f"{path}/written")
        instance.run("touch", "/tmp/written")
        with pytest.raises(DockerError, match="No such file"):
            instance.run("ls", "/dev/shm")
        assert instance.run("id", "-u") == "1002"
        assert "CapEff:\t0000000000000000" in instance.run("cat", "/proc/1/status")


def test_lambdas_own_user_gets_an_answer_too(functions: dict[str, Function]) -> None:
    with Instance(replace(functions["similar"], user=LAMBDAS_USER)) as instance:
        assert instance.ask(event("/similar", text=TEXT))["statusCode"] == 200
        assert instance.run("id", "-u") == "993"


@pytest.mark.parametrize("name", ["similar", "embed_to_db_similar"])
def test_nothing_is_written_even_where_it_could_be(
    name: str, functions: dict[str, Function], in_process: InProcess
) -> None:
    vector = in_process("text_to_embed", {"text": TEXT})["body"]["embedding"]["vector"]
    with Instance(replace(functions[name], read_only=False, user="0:0")) as instance:
        assert instance.ask({"text": TEXT, "embed": vector})["statusCode"] == 200
        assert docker("diff", instance.container) == ""


def test_the_log_has_metrics_in_the_stack_s_namespace(similar: Function) -> None:
    with Instance(similar) as instance:
        assert instance.ask(event("/similar", text=TEXT))["statusCode"] == 200
        lines = [line for line in instance.log().splitlines() if line.startswith('{"_aws"')]
    by_route, rest = (parsed(line, similar.environment[NAMESPACE_VARIABLE]) for line in lines)
    assert by_route == {"Requests": 1, "Route": "/similar", "Status": "200"}
    assert set(rest) == {"Tokens", "TokenisingTime", "EncodingTime", "RankingTime", "ColdStarts"}


def test_it_calls_no_network(similar: Function) -> None:
    with Instance(similar) as instance:
        for _ in range(2):
            assert instance.ask(event("/similar", text=TEXT))["statusCode"] == 200
            # ONNX Runtime's telemetry, where it is not turned off, first calls after some ten seconds.
            time.sleep(8)
        quiet = instance.traffic()
        assert quiet.tcp_connects == instance.api.connections
        assert (quiet.udp_sent, quiet.without_route) == (0, 0)
        attempt = "import socket; socket.create_connection(('192.0.2.1', 443))"
        with pytest.raises(DockerError, match="unreachable"):
            instance.run("/opt/venv/bin/python", "-c", attempt)
        assert instance.traffic().without_route > 0, "an attempt would have been seen"


def test_an_error_of_the_caller_is_an_answer(similar: Function) -> None:
    with Instance(similar) as instance:
        envelope = instance.ask(event("/similar", text=""))
        assert (envelope["statusCode"], envelope["body"]["msg"]) == (400, "Error! Valid input text not provided!")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "encoder.onnx"])
def test_a_broken_model_is_a_503_with_its_cause_in_the_log(
    name: str, functions: dict[str, Function], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"\x00broken")
    (tmp_path / name).chmod(0o644)
    mount = f"type=bind,src={tmp_path / name},dst=/var/task/model/{name},readonly"
    with Instance(replace(functions["similar"], mounts=(mount,))) as instance:
        for _ in range(2):
            envelope = instance.ask(event("/similar", text=TEXT))
            assert envelope["statusCode"] == 503
            assert envelope["body"]["msg"].startswith("Error! ")
            assert name not in envelope["body"]["msg"]
        causes = {
            line["errorMessage"]
            for line in map(json.loads, filter(lambda line: line.startswith("{"), instance.log().splitlines()))
            if line.get("errorType") == "ModelError"
        }
        assert causes
        assert all("/var/task/model" in cause for cause in causes), causes
        assert instance.state()["Running"]


def test_a_handler_that_is_not_there_is_an_init_error(functions: dict[str, Function]) -> None:
    with Instance(replace(functions["similar"], handler="no_such.handler")) as instance:
        answer = instance.api.wait_for_init_error()
        assert answer.error_type == "Runtime.ImportModuleError"
        assert "no_such" in answer.json()["errorMessage"]


def test_a_text_of_4096_tokens_fits_in_a_quarter_of_the_memory_configured(similar: Function) -> None:
    assert similar.memory_mib == 8096
    with Instance(replace(similar, memory_mib=similar.memory_mib // 4)) as instance:
        envelope = instance.ask(event("/similar", text=LONG_TEXT), REQUEST_S)
        assert envelope["statusCode"] == 200
        assert "4096" in envelope["body"]["warnings"][0].replace(",", "")
        peak = instance.peak_memory()
        assert 50 << 20 < peak.resident < similar.memory_mib << 18
        assert peak.resident <= peak.container + (200 << 20)


def test_the_memory_limit_is_one(similar: Function) -> None:
    """Else the tests that answer within a limit would show nothing."""
    with (
        Instance(replace(similar, memory_mib=64)) as instance,
        pytest.raises(RuntimeApiError, match="OOMKilled': True"),
    ):
        instance.ask(event("/similar", text=LONG_TEXT), REQUEST_S)


def test_starts_stay_within_what_lambda_and_api_gateway_give(similar: Function) -> None:
    for _ in range(2):
        with Instance(similar) as instance:
            first = instance.invoke(event("/similar", text=TEXT))
            assert instance.init_s() < INIT_S
            assert first.seconds < REQUEST_S
            assert instance.invoke(event("/similar", text=TEXT)).seconds < first.seconds
