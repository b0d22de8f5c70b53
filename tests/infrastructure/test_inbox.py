"""The inbox: the bucket, who may do what in it, and how it is emptied when the stack goes."""

from __future__ import annotations

import ast
import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY, STATE_KEY, STORE_KEY, deployed_key
from stack import REFRESH, SHELVING, Object, Synthesised, actions_of, all_before, only
from tiny import ROOT

DEPLOYED_KEY = deployed_key("0123456789abcdef")
KEYS = {STATE_KEY, DEPLOYED_KEY, STORE_KEY, SERVED_KEY, HOLD_KEY}


def bucket_id(synthesised: Synthesised) -> str:
    (id_,) = synthesised.resources("AWS::S3::Bucket")
    return id_


def test_the_bucket_is_private_versioned_and_encrypted(each: Synthesised) -> None:
    bucket = only(each.properties("AWS::S3::Bucket"))
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert only(bucket["OwnershipControls"]["Rules"]) == {"ObjectOwnership": "BucketOwnerEnforced"}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    encryption = only(bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"])
    assert encryption == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}


def test_only_old_versions_and_uploads_that_never_ended_expire(each: Synthesised) -> None:
    assert only(each.properties("AWS::S3::Bucket"))["LifecycleConfiguration"]["Rules"] == [
        {
            "Status": "Enabled",
            "NoncurrentVersionExpiration": {"NoncurrentDays": 90},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        }
    ]


def test_the_bucket_is_reached_by_tls_only_and_by_nobody_else(each: Synthesised) -> None:
    itself = {"Fn::GetAtt": [bucket_id(each), "Arn"]}
    everything = [itself, {"Fn::Join": ["", [itself, "/*"]]}]
    policy = only(each.properties("AWS::S3::BucketPolicy"))
    assert policy["Bucket"] == {"Ref": bucket_id(each)}
    refused, allowed = policy["PolicyDocument"]["Statement"]
    assert refused == {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": everything,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    assert allowed["Principal"]["AWS"] == emptying(each)["Role"]


def test_the_bucket_tells_eventbridge_without_a_lambda_that_sets_that(each: Synthesised) -> None:
    bucket = only(each.properties("AWS::S3::Bucket"))
    assert bucket["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert {found["Type"] for found in each.all_resources().values() if found["Type"].startswith("Custom::")} == {
        "Custom::Invocation",
        "Custom::S3AutoDeleteObjects",
    }


def test_the_bucket_s_name_is_an_output(each: Synthesised) -> None:
    (output,) = each.template.find_outputs("stateBucketName").values()
    assert output["Value"] == {"Ref": bucket_id(each)}


# Emptying.


def emptying(synthesised: Synthesised) -> Object:
    """Properties of the function that empties the bucket."""
    id_ = synthesised.function_behind("Custom::S3AutoDeleteObjects")
    return dict(synthesised.resources("AWS::Lambda::Function")[id_]["Properties"])


def test_the_bucket_is_emptied_before_it_is_removed(each: Synthesised) -> None:
    (resource,) = each.resources("Custom::S3AutoDeleteObjects").values()
    assert resource["Properties"]["BucketName"] == {"Ref": bucket_id(each)}
    # What comes first is removed last.
    before = all_before(next(iter(each.resources("Custom::S3AutoDeleteObjects"))), each.all_resources())
    assert {bucket_id(each), *each.resources("AWS::S3::BucketPolicy")} <= before
    tag = {"Key": "aws-cdk:auto-delete-objects", "Value": "true"}
    assert tag in only(each.properties("AWS::S3::Bucket"))["Tags"]


def test_what_writes_into_the_bucket_is_removed_before_it_is_emptied(each: Synthesised) -> None:
    (emptied,) = each.resources("Custom::S3AutoDeleteObjects")
    writers = {
        id_
        for id_, found in each.image_functions().items()
        if "s3:PutObject" in str(each.statements(found["Properties"]))
    }
    assert {each.module(id_) for id_ in writers} == {SHELVING, REFRESH}
    for writer in writers:
        assert emptied in all_before(writer, each.all_resources())


def test_the_function_that_empties_it_logs_to_a_group_that_is_removed_after_it(each: Synthesised) -> None:
    # The reference is what makes CloudFormation remove the function first.
    group = emptying(each)["LoggingConfig"]["LogGroup"]["Ref"]
    assert each.resources("AWS::Logs::LogGroup")[group]["DeletionPolicy"] == "Delete"


# Permissions.


def in_bucket(synthesised: Synthesised, arn: Any) -> str:
    """The pattern of keys in an ARN, "" for the bucket itself."""
    itself = {"Fn::GetAtt": [bucket_id(synthesised), "Arn"]}
    if arn == itself:
        return ""
    separator, (bucket, pattern) = arn["Fn::Join"]
    assert (separator, bucket) == ("", itself)
    return str(pattern).removeprefix("/")


def may(synthesised: Synthesised, module: str) -> dict[str, set[str]]:
    """The keys of KEYS on which a job may use each action of S3; for an action on the bucket, an empty set."""
    allowed: dict[str, set[str]] = {}
    for statement in synthesised.statements(synthesised.functions()[module]):
        actions = actions_of(statement)
        if not any(action.startswith("s3:") for action in actions):
            continue
        assert set(statement) == {"Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        patterns = [in_bucket(synthesised, arn) for arn in resources]
        for action in actions:
            assert action not in allowed
            allowed[action] = {key for key in KEYS if any(fnmatchcase(key, pattern) for pattern in patterns)}
            # An action on objects names keys, one on the bucket names none.
            assert all(patterns) == ("Object" in action)
    return allowed


LISTING: dict[str, set[str]] = {"s3:ListBucket": set(), "s3:ListBucketVersions": set()}


@pytest.mark.parametrize(
    ("job", "reads", "writes"),
    [
        (SHELVING, {STATE_KEY, DEPLOYED_KEY}, {DEPLOYED_KEY, SERVED_KEY}),
        (REFRESH, KEYS, {STATE_KEY, STORE_KEY}),
    ],
)
def test_a_job_may_read_and_write_its_own_keys_and_delete_nothing(
    job: str, reads: set[str], writes: set[str], each: Synthesised
) -> None:
    assert may(each, job) == LISTING | {
        "s3:GetObject": reads,
        "s3:GetObjectVersion": reads,
        "s3:PutObject": writes,
    }


# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {
    "get_object": {"s3:GetObject", "s3:GetObjectVersion"},
    "head_object": {"s3:GetObject", "s3:GetObjectVersion"},
    "put_object": {"s3:PutObject"},
    "copy_object": {"s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"},
    "list_object_versions": {"s3:ListBucketVersions"},
}


def test_the_jobs_have_each_action_that_the_library_uses(each: Synthesised) -> None:
    used = set()
    for path in (ROOT / "inference" / "similarity").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(ast.Attribute(_, "get_paginator"), [ast.Constant(str(operation))]):
                    used.add(operation)
                case ast.Call(ast.Attribute(ast.Attribute(_, "_client"), name)) if name != "get_paginator":
                    used.add(name)
    # Another operation needs an action that is looked up first.
    assert used == set(ACTIONS)
    for job in (SHELVING, REFRESH):
        assert set().union(*(ACTIONS[operation] for operation in used)) <= set(may(each, job))


def test_handlers_know_nothing_of_the_bucket(each: Synthesised) -> None:
    for function in each.handlers().values():
        assert "s3:" not in json.dumps(each.statements(function))
        assert bucket_id(each) not in json.dumps(function)
