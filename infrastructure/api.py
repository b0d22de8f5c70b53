"""The HTTP API: a route for each handler, and CORS. The one place that names the alpha packages.

aws_cdk.aws_apigatewayv2 and .aws_apigatewayv2_integrations are the same constructs under their graduated names; a test
compares the templates.
"""

from __future__ import annotations

from aws_cdk import aws_apigatewayv2_alpha as apigatewayv2
from aws_cdk import aws_apigatewayv2_integrations_alpha as integrations
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infrastructure.config import Config
from similarity.api.routes import ALLOWED_HEADERS, HandlerFile, methods_of


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
        api.add_routes(
            path=handler.route,
            methods=[apigatewayv2.HttpMethod[method] for method in handler.methods],
            integration=integrations.HttpLambdaIntegration(f"{handler.module}-integration", function),
        )
    return api
