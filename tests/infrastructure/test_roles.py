"""What every Lambda's role may do for Lambda itself, and that no policy of AWS widens it."""

from __future__ import annotations

from stack import REFRESH, Object, Synthesised, actions_of, only

NETWORK = {
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}


def test_no_role_has_a_policy_that_aws_manages(each: Synthesised) -> None:
    roles = each.properties("AWS::IAM::Role")
    # One for each Lambda, the two behind custom resources included.
    assert len(roles) == len(each.resources("AWS::Lambda::Function"))
    # The CDK's own emptier of the bucket has no list at all, which is the same.
    assert [role.get("ManagedPolicyArns", []) for role in roles] == [[]] * len(roles)
    # An empty list takes the policies away that a deployed role has.
    assert sum("ManagedPolicyArns" in role for role in roles) == len(roles) - 1


def statements_of(synthesised: Synthesised, function: Object) -> list[Object]:
    """Also those that stand in the role itself."""
    role = synthesised.resources("AWS::IAM::Role")[function["Role"]["Fn::GetAtt"][0]]["Properties"]
    inline = [found for policy in role.get("Policies", []) for found in policy["PolicyDocument"]["Statement"]]
    return [*synthesised.all_statements(function), *inline]


def test_every_function_may_write_to_its_own_log_and_to_no_other(each: Synthesised) -> None:
    for function in each.properties("AWS::Lambda::Function"):
        found = only([s for s in statements_of(each, function) if "logs:" in str(s["Action"])])
        assert set(found["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents"}
        assert found["Resource"] == {"Fn::GetAtt": [function["LoggingConfig"]["LogGroup"]["Ref"], "Arn"]}


def test_lambda_may_place_a_function_in_the_network_but_its_code_may_not(each: Synthesised) -> None:
    for function in each.functions_in_vpc().values():
        found = [s for s in each.all_statements(function) if "ec2:" in str(s["Action"])]
        allowed = {action for s in found if s["Effect"] == "Allow" for action in actions_of(s)}
        assert allowed == NETWORK
        denied = only([s for s in found if s["Effect"] == "Deny"])
        assert set(denied["Action"]) == NETWORK
        assert denied["Resource"] == "*"
        # Calls of the code have the key, Lambda's own have not.
        assert denied["Condition"] == {"Null": {"lambda:SourceFunctionArn": "false"}}


def test_what_is_outside_the_network_may_not_touch_it(each: Synthesised) -> None:
    outside = [f for f in each.properties("AWS::Lambda::Function") if "VpcConfig" not in f]
    assert each.functions()[REFRESH] in outside
    for function in outside:
        assert "ec2:" not in str(statements_of(each, function))
