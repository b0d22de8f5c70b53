"""The inbox: the bucket (S3) to which states are published. `similarity.inbox` reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infrastructure.logs import json_logs_of_resource
from infrastructure.roles import allow_only_its_own_log_of_resource


class Inbox(Construct):
    """The bucket. It is private and keeps old versions for 90 days. The stack empties and removes it when it goes."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            versioned=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=cdk.Duration.days(90),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
                )
            ],
            removal_policy=cdk.RemovalPolicy.DESTROY,
            auto_delete_objects=True,
        )
        # The construct's own property for this would add a Lambda that sets what CloudFormation can set.
        resource = self.bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)
        resource.add_property_override("NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled", True)
        # The Lambda that empties the bucket. The CDK puts it beside the bucket, and without a log group.
        emptying = cdk.Stack.of(self).node.find_child("Custom::S3AutoDeleteObjectsCustomResourceProvider").node
        log_group = json_logs_of_resource(self, emptying.find_child("Handler"))
        allow_only_its_own_log_of_resource(emptying.find_child("Role"), log_group)

    def allow(self, function: lambda_.Function, *, read: Sequence[str], write: Sequence[str]) -> None:
        """Lets a Lambda read and write keys, each a pattern, and list the bucket. It may delete nothing.

        The Lambda is removed before the bucket is emptied, so that it can't fill it again.
        """
        # Listing is allowed for all keys. S3 would else answer 403 instead of 404 for a key that isn't there.
        for actions, resources in (
            (["s3:ListBucket", "s3:ListBucketVersions"], [self.bucket.bucket_arn]),
            (["s3:GetObject", "s3:GetObjectVersion"], [self.bucket.arn_for_objects(key) for key in read]),
            (["s3:PutObject"], [self.bucket.arn_for_objects(key) for key in write]),
        ):
            function.add_to_role_policy(iam.PolicyStatement(actions=actions, resources=resources))
        function.node.add_dependency(self)
