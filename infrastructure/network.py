"""The VPC that file system and Lambdas share."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct


class Network(Construct):
    """The VPC over two zones: public subnets at no cost, or private ones as well, behind a NAT gateway."""

    def __init__(self, scope: Construct, construct_id: str, *, nat_gateway: bool) -> None:
        super().__init__(scope, construct_id)
        public = ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=24)
        private = ec2.SubnetConfiguration(name="Private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=24)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/16"),
            # If a zone fails, Lambdas run in the other. A second one costs nothing.
            max_azs=2,
            nat_gateways=1 if nat_gateway else 0,
            subnet_configuration=[public, private] if nat_gateway else [public],
        )
        self.subnets = ec2.SubnetSelection(subnet_type=(private if nat_gateway else public).subnet_type)
        # S3 by way of the network's own routes, at no cost.
        self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[self.subnets])
        # One for all functions but one. Without a NAT gateway nothing outside can be reached anyway; EFS adds its own
        # rule.
        self.functions_security_group = ec2.SecurityGroup(
            self,
            "FunctionsSecurityGroup",
            vpc=self.vpc,
            description="Lambdas: file system, and the internet where there is a NAT gateway",
            allow_all_outbound=nat_gateway,
        )
        # With all outbound traffic allowed that rule is superfluous, and the CDK would warn of it.
        cdk.Annotations.of(self.functions_security_group).acknowledge_warning(
            "@aws-cdk/aws-ec2:ipv4IgnoreEgressRule", "EFS adds a rule that is covered already"
        )
        self.shelving_security_group = ec2.SecurityGroup(
            self,
            "ShelvingSecurityGroup",
            vpc=self.vpc,
            description="The job that shelves states: file system, and S3",
            allow_all_outbound=False,
        )
        # Without a NAT gateway only the endpoint can be reached: a Lambda has no public address.
        self.shelving_security_group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "S3")
