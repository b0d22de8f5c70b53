"""AWS that answers as a test tells it, for what moto doesn't know or can't break.

The clients are boto3's own. An answer must fit AWS's description of the API, which botocore has, and an error must be
one that AWS names there or one that every service may give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.model import OperationModel
from botocore.validate import validate_parameters

# https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html and
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
COMMON_ERRORS = {
    *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "ValidationError"),
    *("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "InternalError"),
}


class Refusal(NamedTuple):
    """An error of AWS."""

    code: str
    message: str


Answer = dict[str, Any] | Refusal | Exception
# An answer, or what makes one of the region and the parameters of a call.
Teller = Answer | Callable[[str, dict[str, Any]], Answer]


@dataclass
class Told:
    """answers: by AWS's name of the operation. calls: the operations that were asked for, with their regions."""

    answers: dict[str, Teller]
    calls: list[tuple[str, str]] = field(default_factory=list)

    def client(self, service: str, region: str) -> Any:
        _told[:] = [self]
        return _client(service, region)

    def answer(self, model: OperationModel, region: str, parameters: dict[str, Any]) -> tuple[AWSResponse, Any]:
        self.calls.append((model.name, region))
        told = self.answers[model.name]
        answer = told(region, parameters) if callable(told) else told
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Refusal):
            named = {shape.metadata.get("error", {}).get("code", shape.name) for shape in model.error_shapes}
            assert answer.code in COMMON_ERRORS | named, f"{model.name} doesn't fail with {answer.code}"
            error = {"Error": {"Code": answer.code, "Message": answer.message}}
            return AWSResponse(None, 400, {}, None), error
        validate_parameters(answer, model.output_shape)
        return AWSResponse(None, 200, {}, None), answer


_told: list[Told] = []


@cache
def _session() -> boto3.Session:
    core = botocore.session.get_session()
    core.register("before-parameter-build", _note)
    core.register("before-call", _answer)
    return boto3.Session("a", "b", botocore_session=core)


@cache
def _client(service: str, region: str) -> Any:
    """Made once, because that takes up to half a second."""
    return _session().client(service, region_name=region)


def _note(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    context["told"] = dict(params)


def _answer(model: OperationModel, context: dict[str, Any], **_: object) -> tuple[AWSResponse, Any]:
    return _told[0].answer(model, context["client_region"], context["told"])
