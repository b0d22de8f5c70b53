"""What the role of every Lambda allows: its log, and its place in the network. No policy that AWS manages.

Each concern adds what its Lambdas may do beyond this: the file system, the bucket, the queues.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import IConstruct

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
_LOOKING_AT_THE_NETWORK = ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets")
_NETWORK_INTERFACES = (
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)
_WRITING_LOGS = ("logs:CreateLogStream", "logs:PutLogEvents")


def allow_only_its_own_log(function: lambda_.Function) -> None:
    """Takes AWS's policies off a Lambda's role. They allow every log, and network interfaces to any code."""
    assert function.role is not None
    role = function.role.node.default_child
    assert isinstance(role, iam.CfnRole)
    # The role itself stays, because an update must not replace it while the Lambda runs.
    role.managed_policy_arns = []
    function.add_to_role_policy(
        iam.PolicyStatement(actions=list(_WRITING_LOGS), resources=[function.log_group.log_group_arn])
    )


def allow_place_in_network(function: lambda_.Function) -> None:
    """Lets Lambda, which acts as the role, give the function network interfaces. The function's own code can't."""
    # AWS can't limit these to resources.
    function.add_to_role_policy(iam.PolicyStatement(actions=list(_LOOKING_AT_THE_NETWORK), resources=["*"]))
    # Lambda makes the interfaces, so their ids aren't known here. AWS's page names this pattern.
    any_interface = cdk.Stack.of(function).format_arn(service="ec2", resource="*", resource_name="*")
    function.add_to_role_policy(iam.PolicyStatement(actions=list(_NETWORK_INTERFACES), resources=[any_interface]))
    # Only calls of the function's code have this key, not Lambda's own:
    # https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
    function.add_to_role_policy(
        iam.PolicyStatement(
            effect=iam.Effect.DENY,
            actions=[*_LOOKING_AT_THE_NETWORK, *_NETWORK_INTERFACES],
            resources=["*"],
            conditions={"Null": {"lambda:SourceFunctionArn": "false"}},
        )
    )


def allow_only_its_own_log_of_resource(role: IConstruct, log_group: logs.ILogGroup) -> None:
    """The same for the role of a Lambda that the CDK adds as a bare resource."""
    assert isinstance(role, cdk.CfnResource)
    statement = {"Effect": "Allow", "Action": list(_WRITING_LOGS), "Resource": log_group.log_group_arn}
    role.add_property_deletion_override("ManagedPolicyArns")
    role.add_property_override(
        "Policies", [{"PolicyName": "Log", "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]}}]
    )
