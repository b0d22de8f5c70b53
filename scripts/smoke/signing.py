"""Signs requests to an API of API Gateway, with Signature Version 4 and the credentials that boto3 finds."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from aws.remedies import explained
from smoke.api_client import NotSignedError

# RuntimeError: that credentials have expired although they were renewed.
_ERRORS = (BotoCoreError, ClientError, RuntimeError)
_CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})


class Signer:
    """Signs for the APIs of a region: a `smoke.api_client.Sign`. Credentials of a role or of SSO are renewed.

    Raises NotSignedError, here and when it signs, if there are no credentials or if they can't be renewed.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        try:
            self._session = boto3.Session()
            self._credentials = self._session.get_credentials()
            if self._credentials is None:
                raise NoCredentialsError
            self._credentials.get_frozen_credentials()
        except _ERRORS as error:
            raise NotSignedError(f"requests can't be signed: {explained(error)}") from error

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> tuple[str, dict[str, str]]:
        parts = urlsplit(url)
        url = parts._replace(query=canonical(parts.query)).geturl()
        # Signed as it is sent: botocore would leave out a port that is the scheme's own.
        request = AWSRequest(method, url, headers={**headers, "host": parts.netloc}, data=content)
        try:
            SigV4Auth(self._credentials.get_frozen_credentials(), "execute-api", self._region).add_auth(request)
        except _ERRORS as error:
            raise NotSignedError(f"the request can't be signed: {explained(error)}") from error
        return url, {name.lower(): value for name, value in request.headers.items()}

    def why_refused(self, message: str) -> str:
        """Why an API that answers 403 with this message may refuse what this has signed, in one sentence."""
        try:
            who = self._session.client("sts", region_name=self._region, config=_CONFIG).get_caller_identity()["Arn"]
        except (BotoCoreError, ClientError) as error:
            return f'the API refuses the signed requests ("{message}"), and AWS the credentials: {explained(error)}'
        return (
            f'the API refuses the requests that {who} has signed ("{message}"): the API must be in {self._region}, '
            "else give --region, and the permission execute-api:Invoke is needed (docs/publishing.md#permissions)"
        )


def canonical(query: str) -> str:
    """A query in the form that AWS signs: every character but letters, digits and `-._~` is encoded.

    botocore signs a URL's query as it is, but API Gateway decodes and encodes it before it checks the signature:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
