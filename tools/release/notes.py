"""Prints the changelog's section for a tag's version.

Fails if the tag, Cargo.toml and CHANGELOG.md do not agree.
"""

import re
import sys

import source


def notes(tag: str, version: str, changelog: str) -> str:
    """Returns the changelog's section of a version, without its heading."""
    if tag != f"v{version}":
        raise SystemExit(f"The tag is {tag}, but Cargo.toml says {version}")
    found = re.search(rf"^## \[{re.escape(version)}\].*\n(?s:(.*?))(?=^## |^\[|\Z)", changelog, re.MULTILINE)
    if not found or not found[1].strip():
        raise SystemExit(f"CHANGELOG.md has no section with entries for {version}")
    return found[1].strip()


def _version() -> str:
    # Cargo would first install the pinned compiler, in the only job of the workflow that may write.
    found = re.search(r'^version = "(.*)"', (source.ROOT / "Cargo.toml").read_text("utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit("Cargo.toml has no version")
    return found[1]


if __name__ == "__main__":
    print(notes(sys.argv[1], _version(), (source.ROOT / "CHANGELOG.md").read_text("utf-8")))
