"""The prose check finds each kind of flaw, and nothing in sound prose."""

import pytest

from lint_prose import flaws

LONG = "It " + "is " * 25 + "ok."


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("a.md", f"{LONG}\n", [(1, "length")]),
        ("a.md", f"| a | {LONG} |\n", [(1, "length")]),
        ("a.md", f"```text\n{LONG}\n```\n", []),
        ("a.md", "# What it costs when nobody looks at it\n", []),
        ("a.md", "What nobody has published is pending.\n", [(1, "subject")]),
        ("a.md", "What does a team of five people pay?\n", []),
        ("a.md", "Good.\n\nThe redrive publishes it\nanew.\n", [(3, "turn")]),
        ("a.md", "The command `mend anew` is code.\n", []),
        ("a.md", "An e-mail.\n", [(1, "turn")]),
        ("a.md", "word " * 21 + "\n", [(1, "width")]),
        ("a.md", f"[a link](https://example.com/{'x' * 100})\n", []),
        ("a.md", f"| {'word ' * 21}|\n", []),
        ("a.rs", f"    /// {LONG}\n", [(1, "length")]),
        ("a.rs", "let mend = 1;\n// A mended\n// row.\n", [(2, "turn")]),
        ("a.rs", f"let x = 1; {'x = 2; ' * 15}\n", []),
        ("a.py", f'def f():\n    """Returns.\n\n    {LONG}\n    """\n', [(4, "length")]),
        ("a.py", "x = 'anew'\n", []),
        ("a.yaml", f"a: b # {'word ' * 20}\n", [(1, "width")]),
        ("template.yaml", "A:\n  Description: Whoever has it gets an alert.\n", [(2, "subject"), (2, "turn")]),
        (
            "template.yaml",
            "A:\n  AlarmDescription: !Sub\n    It is mended.\n    Fix it\n    anew.\n",
            [(3, "turn"), (3, "turn")],
        ),
    ],
)
def test_each_rule_is_held(file, text, expected):
    assert [flaw[:2] for flaw in flaws(file, text)] == expected
