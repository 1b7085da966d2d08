"""`make run` and `make demo` report missing programs before they install or build anything."""

import os
import platform
import shutil
import subprocess
import sys

import pytest

from local_aws.preflight import MACHINES
from source import ROOT

PREFLIGHT = ROOT / "tools" / "local_aws" / "preflight.py"
ELF = b"\x7fELF" + bytes(14) + MACHINES[platform.machine()].to_bytes(2, "little")


@pytest.fixture
def commands(tmp_path):
    """A folder that is the whole PATH, with programs that only print."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def commands(**printed):
        for name, output in printed.items():
            (folder / name).write_text(f"#!/bin/sh\n{output}\n")
            (folder / name).chmod(0o755)
        return folder

    return commands


@pytest.fixture
def template(tmp_path):
    """A built template, with programs of this content."""
    folder = tmp_path / "build"
    (folder / "WebhookFunction").mkdir(parents=True)
    path = folder / "template.yaml"
    path.write_text(
        "Globals:\n  Function:\n    CodeUri: .\nResources:\n  F:\n    Properties:\n      CodeUri: WebhookFunction\n"
    )

    def template(program):
        (folder / "WebhookFunction" / "bootstrap").write_bytes(program)
        return path

    return template


def preflight(*arguments, prefix=(), **environment):
    command = [*prefix, sys.executable, "-B", PREFLIGHT, *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def refusal(*arguments, **environment):
    """Returns the one line with which it refuses."""
    ran = preflight(*arguments, **environment)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    return line


def test_accepts_this_machine(commands):
    found = commands(rustc="echo rustc 1.200.0", cargo="", cc="")
    ran = preflight(PATH=str(found))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_without_rust_it_says_where_to_get_rust(commands):
    assert (
        refusal(PATH=str(commands()))
        == "Rust 1.95 is needed, but cargo is not on the PATH. Install Rust: https://rustup.rs"
    )


def test_refuses_an_older_rust_and_names_its_version(commands):
    found = commands(rustc="echo 'rustc 1.94.1 (abc 2026-01-01)'", cargo="", cc="")
    said = refusal(PATH=str(found))
    assert said == "Rust 1.95 is needed, but this is rustc 1.94.1 (abc 2026-01-01). Update Rust: https://rustup.rs"


def test_refuses_a_toolchain_that_cannot_be_installed(commands):
    found = commands(rustc="exit 1", cargo="", cc="")
    assert (
        refusal(PATH=str(found)) == "Rust 1.95 is needed, but `rustc --version` failed. Install Rust: https://rustup.rs"
    )


def test_without_a_c_compiler_it_says_what_to_install(commands):
    assert "apt install gcc" in refusal(PATH=str(commands(rustc="echo rustc 1.95.0", cargo="")))


def test_programs_must_run_from_the_folder_for_temporary_files(tmp_path):
    mount = (
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o noexec tmpfs "$TMPDIR" && exec "$@"',
        "-",
    )
    try:
        subprocess.run([*mount, "true"], env={**os.environ, "TMPDIR": str(tmp_path)}, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not allow mounting a folder noexec")
    said = refusal(prefix=mount, TMPDIR=str(tmp_path))
    assert f"Programs cannot run in {tmp_path}" in said
    assert "TMPDIR=/var/tmp make run" in said


def test_refuses_a_missing_folder_for_temporary_files(tmp_path):
    assert (
        refusal(TMPDIR=str(tmp_path / "nope"))
        == f"TMPDIR={tmp_path / 'nope'} is not a folder. Set TMPDIR to a folder that you may write."
    )


def test_a_built_template_needs_no_rust(template, commands):
    ran = preflight("--template", template(ELF), PATH=str(commands()))
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nope.yaml", "cannot be read: No such file or directory."),
        ("tools", "cannot be read: Is a directory."),
        ("template.yaml", "is not built: no function has a CodeUri of its own."),
        ("docs/images/chat.svg", "is not built: no function has a CodeUri of its own."),
        (sys.executable, "cannot be read: it is not a text."),
    ],
)
def test_refuses_a_template_that_is_not_built(path, says):
    said = refusal("--template", path)
    assert said.startswith(f"TEMPLATE={path} {says}")
    assert said.endswith(
        "Give the template.yaml of an unpacked release, or .aws-sam/build/template.yaml after `sam build`."
    )


def test_refuses_a_template_without_its_functions(template):
    path = template(ELF)
    shutil.rmtree(path.parent / "WebhookFunction")
    assert "is not built: there is no " in refusal("--template", path)


@pytest.mark.parametrize("program", [b"", b"#!/bin/sh", ELF[:18] + b"\x28\x00"])
def test_refuses_functions_for_another_machine(program, template):
    assert f"does not run on this machine, {platform.machine()}." in refusal("--template", template(program))
