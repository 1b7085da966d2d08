"""Installs pinned tools into a virtual environment, if they are missing or out of date.

This module runs before anything is installed, so it needs only the standard library. If two
processes start together, only one of them installs. The end of `make` ends the installation, and
removes its temporary files.
"""

import os
import sys
from pathlib import Path

from local_aws.lifeline import Lifeline, end_with_parent
from local_aws.locks import exclusive
from local_aws.progress import Failed, step

LOGS = Path(".local-aws")


def main():
    venv, lock = map(Path, sys.argv[1:])
    end_with_parent(int(os.environ.get("PARENT", os.getppid())))
    try:
        with exclusive(LOGS / f"{venv.name}.lock"):
            if not is_installed(venv, lock):
                install(venv, lock)
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")


def is_installed(venv: Path, lock: Path) -> bool:
    """Returns whether the tools were installed after the last change of their versions."""
    done = venv / "installed"
    return done.exists() and done.stat().st_mtime >= lock.stat().st_mtime


def install(venv: Path, lock: Path) -> None:
    """Installs the tools of a lock, which names every package, so pip resolves nothing."""
    python = venv / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [
        [sys.executable, "-m", "venv", "--clear", venv],
        [*pip, "--no-deps", "--no-compile", "--require-hashes", "-r", lock],
    ]
    with step(f"Installing the tools of {lock.with_suffix('.txt')} into {venv} (once, about a minute)"):
        for command in commands:
            log = LOGS / "install.log"
            with Lifeline([str(word) for word in command], dict(os.environ), log, Path.cwd()) as process:
                if process.wait() != 0:
                    raise Failed("The tools could not be installed", log)
        (venv / "installed").touch()


if __name__ == "__main__":
    main()
