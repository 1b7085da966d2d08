"""The commands of the guide: their syntax, and the parameters and outputs that they name."""

import re
import shlex
import subprocess
from textwrap import dedent

import pytest
from samcli.yamlhelper import yaml_parse

from source import ROOT

PAGES = (
    *(page.name for page in ROOT.glob("*.md")),
    "examples/README.md",
    *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")),
)
STACK = "sendpilot-opportunity-alerts"


def _text(page):
    return (ROOT / page).read_text("utf-8")


def _blocks(text):
    """Returns the blocks of commands in a text. Blocks of another kind show what a program prints."""
    found = re.findall(r"^( *)```console\n(.*?)^\1```", text, flags=re.MULTILINE | re.DOTALL)
    return [dedent(indent + block.removeprefix(indent)) for indent, block in found]


def _commands(text):
    """Returns the commands in a text, in blocks and in prose, each on one line."""
    joined = re.sub(r"\\\n *", "", text)
    lines = [line for block in _blocks(joined) for line in block.splitlines()]
    return lines + [re.sub(r"\s+", " ", code) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", _prose(joined))]


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
    # The settings for `sam deploy` have it ask. The stacks of the examples have no settings.
    return command.startswith(("read ", "sam deploy --parameter", "sam deploy --guided"))


@pytest.mark.parametrize("page", PAGES)
def test_each_block_of_commands_can_be_pasted(page):
    for block in _blocks(_text(page)):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=60)
        assert (checked.returncode, checked.stderr) == (0, ""), block
        # A command that asks would take what is pasted after it for the answer.
        assert not [line for line in block.splitlines()[:-1] if _asks(line)], block


def test_each_deployment_gives_parameters_that_exist_values_that_they_take():
    assert len(DEPLOYS) >= 7
    for command in DEPLOYS:
        stack, given = _deployed(command)
        for name, value in given.items():
            # A placeholder is refused, so that nobody deploys it unedited.
            assert "$" in value or bool(_takes(_template(stack)["Parameters"][name], value)) != value.startswith(
                "YOUR_"
            ), command


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


def test_each_deployment_of_a_consumer_gives_what_has_no_default():
    stacks = set()
    for command in DEPLOYS:
        stack, given = _deployed(command)
        if stack != STACK and given:
            stacks.add(stack)
            needed = {name for name, it in _template(stack)["Parameters"].items() if "Default" not in it}
            assert needed <= given.keys(), command
    assert stacks == {"archive", "crm-sync", "lead-lost"}


def test_each_output_that_a_command_reads_exists():
    read = re.findall(r"(?:STACK=([\w-]+) )?\boutput ([A-Z]\w+)", "\n".join(map(_text, PAGES)))
    assert len(read) > 10
    for stack, name in read:
        assert name in _template(stack or STACK)["Outputs"], (stack, name)
    argument = re.findall(r"queue_arn ([A-Z]\w+)", _text("examples/README.md"))
    assert argument and set(argument) <= _template("crm-sync")["Outputs"].keys()


def test_the_guide_deploys_with_two_parameters_and_four_steps():
    section = _section("docs/deploy.md", "Deploy it")
    [quick, *_] = _blocks(section)
    assert quick.splitlines()[:2] == ["make tools && source .venv/bin/activate", "sam build"]
    assert _deployed(quick.splitlines()[2]) == (
        STACK,
        {"AlertEmail": "you@example.com", "AlarmEmail": "you@example.com"},
    )
    steps = re.findall(r"^(\d+)\. \*\*(.+?)\*\*", section, re.MULTILINE)
    assert [int(number) for number, _ in steps] == [1, 2, 3, 4], steps
    # The command names no stack and no capability, so these are in the settings.
    settings = _text("samconfig.toml")
    assert f'stack_name = "{STACK}"' in settings
    assert 'capabilities = "CAPABILITY_IAM"' in settings and "resolve_s3 = true" in settings
