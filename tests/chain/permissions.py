"""What a job may do in the bucket by the stack's template, and whether the calls that it made are among that.

moto allows everything to everybody, S3 doesn't.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote


@dataclass(frozen=True)
class Call:
    """A request to S3. by: the id of the caller's key. needs: pairs of an action and what it is done to, an ARN."""

    by: str
    needs: frozenset[tuple[str, str]]


def call_of(environ: Mapping[str, Any]) -> Call | None:
    """Of a request as WSGI describes it; None if it isn't one to S3.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
    """
    by, _, scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].partition("/")
    if "/s3/" not in scope:
        return None
    bucket, _, key = environ["PATH_INFO"].removeprefix("/").partition("/")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    source = unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", ""))
    method = environ["REQUEST_METHOD"]
    if not key:
        action = "ListBucketVersions" if "versions" in query else "ListBucket"
        return Call(by, frozenset({(f"s3:{action}" if method == "GET" else f"s3:{method}Bucket", _arn(bucket))}))
    reading = "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject"
    action = {"GET": reading, "HEAD": reading, "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}.get(method, method)
    needs = {(action, _arn(bucket, key))}
    if source:
        path, _, version = source.removeprefix("/").partition("?versionId=")
        needs.add(("s3:GetObjectVersion" if version else "s3:GetObject", _arn(*path.split("/", 1))))
    return Call(by, frozenset(needs))


def _arn(*path: str) -> str:
    return f"arn:aws:s3:::{'/'.join(path)}"


def allowed(template: Mapping[str, Any], module: str, bucket: str) -> set[tuple[str, str]]:
    """Pairs of an action of S3 and a pattern of ARNs, which the function that runs a module has."""
    resources = template["Resources"]
    (function,) = [
        each["Properties"]
        for each in resources.values()
        if each["Type"] == "AWS::Lambda::Function"
        and each["Properties"].get("ImageConfig", {}).get("Command") == [f"{module}.handler"]
    ]
    role = {"Ref": function["Role"]["Fn::GetAtt"][0]}
    found = set()
    for each in resources.values():
        if each["Type"] == "AWS::IAM::Policy" and role in each["Properties"]["Roles"]:
            for statement in each["Properties"]["PolicyDocument"]["Statement"]:
                actions = [action for action in _listed(statement["Action"]) if action.startswith("s3:")]
                if actions:
                    assert statement["Effect"] == "Allow"
                    arns = [_resolved(resource, bucket) for resource in _listed(statement["Resource"])]
                    found |= {(action, arn) for action in actions for arn in arns}
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _resolved(resource: Any, bucket: str) -> str:
    """An ARN in which every reference stands for the bucket."""
    match resource:
        case str():
            return resource
        case {"Fn::GetAtt": [_, "Arn"]}:
            return _arn(bucket)
        case {"Fn::Join": ["", parts]}:
            return "".join(_resolved(part, bucket) for part in parts)
    raise ValueError(f"{resource} isn't understood")


def forbidden(calls: Iterable[Call], permissions: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What calls need beyond the permissions."""
    needed = set().union(*(call.needs for call in calls))
    return {
        (action, arn)
        for action, arn in needed
        if not any(action == may and fnmatchcase(arn, pattern) for may, pattern in permissions)
    }
