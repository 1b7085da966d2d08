"""What `make run` and `make demo` lack is said at once, before anything is installed or built."""

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
    """A folder that is the whole PATH, with programs that do nothing but print."""
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
    """Returns what it says, in one line, while it refuses."""
    ran = preflight(*arguments, **environment)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    return line


def test_it_accepts_this_machine(commands):
    found = commands(rustc="echo rustc 1.200.0", cargo="", cc="")
    ran = preflight(PATH=str(found))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_without_rust_it_says_where_to_get_it(commands):
    assert refusal(PATH=str(commands())) == "Rust 1.95 is needed, and cargo is not on the PATH: https://rustup.rs"


def test_an_older_rust_is_refused_by_its_version(commands):
    found = commands(rustc="echo 'rustc 1.94.1 (abc 2026-01-01)'", cargo="", cc="")
    said = refusal(PATH=str(found))
    assert said == "Rust 1.95 is needed, and this is rustc 1.94.1 (abc 2026-01-01): https://rustup.rs"


def test_a_toolchain_that_cannot_be_installed_is_refused(commands):
    found = commands(rustc="exit 1", cargo="", cc="")
    assert refusal(PATH=str(found)) == "Rust 1.95 is needed, and `rustc --version` failed: https://rustup.rs"


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
        pytest.skip("this machine lets nobody mount a folder noexec")
    said = refusal(prefix=mount, TMPDIR=str(tmp_path))
    assert f"Programs cannot run in {tmp_path}" in said
    assert "TMPDIR=/var/tmp make run" in said


def test_a_folder_for_temporary_files_that_is_missing_is_refused(tmp_path):
    assert (
        refusal(TMPDIR=str(tmp_path / "nope"))
        == f"TMPDIR={tmp_path / 'nope'} is not a folder. Set it to one that you may write."
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
def test_a_template_that_is_not_built_is_refused(path, says):
    said = refusal("--template", path)
    assert said.startswith(f"TEMPLATE={path} {says}")
    assert said.endswith(
        "Give the template.yaml of an unpacked release, or .aws-sam/build/template.yaml after `sam build`."
    )


def test_a_template_without_its_functions_is_refused(template):
    path = template(ELF)
    shutil.rmtree(path.parent / "WebhookFunction")
    assert "is not built: there is no " in refusal("--template", path)


@pytest.mark.parametrize("program", [b"", b"#!/bin/sh", ELF[:18] + b"\x28\x00"])
def test_functions_for_another_machine_are_refused(program, template):
    assert f"does not run on this machine, {platform.machine()}." in refusal("--template", template(program))
