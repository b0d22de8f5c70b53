"""What to do about errors of AWS."""

from __future__ import annotations

from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's: no connection to AWS)
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from similarity.errors import one_line

_LOG_IN = "log in to AWS again, e.g. with `aws sso login`"
_REMEDIES = {
    ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"): _LOG_IN,
    (
        *("InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException", "SignatureDoesNotMatch"),
        *("InvalidSignatureException", "AuthFailure", "InvalidToken"),
    ): "check the AWS credentials in the environment or in ~/.aws, and this machine's clock",
    (
        *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"),
    ): "docs/publishing.md#permissions lists the permissions that you need",
    ("NoSuchBucket",): "deploy the stack again",
    ("RequestTimeTooSkewed",): "set this machine's clock",
}


def explained(error: BaseException) -> str:
    """An error of AWS, and the remedy if there is one."""
    remedy = remedy_of(error)
    return f"{one_line(str(error))}{f'; {remedy}' if remedy else ''}"


def remedy_of(error: BaseException | None) -> str:
    """ "" without one."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        return (
            "log in to AWS, e.g. with `aws configure`, or set AWS_PROFILE, "
            "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    # RuntimeError: botocore's for credentials that have expired although it has just renewed them.
    if isinstance(error, SSOError | TokenRetrievalError | RuntimeError):
        return _LOG_IN
    if isinstance(error, ConnectionError | HTTPClientError):
        return "check the network and AWS_REGION"
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code")
        return next((remedy for codes, remedy in _REMEDIES.items() if code in codes), "")
    return ""
