"""The Makefile passes each variable on unchanged, or refuses it by name."""

import os
import shlex
import subprocess

import pytest

from source import ROOT

# The variables of each target, with the option of each. None is the last argument.
OPTIONS = {
    "send": {
        "LEAD": "--lead",
        "STATUS": "--status",
        "EVENT_ID": "--event-id",
        "TIME": "--time",
        "N": "--times",
        "URL": "--url",
        "RUN": "--run",
        "EVENT": None,
    },
    "logs": {
        "EVENT": "--event",
        "OUTCOME": "--outcome",
        "SINCE": "--since",
        "FUNCTION": "--function",
        "RUN": "--run",
        "STACK": None,
    },
    "pending": {"RUN": "--run", "STACK": None},
    "resend": {"SINCE": "--since", "EVENT": "--event", "RUN": "--run", "STACK": None},
    "forget": {"LEAD": "--lead", "WORKSPACE": "--workspace", "RUN": "--run", "STACK": None},
    "reconcile": {"RUN": "--run", "STACK": None},
    "doctor": {"RUN": "--run", "STACK": None},
}
FLAGS = [
    *(("send", "V=1", "--verbose"), ("logs", "ALL=yes", "--all"), ("logs", "FOLLOW=no", "--no-follow")),
    *(("resend", "STREAM=yes", "--stream"), ("resend", "YES=yes", "--yes"), ("doctor", "ALERT=yes", "--alert")),
    *(("forget", "DRY=yes", "--dry-run"), ("reconcile", "DRY=yes", "--dry-run")),
]
# Values with characters that the shell, make or the command line could interpret.
VALUES = ("a b  c", "a'b", 'a"b', "a$b", "$$", "$(HOME)", "a#b%", "a\\", "-x", "\u00e9", "a;b&c|d", "*", "a=b", "~")
TAKES = [(target, variable) for target, options in OPTIONS.items() for variable in options]


def make(target, *variables, environment=None):
    """Returns the result of a dry run of `make`."""
    command = ["make", "--dry-run", "--no-print-directory", target, *variables]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def arguments(made, target):
    """Returns the arguments that the command would get."""
    assert (made.returncode, made.stderr) == (0, "")
    (line,) = (line for line in made.stdout.replace("\\\n", "").splitlines() if f" ops {target} " in f"{line} ")
    words = shlex.split(line)
    return words[words.index("ops") + 2 :]


@pytest.mark.parametrize(("target", "variable"), TAKES)
def test_passes_a_value_on_unchanged(target, variable, tmp_path):
    ran = tmp_path / "ran"
    for value in (*VALUES, f"$(shell touch {ran})", f"$(touch {ran})", f"`touch {ran}`"):
        words = arguments(make(target, f"{variable}={value}"), target)
        option = OPTIONS[target][variable]
        expected = [f"{option}={value}"] if option else ["--", value]
        assert words[: len(expected)] == expected
        assert words[len(expected) :] == []
    assert not ran.exists()


def test_the_secret_is_not_an_argument():
    line = make("send", "EVENT=opportunity", "SECRET=whsec_a'b $x").stdout.replace("\\\n", "")
    words = shlex.split(line.splitlines()[-1])
    assert words[0] == "WEBHOOK_SECRET=whsec_a'b $x"
    assert not [word for word in words[1:] if "whsec" in word]


@pytest.mark.parametrize(("target", "variable", "option"), FLAGS)
def test_a_flag_becomes_an_option(target, variable, option):
    assert option in arguments(make(target, variable), target)


@pytest.mark.parametrize(
    ("target", "variable"),
    [
        *(("logs", "ALL=no"), ("logs", "FOLLOW=yes"), ("resend", "STREAM=no"), ("doctor", "ALERT=no")),
        *(("forget", "DRY=no"), ("reconcile", "DRY=no")),
    ],
)
def test_the_opposite_of_a_flag_adds_no_option(target, variable):
    assert arguments(make(target, variable), target) == []


# If make read STREAM=true as no, all subscribers would get the alerts instead of the stream's
# messages.
@pytest.mark.parametrize(("target", "variable", "option"), FLAGS)
@pytest.mark.parametrize("word", ["true", "YES", "2"])
def test_a_flag_refuses_an_unknown_word(target, variable, option, word):
    name = variable.partition("=")[0]
    made = make(target, f"{name}={word}")
    assert (made.returncode, made.stdout) == (2, "")
    assert f"{name} takes " in made.stderr


@pytest.mark.parametrize(("target", "variable"), [*TAKES, ("send", "SECRET")])
def test_an_empty_variable_is_refused(target, variable):
    made = make(target, f"{variable}=")
    assert (made.returncode, made.stdout) == (2, "")
    assert f"{variable} is empty" in made.stderr


@pytest.mark.parametrize("target", OPTIONS)
def test_an_unknown_variable_is_refused(target):
    made = make(target, "STAK=a")
    assert (made.returncode, made.stdout) == (2, "")
    assert "not STAK" in made.stderr


def test_send_without_an_event_passes_no_file():
    assert arguments(make("send", "EVENT_ID=evt_1"), "send") == ["--event-id=evt_1"]


def test_the_shell_environment_sets_only_the_stack():
    shell = {
        **os.environ,
        "PORT": "1",
        "N": "2",
        "V": "1",
        "TIME": "",
        "URL": "http://127.0.0.1:1/",
        "STACK": "deployed",
    }
    assert arguments(make("send", "EVENT=opportunity", environment=shell), "send") == ["--", "opportunity"]
    assert arguments(make("doctor", environment=shell), "doctor") == ["--", "deployed"]
    assert arguments(make("doctor", environment={**shell, "STACK": ""}), "doctor") == []


@pytest.mark.parametrize("value", ["", *VALUES])
def test_run_passes_every_other_variable_as_a_parameter(value):
    made = make("run", f"AlertTags={value}", "PORT=8080")
    words = shlex.split(made.stdout.replace("\\\n", "").splitlines()[-1])
    assert words[words.index("local_aws.demo") + 1 :] == ["--stay", "--port=8080", "--", f"AlertTags={value}"]


def test_refuses_a_line_break_by_the_variables_name():
    for target, variable in (("send", "LEAD"), ("run", "AlertTags")):
        made = make(target, f"{variable}=a\nb")
        assert (made.returncode, made.stdout) == (2, "")
        assert f"{variable} has a line break" in made.stderr


@pytest.mark.parametrize(
    ("target", "variable"),
    [("demo", "PORT"), ("missed", "ReconcileMinutes"), ("journey", "SECRET"), ("journey", "StatusStream")],
)
def test_the_demonstrations_refuse_parameters(target, variable):
    made = make(target, f"{variable}=1")
    assert (made.returncode, made.stdout) == (2, "")
    assert f"not {variable}" in made.stderr
