"""Prints the changelog's section of the version that a tag names.

Fails if tag, Cargo.toml and CHANGELOG.md do not agree.
"""

import re
import sys

import source


def notes(tag: str, version: str, changelog: str) -> str:
    """Returns the changelog's section of that version, without its heading."""
    if tag != f"v{version}":
        raise SystemExit(f"The tag is {tag}, but Cargo.toml says {version}")
    found = re.search(rf"^## \[{re.escape(version)}\].*\n(?s:(.*?))(?=^## |^\[|\Z)", changelog, re.MULTILINE)
    if not found or not found[1].strip():
        raise SystemExit(f"CHANGELOG.md says nothing of {version}")
    return found[1].strip()


def _version() -> str:
    # Cargo would install the pinned compiler first, in the one job of the workflow that may write.
    found = re.search(r'^version = "(.*)"', (source.ROOT / "Cargo.toml").read_text("utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit("Cargo.toml states no version")
    return found[1]


if __name__ == "__main__":
    print(notes(sys.argv[1], _version(), (source.ROOT / "CHANGELOG.md").read_text("utf-8")))
