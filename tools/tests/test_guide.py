"""The commands in Markdown can be pasted, and name parameters, outputs and options that exist."""

import re
import shlex
import subprocess
from functools import cache
from textwrap import dedent

import botocore.session
import pytest
from botocore import xform_name
from samcli.yamlhelper import yaml_parse

from source import ROOT

PAGES = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
).stdout.splitlines()
# Every command of the AWS CLI takes these options.
AWS_OPTIONS = {"cli-binary-format", "output", "query", "region"}
# The AWS CLI gives this member of the API another name.
RENAMED = {("sns", "subscribe", "endpoint"): "notification-endpoint"}
AWS_COMMAND = re.compile(r"\baws ([a-z][a-z0-9-]*) ([a-z][a-z-]+)((?:(?!\baws [a-z]).)*)")
STACK = "sendpilot-opportunity-alerts"


def _text(page):
    return (ROOT / page).read_text("utf-8")


def _blocks(text):
    """Returns the blocks of commands in a text. Other blocks show the output of programs."""
    found = re.findall(r"^( *)```console\n(.*?)^\1```", text, flags=re.MULTILINE | re.DOTALL)
    return [dedent(indent + block.removeprefix(indent)) for indent, block in found]


def _commands(text):
    """Returns the commands in a text, in blocks and in prose, each on one line."""
    joined = _joined(text)
    lines = [line for block in _blocks(joined) for line in block.splitlines()]
    return lines + [re.sub(r"\s+", " ", code) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", _prose(joined))]


def _joined(text):
    """Returns a text with each continued line of a command on one line."""
    return re.sub(r"\\\n *", "", text)


def _prose(text):
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def _section(page, heading):
    """Returns the text between a heading and the next one."""
    return re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", _text(page), re.MULTILINE | re.DOTALL)[2]


def _template(stack):
    return yaml_parse(_text("template.yaml" if stack == STACK else f"examples/{stack}/template.yaml"))


def _deployed(command):
    """Returns the stack that a `sam deploy` deploys, and the parameters that it gives, by name."""
    words = shlex.split(re.sub(r"\$\{\w+:\+([^}]*)\}", r"\1", command))
    stack = words[words.index("--stack-name") + 1] if "--stack-name" in words else STACK
    overrides = words[words.index("--parameter-overrides") + 1 :] if "--parameter-overrides" in words else []
    return stack, {name: value for name, value in (word.split("=", 1) for word in overrides) if name != "NAME"}


def _takes(parameter, value):
    """Returns whether CloudFormation takes this value."""
    return re.fullmatch(parameter.get("AllowedPattern", ".*"), value) and value in parameter.get(
        "AllowedValues", [value]
    )


DEPLOYS = [command for page in PAGES for command in _commands(_text(page)) if command.startswith("sam deploy ")]


def _asks(command):
    # samconfig.toml makes `sam deploy` ask. The stacks of the examples have no such file.
    return command.startswith(("read ", "sam delete", "sam deploy --parameter", "sam deploy --guided"))


@pytest.mark.parametrize("page", PAGES)
def test_each_block_of_commands_can_be_pasted(page):
    for block in _blocks(_text(page)):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=60)
        assert (checked.returncode, checked.stderr) == (0, ""), block
        # A command that asks would read the next pasted line as its answer.
        assert not [line for line in _joined(block).splitlines()[:-1] if _asks(line)], block


def test_each_deployment_gives_existing_parameters_valid_values():
    assert len(DEPLOYS) >= 7
    for command in DEPLOYS:
        stack, given = _deployed(command)
        for name, value in given.items():
            # A placeholder must be invalid, so that nobody deploys the command unedited.
            assert "$" in value or bool(_takes(_template(stack)["Parameters"][name], value)) != value.startswith(
                "YOUR_"
            ), command


def _dashed(name):
    return xform_name(name, "-")


def _aws_commands(text):
    """Returns the service, the operation and the options of each command of the AWS CLI in a text."""
    for service, operation, rest in AWS_COMMAND.findall(text):
        yield service, operation, set(re.findall(r"(?<!\S)--([a-z][a-z-]*)", rest)) - AWS_OPTIONS


@cache
def _model(kind, service):
    session = botocore.session.get_session()
    return session.get_waiter_model(service) if kind == "waiter" else session.get_service_model(service)


def _options(service, operation):
    """Returns the options that an operation takes, and those that it requires."""
    model = _model("service", service)
    [name] = [name for name in model.operation_names if _dashed(name) == operation]
    shape = model.operation_model(name).input_shape
    named = {member: _dashed(member) for member in shape.members}
    named = {member: RENAMED.get((service, operation, name), name) for member, name in named.items()}
    negated = {f"no-{name}" for member, name in named.items() if shape.members[member].type_name == "boolean"}
    return {*named.values(), *negated}, {named[member] for member in shape.required_members}


@pytest.mark.parametrize("page", PAGES)
def test_each_aws_command_names_an_operation_and_options_that_exist(page):
    text = _text(page)
    whole = {line for block in _blocks(_joined(text)) for line in block.splitlines()}
    for command in _commands(text):
        for service, operation, given in _aws_commands(command):
            if operation == "wait":
                [waiter] = re.findall(rf"aws {service} wait ([a-z-]+)", command)
                assert waiter in map(_dashed, _model("waiter", service).waiter_names), command
            elif (service, operation) == ("logs", "tail"):
                assert given <= {"since"}, command
            else:
                taken, required = _options(service, operation)
                assert given <= taken, command
                assert required <= given or command not in whole, command


def test_the_check_of_aws_commands_sees_all_of_them():
    commands = [command for page in PAGES for command in _commands(_text(page))]
    named = [f"{service} {operation}" for command in commands for service, operation, _ in _aws_commands(command)]
    assert len(named) > 40
    assert {"sns confirm-subscription", "secretsmanager put-secret-value", "logs tail", "dynamodb wait"} <= set(named)


@pytest.mark.parametrize("page", PAGES)
def test_each_make_command_names_a_target(page):
    targets = set(re.findall(r"^([a-z][\w.-]*):(?!=)", _text("Makefile"), re.MULTILINE))
    for command in _commands(_text(page)):
        if found := re.match(r"make (?:-\S+ )*([a-z][\w.-]*)", command):
            assert found[1] in targets, command


def test_each_header_of_a_token_can_be_given():
    headers = re.findall(r"CrmTokenHeader='(.+?)'", _text("examples/README.md"))
    assert len(headers) >= 3
    parameter = _template("crm-sync")["Parameters"]["CrmTokenHeader"]
    for header in (*headers, parameter["Default"]):
        assert _takes(parameter, header), header
    for header in ("x-api-token", "x-api-token: token", "{token}", ": {token}", "a b: {token}", "a: {token}\nb: c"):
        assert not _takes(parameter, header), header


def test_a_url_of_a_crm_is_https_and_has_no_placeholder_but_the_leads_id():
    parameter = _template("crm-sync")["Parameters"]["CrmUrl"]
    shown = re.findall(r"`(https://crm\.example\.com/[^`]*)`", _text("examples/README.md"))
    assert shown
    for url in (
        *shown,
        "https://example.com",
        "https://example.com/hooks/1/a-b_c/?x=1&y=%20",
        "https://example.com?l={leadId}",
    ):
        assert _takes(parameter, url), url
    for url in (
        "http://example.com/",
        "example.com",
        "https://user:password@example.com/",
        "https://example.com/{lead_id}",
        "https://{leadId}.example.com/",
        "https://example.com/#{leadId}",
        "https://example.com/a b",
    ):
        assert not _takes(parameter, url), url


def test_each_deployment_of_a_consumer_gives_all_required_parameters():
    stacks = set()
    for command in DEPLOYS:
        stack, given = _deployed(command)
        if stack != STACK and given:
            stacks.add(stack)
            needed = {name for name, it in _template(stack)["Parameters"].items() if "Default" not in it}
            assert needed <= given.keys(), command
    assert stacks == {"archive", "crm-sync", "lead-lost"}


def test_each_output_that_a_command_reads_exists():
    read = re.findall(r"(?:STACK=([\w-]+) )?\boutput ([A-Z][a-z]\w+)", "\n".join(map(_text, PAGES)))
    assert len(read) > 10
    for stack, name in read:
        assert name in _template(stack or STACK)["Outputs"], (stack, name)
    argument = re.findall(r"queue_arn ([A-Z]\w+)", _text("examples/README.md"))
    assert argument and set(argument) <= _template("crm-sync")["Outputs"].keys()


def test_the_guide_deploys_with_two_parameters_and_four_steps():
    [quick] = _blocks(_section("docs/deploy.md", "Build and deploy"))
    assert quick.splitlines()[:2] == ["make tools && source .venv/bin/activate", "sam build"]
    assert _deployed(quick.splitlines()[2]) == (
        STACK,
        {"AlertEmail": "you@example.com", "AlarmEmail": "you@example.com"},
    )
    steps = re.findall(r"^(\d+)\. \*\*(.+?)\*\*", _section("docs/deploy.md", "Four steps"), re.MULTILINE)
    assert [int(number) for number, _ in steps] == [1, 2, 3, 4], steps
    # The command names no stack and no capability, so samconfig.toml must have them.
    settings = _text("samconfig.toml")
    assert f'stack_name = "{STACK}"' in settings
    assert 'capabilities = "CAPABILITY_IAM"' in settings and "resolve_s3 = true" in settings
