"""The HTTP API: routes, which methods they have, whom they lead to, and CORS."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from aws_cdk import aws_apigatewayv2, aws_apigatewayv2_integrations

from infrastructure import api
from stack import DEFAULT, HANDLERS, OTHER, PAGES, Object, Synthesised, all_before, only, routes_of, synthesise


def test_every_handler_file_has_routes_that_lead_to_its_function(each: Synthesised) -> None:
    integrations = each.resources("AWS::ApiGatewayV2::Integration")
    leads_to = {}
    for route in each.properties("AWS::ApiGatewayV2::Route"):
        (integration,) = [part["Ref"] for part in route["Target"]["Fn::Join"][1] if isinstance(part, dict)]
        function, _ = integrations[integration]["Properties"]["IntegrationUri"]["Fn::GetAtt"]
        leads_to[route["RouteKey"]] = each.module(function)
    assert leads_to == routes_of(each.expected)


def test_functions_get_events_of_format_2(each: Synthesised) -> None:
    assert {found["PayloadFormatVersion"] for found in each.properties("AWS::ApiGatewayV2::Integration")} == {"2.0"}


def test_the_api_may_call_each_function_by_its_route_only(each: Synthesised) -> None:
    allowed = set()
    for permission in each.properties("AWS::Lambda::Permission"):
        if permission["Principal"] == "events.amazonaws.com":
            continue  # a rule
        assert permission["Principal"] == "apigateway.amazonaws.com"
        path = permission["SourceArn"]["Fn::Join"][1][-1].rpartition("/")[2]
        allowed.add((each.module(permission["FunctionName"]["Fn::GetAtt"][0]), path))
    assert allowed == {(module, module.replace("_", "-")) for module in each.expected}


@pytest.mark.parametrize(
    ("synthesised", "origins"),
    [
        ("default", ["http://localhost:3000"]),
        ("other", ["https://incidentdatabase.ai", "http://localhost:8000"]),
    ],
)
def test_allowed_origins_may_call_from_a_browser(
    synthesised: str, origins: list[str], request: pytest.FixtureRequest
) -> None:
    found = only(request.getfixturevalue(synthesised).properties("AWS::ApiGatewayV2::Api"))
    assert found["ProtocolType"] == "HTTP"
    assert found["CorsConfiguration"] == {
        "AllowMethods": ["GET", "POST"],
        "AllowHeaders": [
            *("Content-Type", "X-Api-Key", "Authorization", "X-Amz-Date", "X-Amz-Security-Token"),
            "X-Amz-Content-Sha256",
        ],
        "AllowOrigins": origins,
        "AllowCredentials": True,
    }


def stage(synthesised: Synthesised) -> Object:
    return only(synthesised.properties("AWS::ApiGatewayV2::Stage"))


def test_the_one_stage_limits_how_many_requests_come(default: Synthesised, other: Synthesised) -> None:
    for synthesised, rate, burst in ((default, 10, 20), (other, 50, 100)):
        assert stage(synthesised)["StageName"] == "$default"
        assert stage(synthesised)["DefaultRouteSettings"] == {
            "ThrottlingRateLimit": rate,
            "ThrottlingBurstLimit": burst,
        }
        # One for a single route would win over the default.
        assert "RouteSettings" not in stage(synthesised)


def test_anyone_may_call_unless_requests_must_be_signed(default: Synthesised, other: Synthesised) -> None:
    for synthesised, kind in ((default, "NONE"), (other, "AWS_IAM")):
        routes = synthesised.properties("AWS::ApiGatewayV2::Route")
        assert len(routes) == len(routes_of(synthesised.expected))
        assert {route.get("AuthorizationType", "NONE") for route in routes} == {kind}


def test_the_access_log_has_a_line_of_json_for_each_request_without_anything_that_holds_a_text(
    each: Synthesised,
) -> None:
    form = stage(each)["AccessLogSettings"]["Format"]
    values = {
        "$context.status": "429",
        "$context.identity.sourceIp": "2001:db8::1",
        "$context.routeKey": "GET /similar",
    }
    # A value that isn't there is a hyphen.
    line = json.loads(re.sub(r"\$context[.\w]+", lambda found: values.get(found[0], "-"), form))
    assert (line["status"], line["ip"], line["route"]) == (429, "2001:db8::1", "GET /similar")
    assert line["integrationStatus"] == "-"
    for variable in re.findall(r"\$context[.\w]+", form):
        # Path and header values are the caller's; query strings are in the path of a request line.
        assert not re.search(r"query|path|header|request(Line|Override)|userAgent", variable, re.IGNORECASE)
    assert "\n" not in form


def test_a_domain_leads_to_the_stage_and_its_target_is_put_out(default: Synthesised, other: Synthesised) -> None:
    default.template.resource_count_is("AWS::ApiGatewayV2::DomainName", 0)
    default.template.resource_count_is("AWS::ApiGatewayV2::ApiMapping", 0)
    (domain,), (api,) = (other.resources(f"AWS::ApiGatewayV2::{kind}") for kind in ("DomainName", "Api"))
    found = only(other.properties("AWS::ApiGatewayV2::DomainName"))
    assert found["DomainName"] == "similar.example.org"
    assert found["DomainNameConfigurations"] == [
        {"CertificateArn": OTHER.certificate_arn, "EndpointType": "REGIONAL", "SecurityPolicy": "TLS_1_2"}
    ]
    ((mapping_id, mapping),) = other.resources("AWS::ApiGatewayV2::ApiMapping").items()
    assert mapping["Properties"]["DomainName"] == {"Ref": domain}
    assert mapping["Properties"]["ApiId"] == {"Ref": api}
    assert "ApiMappingKey" not in mapping["Properties"]
    assert set(other.resources("AWS::ApiGatewayV2::Stage")) <= all_before(mapping_id, other.all_resources())
    (target,) = other.template.find_outputs("domainTarget").values()
    assert target["Value"] == {"Fn::GetAtt": [domain, "RegionalDomainName"]}


def test_the_url_of_the_api_is_put_out(each: Synthesised) -> None:
    (id_,) = each.resources("AWS::ApiGatewayV2::Api")
    (output,) = each.template.find_outputs("apiUrl").values()
    start, api, middle, suffix = output["Value"]["Fn::Join"][1]
    assert (start, api, suffix) == ("https://", {"Ref": id_}, {"Ref": "AWS::URLSuffix"}), "without a slash at the end"
    assert middle.startswith(".execute-api.")


def test_the_url_of_the_page_is_put_out_if_there_is_one(default: Synthesised, other: Synthesised) -> None:
    (url,), (page,) = (default.template.find_outputs(name).values() for name in ("apiUrl", "pageUrl"))
    (parts,), (of_page,) = url["Value"].values(), page["Value"].values()
    assert of_page[1] == [*parts[1], "/explore"]
    assert other.template.find_outputs("pageUrl") == {}


PAGE = 'METHODS = ("GET",)\nPAGE = True\n\ndef handler(event, context): ...\n'


@pytest.mark.slow
def test_of_two_pages_both_urls_are_put_out(tmp_path: Path) -> None:
    synthesised = synthesise(DEFAULT, tmp_path, further_page=PAGE)
    (page,) = synthesised.template.find_outputs("pageUrl").values()
    written = "".join(part if isinstance(part, str) else "…" for part in page["Value"]["Fn::Join"][1])
    assert re.fullmatch(r"https://\S+/explore https://\S+/further-page", written)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_an_api_whose_requests_must_be_signed_has_no_page(page: str, default: Synthesised, other: Synthesised) -> None:
    """A browser can't sign the request for it."""
    assert page in default.functions()
    name = page.replace("_", "-")
    assert f"/{name}" in json.dumps(default.all_resources())
    assert page not in other.functions()
    # No route, rule, alarm, permission, log or call of a deployment names it either.
    named = json.dumps([other.all_resources(), other.template.to_json()["Outputs"]])
    assert not re.search(rf"{name}|{page}|Functions{page.replace('_', '')}", named, re.IGNORECASE)


def test_whether_requests_must_be_signed_is_put_out(default: Synthesised, other: Synthesised) -> None:
    for synthesised, value in ((default, "none"), (other, "iam")):
        (output,) = synthesised.template.find_outputs("apiAuth").values()
        assert output["Value"] == value


def test_the_graduated_modules_give_the_same_template(
    other: Synthesised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "apigatewayv2", aws_apigatewayv2)
    monkeypatch.setattr(api, "integrations", aws_apigatewayv2_integrations)
    graduated = synthesise(OTHER, tmp_path)
    assert graduated.template.to_json() == other.template.to_json()


def test_a_route_has_the_methods_that_its_file_states_and_cors_those_of_all_files(tmp_path: Path) -> None:
    look = 'METHODS = ("GET",)\n\ndef handler(event, context): ...\n'
    report = 'METHODS = ["PUT"]\n\ndef handler(event, context): ...\n'
    synthesised = synthesise(DEFAULT, tmp_path, look=look, report=report)
    routes = {route["RouteKey"] for route in synthesised.properties("AWS::ApiGatewayV2::Route")}
    assert {key for key in routes if key.endswith(("/look", "/report"))} == {"GET /look", "PUT /report"}
    assert len(routes) == len(routes_of(HANDLERS)) + 2
    found = only(synthesised.properties("AWS::ApiGatewayV2::Api"))
    assert found["CorsConfiguration"]["AllowMethods"] == ["GET", "POST", "PUT"]


def test_a_job_has_no_route(each: Synthesised) -> None:
    assert not [key for key in each.resources("AWS::ApiGatewayV2::Route") if "shelve" in key.lower()]
    assert len(each.resources("AWS::ApiGatewayV2::Route")) == len(routes_of(each.expected))
