"""Whether the stack can be deployed: the status of an existing one, and the certificate of its domain."""

from __future__ import annotations

from collections.abc import Iterator

from deployment.account.target import Target
from deployment.findings import Finding, note, ok, problem

_WHY_IT_FAILED = "docs/operations.md#undo-the-last-deployment says how to see why"


def stack(target: Target) -> Iterator[Finding]:
    name, there = target.config.stack_name, target.stack
    place = f"{name} in {target.config.region}"
    status = there.status
    if not there.found or status == "REVIEW_IN_PROGRESS":
        yield ok("Stack", f"{place} will be new")
    elif there.has_resources and not there.is_ours:
        description = there.found.get("Description") or "none"
        yield problem(
            "Stack",
            f"{place} belongs to another application (its description: {description})",
            "choose another STACK_NAME in .env",
        )
    elif status.endswith("_IN_PROGRESS"):
        yield problem("Stack", f"{place} is {status}: it is being deployed or removed", "wait until that is done")
    # StackStatus.isCreationFailure of the CDK's command line.
    elif status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        if there.found.get("EnableTerminationProtection"):
            yield problem("Stack", f"{place} is {status}, and protected, so the CDK can't remove it", "scripts/destroy")
        else:
            yield note("Stack", f"{place} is {status}: its first deployment failed, and the CDK removes it first")
    elif status.endswith("_FAILED"):
        yield problem(
            "Stack", f"{place} is {status}, so it can't be updated", f"{_way_out(target, status)}\n{_WHY_IT_FAILED}"
        )
    else:
        yield ok("Stack", f"{place} is {status}, and will be updated")
        yield from _nat_gateway(target)


def _way_out(target: Target, status: str) -> str:
    where = f"--stack-name {target.config.stack_name} --region {target.config.region}"
    if status == "UPDATE_ROLLBACK_FAILED":
        return f"aws cloudformation continue-update-rollback {where}"
    # After a deployment with --no-rollback. The CDK would stop and ask.
    if status in ("CREATE_FAILED", "UPDATE_FAILED"):
        return f"aws cloudformation rollback-stack {where}"
    if status == "DELETE_FAILED":
        return "scripts/destroy\nthen deploy again"
    return "repair it in CloudFormation's console"


def _nat_gateway(target: Target) -> Iterator[Finding]:
    has_one = bool(target.stack.physical_ids("AWS::EC2::NatGateway"))
    if has_one != target.config.nat_gateway:
        deployed, wanted = str(has_one).lower(), str(target.config.nat_gateway).lower()
        yield problem(
            "Stack",
            f"it was deployed with NAT_GATEWAY={deployed}, and can't be changed to {wanted} "
            "(docs/deploying.md#internet-access-for-handlers says why)",
            f"NAT_GATEWAY={deployed} in .env\nor another stack: scripts/deploy --stack NAME\nor scripts/destroy first",
        )


def certificate(target: Target) -> Iterator[Finding]:
    """Whether it fits the domain, and whether the domain is free."""
    name, domain, arn = "Certificate", target.config.domain_name, target.config.certificate_arn
    console = f"https://{target.config.region}.console.aws.amazon.com/acm"
    if (owner := arn.split(":")[4]) != target.account:
        yield problem(name, f"it is in the account {owner}", f"give the CERTIFICATE_ARN of one in {target.account}")
        return
    answer = target.aws.ask_if_there("acm:DescribeCertificate", "ResourceNotFoundException", CertificateArn=arn)
    if not answer:
        yield problem(name, f"there is no certificate {arn}", f"choose one at {console}, and set CERTIFICATE_ARN")
        return
    found = answer["Certificate"]
    names = [found["DomainName"], *found.get("SubjectAlternativeNames", [])]
    if found["Status"] == "PENDING_VALIDATION":
        yield problem(
            name,
            f"nobody has proved yet that {', '.join(dict.fromkeys(names))} is yours",
            f"make the DNS record that {console} names",
        )
    elif found["Status"] != "ISSUED":
        yield problem(name, f"it is {found['Status']}", f"request another one at {console}, and set CERTIFICATE_ARN")
    elif not any(_covers(each.lower(), domain) for each in names):
        yield problem(
            name,
            f"it covers {', '.join(dict.fromkeys(names))}, but not {domain}",
            f"request one for {domain} at {console}, and set CERTIFICATE_ARN",
        )
    else:
        yield ok(name, f"it is issued, and covers {domain}")
    taken = target.aws.ask_if_there("apigateway:GET", "NotFoundException", DomainName=domain)
    if taken and domain not in target.stack.physical_ids("AWS::ApiGatewayV2::DomainName"):
        yield problem(
            name,
            f"another API in this account and region has the domain {domain}",
            f"choose another DOMAIN_NAME\nor aws apigatewayv2 delete-domain-name --region {target.config.region} "
            f"--domain-name {domain}",
        )


def _covers(name: str, domain: str) -> bool:
    """A wildcard stands for one label."""
    return name == domain or (name.startswith("*.") and name[2:] == domain.partition(".")[2])
