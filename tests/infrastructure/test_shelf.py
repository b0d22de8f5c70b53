"""The file system: who mounts it as whom, and who reaches it."""

from __future__ import annotations

from typing import Any

from stack import REFRESH, SHELVING, Object, Synthesised, only
from tiny import ROOT


def mounted(function: Object) -> str:
    """Logical id of the access point that a function mounts."""
    mount = only(function["FileSystemConfigs"])
    assert mount["LocalMountPath"] == "/mnt/hf_models_cache"
    (id_,) = named_in(mount["Arn"])
    return id_


def named_in(arn: Any) -> list[str]:
    """Logical ids of this stack's resources that an ARN is made with."""
    return [part["Ref"] for part in arn["Fn::Join"][1] if isinstance(part, dict) and part["Ref"] != "AWS::Partition"]


def test_handlers_and_jobs_act_as_different_users_of_one_group(each: Synthesised) -> None:
    access_points = each.resources("AWS::EFS::AccessPoint")
    users = {
        module: access_points[mounted(function)]["Properties"]["PosixUser"]
        for module, function in each.functions_in_vpc().items()
    }
    handlers = {module: {"Uid": "1002", "Gid": "1001"} for module in each.expected}
    assert users == handlers | {SHELVING: {"Uid": "1001", "Gid": "1001"}}
    assert len(access_points) == 2


def test_whichever_access_point_comes_first_the_folder_is_the_same(each: Synthesised) -> None:
    (file_system,) = each.resources("AWS::EFS::FileSystem")
    for access_point in each.properties("AWS::EFS::AccessPoint"):
        assert access_point["FileSystemId"] == {"Ref": file_system}
        assert access_point["RootDirectory"] == {
            "Path": "/export/models",
            "CreationInfo": {"OwnerUid": "1001", "OwnerGid": "1001", "Permissions": "750"},
        }
    assert "USER 1001:1001" in (ROOT / "inference" / "Dockerfile").read_text()


def test_functions_wait_for_the_mount_targets(each: Synthesised) -> None:
    mount_targets = set(each.resources("AWS::EFS::MountTarget"))
    assert mount_targets
    in_vpc = [found for id_, found in each.image_functions().items() if each.module(id_) != REFRESH]
    assert len(in_vpc) == len(each.expected) + 1
    for function in in_vpc:
        # A function that is made before them can't start.
        assert mount_targets <= set(function["DependsOn"])


def test_every_function_can_reach_the_file_system_over_nfs(each: Synthesised) -> None:
    groups = {
        only(function["VpcConfig"]["SecurityGroupIds"])["Fn::GetAtt"][0]
        for function in each.functions_in_vpc().values()
    }
    rules = each.properties("AWS::EC2::SecurityGroupIngress")
    assert {rule["SourceSecurityGroupId"]["Fn::GetAtt"][0] for rule in rules} == groups
    assert {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in rules} == {("tcp", 2049, 2049)}
    protected = {
        group["Fn::GetAtt"][0] for t in each.properties("AWS::EFS::MountTarget") for group in t["SecurityGroups"]
    }
    assert {rule["GroupId"]["Fn::GetAtt"][0] for rule in rules} == protected


def test_a_function_may_mount_and_write_by_its_own_access_point_and_nothing_else(each: Synthesised) -> None:
    (file_system,) = each.resources("AWS::EFS::FileSystem")
    for module, function in each.functions_in_vpc().items():
        statements = each.statements(function)
        if module == SHELVING:
            statements = [found for found in statements if "elasticfilesystem" in str(found["Action"])]
        may_mount = only(statements)
        assert may_mount["Action"] == ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
        assert may_mount["Effect"] == "Allow"
        assert may_mount["Resource"] == {"Fn::GetAtt": [file_system, "Arn"]}
        ((operator, condition),) = may_mount["Condition"].items()
        assert (operator, list(condition)) == ("StringEquals", ["elasticfilesystem:AccessPointArn"])
        assert named_in(condition["elasticfilesystem:AccessPointArn"]) == [mounted(function)]


def test_the_refresh_job_has_no_file_system(each: Synthesised) -> None:
    function = each.functions()[REFRESH]
    assert "FileSystemConfigs" not in function
    assert "elasticfilesystem" not in str(each.all_statements(function))


def test_nobody_is_root_on_the_file_system(each: Synthesised) -> None:
    assert "ClientRootAccess" not in str(each.all_resources())


def test_the_file_system_s_own_policy_refuses_what_has_no_tls_and_allows_nobody_anything(each: Synthesised) -> None:
    """With a policy, EFS lets in only whom a policy allows: here, that of a function's role.

    Without one, everybody who reaches a mount target may write as any user. The CDK's own policy allows that too.
    """
    (file_system,) = each.properties("AWS::EFS::FileSystem")
    statement = only(file_system["FileSystemPolicy"]["Statement"])
    assert statement == {
        "Sid": "RefuseWithoutTls",
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def test_nothing_but_a_function_in_the_vpc_may_mount_the_file_system(each: Synthesised) -> None:
    mounting = {
        only(policy["Properties"]["Roles"])["Ref"]
        for policy in each.resources("AWS::IAM::Policy").values()
        if "elasticfilesystem" in str(policy)
    }
    assert mounting == {function["Role"]["Fn::GetAtt"][0] for function in each.functions_in_vpc().values()}
    assert "elasticfilesystem" not in str(each.properties("AWS::IAM::Role"))


def test_the_file_system_is_encrypted_elastic_and_goes_with_the_stack(each: Synthesised) -> None:
    (file_system,) = each.resources("AWS::EFS::FileSystem").values()
    assert file_system["Properties"]["Encrypted"] is True
    assert file_system["Properties"]["ThroughputMode"] == "elastic"
    assert file_system["DeletionPolicy"] == "Delete"
