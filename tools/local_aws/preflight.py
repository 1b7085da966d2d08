"""Checks this machine for a local run, before anything is installed or built.

This module runs under the machine's own Python, so it needs only the standard library.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (3, 10)
# The field e_machine of an ELF file, by `platform.machine()`.
MACHINES = {"x86_64": 62, "aarch64": 183}


class Lacking(Exception):
    """The reason why a local run cannot work, and what to do."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--template", type=Path, help="a built template (default: this source is built)")
    parser.add_argument("--rust-only", action="store_true", help="check only the compilers")
    given = parser.parse_args()
    try:
        if not given.rust_only:
            _check_machine()
            _check_clone()
            _check_scratch()
        if given.template is not None:
            _check_built(given.template)
        else:
            _check_compilers()
    except Lacking as reason:
        sys.exit(str(reason))


def _check_machine():
    if sys.version_info < PYTHON:
        raise Lacking(
            "Python {}.{} or newer is needed. Install it as `python3`, or give its command by PYTHON=<command>.".format(
                *PYTHON
            )
        )
    if sys.platform != "linux":
        raise Lacking("The local AWS runs the functions as Linux programs. Use WSL, a container or a virtual machine.")
    if platform.machine() not in MACHINES:
        raise Lacking(f"Lambda does not have this machine's architecture, {platform.machine()}. Use x86_64 or arm64.")


def _check_clone():
    for folder in (ROOT, ROOT / ".local-aws"):
        if folder.exists() and not os.access(folder, os.W_OK):
            raise Lacking(
                f"{folder} is not writable. Tools, builds and logs go there, so use a clone that you may write."
            )


def _check_scratch():
    """Checks that programs can run from the folder for temporary files, as the functions do."""
    given = os.environ.get("TMPDIR")
    if given and not Path(given).is_dir():
        raise Lacking(f"TMPDIR={given} is not a folder. Set TMPDIR to a folder that you may write.")
    try:
        folder = Path(tempfile.mkdtemp(prefix="local-aws-"))
    except OSError as error:
        raise Lacking(
            f"Temporary files cannot be written: {error}. Set TMPDIR to a folder that you may write."
        ) from None
    try:
        program = folder / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(stat.S_IRWXU)
        subprocess.run([str(program)], check=True)
    except PermissionError:
        raise Lacking(
            f"Programs cannot run in {folder.parent}, the folder for temporary files: it is mounted noexec. "
            "Set TMPDIR to another folder, for example: TMPDIR=/var/tmp make run"
        ) from None
    except OSError as error:
        raise Lacking(
            f"{folder.parent}, the folder for temporary files, cannot be used: {error}. Set TMPDIR to another folder."
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_compilers():
    needed = re.search(r'^channel = "(\d+)\.(\d+)', (ROOT / "rust-toolchain.toml").read_text(), re.MULTILINE)
    version = ".".join(needed.groups())
    if not shutil.which("cargo") or not shutil.which("rustc"):
        raise Lacking(f"Rust {version} is needed, but cargo is not on the PATH. Install Rust: https://rustup.rs")
    # rustup installs the toolchain that rust-toolchain.toml names, and prints its progress.
    printed = subprocess.run(["rustc", "--version"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found = re.match(r"rustc (\d+)\.(\d+)", printed.stdout)
    if printed.returncode or not found:
        raise Lacking(f"Rust {version} is needed, but `rustc --version` failed. Install Rust: https://rustup.rs")
    if tuple(map(int, found.groups())) < tuple(map(int, needed.groups())):
        raise Lacking(f"Rust {version} is needed, but this is {printed.stdout.strip()}. Update Rust: https://rustup.rs")
    if not shutil.which("cc"):
        raise Lacking("A C compiler is needed to link Rust programs. On Debian or Ubuntu: apt install gcc")


def _check_built(template: Path):
    """Checks that a template exists and that its functions are built for this machine."""
    built = "Give the template.yaml of an unpacked release, or .aws-sam/build/template.yaml after `sam build`."
    try:
        text = template.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise Lacking(f"TEMPLATE={template} cannot be read: {reason}. {built}") from None
    # `sam build` gives each function a CodeUri of its own, and leaves the one in Globals.
    folders = re.findall(r"^ {6,}CodeUri: *['\"]?([^'\"\n]+?)['\"]? *$", text, re.MULTILINE)
    if not folders:
        raise Lacking(f"TEMPLATE={template} is not built: no function has a CodeUri of its own. {built}")
    for folder in folders:
        program = template.parent / folder / "bootstrap"
        try:
            with program.open("rb") as file:
                head = file.read(20)
        except OSError:
            raise Lacking(f"TEMPLATE={template} is not built: there is no {program}. {built}") from None
        if head[:4] != b"\x7fELF" or int.from_bytes(head[18:20], "little") != MACHINES[platform.machine()]:
            raise Lacking(f"TEMPLATE={template}: {program} does not run on this machine, {platform.machine()}.")


if __name__ == "__main__":
    main()
