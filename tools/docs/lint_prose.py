"""Finds prose that breaks the rules of CONTRIBUTING.md: in Markdown, in comments, and in docstrings.

Without arguments, it reads all tracked files. With --count, it only prints how often each rule is broken.
"""

import ast
import re
import subprocess
import sys
import tokenize
from collections import Counter
from io import StringIO
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 100  # columns of a comment
WORDS = 25  # words of a sentence

# Words and phrases of another century, or with a plainer one beside them.
TURNS = re.compile(
    r"\b(mend(s|ed|ing)?|anew|who(m|so)?ever|whatsoever|(is|are) none|is no(?= (string|number|list|object)\b)|so many"
    r"|in hand|for ever|can not|stands? in|but for|reckon(s|ed)?|of its own accord|hence|thus|ere|naught|nought|lest"
    r"|one's own|to and fro|for want of|(where|there)(in|by|of)|hitherto|herewith|what is out|e-mails?"
    r"|(is|are) told|somebody|anybody|all the same)\b",
    re.IGNORECASE,
)
# A clause as the subject, where a concrete noun should stand. Headings and questions may begin so.
SUBJECT = re.compile(r"(what|who|whoever|whatever)\b(?!.*\?$)", re.IGNORECASE)
CODE = {".rs": "//", ".py": "#", ".yaml": "#", ".yml": "#", ".toml": "#", "": "#"}
# Not ours, or a record of what was said then.
SKIPPED = ("LICENSE", "tools/docs/asyncapi-specs/", "Cargo.lock", "tools/requirements", ".gitignore", ".gitattributes")


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [file for file in listed.splitlines() if not file.startswith(SKIPPED) and (ROOT / file).is_file()]


def _markdown(text):
    """Yields the paragraphs of a page, with the number of their first line. Each cell of a table is one."""
    paragraph, start, fence = [], 0, None
    for number, line in enumerate([*text.splitlines(), ""], 1):
        bare = line.strip()
        if bare.startswith(("```", "~~~")):
            fence = None if fence else bare[:3]
            bare = ""
        elif fence:
            continue
        if bare.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", bare.strip("|")):
                yield number, cell.strip()
            continue
        begins = re.match(r"([-*]|\d+\.) +", bare)
        if re.match(r"#+ ", bare):
            bare = ""
        if paragraph and (not bare or begins or bare.startswith("<!--")):
            yield start, " ".join(paragraph)
            paragraph = []
        if bare and not bare.startswith("<!--"):
            if not paragraph:
                start = number
            paragraph.append(bare[begins.end() :] if begins else bare)


def _comments(text, sign):
    """Yields the blocks of whole-line comments, with the number of their first line, as Markdown."""
    block, start = [], 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        found = re.match(rf"\s*{sign}[/!#]* ?(.*)", line)
        if found and not line.lstrip().startswith("#!"):
            if not block:
                start = number
            block.append(found[1])
        elif block:
            yield start, "\n".join(block)
            block = []


def _docstrings(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (said := ast.get_docstring(node)):
            yield node.body[0].lineno, said


def _descriptions(text):
    """Yields the descriptions of a template, which customers read: those of its parameters, outputs and alarms."""
    for found in re.finditer(r"^( *)(?:Alarm)?Description: (?:!Sub)?(.*(?:\n\1 .*)*)", text, re.MULTILINE):
        start = text.count("\n", 0, found.start(2)) + 1
        yield start + (not found[2].partition("\n")[0].strip()), found[2].strip()


def paragraphs(file, text):
    """Yields all prose of a file, by paragraph, with the number of the first line."""
    suffix = Path(file).suffix
    if suffix == ".md":
        yield from _markdown(text)
    elif suffix in CODE:
        blocks = list(_comments(text, CODE[suffix]))
        if suffix == ".py":
            blocks += _docstrings(text)
        if suffix == ".yaml":
            blocks += _descriptions(text)
        for start, block in blocks:
            for number, paragraph in _markdown(dedent(block)):
                yield start + number - 1, paragraph


def _wide(file, text):
    """Yields the lines whose comment ends behind the limit. One long word, such as a link, cannot be wrapped."""
    suffix = Path(file).suffix
    if suffix == ".md":
        lines = ((n, line) for n, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith(("|", "<")))
    elif suffix == ".py":
        tokens = tokenize.generate_tokens(StringIO(text).readline)
        lines = ((token.start[0], token.line.rstrip("\n")) for token in tokens if token.type == tokenize.COMMENT)
    elif suffix in CODE:
        lines = (
            (number, line)
            for number, line in enumerate(text.splitlines(), 1)
            if re.match(rf"\s*{CODE[suffix]}|[^\"]*\S {CODE[suffix]} [A-Za-z]", line)
        )
    else:
        return
    for number, line in lines:
        if len(line) > WIDTH and max(map(len, line.split())) < WIDTH * 3 // 4:
            yield number


def sentences(paragraph):
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    shown = re.sub(r"`[^`]*`", "CODE", shown)
    shown = re.sub(r"https?://\S+", "LINK", shown)
    shown = re.sub(r"\b(e\.g|i\.e|vs|etc)\.", r"\1", shown)
    return [sentence for sentence in re.split(r"(?<=[.!?:])[)*_\"]*\s+|\s+\|\s+", shown) if sentence.strip()]


def flaws(file, text):
    """Returns what breaks a rule in a file: the number of the line, the rule, and the words."""
    found = [(number, "width", f"over {WIDTH} columns") for number in _wide(file, text)]
    for number, paragraph in paragraphs(file, text):
        plain = re.sub(r"`[^`]*`", "", paragraph)
        found += [(number, "turn", match[0]) for match in TURNS.finditer(plain)]
        for sentence in sentences(paragraph):
            words = len(re.findall(r"\S*\w\S*", sentence))
            if words > 3 and SUBJECT.match(sentence):
                found.append((number, "subject", sentence))
            if words > WORDS:
                found.append((number, "length", f"{words} words: {sentence}"))
    return sorted(found)


def main():
    count = Counter()
    for file in tracked():
        text = (ROOT / file).read_text("utf-8", "replace")
        for number, rule, words in flaws(file, text):
            count[rule] += 1
            if "--count" not in sys.argv:
                print(f"{file}:{number}: {rule}: {words}")
    if "--count" in sys.argv:
        print(*(f"{rule}: {number}" for rule, number in sorted(count.items())), sep="\n")
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
