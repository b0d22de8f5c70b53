"""What a deployment invokes: the job, then each handler, once all that they need is there."""

from __future__ import annotations

from stack import Synthesised, all_before

JOB = "jobs.shelve_state"
FOR_THE_JOB = (
    "AWS::EFS::MountTarget",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::Route",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
)
FOR_HANDLERS = (*FOR_THE_JOB, "AWS::ApiGatewayV2::Route", "AWS::ApiGatewayV2::Stage")


def invocations(synthesised: Synthesised) -> dict[str, str]:
    """Logical ids of the invocations, by the module of the function that each invokes."""
    versions = synthesised.resources("AWS::Lambda::Version")
    found = {}
    for id_, resource in synthesised.resources("Custom::Invocation").items():
        # A version's id is made of what the function is: another image or setting is another version, invoked anew.
        version = versions[resource["Properties"]["Version"]["Ref"]]
        found[synthesised.module(version["Properties"]["FunctionName"]["Ref"])] = id_
    assert len(found) == len(synthesised.resources("Custom::Invocation"))
    return found


def test_a_deployment_invokes_the_job_and_each_handler_by_the_version_it_made(each: Synthesised) -> None:
    assert set(invocations(each)) == each.expected | {JOB}
    for resource in each.resources("Custom::Invocation").values():
        service, _ = resource["Properties"]["ServiceToken"]["Fn::GetAtt"]
        assert each.resources("AWS::Lambda::Function")[service]["Properties"] == each.invoker()


def test_a_function_is_invoked_when_all_that_it_needs_is_there(each: Synthesised) -> None:
    template, functions = each.all_resources(), each.functions()
    for module, id_ in invocations(each).items():
        before = all_before(id_, template)
        for kind in FOR_THE_JOB if module == JOB else FOR_HANDLERS:
            assert each.resources(kind)
            assert set(each.resources(kind)) <= before
        for function in (functions[module], each.invoker()):
            assert each.policies(function)
            assert set(each.policies(function)) <= before


def test_the_job_is_invoked_before_the_handlers(each: Synthesised) -> None:
    found = invocations(each)
    for module in each.expected:
        assert found[JOB] in all_before(found[module], each.all_resources())


def test_the_invoker_may_invoke_every_version_of_these_functions_and_do_nothing_else(each: Synthesised) -> None:
    may_invoke = set()
    for statement in each.statements(each.invoker()):
        assert (statement["Effect"], statement["Action"]) == ("Allow", "lambda:InvokeFunction")
        itself, versions = statement["Resource"]
        assert versions == {"Fn::Join": ["", [itself, ":*"]]}
        may_invoke.add(each.module(itself["Fn::GetAtt"][0]))
    assert may_invoke == each.expected | {JOB}


def test_the_invoker_is_outside_the_vpc_and_has_the_longest_time_there_is(each: Synthesised) -> None:
    invoker = each.invoker()
    assert "VpcConfig" not in invoker
    assert "FileSystemConfigs" not in invoker
    assert invoker["Timeout"] == 900
    assert invoker["Runtime"].startswith("python3.")
    for invocation in each.properties("Custom::Invocation"):
        # CloudFormation waits longer than the invoker runs, but not for an hour.
        assert 900 < int(invocation["ServiceTimeout"]) <= 1200


def test_the_invoker_s_code_is_one_file(each: Synthesised) -> None:
    (name, _) = each.invoker()["Code"]["S3Key"].split(".")
    assert [path.name for path in (each.outdir / f"asset.{name}").iterdir()] == ["index.py"]
    assert each.invoker()["Handler"] == "index.handler"
