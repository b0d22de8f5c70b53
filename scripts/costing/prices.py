"""AWS's list prices of us-east-1, in USD. All that this project computes or prints is computed from these.

AWS's pages fill in most prices by script. So each price was read where it stands as text: in an answer of AWS's price
list service, or in an article that quotes AWS's page. `read` is the date of that text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """usd for one `unit`. source: AWS's page, to look the price up. read: the date of the text, ISO 8601."""

    name: str
    usd: float
    unit: str
    source: str
    read: str


_LAMBDA = "https://aws.amazon.com/lambda/pricing/"
_API = "https://aws.amazon.com/api-gateway/pricing/"
_ECR = "https://aws.amazon.com/ecr/pricing/"
_EFS = "https://aws.amazon.com/efs/pricing/"
_S3 = "https://aws.amazon.com/s3/pricing/"
_CLOUDWATCH = "https://aws.amazon.com/cloudwatch/pricing/"
_VPC = "https://aws.amazon.com/vpc/pricing/"
_EC2 = "https://aws.amazon.com/ec2/pricing/on-demand/"

# AWS's price list service answered so on that day.
_LISTED = "2025-10-28"

LAMBDA_X86_64 = Price("Lambda, x86_64", 0.0000166667, "GB-second", _LAMBDA, _LISTED)
LAMBDA_ARM64 = Price("Lambda, arm64", 0.0000133334, "GB-second", _LAMBDA, _LISTED)
LAMBDA_CALLS = Price("Lambda, calls", 0.20, "million", _LAMBDA, _LISTED)
API_REQUESTS = Price("HTTP API, the first 300 million a month", 1.00, "million requests", _API, "2025-05-19")
ECR_STORAGE = Price("ECR, compressed images", 0.10, "GB-month", _ECR, "2026-06-13")
EFS_STORAGE = Price("EFS Standard", 0.30, "GB-month", _EFS, "2026-06-13")
EFS_READS = Price("EFS, elastic reads", 0.03, "GB", _EFS, "2026-06-13")
S3_STORAGE = Price("S3 Standard", 0.023, "GB-month", _S3, _LISTED)
S3_WRITES = Price("S3, requests that write or list", 0.005, "thousand", _S3, _LISTED)
LOGS = Price("CloudWatch, logs", 0.50, "GB", _CLOUDWATCH, _LISTED)
METRICS = Price("CloudWatch, own metrics", 0.30, "metric-month, by the hour", _CLOUDWATCH, _LISTED)
ALARMS = Price("CloudWatch, alarms", 0.10, "metric that an alarm reads, a month", _CLOUDWATCH, _LISTED)
DASHBOARD = Price("CloudWatch, a dashboard", 3.00, "month", _CLOUDWATCH, "2026-06-13")
NAT_GATEWAY = Price("NAT gateway", 0.045, "hour", _VPC, _LISTED)
NAT_DATA = Price("NAT gateway, data", 0.045, "GB", _VPC, _LISTED)
PUBLIC_ADDRESS = Price("public IPv4 address", 0.005, "hour", _VPC, _LISTED)
# Of API Gateway's answers, too.
DATA_OUT = Price("data to the internet, the first 10 TB a month", 0.09, "GB", _EC2, "2026-06-10")

ALL = (
    *(LAMBDA_X86_64, LAMBDA_ARM64, LAMBDA_CALLS, API_REQUESTS, ECR_STORAGE, EFS_STORAGE, EFS_READS, S3_STORAGE),
    *(S3_WRITES, LOGS, METRICS, ALARMS, DASHBOARD, NAT_GATEWAY, NAT_DATA, PUBLIC_ADDRESS, DATA_OUT),
)

# What an account has for nothing, for ever: https://aws.amazon.com/cloudwatch/pricing/
FREE_ALARM_METRICS = 10
# Above this number a month, a request to the API is cheaper.
MOST_REQUESTS = 300_000_000
GB_S = {"x86_64": LAMBDA_X86_64, "arm64": LAMBDA_ARM64}
