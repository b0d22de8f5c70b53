"""The HTTP API: a route for each handler, CORS, limits, the log of requests, and a domain of one's own.

The one place that names the alpha packages. aws_cdk.aws_apigatewayv2 and .aws_apigatewayv2_integrations are the same
constructs under their graduated names; a test compares the templates.
"""

from __future__ import annotations

import json

from aws_cdk import aws_apigatewayv2_alpha as apigatewayv2
from aws_cdk import aws_apigatewayv2_integrations_alpha as integrations
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk.aws_apigatewayv2 import CfnRoute, CfnStage
from constructs import Construct

from infrastructure.config import Config
from infrastructure.logs import log_group
from similarity.api.routes import ALLOWED_HEADERS, HandlerFile, methods_of

# Texts stand in query string and body, so neither is here. All but the status are strings, because API Gateway writes a
# hyphen where it has no value:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
_LOGGED = {
    "requestId": "$context.requestId",
    "time": "$context.requestTime",
    "ip": "$context.identity.sourceIp",
    "route": "$context.routeKey",
    "latencyMs": "$context.responseLatency",
    "integrationLatencyMs": "$context.integrationLatency",
    "integrationStatus": "$context.integration.status",
    "error": "$context.error.message",
    "integrationError": "$context.integrationErrorMessage",
    "responseBytes": "$context.responseLength",
}
_STATUS = '"status":$context.status'


def http_api(
    scope: Construct, construct_id: str, *, functions: dict[HandlerFile, lambda_.Function], config: Config
) -> apigatewayv2.HttpApi:
    api = apigatewayv2.HttpApi(
        scope,
        construct_id,
        description="AI incidents most like a text",
        cors_preflight=apigatewayv2.CorsPreflightOptions(
            allow_methods=[apigatewayv2.CorsHttpMethod[method] for method in methods_of(functions)],
            allow_headers=list(ALLOWED_HEADERS),
            allow_origins=list(config.allowed_origins),
            allow_credentials=True,
        ),
    )
    for handler, function in functions.items():
        routes = api.add_routes(
            path=handler.route,
            methods=[apigatewayv2.HttpMethod[method] for method in handler.methods],
            integration=integrations.HttpLambdaIntegration(f"{handler.module}-integration", function),
        )
        for route in routes if config.api_auth == "iam" else ():
            resource = route.node.default_child
            assert isinstance(resource, CfnRoute)
            resource.authorization_type = "AWS_IAM"
    # Of the stage that is there. With another stage, or other routes, updates would fail with "already exists".
    _stage(api).default_route_settings = CfnStage.RouteSettingsProperty(
        throttling_rate_limit=config.throttle_rate, throttling_burst_limit=config.throttle_burst
    )
    return api


def log_requests(api: apigatewayv2.HttpApi) -> logs.LogGroup:
    """Logs a line of JSON for each request, never its text. Returns the log group."""
    group = log_group(api, "AccessLog")
    others = json.dumps(_LOGGED, separators=(",", ":")).removeprefix("{")
    _stage(api).access_log_settings = CfnStage.AccessLogSettingsProperty(
        destination_arn=group.log_group_arn, format=f"{{{_STATUS},{others}"
    )
    return group


def own_domain(
    scope: Construct, construct_id: str, *, api: apigatewayv2.HttpApi, name: str, certificate_arn: str
) -> str:
    """Gives the API a domain's name as well. Returns the name that the domain's CNAME record must lead to."""
    domain = apigatewayv2.DomainName(
        scope,
        construct_id,
        domain_name=name,
        certificate=acm.Certificate.from_certificate_arn(scope, f"{construct_id}Certificate", certificate_arn),
        security_policy=apigatewayv2.SecurityPolicy.TLS_1_2,
    )
    mapping = apigatewayv2.ApiMapping(scope, f"{construct_id}Mapping", api=api, domain_name=domain)
    # The mapping names the stage without a reference to it.
    mapping.node.add_dependency(_stage(api))
    return domain.regional_domain_name


def _stage(api: apigatewayv2.HttpApi) -> CfnStage:
    assert api.default_stage is not None
    stage = api.default_stage.node.default_child
    assert isinstance(stage, CfnStage)
    return stage
