"""Whether the account's quotas leave room for the stack: memory and number of Lambdas, VPCs and addresses."""

from __future__ import annotations

from collections.abc import Iterator

from deployment.account.asking import Aws, AwsError, UnreachableError
from deployment.account.target import Target
from deployment.findings import Finding, not_checked, note, ok, problem

# The most memory of a Lambda in a new account. The number comes from errors: "Member must have value less than or equal
# to 3008". https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html doesn't name it.
_NEW_ACCOUNTS_MIB = 3008
_MIB_OF_UNITS = {"Megabytes": 1, "Gigabytes": 1024}
# Lambda keeps these for functions that reserve nothing:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
_KEPT_UNRESERVED = 100
# https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html has both. They can only be raised.
_VPCS = ("vpc", "L-F678F1CE", 5)
_ADDRESSES = ("ec2", "L-0263D0A3", 5)


def lambda_memory(target: Target) -> Iterator[Finding]:
    """Service Quotas mostly has no entry for this quota. Its defaults would say nothing about an account."""
    name, config = "Lambda memory", target.config
    wanted = max(config.memory_of(file) for file in (*target.handlers, *target.jobs))
    if wanted <= _NEW_ACCOUNTS_MIB:
        yield ok(name, f"the stack asks for {wanted:,} MB at most, which new accounts get too")
        return
    why = "Service Quotas doesn't tell whether the account may have them"
    try:
        quota = _memory_quota(target.aws)
    except UnreachableError:
        raise
    except AwsError as error:
        quota, why = None, str(error)
    if quota and wanted > quota:
        detail = f"the stack asks for {wanted:,} MB, but Service Quotas allows {quota:,}"
        yield problem(name, detail, f"LAMBDA_MEMORY_MIB={quota} in .env")
    elif quota:
        yield ok(name, f"the stack asks for {wanted:,} MB, and Service Quotas allows {quota:,}")
    elif any(each.get("MemorySize", 0) >= wanted for each in target.aws.all_of("lambda:ListFunctions", "Functions")):
        yield ok(name, f"the stack asks for {wanted:,} MB, and a Lambda here already has as much")
    else:
        yield not_checked(
            name,
            f"the stack asks for {wanted:,} MB, and {why}; a new account may be limited to {_NEW_ACCOUNTS_MIB:,} MB",
            f"if the account is new: LAMBDA_MEMORY_MIB={_NEW_ACCOUNTS_MIB} in .env",
        )


def _memory_quota(aws: Aws) -> int | None:
    """MiB; None if Service Quotas doesn't tell it. Only its name identifies this quota."""
    for quota in aws.all_of("servicequotas:ListServiceQuotas", "Quotas", ServiceCode="lambda"):
        name, unit = quota.get("QuotaName", "").lower(), _MIB_OF_UNITS.get(quota.get("Unit", ""))
        if "function memory" in name and "minimum" not in name and unit and quota.get("Value"):
            return int(quota["Value"] * unit)
    return None


def concurrency(target: Target) -> Iterator[Finding]:
    name, each = "Concurrency", target.config.max_concurrency
    limits = target.aws.ask("lambda:GetAccountSettings")["AccountLimit"]
    quota = limits["ConcurrentExecutions"]
    if not each:
        if quota < _KEPT_UNRESERVED:
            yield note(
                name,
                f"the account may run {quota} Lambdas at once here, and AWS refuses calls beyond that",
                _raise("lambda", "L-B99A9384", 1000, target.config.region),
            )
        else:
            yield ok(name, f"the account may run {quota:,} Lambdas at once here")
        return
    handlers = len(target.handlers)
    wanted = each * handlers
    free = limits["UnreservedConcurrentExecutions"] - _KEPT_UNRESERVED
    if wanted > free:
        free += _reserved_already(target)
    if wanted > free:
        most = max(0, free)
        more = _raise("lambda", "L-B99A9384", quota + wanted - free, target.config.region)
        yield problem(
            name,
            f"MAX_CONCURRENCY={each} reserves {wanted:,} Lambdas for {handlers} handlers, but the account can reserve "
            f"only {most:,} of its {quota:,}",
            f"MAX_CONCURRENCY={most // handlers} in .env\nor {more}",
        )
    else:
        yield ok(name, f"{wanted:,} Lambdas can be reserved for {handlers} handlers")


def _reserved_already(target: Target) -> int:
    """What the stack's own Lambdas have reserved."""
    return sum(
        target.aws.ask("lambda:GetFunctionConcurrency", FunctionName=function).get("ReservedConcurrentExecutions", 0)
        for function in target.stack.physical_ids("AWS::Lambda::Function")
    )


def network(target: Target) -> Iterator[Finding]:
    if target.stack.has_resources and target.stack.is_ours:
        yield ok("Network", "the stack has its VPC already")
        return
    vpcs = target.aws.all_of("ec2:DescribeVpcs", "Vpcs")
    # One that another account shares counts there.
    yield from _room(target, "VPCs", sum(each.get("OwnerId", target.account) == target.account for each in vpcs), _VPCS)
    if target.config.nat_gateway:
        addresses = target.aws.ask("ec2:DescribeAddresses")["Addresses"]
        yield from _room(target, "Elastic IP addresses", len(addresses), _ADDRESSES)


def _room(target: Target, things: str, used: int, quota_of: tuple[str, str, int]) -> Iterator[Finding]:
    """Whether there may be one more."""
    service, code, default = quota_of
    if used < default:
        yield ok("Network", f"{things}: {used} in use, and every account may have {default}")
        return
    answer = target.aws.ask_if_there(
        "servicequotas:GetServiceQuota", "NoSuchResourceException", ServiceCode=service, QuotaCode=code
    )
    # Without an entry the default counts.
    quota = int(answer["Quota"]["Value"]) if answer else default
    if used < quota:
        yield ok("Network", f"{things}: {used} of {quota} in use")
    else:
        yield problem(
            "Network",
            f"{things}: {used} of {quota} in use, and the stack needs one more",
            f"remove one that nobody needs\nor {_raise(service, code, used + 1, target.config.region)}",
        )


def _raise(service: str, code: str, value: int, region: str) -> str:
    return (
        f"aws service-quotas request-service-quota-increase --region {region} --service-code {service} "
        f"--quota-code {code} --desired-value {value}"
    )
