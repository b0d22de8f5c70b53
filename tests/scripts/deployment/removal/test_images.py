"""Which images nobody needs any more, and deleting them: none that a Lambda runs or a stack names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.awslambda.models import lambda_backends

from bootstrapped import (
    ACCOUNT,
    ADDRESS,
    BASE,
    REPOSITORY,
    Answer,
    answer,
    bootstrapped,
    fail,
    make_lambda,
    make_stack,
    push,
    refuse,
    set_status,
    sha256,
    tags_left,
    template,
)
from buckets import REGION
from deployment.removal.contents import Contents
from deployment.removal.images import Images, Sorted, freed_by, report, sorted_out
from deployment.removal.references import Reference, references, templates_of_removed
from deployment.removal.repository import Image, ImagesError, Repository, stored_bytes
from infrastructure import IMAGE_TAG_PREFIX
from infrastructure.config import Config

CONFIG = Config(account=ACCOUNT, region=REGION)
NAME = CONFIG.stack_name
OURS, SHARED, FRESH = (f"{IMAGE_TAG_PREFIX}{each * 64}" for each in "abc")
EARLIER, FOREIGN = "d" * 64, "e" * 64
TODAY = datetime(2026, 11, 26, tzinfo=UTC)


def image(*tags: str, days_ago: float = 30) -> Image:
    return Image(sha256(str(tags)), tags, TODAY - timedelta(days=days_ago), {sha256(str(tags)): 1})


def tags_of(images: list[Image]) -> list[str]:
    return sorted(tag for each in images for tag in each.tags)


def test_an_image_with_our_prefix_that_nothing_names_is_unused() -> None:
    found = sorted_out([image(OURS), image(FOREIGN)], [], [], TODAY)
    assert (tags_of(found.unused), tags_of(found.others)) == ([OURS], [FOREIGN])


def test_an_image_with_a_tag_of_somebody_else_stays_whatever_uses_it() -> None:
    images = [image(OURS, "live"), image(SHARED, FRESH), image(EARLIER)]
    found = sorted_out(images, [], [EARLIER, OURS], TODAY)
    assert tags_of(found.needed) == sorted([OURS, "live"])
    assert tags_of(found.unused) == sorted([SHARED, FRESH, EARLIER])


@pytest.mark.parametrize("name", [f"{ADDRESS}:{OURS}", f"{ADDRESS}@{image('latest', OURS).digest}", "x latest x"])
def test_an_image_with_several_tags_is_needed_if_one_of_its_names_is(name: str) -> None:
    found = sorted_out([image("latest", OURS)], [Reference(name)], [], TODAY)
    assert tags_of(found.needed) == ["latest", OURS]


def test_an_image_of_the_last_day_stays_unless_the_stack_that_goes_has_used_it() -> None:
    images = [image(FRESH, days_ago=0.9), image(OURS, days_ago=0.9), image(EARLIER, days_ago=0.9)]
    found = sorted_out(images, [], [OURS, EARLIER], TODAY)
    assert (tags_of(found.new), tags_of(found.unused)) == ([FRESH], sorted([OURS, EARLIER]))
    assert tags_of(sorted_out([image(FRESH, days_ago=1.1)], [], [], TODAY).unused) == [FRESH]


def test_an_image_of_the_stack_that_another_one_names_stays() -> None:
    found = sorted_out([image(EARLIER)], [Reference(f"{ADDRESS}:{EARLIER}", stack_name="Staging")], [EARLIER], TODAY)
    assert tags_of(found.needed) == [EARLIER]


def test_a_layer_that_images_share_counts_once() -> None:
    one, other = (Image(name, (), TODAY, {"base": 600, name: 1}) for name in "ab")
    assert stored_bytes([one, other]) == 602
    assert freed_by([one, other], [one]) == 1
    assert freed_by([one, other], [one, other]) == 602


def test_what_becomes_of_the_images_is_said_a_line_each() -> None:
    found = Sorted([image("a"), image("b")], [image("c")], [image("d")], [image("e")])
    assert report(found).splitlines() == [
        "  2 images, 0.0 MB, that no other Lambda or stack here uses",
        "  1 image that other Lambdas or stacks use, or with a foreign tag; they stay",
        "  1 image of the last day, for deployments under way; they stay",
    ]
    assert report(Sorted(others=[image("e")])) == ""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with bootstrapped(monkeypatch):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("account")
class TestRepository:
    def test_an_image_has_its_tags_its_age_and_its_layers(self) -> None:
        digest = push(OURS, BASE, ("state", 5_000_000), days_ago=2)
        push(FOREIGN, BASE, ("state", 5_000_000), days_ago=2)
        (found,) = Repository(ACCOUNT, REGION).images()
        assert found.names == {digest, OURS, FOREIGN}
        assert abs(datetime.now(UTC) - found.pushed_at - timedelta(days=2)) < timedelta(minutes=5)
        assert found.blobs[sha256("base")] == 600_000_000
        assert sum(found.blobs.values()) == 605_001_000

    def test_without_a_repository_there_are_none(self) -> None:
        boto3.client("ecr", region_name=REGION).delete_repository(repositoryName=REPOSITORY)
        assert Repository(ACCOUNT, REGION).images() == []

    def test_without_the_permission_for_manifests_each_image_has_its_own_size(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digest = push(OURS, BASE)
        refuse(monkeypatch, "BatchGetImage")
        (found,) = Repository(ACCOUNT, REGION).images()
        assert list(found.blobs) == [digest]

    def test_more_images_than_one_request_takes(self) -> None:
        for number in range(205):
            push(f"{IMAGE_TAG_PREFIX}{number:064}", BASE, (str(number), 1))
        repository = Repository(ACCOUNT, REGION)
        images = repository.images()
        assert len(images) == 205
        assert all(len(each.blobs) == 3 for each in images)
        assert repository.delete(images[1:]) == []
        assert repository.images() == images[:1]

    def test_a_failure_is_told_and_one_that_is_gone_already_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        push(OURS, BASE)
        repository = Repository(ACCOUNT, REGION)
        (found,) = repository.images()
        assert repository.delete([found, Image("sha256:" + "0" * 64, (), TODAY, {})]) == []
        failure = {
            "imageId": {"imageDigest": found.digest},
            "failureCode": "ImageReferencedByManifestList",
            "failureReason": "Requested image referenced by manifest list: [sha256:0]",
        }
        answer(monkeypatch, "BatchDeleteImage", lambda parameters, moto: {"failures": [failure]})
        (problem,) = repository.delete([found])
        assert problem == (
            f"{found.digest}: Requested image referenced by manifest list: [sha256:0] (ImageReferencedByManifestList)"
        )

    @pytest.mark.parametrize(
        ("principal", "guests"),
        [
            ({"Service": "lambda.amazonaws.com"}, []),
            ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, []),
            ({"AWS": [f"arn:aws:iam::{ACCOUNT}:root", "arn:aws:iam::210987654321:root"]}, ["210987654321"]),
            ({"AWS": "*"}, ["everybody"]),
            ("*", ["everybody"]),
        ],
    )
    def test_accounts_that_its_policy_lets_in(self, principal: Any, guests: list[str]) -> None:
        repository = Repository(ACCOUNT, REGION)
        assert repository.guests() == []
        # As bootstrapping writes it: https://github.com/aws/aws-cdk-cli, bootstrap-template.yaml
        condition = {"ArnLike": {"aws:sourceArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:*"}}
        statement = {"Effect": "Allow", "Principal": principal, "Action": "ecr:BatchGetImage", "Condition": condition}
        denied = {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::111111111111:root"}, "Action": "ecr:*"}
        self.set_policy([statement, denied])
        assert repository.guests() == guests

    @staticmethod
    def set_policy(statements: list[Any]) -> None:
        text = json.dumps({"Version": "2012-10-17", "Statement": statements})
        boto3.client("ecr", region_name=REGION).set_repository_policy(repositoryName=REPOSITORY, policyText=text)

    def test_a_refusal_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refuse(monkeypatch, "BatchDeleteImage")
        (problem,) = Repository(ACCOUNT, REGION).delete([image(OURS)])
        assert "not authorized to perform: BatchDeleteImage" in problem

    def test_addresses_of_other_repositories_name_none_of_its_images(self) -> None:
        repository = Repository(ACCOUNT, REGION)
        text = f'"{ADDRESS}:{OURS}" {ADDRESS}@{sha256("x")} {ADDRESS}-2:{FOREIGN} other/app:latest'
        assert repository.named_in(text) == {OURS, sha256("x")}


@pytest.mark.slow
@pytest.mark.usefixtures("account")
class TestReferences:
    def test_each_version_of_a_lambda_counts(self) -> None:
        digest = push(OURS, BASE)
        push(SHARED, BASE, ("more", 1))
        make_lambda("f", OURS)
        client = boto3.client("lambda", region_name=REGION)
        client.publish_version(FunctionName="f")
        for version in lambda_backends[ACCOUNT][REGION]._lambdas.list_versions_by_function("f"):
            version.code = dict(version.code)  # moto would change it with the Lambda's
        client.update_function_code(FunctionName="f", ImageUri=f"{ADDRESS}:{SHARED}")
        found = references(REGION)
        assert {each.lambda_name for each in found} == {"f"}
        assert [each for each in found if OURS in each.text and digest in each.text]
        assert [each for each in found if SHARED in each.text]

    def test_all_pages_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        push(OURS, BASE)
        for number in range(60):
            make_lambda(f"f{number}", OURS)
            make_stack(f"Stack{number}", template(OURS))

        def page(parameters: Any, moto: Answer) -> Any:
            """AWS gives 50. moto gives all Lambdas at once, but pages of stacks."""
            start = int(parameters.pop("Marker", 0))
            functions = moto(parameters)["Functions"]
            more = {"NextMarker": str(start + 50)} if start + 50 < len(functions) else {}
            return {"Functions": functions[start : start + 50], **more}

        answer(monkeypatch, "ListFunctions", page)
        found = references(REGION)
        assert {each.lambda_name for each in found if each.lambda_name} == {f"f{number}" for number in range(60)}
        assert {each.stack_name for each in found if each.stack_name} == {f"Stack{number}" for number in range(60)}

    def test_a_lambda_without_an_image_names_none(self) -> None:
        boto3.client("lambda", region_name=REGION).create_function(
            FunctionName="f",
            Runtime="python3.13",
            Handler="f.f",
            Role=f"arn:aws:iam::{ACCOUNT}:role/of-a-lambda",
            Code={"ZipFile": b"PK\x05\x06" + bytes(18)},
        )
        assert references(REGION) == []

    def test_a_stack_names_images_in_its_template_and_its_parameters(self) -> None:
        make_stack("Json", template(OURS, FOREIGN))
        make_stack("Yaml", f"Resources:\n  Topic:\n    Type: AWS::SNS::Topic\nDescription: of {SHARED}\n")
        body = json.loads(template()) | {"Parameters": {"Tag": {"Type": "String"}}}
        make_stack("Told", json.dumps(body), Parameters=[{"ParameterKey": "Tag", "ParameterValue": FRESH}])
        found = {each.stack_name: each for each in references(REGION)}
        assert found["Json"].names(image(OURS))
        assert found["Json"].names(image(FOREIGN))
        assert found["Yaml"].names(image(SHARED))
        assert found["Told"].names(image(FRESH))
        assert not found["Told"].names(image(OURS))

    def test_a_stack_that_is_being_prepared_names_images_in_its_change_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = boto3.client("cloudformation", region_name=REGION)
        made = client.create_change_set(
            StackName="Prepared", ChangeSetName="cdk", ChangeSetType="CREATE", TemplateBody=template(OURS)
        )

        def of_change_set(parameters: Any, moto: Answer) -> Any:
            """moto doesn't look for one."""
            assert (parameters["StackName"], parameters["ChangeSetName"]) == (made["StackId"], made["Id"])
            return {"TemplateBody": json.loads(template(OURS))}

        answer(monkeypatch, "GetTemplate", of_change_set)
        (found,) = references(REGION)
        assert found.names(image(OURS))

    @pytest.fixture
    def change_sets(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """Tags that the templates of change sets name, by the change set. moto doesn't keep their templates."""
        found: dict[str, str] = {}

        def listed(parameters: Any, moto: Answer) -> Any:
            return {"Summaries": [{"ChangeSetId": each, "StackName": parameters["StackName"]} for each in found]}

        def of_change_set(parameters: Any, moto: Answer) -> Any:
            if not (name := parameters.get("ChangeSetName")):
                return moto(parameters)
            if found[name]:
                return {"TemplateBody": json.loads(template(found[name]))}
            error = {"Code": "ChangeSetNotFound", "Message": f"ChangeSet [{name}] does not exist"}
            raise ClientError({"Error": error}, "GetTemplate")

        answer(monkeypatch, "ListChangeSets", listed)
        answer(monkeypatch, "GetTemplate", of_change_set)
        return found

    def test_a_deployed_stack_names_images_in_its_change_sets_too(self, change_sets: dict[str, str]) -> None:
        make_stack("Staging", template(OURS))
        change_sets |= {"cdk-deploy-change-set": SHARED}
        (found,) = references(REGION)
        assert found.names(image(OURS))
        assert found.names(image(SHARED))

    def test_a_change_set_that_is_removed_meanwhile_hides_no_other(self, change_sets: dict[str, str]) -> None:
        make_stack("Staging", template(OURS))
        change_sets |= {"removed": "", "more": SHARED}
        (found,) = references(REGION)
        assert found.names(image(OURS))
        assert found.names(image(SHARED))

    def test_a_prepared_stack_that_is_deployed_meanwhile_has_a_template(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make_stack("Staging", template(OURS))
        set_status("Staging", "REVIEW_IN_PROGRESS")

        def too_late(parameters: Any, moto: Answer) -> Any:
            set_status("Staging", "CREATE_IN_PROGRESS")
            return {"Summaries": []}

        answer(monkeypatch, "ListChangeSets", too_late)
        (found,) = references(REGION)
        assert found.names(image(OURS))

    def test_an_answer_of_another_form_tells_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer(monkeypatch, "ListFunctions", lambda parameters, moto: {})
        with pytest.raises(ImagesError, match="the Lambdas can't be looked at: AWS's answer has an unforeseen form"):
            references(REGION)

    def test_a_lambda_that_is_removed_meanwhile_names_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        push(OURS, BASE)
        make_lambda("f", OURS)

        def too_late(parameters: Any, moto: Answer) -> Any:
            boto3.client("lambda", region_name=REGION).delete_function(FunctionName="f")
            return moto(parameters)

        answer(monkeypatch, "GetFunction", too_late)
        assert references(REGION) == []

    def test_a_stack_that_is_removed_meanwhile_names_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make_stack("Gone", template(OURS))
        fail(monkeypatch, "GetTemplate", "ValidationError", "Stack with id Gone does not exist")
        assert not [each for each in references(REGION) if each.names(image(OURS))]

    @pytest.mark.parametrize(
        "operation", ["ListFunctions", "GetFunction", "DescribeStacks", "GetTemplate", "ListChangeSets"]
    )
    def test_without_a_permission_nobody_knows(self, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
        push(OURS, BASE)
        make_lambda("f", OURS)
        make_stack("Other", template(OURS))
        refuse(monkeypatch, operation)
        with pytest.raises(ImagesError, match=rf"can't be looked at: .*not authorized to perform: {operation}"):
            references(REGION)

    def test_a_lambda_whose_image_aws_does_not_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        push(OURS, BASE)
        make_lambda("f", OURS)
        answer(monkeypatch, "GetFunction", lambda parameters, moto: {"Code": {"RepositoryType": "ECR"}})
        with pytest.raises(ImagesError, match="AWS doesn't tell which image the Lambda f runs"):
            references(REGION)

    def test_removed_stacks_of_the_name_and_of_this_project_still_tell_their_images(self) -> None:
        client = boto3.client("cloudformation", region_name=REGION)
        for name, body in (
            (NAME, template(EARLIER)),
            (NAME, template(FOREIGN, description="Another app")),
            ("Staging", template(SHARED)),
        ):
            make_stack(name, body)
            client.delete_stack(StackName=name)
        make_stack(NAME, template(OURS))
        (found,) = templates_of_removed(NAME, REGION)
        assert Repository(ACCOUNT, REGION).named_in(found) == {EARLIER}


@pytest.mark.slow
@pytest.mark.usefixtures("account")
class TestImages:
    """A stack of one Lambda; Staging shares an image with it, and another app has its own."""

    @pytest.fixture
    def stack(self) -> Contents:
        for tag in (OURS, SHARED, EARLIER, FOREIGN):
            push(tag, BASE, (tag, 1_000_000))
        push(FRESH, BASE, (FRESH, 1_000_000), days_ago=0)
        for tag in (OURS, SHARED):
            push(f"{tag}0", BASE, (f"{tag}0", 1_000_000))
        make_stack(NAME, template(OURS, SHARED, EARLIER))
        make_stack("Staging", template(SHARED))
        make_stack("App", template(FOREIGN, description="Another app"))
        make_lambda("ours", OURS)
        make_lambda("of-staging", f"{SHARED}0")
        return Contents(NAME, REGION, "", "", False, True, "", "", "", "", frozenset({"ours"}))

    def test_what_the_stack_alone_uses_is_unused_once_it_is_gone(self, stack: Contents) -> None:
        found = Images(CONFIG, stack).look()
        assert tags_of(found.unused) == sorted([OURS, f"{OURS}0", EARLIER])
        assert tags_of(found.needed) == sorted([SHARED, f"{SHARED}0"])
        assert tags_of(found.new) == [FRESH]
        assert tags_of(found.others) == [FOREIGN]

    def test_only_that_is_deleted(self, stack: Contents, capsys: pytest.CaptureFixture[str]) -> None:
        images = Images(CONFIG, stack)
        announced = images.look().unused
        self.remove()
        images.delete(announced)
        assert tags_left() == {SHARED, f"{SHARED}0", FRESH, FOREIGN}
        assert capsys.readouterr().out == "\nDeleted 3 images, 3.0 MB.\n"

    def test_what_is_used_again_since_it_was_announced_stays(
        self, stack: Contents, capsys: pytest.CaptureFixture[str]
    ) -> None:
        images = Images(CONFIG, stack)
        announced = images.look().unused
        self.remove()
        make_lambda("another", OURS)
        images.delete(announced)
        assert OURS in tags_left()
        assert "Deleted 2 images" in (said := capsys.readouterr().out)
        assert "1 image stayed: something else uses them now." in said

    def test_what_the_removal_has_left_counts_as_in_use(self, stack: Contents) -> None:
        images = Images(CONFIG, stack)
        announced = images.look().unused
        assert OURS in tags_of(announced)
        boto3.client("cloudformation", region_name=REGION).delete_stack(StackName=NAME)
        images.delete(announced)
        assert OURS in tags_left()
        assert EARLIER not in tags_left()

    def test_what_was_not_announced_stays(self, stack: Contents) -> None:
        images = Images(CONFIG, stack)
        announced = images.look().unused
        self.remove()
        push(f"{OURS}1", BASE, ("1", 1))
        images.delete(announced)
        assert f"{OURS}1" in tags_left()

    def test_after_a_removal_that_was_stopped_the_images_are_known_still(self, stack: Contents) -> None:
        self.remove()
        found = Images(CONFIG, None).look()
        assert tags_of(found.unused) == sorted([OURS, f"{OURS}0", EARLIER])

    def test_without_knowing_the_users_nothing_is_deleted(
        self, stack: Contents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = Images(CONFIG, stack)
        announced = images.look().unused
        self.remove()
        before = tags_left()
        refuse(monkeypatch, "ListFunctions")
        with pytest.raises(ImagesError, match="the Lambdas can't be looked at"):
            images.delete(announced)
        assert tags_left() == before

    def test_where_another_account_may_pull_nobody_knows_and_nothing_is_deleted(
        self, stack: Contents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = Images(CONFIG, stack)
        announced = images.look().unused
        self.remove()
        before = tags_left()
        monkeypatch.setattr(Repository, "guests", lambda _: ["210987654321"])
        with pytest.raises(ImagesError, match=r"lets other accounts in \(210987654321\), and nobody knows"):
            images.delete(announced)
        assert tags_left() == before

    def test_without_the_repositorys_policy_nothing_is_deleted(
        self, stack: Contents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refuse(monkeypatch, "GetRepositoryPolicy")
        with pytest.raises(ImagesError, match=r"the policy of .* can't be looked at: .*GetRepositoryPolicy"):
            Images(CONFIG, stack).look()

    def test_what_cannot_be_deleted_is_told(self, stack: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
        images = Images(CONFIG, stack)
        announced = images.look().unused
        self.remove()
        refuse(monkeypatch, "BatchDeleteImage")
        with pytest.raises(ImagesError, match=r"these images couldn't be deleted:\n  .*BatchDeleteImage"):
            images.delete(announced)

    def remove(self) -> None:
        """The stack, as CloudFormation does."""
        boto3.client("lambda", region_name=REGION).delete_function(FunctionName="ours")
        boto3.client("cloudformation", region_name=REGION).delete_stack(StackName=NAME)
