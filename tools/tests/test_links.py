"""Every relative link in the project's Markdown leads to a tracked file, and every anchor to a heading in it."""

import re
import subprocess
from functools import cache
from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest

from source import ROOT

TRACKED = frozenset(
    subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
)
FOLDERS = frozenset(str(folder) for file in TRACKED for folder in PurePosixPath(file).parents)
PAGES = sorted(file for file in TRACKED if file.endswith(".md"))
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
# A path as prose names it, such as `src/lib.rs`. One with a placeholder, such as `events/<name>.json`, does not count.
NAMED = re.compile(r"`((?:\.ci|\.github|crates|docs|events|examples|src|tests|tools)/[\w./-]*)`")


def _prose(page):
    """Returns the text of a page without its blocks of code."""
    return re.sub(r"^( *)(```|~~~).*?^\1\2", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def _anchors(page):
    """Returns the anchors of a page's headings, as GitHub makes them: a second one of a name gets a number."""
    anchors = set()
    for heading in re.findall(r"^#{1,6} +(.*?)(?: +#+)?$", _prose(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = next(number for number in range(len(anchors) + 1) if _numbered(anchor, number) not in anchors)
        anchors.add(_numbered(anchor, number))
    return frozenset(anchors)


def _numbered(anchor, number):
    return f"{anchor}-{number}" if number else anchor


def _resolved(page, path):
    """Returns a path that a page names, from the top of the repository; None if it leads out of it."""
    parts = []
    for part in (*PurePosixPath(page).parent.parts, *PurePosixPath(path).parts):
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            return None
    return "/".join(parts) or "."


def broken(page, text):
    """Returns the links of that text, as if it was on the page, that lead nowhere."""
    found = []
    # What is between backticks is code, and has no links.
    for link in LINK.findall(re.sub(r"`[^`\n]+`", "", text)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", path):
            continue
        target = _resolved(page, unquote(path)) if path else page
        if target not in TRACKED and target not in FOLDERS:
            found.append(f"{link}: no such file")
        elif anchor and target.endswith(".md") and unquote(anchor) not in _anchors(target):
            found.append(f"{link}: no such heading")
        elif anchor and not target.endswith(".md"):
            found.append(f"{link}: only a page has headings")
    return found


def test_there_are_pages_with_links():
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/performance.md", "tools/README.md"} <= set(PAGES)
    assert sum(len(LINK.findall(_prose(page))) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES)
def test_each_relative_link_leads_somewhere(page):
    assert broken(page, _prose(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_each_file_that_a_page_names_exists(page):
    # A page names files from the top, or from its own folder.
    named = [path.rstrip("/") for path in NAMED.findall(_prose(page)) if page != "CHANGELOG.md"]
    assert [path for path in named if not {path, _resolved(page, path)} & (TRACKED | FOLDERS)] == []


@pytest.mark.parametrize(
    ("text", "flaws"),
    [
        ("[a](README.md) [b](docs/performance.md#weighed-and-dropped) [c](#how-it-works) [d](docs) [e](https://a.test/b)", 0),
        ("![picture](docs/images/email.svg) [`src`](src/lib.rs) [title](README.md 'A title') `[shown](nowhere.md)`", 0),
        ("[gone](src/gone.rs)", 1),
        ("[gone](README.md#gone)", 1),
        ("[gone](#gone)", 1),
        ("[out](../README.md)", 1),
        ("[line](src/lib.rs#L1)", 1),
        ("[`code`](src/gone.rs) and ![picture](docs/gone.svg)", 2),
    ],
)
def test_the_check_finds_what_is_broken(text, flaws):
    assert len(broken("README.md", text)) == flaws
