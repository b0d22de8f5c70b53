"""The checks of the account and the region before a deployment.

`access`, `quotas` and `stack` have the checks. `target` has the things that they look at. `asking` asks AWS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deployment.account.access import bootstrap, credentials, region
from deployment.account.asking import ACTIONS, Aws, AwsError, BlockedError, UnreachableError
from deployment.account.quotas import concurrency, lambda_memory, network
from deployment.account.stack import certificate, stack
from deployment.account.target import Target
from deployment.findings import Finding, not_checked
from deployment.given import Given
from similarity.api.routes import HandlerFileError
from similarity.errors import reason_of

__all__ = ["ACTIONS", "CHECKS", "aws_findings"]

CHECKS: dict[str, Callable[[Target], Iterator[Finding]]] = {
    "Credentials": credentials,
    "Region": region,
    "Bootstrap": bootstrap,
    "Lambda memory": lambda_memory,
    "Concurrency": concurrency,
    "Network": network,
    "Certificate": certificate,
    "Stack": stack,
}


def aws_findings(given: Given) -> Iterator[Finding]:
    """The findings of the checks, in their order. No answer of AWS, and no silence, makes it raise.

    Without usable credentials, a usable region or a network, the remaining checks are `not checked`, with the reason.
    """
    target = Target(given, Aws(given.config.region))
    why = ""
    for name, check in CHECKS.items():
        if name == "Certificate" and not given.config.domain_name:
            continue
        if why:
            yield not_checked(name, why)
            continue
        try:
            yield from check(target)
        except BlockedError as blocked:
            yield blocked.finding
            why = blocked.why
        except UnreachableError as error:
            yield not_checked(name, str(error))
            why = "AWS can't be reached"
        except (AwsError, HandlerFileError) as error:
            yield not_checked(name, str(error).removesuffix("."))
        # An answer of another form than AWS documents. It must not hide what the other checks find.
        except Exception as error:
            yield not_checked(name, f"AWS's answer has an unforeseen form: {reason_of(error)}")
