"""The VPC: one public subnet, or two zones behind a NAT gateway."""

from __future__ import annotations

import json

from stack import Synthesised, only


def test_by_default_there_is_one_public_subnet_and_no_nat_gateway(default: Synthesised) -> None:
    assert only(default.properties("AWS::EC2::VPC"))["CidrBlock"] == "10.0.0.0/16"
    subnet = only(default.properties("AWS::EC2::Subnet"))
    assert subnet["CidrBlock"] == "10.0.0.0/24"
    assert len(default.subnets("Public")) == 1
    default.template.resource_count_is("AWS::EC2::NatGateway", 0)
    default.template.resource_count_is("AWS::EC2::EIP", 0)


def test_by_default_functions_and_mount_target_are_in_the_public_subnet(default: Synthesised) -> None:
    for function in default.functions().values():
        assert {subnet["Ref"] for subnet in function["VpcConfig"]["SubnetIds"]} == default.subnets("Public")
    mount_targets = default.properties("AWS::EFS::MountTarget")
    assert {target["SubnetId"]["Ref"] for target in mount_targets} == default.subnets("Public")


def test_with_a_nat_gateway_there_are_two_zones_with_a_public_and_a_private_subnet_each(other: Synthesised) -> None:
    assert only(other.properties("AWS::EC2::VPC"))["CidrBlock"] == "10.0.0.0/16"
    subnets = other.resources("AWS::EC2::Subnet")
    for kind in ("Public", "Private"):
        zones = {json.dumps(subnets[subnet]["Properties"]["AvailabilityZone"]) for subnet in other.subnets(kind)}
        assert len(other.subnets(kind)) == len(zones) == 2
    assert len(subnets) == 4
    blocks = {subnet["Properties"]["CidrBlock"] for subnet in subnets.values()}
    assert blocks == {f"10.0.{number}.0/24" for number in range(4)}


def test_with_a_nat_gateway_the_private_subnets_reach_the_internet_through_it(other: Synthesised) -> None:
    ((gateway, found),) = other.resources("AWS::EC2::NatGateway").items()
    assert found["Properties"]["SubnetId"]["Ref"] in other.subnets("Public")
    tables = {
        association["RouteTableId"]["Ref"]
        for association in other.properties("AWS::EC2::SubnetRouteTableAssociation")
        if association["SubnetId"]["Ref"] in other.subnets("Private")
    }
    through_it = {
        route["RouteTableId"]["Ref"]
        for route in other.properties("AWS::EC2::Route")
        if route.get("NatGatewayId") == {"Ref": gateway} and route["DestinationCidrBlock"] == "0.0.0.0/0"
    }
    assert len(tables) == 2
    assert tables == through_it


def test_with_a_nat_gateway_functions_and_mount_targets_are_in_the_private_subnets(other: Synthesised) -> None:
    for function in other.functions().values():
        assert {subnet["Ref"] for subnet in function["VpcConfig"]["SubnetIds"]} == other.subnets("Private")
    mount_targets = other.properties("AWS::EFS::MountTarget")
    assert {target["SubnetId"]["Ref"] for target in mount_targets} == other.subnets("Private")
