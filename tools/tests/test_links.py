"""Every relative link in Markdown leads to a tracked file, and every anchor to a heading in it.

So does every page that a comment, a program or a template names.
"""

import re
import subprocess
from functools import cache
from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest

from source import ROOT, documents

TRACKED = frozenset(
    subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
)
FOLDERS = frozenset(str(folder) for file in TRACKED for folder in PurePosixPath(file).parents)
PAGES = sorted(file for file in TRACKED if file.endswith(".md"))
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
# A path as prose names it, such as `src/lib.rs`. A path with a placeholder, such as
# `events/<name>.json`, does not count.
NAMED = re.compile(r"`((?:\.ci|\.github|crates|docs|events|examples|src|tests|tools)/[\w./-]*)`")

CODE = sorted(
    file
    for file in TRACKED
    if file.endswith((".rs", ".py", ".yaml", ".yml", ".toml", ".txt", "Makefile", ".ci/run", ".sh"))
    and not file.startswith("tools/docs/asyncapi-specs/")
    and file != "tools/tests/test_links.py"  # names pages that do not exist
)
# A page as other files name it, perhaps with a heading: docs/page.md, "Heading".
NAMED_PAGE = re.compile(
    r'(?<![\w./-])((?:(?:docs|events|examples|tools)/[\w/-]+|[A-Z]+)\.md)(?:#([\w-]+)|, "([^"]+)")?'
)
README_LINES = 180


def _prose(page):
    """Returns the text of a page without its blocks of code."""
    return re.sub(r"^( *)(```|~~~).*?^\1\2", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def _headings(page):
    return re.findall(r"^#{1,6} +(.*?)(?: +#+)?$", _prose(page), re.MULTILINE)


@cache
def _anchors(page):
    """Returns the anchors of a page's headings, as GitHub makes them: repeated names get a number."""
    anchors = set()
    for heading in _headings(page):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = next(number for number in range(len(anchors) + 1) if _numbered(anchor, number) not in anchors)
        anchors.add(_numbered(anchor, number))
    return frozenset(anchors)


def _numbered(anchor, number):
    return f"{anchor}-{number}" if number else anchor


def _resolved(page, path):
    """Returns a path that a page names, from the top of the repository. None if it leads out."""
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
    """Returns the broken links of a text, as if the text was on the page."""
    found = []
    # Code between backticks has no links.
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


def missing(file, text):
    """Returns the pages and headings that a text names and that do not exist."""
    # A comment or a folded text of YAML may break the heading's line.
    joined = re.sub(r"\s*\n\s*(?://[/!]?|#)?\s*", " ", text)
    found = []
    for page, anchor, heading in NAMED_PAGE.findall(joined):
        target = next((path for path in (page, _resolved(file, page)) if path in TRACKED), None)
        if target is None:
            found.append(f"{page}: no such page")
        elif (anchor and anchor not in _anchors(target)) or (heading and heading not in _headings(target)):
            found.append(f"{page}: no heading {anchor or heading}")
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


def test_each_page_that_other_files_name_exists():
    found = {file: missing(file, (ROOT / file).read_text("utf-8")) for file in CODE}
    assert {file: pages for file, pages in found.items() if pages} == {}


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith(".github/")])
def test_each_page_starts_with_a_title_and_a_paragraph(page):
    assert re.match(r"# [^\n]+\n\n(?!!\[)[\w`*\[]", (ROOT / page).read_text("utf-8"))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("index", ["README.md", "docs/README.md"])
def test_the_indexes_link_to_each_page(index):
    linked = {_resolved(index, link.partition("#")[0]) for link in LINK.findall(_prose(index))}
    assert {page for page in PAGES if re.fullmatch(r"docs/[a-z]+\.md", page)} <= linked


def test_a_release_has_each_page_to_which_its_pages_link():
    released = documents().keys()
    linked = {
        _resolved(page, link.partition("#")[0])
        for page in released
        if page.endswith(".md")
        for link in LINK.findall(_prose(page))
        if ":" not in link
    }
    # docs/deploy.md says that these pages are only in the repository.
    only_here = {"CONTRIBUTING.md", "examples/README.md"}
    assert {page for page in linked if page and page.endswith(".md")} - released == only_here


@pytest.mark.parametrize(
    ("text", "names_a_page"),
    [
        ('as docs/deploy.md, "The signing secret", says', True),
        ('as docs/deploy.md, "The signing\n    secret", says', True),
        ('// As docs/deploy.md, "The signing\n// secret", says.', True),
        ("see docs/deploy.md#four-steps, README.md and https://a.test/docs/gone.md", True),
        ("see docs/gone.md", False),
        ('as docs/deploy.md, "Gone", says', False),
        ("see docs/deploy.md#gone", False),
    ],
)
def test_the_check_finds_missing_pages_and_headings(text, names_a_page):
    assert (missing("template.yaml", text) == []) == names_a_page


@pytest.mark.parametrize(
    ("text", "flaws"),
    [
        (
            "[a](README.md) [b](docs/performance.md#weighed-and-dropped) [c](#how-it-works) [d](docs) [e](https://a.test/b)",
            0,
        ),
        ("![picture](docs/images/email.svg) [`src`](src/lib.rs) [title](README.md 'A title') `[shown](nowhere.md)`", 0),
        ("[gone](src/gone.rs)", 1),
        ("[gone](README.md#gone)", 1),
        ("[gone](#gone)", 1),
        ("[out](../README.md)", 1),
        ("[line](src/lib.rs#L1)", 1),
        ("[`code`](src/gone.rs) and ![picture](docs/gone.svg)", 2),
    ],
)
def test_the_check_finds_broken_links(text, flaws):
    assert len(broken("README.md", text)) == flaws
