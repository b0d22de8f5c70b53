"""The VPC: public subnets in two zones, or private ones behind a NAT gateway as well."""

from __future__ import annotations

import json

from stack import REFRESH, SHELVING, Object, Synthesised, only


def zones_of(synthesised: Synthesised, kind: str) -> set[str]:
    subnets = synthesised.resources("AWS::EC2::Subnet")
    return {json.dumps(subnets[subnet]["Properties"]["AvailabilityZone"]) for subnet in synthesised.subnets(kind)}


def test_by_default_there_is_a_public_subnet_in_each_of_two_zones_and_no_nat_gateway(default: Synthesised) -> None:
    assert only(default.properties("AWS::EC2::VPC"))["CidrBlock"] == "10.0.0.0/16"
    subnets = default.resources("AWS::EC2::Subnet")
    assert set(subnets) == default.subnets("Public")
    assert len(subnets) == len(zones_of(default, "Public")) == 2
    blocks = {id_: subnet["Properties"]["CidrBlock"] for id_, subnet in subnets.items()}
    # The one that stacks had before there were two: an update can't move it.
    assert blocks.pop("NetworkVpcPublicSubnet1Subnet36933139") == "10.0.0.0/24"
    assert list(blocks.values()) == ["10.0.1.0/24"]
    default.template.resource_count_is("AWS::EC2::NatGateway", 0)
    default.template.resource_count_is("AWS::EC2::EIP", 0)


def tables_of(synthesised: Synthesised, subnets: set[str]) -> set[str]:
    """Logical ids of the route tables of subnets."""
    return {
        association["RouteTableId"]["Ref"]
        for association in synthesised.properties("AWS::EC2::SubnetRouteTableAssociation")
        if association["SubnetId"]["Ref"] in subnets
    }


def test_functions_reach_s3_by_an_endpoint_that_costs_nothing(each: Synthesised) -> None:
    endpoint = only(each.properties("AWS::EC2::VPCEndpoint"))
    assert endpoint["VpcEndpointType"] == "Gateway"
    assert endpoint["ServiceName"] == {"Fn::Join": ["", ["com.amazonaws.", {"Ref": "AWS::Region"}, ".s3"]]}
    # A handler of somebody's own may need other buckets.
    assert "PolicyDocument" not in endpoint
    routed = {table["Ref"] for table in endpoint["RouteTableIds"]}
    for function in each.functions_in_vpc().values():
        subnets = {subnet["Ref"] for subnet in function["VpcConfig"]["SubnetIds"]}
        assert tables_of(each, subnets) == routed


def egress(synthesised: Synthesised, function: Object) -> set[tuple[str, int, str]]:
    """Protocol, port and aim of what a function may call."""
    group = only(function["VpcConfig"]["SecurityGroupIds"])["Fn::GetAtt"][0]
    rules = [
        *synthesised.resources("AWS::EC2::SecurityGroup")[group]["Properties"].get("SecurityGroupEgress", []),
        *(
            rule
            for rule in synthesised.properties("AWS::EC2::SecurityGroupEgress")
            if rule["GroupId"]["Fn::GetAtt"][0] == group
        ),
    ]
    return {
        (
            rule["IpProtocol"],
            rule.get("FromPort", 0),
            rule.get("CidrIp") or rule["DestinationSecurityGroupId"]["Fn::GetAtt"][0],
        )
        for rule in rules
    }


def test_only_the_shelving_job_may_call_s3_and_it_may_call_nothing_else_but_the_file_system(each: Synthesised) -> None:
    functions = each.functions_in_vpc()
    (protected,) = only(each.properties("AWS::EFS::MountTarget")[:1])["SecurityGroups"]
    nfs = ("tcp", 2049, protected["Fn::GetAtt"][0])
    job = functions.pop(SHELVING)
    assert egress(each, job) == {nfs, ("tcp", 443, "0.0.0.0/0")}
    for handler in functions.values():
        assert handler["VpcConfig"]["SecurityGroupIds"] != job["VpcConfig"]["SecurityGroupIds"]
        assert egress(each, handler) == ({("-1", 0, "0.0.0.0/0")} if each.subnets("Private") else {nfs})


def test_the_refresh_job_is_outside_the_vpc(each: Synthesised) -> None:
    assert "VpcConfig" not in each.functions()[REFRESH]


def test_by_default_functions_and_mount_targets_are_in_the_public_subnets(default: Synthesised) -> None:
    for function in default.functions_in_vpc().values():
        assert {subnet["Ref"] for subnet in function["VpcConfig"]["SubnetIds"]} == default.subnets("Public")
    mount_targets = default.properties("AWS::EFS::MountTarget")
    assert {target["SubnetId"]["Ref"] for target in mount_targets} == default.subnets("Public")


def test_with_a_nat_gateway_there_are_two_zones_with_a_public_and_a_private_subnet_each(other: Synthesised) -> None:
    assert only(other.properties("AWS::EC2::VPC"))["CidrBlock"] == "10.0.0.0/16"
    subnets = other.resources("AWS::EC2::Subnet")
    for kind in ("Public", "Private"):
        assert len(other.subnets(kind)) == len(zones_of(other, kind)) == 2
    assert len(subnets) == 4
    blocks = {subnet["Properties"]["CidrBlock"] for subnet in subnets.values()}
    assert blocks == {f"10.0.{number}.0/24" for number in range(4)}


def test_with_a_nat_gateway_the_private_subnets_reach_the_internet_through_it(other: Synthesised) -> None:
    ((gateway, found),) = other.resources("AWS::EC2::NatGateway").items()
    assert found["Properties"]["SubnetId"]["Ref"] in other.subnets("Public")
    tables = tables_of(other, other.subnets("Private"))
    through_it = {
        route["RouteTableId"]["Ref"]
        for route in other.properties("AWS::EC2::Route")
        if route.get("NatGatewayId") == {"Ref": gateway} and route["DestinationCidrBlock"] == "0.0.0.0/0"
    }
    assert len(tables) == 2
    assert tables == through_it


def test_with_a_nat_gateway_functions_and_mount_targets_are_in_the_private_subnets(other: Synthesised) -> None:
    for function in other.functions_in_vpc().values():
        assert {subnet["Ref"] for subnet in function["VpcConfig"]["SubnetIds"]} == other.subnets("Private")
    mount_targets = other.properties("AWS::EFS::MountTarget")
    assert {target["SubnetId"]["Ref"] for target in mount_targets} == other.subnets("Private")
