"""The Lambdas of handler files and jobs: which there are, and what each gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stack import DEFAULT, HANDLERS, JOBS, REFRESH, SHELVING, Synthesised, only, synthesise, synthesise_from

HANDLER = "def handler(event, context): ...\n"


def test_every_handler_file_and_every_job_is_a_function(each: Synthesised) -> None:
    assert {path.stem for path in each.handlers_dir.glob("*.py")} == HANDLERS
    jobs = (path for path in each.handlers_dir.glob("jobs/*.py") if "def handler(" in path.read_text())
    assert {f"jobs.{path.stem}" for path in jobs} == JOBS
    assert len(each.image_functions()) == len(each.expected | JOBS)
    assert set(each.functions()) == each.expected | JOBS


def test_a_new_handler_file_is_a_new_function_and_a_helper_is_none(tmp_path: Path) -> None:
    synthesised = synthesise(DEFAULT, tmp_path, sentiment_of_text=HANDLER, helper="def help(): ...\n")
    assert set(synthesised.functions()) == HANDLERS | JOBS | {"sentiment_of_text"}


@pytest.mark.slow
def test_a_new_job_is_a_new_function_in_the_vpc_on_the_job_s_access_point(default: Synthesised, tmp_path: Path) -> None:
    synthesised = synthesise(DEFAULT, tmp_path)
    (synthesised.handlers_dir / "jobs" / "tidy.py").write_text(HANDLER, encoding="utf-8")
    functions = synthesise_from(synthesised.handlers_dir, tmp_path / "again").functions()
    assert set(functions) == HANDLERS | JOBS | {"jobs.tidy"}
    for module in ("jobs.tidy", "jobs.shelve_state"):
        assert functions[module]["FileSystemConfigs"] == default.functions()["jobs.shelve_state"]["FileSystemConfigs"]
    assert functions["jobs.tidy"]["VpcConfig"] == default.functions()["similar"]["VpcConfig"]
    # The inbox is for the two jobs that need it.
    assert functions["jobs.tidy"]["Environment"] == default.functions()["similar"]["Environment"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Api", "Network", "ModelCache", "Inbox", "Functions", "Jobs", "shelve_state"])
def test_a_handler_may_be_called_like_a_part_of_the_stack(name: str, tmp_path: Path) -> None:
    assert set(synthesise(DEFAULT, tmp_path, **{name: HANDLER}).functions()) == HANDLERS | JOBS | {name}


# What loads no model asks for little.
SMALL = {"embed_to_db_similar", "health", "openapi", "explore"}


def test_handlers_have_60_s_x86_64_and_8096_mib_by_default_or_the_1024_that_they_ask_for(default: Synthesised) -> None:
    found = default.handlers()
    assert {module: f["MemorySize"] for module, f in found.items()} == {
        module: 1024 if module in SMALL else 8096 for module in HANDLERS
    }
    assert {(f["Timeout"], *f["Architectures"]) for f in found.values()} == {(60, "x86_64")}
    assert only(default.docker_images())["source"]["platform"] == "linux/amd64"


def test_memory_and_architecture_can_be_set(other: Synthesised) -> None:
    found = other.handlers()
    assert {f["MemorySize"] for module, f in found.items() if module not in SMALL} == {3008}
    assert {architecture for f in found.values() for architecture in f["Architectures"]} == {"arm64"}
    assert only(other.docker_images())["source"]["platform"] == "linux/arm64"


def test_the_job_has_what_its_file_asks_for_and_may_run_beside_itself(each: Synthesised) -> None:
    job = each.functions()[SHELVING]
    assert (job["MemorySize"], job["Timeout"]) == (1024, 600)
    assert "ReservedConcurrentExecutions" not in job


def test_by_default_no_function_takes_from_the_account_s_concurrency(default: Synthesised) -> None:
    """A new account may have 10 in all. Reserving any of them would fail the deployment."""
    assert "ReservedConcurrentExecutions" not in str(default.all_resources())


def test_each_route_s_function_can_be_limited_and_a_job_never_is(other: Synthesised) -> None:
    limits = {module: found.get("ReservedConcurrentExecutions") for module, found in other.functions().items()}
    assert limits == dict.fromkeys(other.expected, 5) | dict.fromkeys(JOBS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        ("", (3008, 30)),
        ("MEMORY_MIB = 512\n", (512, 30)),
        ("TIMEOUT_S = 900\n", (3008, 900)),
        ("MEMORY_MIB = 10240\nTIMEOUT_S = 1\n", (3008, 1)),
    ],
)
def test_a_file_gets_what_it_asks_for_but_no_more_memory_than_the_setting(
    constants: str, expected: tuple[int, int], tmp_path: Path
) -> None:
    config = replace(DEFAULT, memory_mib=3008, timeout_s=30)
    found = synthesise(config, tmp_path, custom=constants + HANDLER).functions()["custom"]
    assert (found["MemorySize"], found["Timeout"]) == expected


@pytest.mark.parametrize(
    ("synthesised", "model", "engine", "on_efs", "page"),
    [
        ("default", "allenai/longformer-base-4096", "onnx", "false", "https://incidentdatabase.ai/research/snapshots/"),
        ("other", "some/model", "torch", "true", "https://snapshots.example/page"),
    ],
)
def test_functions_find_model_state_shelf_and_inbox_by_their_environment(
    synthesised: str, model: str, engine: str, on_efs: str, page: str, request: pytest.FixtureRequest
) -> None:
    on_the_file_system = {
        "SHELF_DIR": "/mnt/hf_models_cache/shelf",
        "HF_HOME": "/mnt/hf_models_cache/huggingface",
        "MODEL_ON_EFS": on_efs,
    }
    found: Synthesised = request.getfixturevalue(synthesised)
    (bucket,) = found.resources("AWS::S3::Bucket")
    more: dict[str, dict[str, object]] = {
        SHELVING: {"STATE_BUCKET": {"Ref": bucket}},
        REFRESH: {"STATE_BUCKET": {"Ref": bucket}, "SNAPSHOTS_URL": page},
    }
    for module, function in found.functions().items():
        assert function["Environment"]["Variables"] == {
            "MODEL_DIR": "model",
            "MODEL_FILENAME": "model.safetensors",
            "INCIDENTS_FILENAME": "incident_cls.pt",
            "HF_MODEL_URI": model,
            "ENCODER_ENGINE": engine,
            "ENCODER_PRECISION": {"onnx": "float32", "torch": "bfloat16"}[engine],
            "POWERTOOLS_METRICS_NAMESPACE": "AiidSimilarIncidents",
            **(on_the_file_system if module != REFRESH else {}),
            **more.get(module, {}),
        }


def test_every_function_logs_lines_of_json_to_a_group_of_its_own_that_goes_with_the_stack(each: Synthesised) -> None:
    groups = each.resources("AWS::Logs::LogGroup")
    used = []
    # The two behind custom resources included: Lambda would make groups for them that nothing removes.
    for function in each.properties("AWS::Lambda::Function"):
        settings = dict(function["LoggingConfig"])
        used.append(settings.pop("LogGroup")["Ref"])
        assert settings == {"LogFormat": "JSON", "ApplicationLogLevel": "INFO"}
    assert len(used) == len(each.expected | JOBS) + 2
    (of_the_api,) = each.properties("AWS::ApiGatewayV2::Stage")
    used.append(of_the_api["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"][0])
    assert sorted(used) == sorted(groups)
    for group in groups.values():
        assert group["DeletionPolicy"] == "Delete"
        assert group["Properties"]["RetentionInDays"] == 30
