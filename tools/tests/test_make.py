"""The Makefile's targets for operators: each variable reaches the command as it is, or is refused by its name."""

import os
import shlex
import subprocess

import pytest

from source import ROOT

# The variables of each target, and the options that they become.
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
    "doctor": {"RUN": "--run", "STACK": None},
}
FLAGS = [
    *(("send", "V=1", "--verbose"), ("logs", "ALL=yes", "--all"), ("logs", "FOLLOW=no", "--no-follow")),
    *(("resend", "STREAM=yes", "--stream"), ("resend", "YES=yes", "--yes"), ("doctor", "ALERT=yes", "--alert")),
]
# Words of the shell, of make and of the command line, and what they must not become.
VALUES = ("a b  c", "a'b", 'a"b', "a$b", "$$", "$(HOME)", "a#b%", "a\\", "-x", "\u00e9", "a;b&c|d", "*", "a=b", "~")
TAKES = [(target, variable) for target, options in OPTIONS.items() for variable in options]


def make(target, *variables, environment=None):
    """Returns what `make` would run, and what it says."""
    command = ["make", "--dry-run", "--no-print-directory", target, *variables]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def arguments(made, target):
    """Returns the words that the command would get."""
    assert (made.returncode, made.stderr) == (0, "")
    (line,) = (line for line in made.stdout.replace("\\\n", "").splitlines() if f" ops {target} " in f"{line} ")
    words = shlex.split(line)
    return words[words.index("ops") + 2 :]


@pytest.mark.parametrize(("target", "variable"), TAKES)
def test_a_value_is_passed_on_as_it_is(target, variable, tmp_path):
    ran = tmp_path / "ran"
    for value in (*VALUES, f"$(shell touch {ran})", f"$(touch {ran})", f"`touch {ran}`"):
        words = arguments(make(target, f"{variable}={value}"), target)
        option = OPTIONS[target][variable]
        expected = [f"{option}={value}"] if option else ["--", value]
        assert words[: len(expected)] == expected
        assert words[len(expected) :] == []
    assert not ran.exists()


def test_the_secret_is_no_argument_of_the_command():
    line = make("send", "EVENT=opportunity", "SECRET=whsec_a'b $x").stdout.replace("\\\n", "")
    words = shlex.split(line.splitlines()[-1])
    assert words[0] == "WEBHOOK_SECRET=whsec_a'b $x"
    assert not [word for word in words[1:] if "whsec" in word]


@pytest.mark.parametrize(("target", "variable", "option"), FLAGS)
def test_a_flag_is_an_option(target, variable, option):
    assert option in arguments(make(target, variable), target)


@pytest.mark.parametrize(
    ("target", "variable"),
    [("logs", "ALL=no"), ("logs", "FOLLOW=yes"), ("resend", "STREAM=no"), ("doctor", "ALERT=no")],
)
def test_the_other_word_of_a_flag_is_no_option(target, variable):
    assert arguments(make(target, variable), target) == []


# If make took STREAM=1 for no, everybody would get the alerts instead of the stream's messages.
@pytest.mark.parametrize(("target", "variable", "option"), FLAGS)
@pytest.mark.parametrize("word", ["true", "YES", "2"])
def test_a_flag_refuses_a_word_that_it_does_not_know(target, variable, option, word):
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


def test_send_without_an_event_names_none():
    assert arguments(make("send", "EVENT_ID=evt_1"), "send") == ["--event-id=evt_1"]


def test_the_environment_of_a_shell_changes_only_the_stack():
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
def test_a_run_gets_every_other_variable_as_a_parameter(value):
    made = make("run", f"AlertTags={value}", "PORT=8080")
    words = shlex.split(made.stdout.replace("\\\n", "").splitlines()[-1])
    assert words[words.index("local_aws.demo") + 1 :] == ["--stay", "--port=8080", "--", f"AlertTags={value}"]


def test_a_line_break_is_refused_by_the_name_of_its_variable():
    for target, variable in (("send", "LEAD"), ("run", "AlertTags")):
        made = make(target, f"{variable}=a\nb")
        assert (made.returncode, made.stdout) == (2, "")
        assert f"{variable} has a line break" in made.stderr


@pytest.mark.parametrize(("target", "variable"), [("demo", "PORT"), ("journey", "SECRET"), ("journey", "StatusStream")])
def test_a_demo_takes_no_parameters(target, variable):
    made = make(target, f"{variable}=1")
    assert (made.returncode, made.stdout) == (2, "")
    assert f"not {variable}" in made.stderr
