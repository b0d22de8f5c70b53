"""The file system (EFS) with the shelf: one folder that jobs write and handlers read. `similarity.shelf` fills it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_efs as efs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infrastructure.network import Network

MOUNT_PATH = "/mnt/hf_models_cache"
FOLDER = "/export/models"

# A Lambda mounts one access point, and acts as its user. Jobs own what they write; handlers share their group, so
# that a file's mode says who may write it.
JOBS_UID, HANDLERS_UID, GID = "1001", "1002", "1001"


class Shelf(Construct):
    """The file system that all Lambdas mount, with an access point for handlers and one for jobs on the same folder."""

    def __init__(self, scope: Construct, construct_id: str, *, network: Network) -> None:
        super().__init__(scope, construct_id)
        self._file_system = efs.FileSystem(
            self,
            "FileSystem",
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            encrypted=True,
            # It holds copies only.
            removal_policy=cdk.RemovalPolicy.DESTROY,
            # Bursting credits grow with the data stored: a file system of 1 GB would be held to a fraction of 1 MiB/s.
            throughput_mode=efs.ThroughputMode.ELASTIC,
            # Without this, the CDK would add a statement that lets everyone write who reaches a mount target.
            allow_anonymous_access=True,
            file_system_policy=_file_system_policy(),
        )
        # Stacks were deployed with one access point, of this name and with this user: it stays what it is.
        self._jobs = self._access_point("AccessPoint", uid=JOBS_UID)
        self._handlers = self._access_point("HandlersAccessPoint", uid=HANDLERS_UID)

    def _access_point(self, construct_id: str, *, uid: str) -> efs.AccessPoint:
        return self._file_system.add_access_point(
            construct_id,
            path=FOLDER,
            # Whichever is used first makes the folder, so both make it alike.
            create_acl=efs.Acl(owner_uid=JOBS_UID, owner_gid=GID, permissions="750"),
            posix_user=efs.PosixUser(uid=uid, gid=GID),
        )

    def mounted_by_handlers(self) -> lambda_.FileSystem:
        return self._mounted(self._handlers)

    def mounted_by_jobs(self) -> lambda_.FileSystem:
        return self._mounted(self._jobs)

    def _mounted(self, access_point: efs.AccessPoint) -> lambda_.FileSystem:
        """As `FileSystem.from_efs_access_point` makes it, but its role may mount and write this way alone."""
        may_mount = iam.PolicyStatement(
            actions=["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
            resources=[self._file_system.file_system_arn],
            conditions={"StringEquals": {"elasticfilesystem:AccessPointArn": access_point.access_point_arn}},
        )
        return lambda_.FileSystem(
            arn=access_point.access_point_arn,
            local_mount_path=MOUNT_PATH,
            connections=self._file_system.connections,
            dependency=[access_point, self._file_system.mount_targets_available],
            policies=[may_mount],
        )


def _file_system_policy() -> iam.PolicyDocument:
    """Refuses connections without TLS. A policy of one's own also takes access from clients that don't sign as a role.

    It allows nothing. The policy of each Lambda's role does, for its access point. An access point can't be named here,
    because it is made after the file system, and one of the two permissions is enough:
    https://docs.aws.amazon.com/efs/latest/ug/iam-access-control-nfs-efs.html
    """
    return iam.PolicyDocument(
        statements=[
            iam.PolicyStatement(
                sid="RefuseWithoutTls",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["*"],
                conditions={"Bool": {"aws:SecureTransport": "false"}},
            )
        ]
    )
