"""Checks the template's parameters that are given to a local run."""

import difflib
import re
from pathlib import Path

import yaml

from local_aws.progress import Failed

# The parameters that a local run does not accept, each with the reason.
FIXED = {
    "Architecture": "a local run uses this machine's architecture",
    "WebhookSecretArn": "the local AWS has only the stack's own secret; SECRET=<whsec_...> sets its value",
    "SendPilotApiKeyArn": "the local AWS has only the stack's own secret; LeadDetails=yes creates the secret",
    "EncryptionKeyArn": "the local AWS has no encryption keys",
}


class _Template(yaml.SafeLoader):
    """Reads a template. Each of CloudFormation's functions becomes None."""


_Template.add_multi_constructor("!", lambda *_: None)


def declared(template: Path) -> dict[str, dict]:
    """Returns the parameters that a template declares, by name."""
    try:
        return yaml.load(template.read_text("utf-8"), _Template)["Parameters"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise Failed(f"{template} is not a template with parameters.") from None


def given(arguments: list[str], template: Path) -> dict[str, str]:
    """Returns the parameters that were given as Name=value.

    Raises Failed, with the parameter's name, if the template or a local run does not accept one.
    """
    if not arguments:
        return {}
    parameters = declared(template)
    values = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in parameters:
            near = difflib.get_close_matches(name.lower(), {one.lower() for one in parameters}, 1)
            meant = [one for one in parameters if one.lower() in near]
            raise Failed(
                f"{name} is not a parameter of {template.name}{f'; did you mean {meant[0]}?' if meant else '.'}\n"
                f"Its parameters are: {', '.join(one for one in parameters if one not in FIXED)}."
            )
        if name in FIXED:
            raise Failed(f"{name} cannot be set in a local run: {FIXED[name]}.")
        if fault := _fault(parameters[name], value):
            raise Failed(f"{name}={value}: {fault}")
        values[name] = value
    return values


def _fault(parameter, value):
    """Returns why CloudFormation would refuse a value, or None."""
    rule = parameter.get("ConstraintDescription", "is not allowed.")
    if "AllowedValues" in parameter and value not in map(str, parameter["AllowedValues"]):
        return rule
    if "AllowedPattern" in parameter and not re.fullmatch(parameter["AllowedPattern"], value):
        return rule
    if len(value) > int(parameter.get("MaxLength", 4096)):
        return f"must have at most {parameter['MaxLength']} characters."
    if parameter["Type"] == "Number":
        least, most = (float(parameter.get(name, end)) for name, end in (("MinValue", "-inf"), ("MaxValue", "inf")))
        if not re.fullmatch(r"-?\d+(\.\d+)?", value) or not least <= float(value) <= most:
            return rule
    return None
