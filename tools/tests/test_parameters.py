"""A local run accepts the template's parameters, and refuses wrong values."""

import pytest

from local_aws import parameters
from local_aws.progress import Failed
from source import ROOT

TEMPLATE = ROOT / "template.yaml"


def test_accepts_the_default_of_every_parameter_that_a_local_run_can_set():
    declared = parameters.declared(TEMPLATE)
    assert set(parameters.FIXED) < set(declared)
    defaults = [f"{name}={one['Default']}" for name, one in declared.items() if name not in parameters.FIXED]
    assert len(parameters.given(defaults, TEMPLATE)) == len(declared) - len(parameters.FIXED)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("StatusSteam=on", "StatusSteam is not a parameter of template.yaml; did you mean StatusStream?"),
        ("alertstatuses=A", "did you mean AlertStatuses?"),
        ("Zzz=1", "Zzz is not a parameter of template.yaml."),
        ("StatusStream=on", "StatusStream=on: must be off, standard or fifo."),
        ("AlertStatuses=A;B", "must be statuses of letters, digits and underscores, with commas between them."),
        ("SilenceHours=-1", "must be a number of hours from 0 to 168."),
        ("SilenceHours=1e2", "must be a number of hours from 0 to 168."),
        ("SilenceHours=", "must be a number of hours from 0 to 168."),
        ("DebounceMinutes=1441", "must be a whole number of minutes from 0 to 1440."),
        (f"AlertTags={'x' * 513}", "must have at most 512 characters."),
        (
            "Architecture=arm64",
            "Architecture cannot be set in a local run: a local run uses this machine's architecture.",
        ),
        ("WebhookSecretArn=x", "SECRET=<whsec_...> sets its value"),
        ("SendPilotApiKeyArn=x", "LeadDetails=yes creates the secret"),
        ("SendPilotApiUrl=http://api.sendpilot.ai", "must be an https URL"),
    ],
)
def test_refuses_unknown_parameters_and_wrong_values_by_name(argument, says):
    with pytest.raises(Failed) as refused:
        parameters.given([argument], TEMPLATE)
    assert says in str(refused.value)


def test_does_not_change_a_value():
    argument = 'StatusPipeline={"OPPORTUNITY": "gro\u00df=\'1\'"}'
    assert parameters.given([argument], TEMPLATE) == {"StatusPipeline": argument.partition("=")[2]}
