"""The owner of the credentials, whether the region can be used, and whether it is bootstrapped."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from aws.remedies import remedy_of
from deployment.account.asking import DENIED, AwsError, BlockedError, UnreachableError
from deployment.account.target import DeployedStack, Target
from deployment.findings import Finding, not_checked, note, ok, problem
from similarity.errors import one_line

# What stacks of aws-cdk-lib 2.275 require: MIN_BOOTSTRAP_STACK_VERSION of its DefaultStackSynthesizer.
REQUIRED_BOOTSTRAP = 6
BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
_BOOTSTRAP_STACK = "CDKToolkit"


def credentials(target: Target) -> Iterator[Finding]:
    """Raises BlockedError without credentials of the account."""
    name, wanted = "Credentials", target.config.account
    try:
        account, arn = target.identity["Account"], target.identity["Arn"]
    except AwsError as error:
        cause, remedy = one_line(str(error.__cause__)), remedy_of(error.__cause__)
        why = "there are no credentials that AWS accepts"
        if isinstance(error, UnreachableError):
            remedy, why = "check the network of this machine, and HTTPS_PROXY if it needs one", "AWS can't be reached"
        # AWS lets everybody ask for the identity. So it has refused the role of a profile.
        if error.code in DENIED:
            remedy = "set AWS_PROFILE to a profile whose role you may assume"
        if not remedy:
            raise BlockedError(not_checked(name, cause), "AWS doesn't tell whose credentials these are") from error
        found = problem(name, cause, remedy)
        raise BlockedError(found, why) from error
    if wanted and account != wanted:
        raise BlockedError(
            problem(
                name,
                f"they are of the account {account} ({arn}), but AWS_ACCOUNT_ID is {wanted}",
                f"set AWS_PROFILE to a profile of {wanted}\nor AWS_ACCOUNT_ID={account} in .env",
            ),
            f"the credentials are of another account than {wanted}",
        )
    if wanted:
        yield ok(name, f"of the account {account}, as {arn}")
    else:
        # The check of the settings reports the missing setting as a problem.
        yield note(name, f"they are of the account {account}, as {arn}", f"AWS_ACCOUNT_ID={account} in .env")
    if arn.endswith(":root"):
        yield note(
            name,
            "they are the root user's, who may do everything; AWS advises against their use",
            "make a user: https://docs.aws.amazon.com/IAM/latest/UserGuide/root-user-best-practices.html",
        )


def region(target: Target) -> Iterator[Finding]:
    """Raises BlockedError if the region isn't known, or can't be used."""
    name, wanted = "Region", target.config.region
    if not wanted:
        raise BlockedError(not_checked(name, "AWS_REGION isn't set, or has a bad value"), "the region isn't known")
    known = _known_regions(target)
    if wanted not in known:
        nearest = get_close_matches(wanted, known)
        told = f"; the nearest names: {', '.join(nearest)}" if nearest else ""
        raise BlockedError(
            problem(
                name,
                f"AWS knows no region {wanted}{told}",
                f"AWS_REGION={nearest[0] if nearest else target.aws.home} in .env\nor another name of "
                "https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html",
            ),
            f"there is no region {wanted}",
        )
    if known[wanted] == "not-opted-in":
        raise BlockedError(
            problem(
                name,
                f"{wanted} is switched off in the account {target.account}",
                f"aws account enable-region --region-name {wanted}\nthis takes minutes or hours",
            ),
            f"the region {wanted} is switched off",
        )
    yield ok(name, f"{wanted} is on")


def _known_regions(target: Target) -> dict[str, str]:
    """The status of each region, by name. Raises AwsError.

    This asks the region itself first, because a policy may forbid all others. A region that doesn't exist or is
    switched off can't answer.
    """
    error: AwsError | None = None
    for place in dict.fromkeys((target.config.region, target.aws.home)):
        try:
            answer = target.aws.ask("ec2:DescribeRegions", region=place, AllRegions=True)
            return {each["RegionName"]: each["OptInStatus"] for each in answer["Regions"]}
        except AwsError as failed:
            # A refusal comes from the region. Without a connection, the region may not exist.
            error = error if error and isinstance(failed, UnreachableError) else failed
    assert error is not None
    raise error


def bootstrap(target: Target) -> Iterator[Finding]:
    name, region = "Bootstrap", target.config.region
    remedy = f"npx aws-cdk@2 bootstrap aws://{target.account}/{region}"
    parameter = target.aws.ask_if_there("ssm:GetParameter", "ParameterNotFound", Name=BOOTSTRAP_PARAMETER)
    version = int(parameter["Parameter"]["Value"]) if parameter else 0
    status = DeployedStack(target.aws, _BOOTSTRAP_STACK).status
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        yield problem(name, f"the stack {_BOOTSTRAP_STACK} is {status}", "wait until it is done")
    elif version >= REQUIRED_BOOTSTRAP:
        if _is_broken(status):
            yield note(name, f"version {version} is there, but the stack {_BOOTSTRAP_STACK} is {status}")
        else:
            yield ok(name, f"version {version} is there")
    elif version:
        yield problem(name, f"version {version} is there, but {REQUIRED_BOOTSTRAP} is needed", remedy)
    elif _is_broken(status):
        # The CDK itself removes a stack that was never completed.
        delete = f"aws cloudformation delete-stack --stack-name {_BOOTSTRAP_STACK} --region {region}\nthen "
        yield problem(
            name,
            f"the stack {_BOOTSTRAP_STACK} is {status}",
            remedy if status.startswith("ROLLBACK_") else delete + remedy,
        )
    else:
        yield problem(name, f"the account {target.account} isn't bootstrapped in {region}", remedy)


def _is_broken(status: str) -> bool:
    return status == "ROLLBACK_COMPLETE" or status.endswith("_FAILED")
