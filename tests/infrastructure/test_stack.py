"""The stack as a whole: where it goes, what it leaves behind, and what an update may not replace."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from stack import ACCOUNT, DEFAULT, REGION, Synthesised, all_before, synthesise


def test_nothing_is_kept_when_the_stack_is_destroyed(each: Synthesised) -> None:
    resources = each.template.to_json()["Resources"].values()
    policies = {
        resource.get(key, "Delete") for resource in resources for key in ("DeletionPolicy", "UpdateReplacePolicy")
    }
    assert policies == {"Delete"}


def test_nothing_waits_for_itself(each: Synthesised) -> None:
    """CloudFormation refuses a template with a circle; the CDK looks for circles among its own dependencies only."""
    template = each.all_resources()
    assert not [id_ for id_ in template if id_ in all_before(id_, template)]


def test_synthesis_needs_to_look_up_nothing(each: Synthesised) -> None:
    assert "missing" not in each.manifest()


def test_the_stack_goes_to_the_account_and_region_that_were_set(each: Synthesised) -> None:
    expected = {"default": f"aws://{ACCOUNT}/{REGION}", "other": "aws://210987654321/us-gov-west-1"}
    stack = each.manifest()["artifacts"]["AiidSimilarIncidents"]
    assert stack["environment"] == expected["other" if each.subnets("Private") else "default"]


def test_its_description_is_that_of_earlier_stacks(each: Synthesised) -> None:
    """scripts/destroy removes no stack with another one."""
    assert each.template.to_json()["Description"] == "Finds the recorded AI incidents most like a text"


def test_what_people_and_scripts_read_is_put_out(default: Synthesised, other: Synthesised) -> None:
    outputs = {"apiUrl", "apiAuth", "stateBucketName", "dashboardUrl"}
    assert set(default.template.to_json()["Outputs"]) == outputs | {"pageUrl"}
    assert set(other.template.to_json()["Outputs"]) == outputs | {"domainTarget"}


def test_tags_are_those_of_everything_and_removal_can_be_forbidden(default: Synthesised, other: Synthesised) -> None:
    tags = {"stage": "staging", "owner": "a team"}
    for synthesised, expected, protected in ((default, {}, False), (other, tags, True)):
        properties = synthesised.manifest()["artifacts"]["AiidSimilarIncidents"]["properties"]
        assert properties.get("tags", {}) == expected
        assert properties["terminationProtection"] is protected


@pytest.mark.slow
def test_a_second_stack_has_another_name_everywhere(default: Synthesised, tmp_path: Path) -> None:
    staging = synthesise(replace(DEFAULT, stack_name="Staging"), tmp_path)
    assert set(staging.manifest()["artifacts"]) >= {"Staging", "Staging.assets"}
    (path,) = staging.outdir.glob("*.template.json")
    assert path.name == "Staging.template.json"
    assert "AiidSimilarIncidents" not in json.dumps(staging.template.to_json())
    kinds, kinds_of_default = (
        Counter(found["Type"] for found in each.all_resources().values()) for each in (staging, default)
    )
    assert kinds == kinds_of_default


# Logical ids and types in stacks that were deployed with one access point and the CDK's triggers. An update makes what
# has another id anew, before it removes the old one: the API would get another address, and a second route, rule or
# mount target of the same kind fails with "already exists".
# In both kinds of network. The default one had no second zone then.
KEPT = {
    "NetworkVpc7FB7348F": "AWS::EC2::VPC",
    "NetworkVpcPublicSubnet1Subnet36933139": "AWS::EC2::Subnet",
    "NetworkVpcPublicSubnet1RouteTable30235CE2": "AWS::EC2::RouteTable",
    "NetworkVpcPublicSubnet1RouteTableAssociation643926C7": "AWS::EC2::SubnetRouteTableAssociation",
    "NetworkVpcPublicSubnet1DefaultRoute31EC04EC": "AWS::EC2::Route",
    "NetworkVpcIGW6BEA7B02": "AWS::EC2::InternetGateway",
    "NetworkVpcVPCGW8F3799B5": "AWS::EC2::VPCGatewayAttachment",
    "NetworkFunctionsSecurityGroup33CAC945": "AWS::EC2::SecurityGroup",
    "ModelCacheFileSystemC75099E4": "AWS::EFS::FileSystem",
    "ModelCacheFileSystemEfsSecurityGroup0A0AAFA0": "AWS::EC2::SecurityGroup",
    "ModelCacheFileSystemEfsSecurityGroupfromAiidSimilarIncidentsNetworkFunctionsSecurityGroup9F912BA12049BFC4C17D": "AWS::EC2::SecurityGroupIngress",  # noqa: E501
    "ModelCacheFileSystemEfsMountTarget145722F91": "AWS::EFS::MountTarget",
    "ModelCacheFileSystemAccessPoint69486237": "AWS::EFS::AccessPoint",
    "ApiF70053CD": "AWS::ApiGatewayV2::Api",
    "ApiDefaultStage189A7074": "AWS::ApiGatewayV2::Stage",
    "ApiGETembedtodbsimilar39B65AAE": "AWS::ApiGatewayV2::Route",
    "ApiPOSTembedtodbsimilar7D625EF8": "AWS::ApiGatewayV2::Route",
    "ApiGETsimilarFC3312A7": "AWS::ApiGatewayV2::Route",
    "ApiPOSTsimilar905387A2": "AWS::ApiGatewayV2::Route",
    "ApiGETtexttodbsimilar896CE2AC": "AWS::ApiGatewayV2::Route",
    "ApiPOSTtexttodbsimilar0F94ADC4": "AWS::ApiGatewayV2::Route",
    "ApiGETtexttoembed6BCC436B": "AWS::ApiGatewayV2::Route",
    "ApiPOSTtexttoembed8813BD91": "AWS::ApiGatewayV2::Route",
    "InboxBucket1EDE8E4F": "AWS::S3::Bucket",
}
# Without a NAT gateway, all outbound traffic of the functions has a rule of its own.
KEPT_WITHOUT_NAT = {
    "NetworkFunctionsSecurityGrouptoAiidSimilarIncidentsModelCacheFileSystemEfsSecurityGroupD3C9A93520499CF027D1": "AWS::EC2::SecurityGroupEgress",  # noqa: E501
}
# With a NAT gateway.
KEPT_WITH_NAT = {
    "NetworkVpcPublicSubnet1EIPE0D52090": "AWS::EC2::EIP",
    "NetworkVpcPublicSubnet1NATGateway64781A21": "AWS::EC2::NatGateway",
    "NetworkVpcPublicSubnet2SubnetC427CCE0": "AWS::EC2::Subnet",
    "NetworkVpcPublicSubnet2RouteTable0FACEBB2": "AWS::EC2::RouteTable",
    "NetworkVpcPublicSubnet2RouteTableAssociationC662643B": "AWS::EC2::SubnetRouteTableAssociation",
    "NetworkVpcPublicSubnet2DefaultRoute0CF082AB": "AWS::EC2::Route",
    "NetworkVpcPrivateSubnet1Subnet6DD86AE6": "AWS::EC2::Subnet",
    "NetworkVpcPrivateSubnet1RouteTable7D7AA3CD": "AWS::EC2::RouteTable",
    "NetworkVpcPrivateSubnet1RouteTableAssociation327CA62F": "AWS::EC2::SubnetRouteTableAssociation",
    "NetworkVpcPrivateSubnet1DefaultRoute08635105": "AWS::EC2::Route",
    "NetworkVpcPrivateSubnet2Subnet1BDBE877": "AWS::EC2::Subnet",
    "NetworkVpcPrivateSubnet2RouteTableC48862D1": "AWS::EC2::RouteTable",
    "NetworkVpcPrivateSubnet2RouteTableAssociation89A2F1E8": "AWS::EC2::SubnetRouteTableAssociation",
    "NetworkVpcPrivateSubnet2DefaultRouteA15DC6D5": "AWS::EC2::Route",
    "ModelCacheFileSystemEfsMountTarget2A0BFFF9F": "AWS::EFS::MountTarget",
}


def test_an_update_replaces_neither_the_api_nor_the_network_nor_the_file_system(
    default: Synthesised, other: Synthesised
) -> None:
    for synthesised, more in ((default, KEPT_WITHOUT_NAT), (other, KEPT_WITH_NAT)):
        resources = synthesised.all_resources()
        kept = KEPT | more
        assert {id_: resources[id_]["Type"] for id_ in kept if id_ in resources} == kept


def test_an_update_keeps_the_access_point_as_it_is(each: Synthesised) -> None:
    """Each of its properties but the tags would replace it, while functions still mount it."""
    properties = each.all_resources()["ModelCacheFileSystemAccessPoint69486237"]["Properties"]
    assert properties == {
        "AccessPointTags": [{"Key": "Name", "Value": "AiidSimilarIncidents/ModelCache/FileSystem/AccessPoint"}],
        "FileSystemId": {"Ref": "ModelCacheFileSystemC75099E4"},
        "PosixUser": {"Gid": "1001", "Uid": "1001"},
        "RootDirectory": {
            "CreationInfo": {"OwnerGid": "1001", "OwnerUid": "1001", "Permissions": "750"},
            "Path": "/export/models",
        },
    }


def test_no_id_of_an_earlier_stack_has_another_type_now(each: Synthesised) -> None:
    """CloudFormation refuses to change a resource's type. The CDK's triggers had these ids."""
    triggers = {
        "Primingembedtodbsimilar52F453CB",
        "PrimingsimilarB11274EA",
        "Primingtexttodbsimilar45B63D27",
        "PrimingtexttoembedDB4BBFCE",
    }
    assert triggers.isdisjoint(each.all_resources())


def test_nothing_has_a_name_of_its_own_that_a_second_one_could_collide_with(each: Synthesised) -> None:
    """What is replaced is made anew before the old one goes: both exist for a while."""
    names = {
        "AWS::Lambda::Function": "FunctionName",
        "AWS::IAM::Role": "RoleName",
        "AWS::Logs::LogGroup": "LogGroupName",
        "AWS::EC2::SecurityGroup": "GroupName",
        "AWS::EFS::AccessPoint": "ClientToken",
        "AWS::S3::Bucket": "BucketName",
        "AWS::SQS::Queue": "QueueName",
        "AWS::Events::Rule": "Name",
    }
    for kind, name in names.items():
        assert each.properties(kind)
        assert not [found for found in each.properties(kind) if name in found]
