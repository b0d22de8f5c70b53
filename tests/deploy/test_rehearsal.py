"""The deployment, rehearsed: `scripts/deploy`, `scripts/destroy` and the real command line of the CDK against stand-ins
of AWS and Docker.

A copy of the project with a tiny model and state goes through all that a user's would: check, bootstrap, check again,
deploy, deploy again, deploy with one more handler, publish states, destroy. After each step boto3 looks at what is
there. The first deployment is that of `scripts/deploy`. The CDK's command line by itself makes the others.

AWS is moto's server with additions (`stand_in_aws.py`). What it still lacks, and is looked for in the template instead:
- API Gateway's HTTP API in CloudFormation: no route is made. The API that the smoke test asks is the project's local
  server, with the same model and state.
- The order in which CloudFormation makes things: moto keeps to DependsOn in part. The tests of `infrastructure/` follow
  the template.
- Failing: a function that raises when it is invoked takes no deployment back.
- Quotas that are enforced, permissions (nobody asks IAM), time: a deployment takes a second.
- A gateway endpoint's routes, policies of buckets and queues, a function's number of tries.
- A function's own work: that is the container's tests' part.

Where containers are tested (RUN_CONTAINER=1, and a Docker Engine answers) the image is really built and only pushing is
played, by `stand_in_docker.py`; elsewhere it plays all of Docker.

Needs npm's registry, and two or three minutes; it runs where RUN_REHEARSAL=1 is set.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

import stack
from container.engine import base_image, docker, use_base, why_not
from deployment import cdk
from infrastructure import IMAGE_TAG_PREFIX
from processes import PATIENCE_S, Command, running, wait_until
from serving import serving
from stack import ACCOUNT, HANDLERS, JOBS, REFRESH, REGION, SHELVING, Object, routes_of
from tiny import ROOT

pytestmark = pytest.mark.skipif(
    os.environ.get("RUN_REHEARSAL") != "1",
    reason="needs npm's registry and two or three minutes: RUN_REHEARSAL=1 scripts/test tests/deploy",
)

# What the Lambda that empties a bucket finds in Lambda's own runtime. Nothing depends on the release.
S3_CLIENT = "@aws-sdk/client-s3@3.1175.0"

STACK = "AiidSimilarIncidents"
REPOSITORY = f"cdk-hnb659fds-container-assets-{ACCOUNT}-{REGION}"
COMMAND_S = 600.0

MORE = "count_words"
FUNCTIONS = HANDLERS | JOBS
# A schedule alone invokes the refresh job.
PRIMED = FUNCTIONS - {REFRESH}


def lines_of_json(path: Path) -> list[Object]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Cloud:
    """What boto3 finds in the account."""

    functions: list[Object]
    versions: list[Object]
    file_systems: list[Object]
    access_points: list[Object]
    mount_targets: list[Object]
    log_groups: list[Object]
    rules: list[Object]
    buckets: list[str]
    queues: list[Object]
    endpoints: list[Object]
    vpcs: list[Object]
    stacks: set[str]
    image_tags: set[str]

    @property
    def image_functions(self) -> dict[str, Object]:
        """Those that run the image, by the module that their command names."""
        found = {}
        for function in self.functions:
            if function["PackageType"] == "Image":
                (command,) = function["ImageConfigResponse"]["ImageConfig"]["Command"]
                found[command.removesuffix(".handler")] = function
        return found


@dataclass(frozen=True)
class Step:
    """One command: what it printed, how it called Docker, which functions were invoked, and what was there after it."""

    output: str
    docker: list[Object]
    invocations: list[Object]
    template: Object
    cloud: Cloud

    def docker_calls(self, verb: str) -> list[list[str]]:
        return [call["arguments"] for call in self.docker if call["arguments"][0] == verb]

    def resources(self, kind: str) -> list[Object]:
        return [found["Properties"] for found in self.template["Resources"].values() if found["Type"] == kind]


@dataclass(frozen=True)
class Rehearsal:
    """A copy of the project, the stand-ins it is deployed to, and how to give commands there."""

    folder: Path
    environment: dict[str, str]
    url: str

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def run_cdk(self, *arguments: str, answers: int = 0) -> Step:
        """Gives a command of the CDK."""
        return self.run(*cdk.command(*arguments), answers=answers)

    def run(self, *command: str, answers: int = 0, code: int = 0) -> Step:
        """Gives a command, and waits for as many answers of functions behind custom resources.

        code: how the command must end.
        """
        calls, invocations = self.folder / "docker" / "calls.jsonl", self.folder / "invocations.jsonl"
        for path in (calls, invocations):
            path.unlink(missing_ok=True)
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.project,
            env=self.environment,
            timeout=COMMAND_S,
        )
        with (self.folder / "transcript.txt").open("a", encoding="utf-8") as transcript:
            transcript.write(f"$ {' '.join(command)}\n{ended.stdout}\n")
        assert ended.returncode == code, ended.stdout
        wait_until(lambda: len(answers_in(lines_of_json(invocations))) >= answers, "the last answer")
        cloud, template = self.cloud(), {}
        if STACK in cloud.stacks:
            template = self.client("cloudformation").get_template(StackName=STACK)["TemplateBody"]
        return Step(ended.stdout, lines_of_json(calls), lines_of_json(invocations), template, cloud)

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.url, **keys)

    def cloud(self) -> Cloud:
        efs, ec2, events, lambda_, sqs = (self.client(name) for name in ("efs", "ec2", "events", "lambda", "sqs"))
        file_systems = efs.describe_file_systems()["FileSystems"]
        for found in file_systems:
            del found["SizeInBytes"]  # with the time at which it was asked for
        listed = lambda_.list_functions()["Functions"]
        details = [lambda_.get_function(FunctionName=found["FunctionName"]) for found in listed]
        images = []
        if REPOSITORY in {
            found["repositoryName"] for found in self.client("ecr").describe_repositories()["repositories"]
        }:
            images = self.client("ecr").list_images(repositoryName=REPOSITORY)["imageIds"]
        return Cloud(
            functions=[{**found["Configuration"], "Code": found["Code"]} for found in details],
            versions=lambda_.list_functions(FunctionVersion="ALL")["Functions"],
            file_systems=file_systems,
            access_points=efs.describe_access_points()["AccessPoints"],
            mount_targets=[
                target
                for found in file_systems
                for target in efs.describe_mount_targets(FileSystemId=found["FileSystemId"])["MountTargets"]
            ],
            log_groups=self.client("logs").describe_log_groups()["logGroups"],
            rules=[
                {**rule, "Targets": events.list_targets_by_rule(Rule=rule["Name"])["Targets"]}
                for rule in events.list_rules()["Rules"]
            ],
            # Without the one of CDKToolkit.
            buckets=[
                found["Name"]
                for found in self.client("s3").list_buckets()["Buckets"]
                if not found["Name"].startswith("cdk-")
            ],
            queues=[
                sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
                for url in sqs.list_queues().get("QueueUrls", [])
            ],
            endpoints=ec2.describe_vpc_endpoints()["VpcEndpoints"],
            vpcs=[vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]],
            stacks={found["StackName"] for found in self.client("cloudformation").describe_stacks()["Stacks"]},
            image_tags={found["imageTag"] for found in images},
        )


def answers_in(invocations: list[Object]) -> list[Object]:
    """What the functions behind custom resources told CloudFormation."""
    return [json.loads(found["reply"].splitlines()[-1]) for found in invocations if found["reply"] is not None]


def copy_project(folder: Path, model_dir: Path, state_path: Path) -> None:
    stack.copy_project(folder)
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", folder)
    lend_venv(folder)
    shutil.copytree(model_dir, folder / "inference" / "model")
    shutil.copy(state_path, folder / "inference" / "model" / "incident_cls.pt")
    (folder / ".env").write_text(f"AWS_ACCOUNT_ID={ACCOUNT}\nAWS_REGION={REGION}\nKEEP_WARM_MINUTES=5\n")


def lend_venv(folder: Path) -> None:
    """Gives a project the packages of the tests, as if it had installed its own."""
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith(".installed-"):
            (folder / ".venv" / path.name).symlink_to(path)
    # The line of the set-up that tells which packages are wanted.
    wanted = """
        requirements=requirements.txt
        lock=scripts/locks/requirements.txt
        eval "$(grep wanted= scripts/local/venv.sh)"
        echo "$wanted"
    """
    said = subprocess.run(["bash", "-euc", wanted], cwd=folder, stdout=subprocess.PIPE, check=True)
    (folder / ".venv" / ".installed-requirements").write_bytes(said.stdout)


def stand_in_environment(folder: Path, url: str) -> dict[str, str]:
    """This process's, without its settings and credentials; Node and Python are those of the tests."""
    ours = (
        "AWS_",
        "CDK_",
        "LAMBDA_",
        "HF_",
        "MODEL_",
        "NAT_",
        "ENCODER_",
        "KEEP_",
        "ALLOWED_",
        "REFRESH_",
        "SNAPSHOTS_",
        "STACK_",
        "TAGS",
        "TERMINATION_",
        "THROTTLE_",
        "MAX_",
        "API_",
        "DOMAIN_",
        "CERTIFICATE_",
        "ALARM",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DOCKER": str(Path(__file__).parent / "stand_in_docker.py"),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
        "REHEARSAL_DOCKER_DIR": str(folder / "docker"),
        "REHEARSAL_INVOCATIONS": str(folder / "invocations.jsonl"),
        "REHEARSAL_NODE_PATH": str(folder / "node_modules"),
        "REHEARSAL_OLD_IMAGES": str(folder / "old-images"),
        # moto looks whether a function's image is in ECR.
        "MOTO_LAMBDA_STUB_ECR": "false",
    }


@pytest.fixture(scope="module")
def real_docker() -> Iterator[dict[str, str]]:
    """Variables that make the stand-in build for real, none where that can't be done. What was built is removed."""
    if why_not():
        yield {}
        return
    # The host's network, because a container's own may be kept from the registry.
    yield {
        "REHEARSAL_DOCKER": "docker",
        "REHEARSAL_BUILD_OPTIONS": "--network=host",
    }
    names = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    if built := [name for name in names if name.startswith(("cdkasset-", f"{ACCOUNT}.dkr.ecr."))]:
        docker("image", "rm", "--force", *built)


@pytest.fixture(scope="module")
def api_url(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_state_path: Path) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("api"), "--model", tiny_model_dir, "--state", tiny_state_path) as server:
        yield server.url


@pytest.fixture(scope="module")
def rehearsal(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model_dir: Path,
    tiny_state_path: Path,
    real_docker: dict[str, str],
    api_url: str,
) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("rehearsal")
    copy_project(folder / "project", tiny_model_dir, tiny_state_path)
    if real_docker:
        use_base(folder / "project" / "inference", base_image())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    # The SDKs put the name of a bucket before that of a host, which an address would not take.
    url = f"http://localhost:{port}"
    environment = stand_in_environment(folder, url) | real_docker
    of_aws = environment | {"REHEARSAL_API_URL": api_url, "PYTHONPATH": str(ROOT / "tests")}
    install: Command = ["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--no-package-lock", S3_CLIENT]
    subprocess.run(install, check=True, capture_output=True, env=environment, timeout=COMMAND_S)
    command: Command = [sys.executable, Path(__file__).parent / "stand_in_aws.py", port]
    with (
        (folder / "aws.log").open("wb") as log,
        running(command, env=of_aws, stdout=log, stderr=log) as server,
    ):

        def answers_there() -> bool:
            assert server.poll() is None, (folder / "aws.log").read_text()
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=PATIENCE_S).close()
            except OSError:
                return False
            return True

        wait_until(answers_there, "the start of the stand-in of AWS")
        yield Rehearsal(folder, environment, url)
        # What goes wrong in there may be tried again by a client, and so go unseen.
        assert "Traceback" not in (folder / "aws.log").read_text(errors="replace")


# Every step is taken once, each after the one before it; tests look at what it left, in any order.


@pytest.fixture(scope="module")
def checked_too_early(rehearsal: Rehearsal) -> Step:
    """Without bootstrapping, and without a state."""
    state = rehearsal.project / "inference" / "model" / "incident_cls.pt"
    state.rename(rehearsal.folder / state.name)
    step = rehearsal.run("scripts/deploy", "--check", code=1)
    (rehearsal.folder / state.name).rename(state)
    return step


@pytest.fixture(scope="module")
def bootstrapped(checked_too_early: Step, rehearsal: Rehearsal) -> Step:
    return rehearsal.run_cdk("bootstrap")


@pytest.fixture(scope="module")
def checked(bootstrapped: Step, rehearsal: Rehearsal) -> Step:
    return rehearsal.run("scripts/deploy", "--check")


@pytest.fixture(scope="module")
def deployed(checked: Step, rehearsal: Rehearsal) -> Step:
    return rehearsal.run("scripts/deploy", "--yes", answers=len(PRIMED) + 1)


@pytest.fixture(scope="module")
def deployed_again(deployed: Step, rehearsal: Rehearsal) -> Step:
    return rehearsal.run_cdk("deploy", "--require-approval", "never")


@pytest.fixture(scope="module")
def compared_again(deployed_again: Step, rehearsal: Rehearsal) -> Step:
    return rehearsal.run_cdk("diff")


@pytest.fixture(scope="module")
def extended(compared_again: Step, rehearsal: Rehearsal) -> Step:
    """With one more file in inference/, and protected from removal."""
    (rehearsal.project / "inference" / f"{MORE}.py").write_text(
        "def handler(event, context):\n    return {'words': len(event['text'].split())}\n"
    )
    with (rehearsal.project / ".env").open("a") as file:
        file.write("TERMINATION_PROTECTION=true\n")
    return rehearsal.run_cdk("deploy", "--require-approval", "never", answers=len(PRIMED) + 1)


@pytest.fixture(scope="module")
def published(extended: Step, rehearsal: Rehearsal) -> str:
    """The bucket, with several versions of one object and a deleted one."""
    s3 = rehearsal.client("s3")
    (bucket,) = extended.cloud.buckets
    for number in range(3):
        s3.put_object(Bucket=bucket, Key="states/incident_cls.pt", Body=str(number).encode())
    s3.put_object(Bucket=bucket, Key="served.json", Body=b"{}")
    s3.delete_object(Bucket=bucket, Key="served.json")
    return bucket


NEIGHBOUR = "Neighbour"


@dataclass(frozen=True)
class Tags:
    """Of images in the repository of the bootstrap.

    first: of the first deployment, which nobody uses. shared: of the last one, which a Lambda of another stack runs
    too. named: of an earlier deployment, which another stack's template names. foreign: of another app.
    """

    first: str
    shared: str
    named: str
    foreign: str


@pytest.fixture(scope="module")
def tags(deployed: Step, extended: Step, published: str, rehearsal: Rehearsal) -> Tags:
    """Makes the neighbours. All images but the last deployment's are of the day before yesterday."""
    (first,), (shared,) = deployed.cloud.image_tags, extended.cloud.image_tags - deployed.cloud.image_tags
    found = Tags(first, shared, named=f"{IMAGE_TAG_PREFIX}{'1' * 64}", foreign="2" * 64)
    for tag in (found.named, found.foreign):
        name = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{REPOSITORY}:{tag}"
        for arguments in (["tag", image_of(deployed), name], ["push", name]):
            stand_in_docker(rehearsal, *arguments)
    (rehearsal.folder / "old-images").write_text(f"{found.first} {found.named} {found.foreign}")
    role = rehearsal.client("iam").create_role(RoleName=NEIGHBOUR, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    rehearsal.client("lambda").create_function(
        FunctionName=NEIGHBOUR,
        Role=role,
        PackageType="Image",
        Code={"ImageUri": image_of(extended)},
        ImageConfig={"Command": ["neighbour.handler"]},
    )
    template = {"Description": found.named, "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    rehearsal.client("cloudformation").create_stack(StackName=NEIGHBOUR, TemplateBody=json.dumps(template))
    return found


def image_of(step: Step) -> str:
    (name,) = {found["Code"]["ImageUri"] for found in step.cloud.image_functions.values()}
    return str(name)


def stand_in_docker(rehearsal: Rehearsal, *arguments: str) -> None:
    program = rehearsal.environment["CDK_DOCKER"]
    subprocess.run([program, *arguments], check=True, env=rehearsal.environment, timeout=COMMAND_S)


@pytest.fixture(scope="module")
def refused(tags: Tags, rehearsal: Rehearsal) -> Step:
    return rehearsal.run("scripts/destroy", "--yes", code=1)


@pytest.fixture(scope="module")
def destroyed(refused: Step, rehearsal: Rehearsal) -> Step:
    return rehearsal.run("scripts/destroy", "--yes", "--unprotect")


@pytest.fixture(scope="module")
def destroyed_again(destroyed: Step, rehearsal: Rehearsal) -> Step:
    """After the neighbours are gone."""
    rehearsal.client("lambda").delete_function(FunctionName=NEIGHBOUR)
    rehearsal.client("cloudformation").delete_stack(StackName=NEIGHBOUR)
    return rehearsal.run("scripts/destroy", "--yes")


def findings(step: Step, outcome: str) -> list[str]:
    """The names of what the checks found."""
    lines = [line for line in step.output.splitlines() if line[:12].rstrip() == outcome]
    return [line[12:26].strip() for line in lines]


def test_a_check_tells_all_problems_at_once_with_their_remedies(checked_too_early: Step) -> None:
    assert findings(checked_too_early, "problem") == ["State", "Bootstrap"]
    assert "-> python scripts/build_state.py" in checked_too_early.output
    assert f"-> npx aws-cdk@2 bootstrap aws://{ACCOUNT}/{REGION}" in checked_too_early.output
    assert "nothing was deployed: solve the 2 problems above" in checked_too_early.output
    assert checked_too_early.cloud.stacks == set()


def test_with_all_there_a_check_finds_no_problem_and_changes_nothing(bootstrapped: Step, checked: Step) -> None:
    assert findings(checked, "problem") == []
    assert {"Model", "Graph", "State", "Docker", "CDK", "Credentials", "Bootstrap"} <= set(findings(checked, "ok"))
    assert findings(checked, "not checked") == ["Lambda memory"]
    assert checked.cloud == bootstrapped.cloud


def test_bootstrapping_makes_the_registry_for_the_image(bootstrapped: Step, rehearsal: Rehearsal) -> None:
    assert f"Environment aws://{ACCOUNT}/{REGION} bootstrapped" in bootstrapped.output
    assert bootstrapped.cloud.stacks == {"CDKToolkit"}
    assert bootstrapped.cloud.functions == []


def routes(step: Step) -> set[str]:
    return {found["RouteKey"] for found in step.resources("AWS::ApiGatewayV2::Route")}


def test_the_template_has_an_api_with_a_route_for_each_handler(deployed: Step) -> None:
    assert len(deployed.resources("AWS::ApiGatewayV2::Api")) == 1
    assert routes(deployed) == set(routes_of(HANDLERS))


def test_before_a_deployment_the_difference_to_nothing_is_the_whole_stack(deployed: Step) -> None:
    shown, _, _ = deployed.output.partition("== cdk deploy")
    assert shown.count("[+] AWS::Lambda::Function ") == len(FUNCTIONS) + 2
    assert "[+] AWS::ApiGatewayV2::Api " in shown
    assert "Number of stacks with differences: 1" in shown


def test_a_deployment_succeeds(deployed: Step) -> None:
    assert f"✅  {STACK}" in deployed.output
    assert deployed.cloud.stacks == {"CDKToolkit", STACK}


def test_a_deployment_ends_with_the_smoke_test_and_what_a_user_needs_to_know(deployed: Step, api_url: str) -> None:
    _, _, tested = deployed.output.partition("== smoke test")
    assert f": {api_url}\n" in tested
    assert " checks passed, 0 failed" in tested
    rows = dict(line.split("  ", 1) for line in tested.splitlines() if "  " in line)
    assert rows["API"].strip() == api_url
    assert rows["page"].strip() == f"{api_url}/explore"
    assert rows["remove it"].strip() == f"scripts/destroy --stack {STACK}"
    assert "a day at rest" in rows["costs"]


def test_one_image_is_built_for_one_platform_without_attestations(deployed: Step) -> None:
    (build,) = (call for call in deployed.docker if call["arguments"][0] == "build")
    assert build["no_attestations"] == "1"
    arguments = build["arguments"]
    assert arguments.count("--platform") == 1
    assert arguments[arguments.index("--platform") + 1] == "linux/amd64"
    assert arguments[arguments.index("--build-arg") + 1] == "ENCODER_ENGINE=onnx"


def test_the_image_was_really_built_where_it_can_be(deployed: Step, real_docker: dict[str, str]) -> None:
    if not real_docker:
        pytest.skip(f"all of Docker is played: {why_not()}")
    ((_, pushed),) = deployed.docker_calls("push")
    assert docker("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", pushed) == "linux/amd64"
    assert json.loads(docker("image", "inspect", "--format", "{{json .Config.Cmd}}", pushed)) == ["similar.handler"]


def test_the_image_is_pushed_once_and_is_that_of_all_functions(deployed: Step) -> None:
    ((_, pushed),) = deployed.docker_calls("push")
    registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    assert pushed.startswith(f"{registry}/{REPOSITORY}:")
    assert deployed.cloud.image_tags == {pushed.rpartition(":")[2]}
    assert {found["Code"]["ImageUri"] for found in deployed.cloud.image_functions.values()} == {pushed}
    assert len({found["CodeSha256"] for found in deployed.cloud.image_functions.values()}) == 1


def test_every_handler_file_and_every_job_is_a_function_with_its_command(deployed: Step) -> None:
    assert set(deployed.cloud.image_functions) == FUNCTIONS
    # The two more are behind custom resources: the invoker, and the one that empties the bucket.
    assert len(deployed.cloud.functions) == len(FUNCTIONS) + 2


def test_functions_have_their_memory_timeout_and_architecture(deployed: Step) -> None:
    for module, function in deployed.cloud.image_functions.items():
        small = dict.fromkeys(("embed_to_db_similar", "health", "openapi", "explore"), (1024, 60))
        expected = {SHELVING: (1024, 600), REFRESH: (8096, 900), **small}.get(module, (8096, 60))
        assert (function["MemorySize"], function["Timeout"]) == expected
        assert function["Architectures"] == ["x86_64"]


def test_functions_have_their_environment(deployed: Step) -> None:
    (bucket,) = deployed.cloud.buckets
    for module, function in deployed.cloud.image_functions.items():
        variables = function["Environment"]["Variables"]
        assert variables["ENCODER_ENGINE"] == "onnx"
        assert variables["MODEL_DIR"] == "model"
        assert variables["INCIDENTS_FILENAME"] == "incident_cls.pt"
        assert variables["HF_MODEL_URI"] == "allenai/longformer-base-4096"
        assert variables.get("STATE_BUCKET") == (bucket if module in JOBS else None)
        assert variables.get("SHELF_DIR") == (None if module == REFRESH else "/mnt/hf_models_cache/shelf")


def test_handlers_and_jobs_mount_the_same_folder_as_different_users(deployed: Step) -> None:
    (file_system,) = deployed.cloud.file_systems
    access_points = {found["AccessPointArn"]: found for found in deployed.cloud.access_points}
    assert len(access_points) == 2
    for module, function in deployed.cloud.image_functions.items():
        if module == REFRESH:
            assert "FileSystemConfigs" not in function
            continue
        (mount,) = function["FileSystemConfigs"]
        assert mount["LocalMountPath"] == "/mnt/hf_models_cache"
        access_point = access_points[mount["Arn"]]
        assert access_point["FileSystemId"] == file_system["FileSystemId"]
        assert access_point["PosixUser"] == {"Uid": 1001 if module in JOBS else 1002, "Gid": 1001}
        assert access_point["RootDirectory"] == {
            "Path": "/export/models",
            "CreationInfo": {"OwnerUid": 1001, "OwnerGid": 1001, "Permissions": "750"},
        }


def test_the_file_system_is_encrypted_and_has_a_mount_target_in_each_subnet_of_the_functions(deployed: Step) -> None:
    (file_system,) = deployed.cloud.file_systems
    assert file_system["Encrypted"] is True
    assert file_system["ThroughputMode"] == "elastic"
    of_targets = sorted(found["SubnetId"] for found in deployed.cloud.mount_targets)
    assert len(of_targets) == 2
    for module, function in deployed.cloud.image_functions.items():
        subnets = function.get("VpcConfig", {}).get("SubnetIds", [])
        assert sorted(subnets) == ([] if module == REFRESH else of_targets)


def test_there_is_one_vpc(deployed: Step) -> None:
    (vpc,) = deployed.cloud.vpcs
    assert vpc["CidrBlock"] == "10.0.0.0/16"


def test_every_function_logs_to_a_group_of_its_own_for_a_month(deployed: Step) -> None:
    groups = {found["logGroupName"]: found["retentionInDays"] for found in deployed.cloud.log_groups}
    used = [found["LoggingConfig"]["LogGroup"] for found in deployed.cloud.functions]
    assert {found["LoggingConfig"]["LogFormat"] for found in deployed.cloud.functions} == {"JSON"}
    (of_the_api,) = {*groups} - {*used}
    assert "ApiAccessLog" in of_the_api
    assert sorted([*used, of_the_api]) == sorted(groups)
    assert set(groups.values()) == {30}


def test_every_handler_is_kept_warm(deployed: Step) -> None:
    rules = [found for found in deployed.cloud.rules if found["Description"] == "Keeps the Lambda warm"]
    assert {found["ScheduleExpression"] for found in rules} == {"rate(5 minutes)"}
    targets = [target for found in rules for target in found["Targets"]]
    assert {target["Input"] for target in targets} == {'{"warm":true}'}
    arns = {deployed.cloud.image_functions[module]["FunctionArn"] for module in HANDLERS}
    assert {target["Arn"] for target in targets} == arns
    assert len(targets) == len(HANDLERS)


def test_there_is_a_bucket_for_states_with_rules_that_invoke_the_jobs(deployed: Step, rehearsal: Rehearsal) -> None:
    (bucket,) = deployed.cloud.buckets
    assert rehearsal.client("s3").get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    modules = {found["FunctionArn"]: module for module, found in deployed.cloud.image_functions.items()}
    rules = {
        (modules[rule["Targets"][0]["Arn"]], rule.get("ScheduleExpression") or rule["EventPattern"])
        for rule in deployed.cloud.rules
        if rule["Description"] != "Keeps the Lambda warm"
    }
    schedules = {(SHELVING, "rate(1 day)"), (REFRESH, "rate(1 day)")}
    assert schedules < rules
    ((job, pattern),) = rules - schedules
    assert job == SHELVING
    assert json.loads(pattern)["detail"] == {
        "bucket": {"name": [bucket]},
        "object": {"key": ["states/incident_cls.pt"]},
    }


def test_each_of_these_jobs_has_a_queue_for_dead_letters(deployed: Step) -> None:
    queues = {found["QueueArn"] for found in deployed.cloud.queues}
    used = {
        module: found["DeadLetterConfig"]["TargetArn"]
        for module, found in deployed.cloud.image_functions.items()
        if found.get("DeadLetterConfig")
    }
    assert set(used) == JOBS
    assert set(used.values()) == queues
    assert len(queues) == 2
    assert {found["MessageRetentionPeriod"] for found in deployed.cloud.queues} == {str(14 * 24 * 60 * 60)}


def test_there_is_an_endpoint_for_s3(deployed: Step) -> None:
    (endpoint,) = deployed.cloud.endpoints
    assert (endpoint["VpcEndpointType"], endpoint["ServiceName"]) == ("Gateway", f"com.amazonaws.{REGION}.s3")


def primed(step: Step) -> list[str]:
    """Modules of the functions that were invoked, as often as they were; each by its version, with an empty event."""
    modules = {found["FunctionName"]: module for module, found in step.cloud.image_functions.items()}
    found = [invocation for invocation in step.invocations if invocation["reply"] is None]
    for invocation in found:
        assert invocation["payload"] == "{}"
        assert invocation["version"] != "$LATEST"
    return sorted(modules[invocation["function"]] for invocation in found)


def test_a_deployment_invokes_the_shelving_job_and_every_handler_once(deployed: Step) -> None:
    assert primed(deployed) == sorted(PRIMED)
    # The one more is of the function that empties the bucket. It has nothing to do yet.
    assert [answer["Status"] for answer in answers_in(deployed.invocations)] == ["SUCCESS"] * (len(PRIMED) + 1)


def test_a_second_deployment_changes_builds_pushes_and_invokes_nothing(deployed: Step, deployed_again: Step) -> None:
    assert f"✅  {STACK} (no changes)" in deployed_again.output
    assert deployed_again.docker == []
    assert deployed_again.invocations == []
    assert deployed_again.cloud == deployed.cloud


def test_after_a_deployment_there_is_no_difference(compared_again: Step) -> None:
    assert "There were no differences" in compared_again.output


def test_one_more_handler_file_is_one_more_function_and_route(deployed: Step, extended: Step) -> None:
    assert set(extended.cloud.image_functions) == FUNCTIONS | {MORE}
    assert routes(extended) == set(routes_of(HANDLERS | {MORE}))
    # The others are what they were, not new ones beside them.
    for module, before in deployed.cloud.image_functions.items():
        assert extended.cloud.image_functions[module]["FunctionArn"] == before["FunctionArn"]
    assert extended.cloud.file_systems == deployed.cloud.file_systems
    assert extended.cloud.vpcs == deployed.cloud.vpcs


def test_with_one_more_handler_all_functions_run_the_new_image_and_are_primed_with_it(
    deployed: Step, extended: Step
) -> None:
    ((_, pushed),) = extended.docker_calls("push")
    assert {found["Code"]["ImageUri"] for found in extended.cloud.image_functions.values()} == {pushed}
    assert pushed not in {found["Code"]["ImageUri"] for found in deployed.cloud.image_functions.values()}
    assert primed(extended) == sorted(PRIMED | {MORE})
    assert {answer["Status"] for answer in answers_in(extended.invocations)} == {"SUCCESS"}


def test_a_protected_stack_is_not_destroyed_by_mistake(extended: Step, tags: Tags, refused: Step) -> None:
    assert "the stack is protected (TERMINATION_PROTECTION=true): give --unprotect too" in refused.output
    assert refused.cloud.stacks == {"CDKToolkit", STACK, NEIGHBOUR}
    assert refused.cloud.file_systems == extended.cloud.file_systems
    assert refused.cloud.image_tags == {tags.first, tags.shared, tags.named, tags.foreign}
    assert refused.invocations == []


def test_before_destroying_it_what_goes_is_shown(published: str, refused: Step, api_url: str) -> None:
    assert f"  API          {api_url}\n" in refused.output
    assert f"  bucket       {published}, 0.0 MB:\n               3 published states, 0.0 MB" in refused.output
    assert f"aws s3 cp s3://{published}/states/incident_cls.pt ." in refused.output


def test_destroying_it_deletes_the_images_that_nobody_uses_and_no_other(tags: Tags, destroyed: Step) -> None:
    assert destroyed.cloud.image_tags == {tags.shared, tags.named, tags.foreign}
    assert "Deleted 1 image, 5.0 MB.\n" in destroyed.output
    assert {found["FunctionName"] for found in destroyed.cloud.functions} == {NEIGHBOUR}


def test_what_remains_is_said(destroyed: Step) -> None:
    _, _, remains = destroyed.output.partition("This remains:\n")
    assert f"images       3 images, 615 MB, $0.06 a month, in {REPOSITORY}\n" in remains
    assert "2 of this project, 1 of other CDK apps or of earlier versions\n" in remains
    assert "of CDK apps, " in remains
    assert "aws cloudformation delete-stack" in remains
    assert "CDKToolkit" in remains


def test_destroying_a_stack_that_is_not_there_is_no_failure_and_deletes_its_images(
    tags: Tags, destroyed_again: Step
) -> None:
    assert f"There is no stack {STACK} in {REGION} of account {ACCOUNT}." in destroyed_again.output
    assert destroyed_again.cloud.image_tags == {tags.foreign}


def test_after_destroying_it_nothing_is_left(destroyed: Step, destroyed_again: Step) -> None:
    assert f"✅  {STACK}: destroyed" in destroyed.output
    assert destroyed.cloud.stacks == {"CDKToolkit", NEIGHBOUR}
    for kind in (
        "functions",
        "versions",
        "file_systems",
        "access_points",
        "mount_targets",
        "log_groups",
        "rules",
        "buckets",
        "queues",
        "endpoints",
        "vpcs",
    ):
        assert getattr(destroyed_again.cloud, kind) == []


def test_destroying_it_empties_the_bucket_and_invokes_no_handler_and_no_job(destroyed: Step, published: str) -> None:
    assert primed(destroyed) == []
    events = [json.loads(found["payload"]) for found in destroyed.invocations]
    assert {event["RequestType"] for event in events} == {"Delete"}
    (emptied,) = (event for event in events if event["ResourceType"] == "Custom::S3AutoDeleteObjects")
    assert emptied["ResourceProperties"]["BucketName"] == published
    assert {answer["Status"] for answer in answers_in(destroyed.invocations)} == {"SUCCESS"}
