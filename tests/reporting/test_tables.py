"""Tables in their forms: each form is read back by a reader of its own, and nothing in a cell acts."""

from __future__ import annotations

import csv as csv_module
import io
import re

import pytest

from patchlight.reporting.tables import FORMATS, LATEX, Column, Table, Value, csv, latex, markdown

EVIL = [
    "plain",
    "a|b \\| c",
    "100 % of a_b & #1 {x} $\\alpha$ ~ ^",
    "=cmd|' /C calc'!A0, \"quoted\"",
    "<script>x</script> `code` [link](http://x)",
    "two\nlines\tand a tab",
    "--train.budget",
    "[first]",
    "79.3 ± 0.4 \N{MINUS SIGN} 1",
    "猫 \N{CAT FACE}",
]


def two_digits(value: Value) -> str:
    return f"{value:.2f}"


def table_of(names: list[str], **more: object) -> Table:
    columns = (Column("name", "name | of a run", left=True), Column("val_top1", "validation %", two_digits))
    return Table(columns, tuple((name, 1 / 3 if i % 2 else None) for i, name in enumerate(names)), **more)


def test_a_table_in_each_form_as_it_is_written():
    table = Table(
        (Column("name", "name", left=True), Column("top1", "accuracy %", two_digits)),
        (("a_b", 81.125), ("longer", None)),
        "What is better?",
        ("One seed cannot tell.",),
    )
    assert markdown(table) == (
        "What is better?\n\n"
        "| name   | accuracy % |\n"
        "| ------ | ---------: |\n"
        "| a\\_b   |      81.12 |\n"
        "| longer |          - |\n\n"
        "One seed cannot tell."
    )
    assert csv(table) == "name,top1\na_b,81.125\nlonger,\n"
    assert latex(table).splitlines() == [
        "% Needs \\usepackage{booktabs}.",
        "\\begin{table}",
        "\\centering",
        "\\caption{What is better?}",
        "\\begin{tabular}{lr}",
        "\\toprule",
        "name & accuracy \\% \\\\",
        "\\midrule",
        "a\\_b & 81.12 \\\\",
        "longer & - \\\\",
        "\\bottomrule",
        "\\end{tabular}",
        "\\par\\smallskip{\\footnotesize One seed cannot tell.\\par}",
        "\\end{table}",
    ]
    assert list(FORMATS) == ["md", "csv", "latex"]


def test_csv_is_read_back_with_all_digits_and_runs_nothing():
    header, *rows = csv_module.reader(io.StringIO(csv(table_of(EVIL, notes=("a note",)))))
    assert header == ["name", "val_top1"]
    assert [float(row[1]) if row[1] else None for row in rows] == [1 / 3 if i % 2 else None for i in range(len(EVIL))]
    for name, row in zip(EVIL, rows, strict=True):
        assert row[0].lstrip("'") == name.replace("\n", "\\n").replace("\t", "\\t")
        assert row[0][0] not in "=+-@"
    number = Table((Column("x", "x"),), ((-0.5,), (" @sum",), ("+1",)))
    assert csv(number) == "x\n-0.5\n' @sum\n'+1\n"


def test_every_row_of_markdown_has_the_cells_of_its_table():
    """By a small reader: a bar divides cells where no backslash stands before it, and a backslash before a sign is that
    sign (GitHub Flavored Markdown 0.29, section 4.10; CommonMark 2.4).
    """
    lines = markdown(table_of(EVIL)).splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    assert len(lines) == len(EVIL) + 2
    for name, line in zip(["name | of a run", None, *EVIL], lines, strict=True):
        cells = [cell.strip() for cell in re.findall(r"\|((?:[^|\\]|\\.)*)(?=\|)", line)]
        assert len(cells) == 2, line
        if name is not None:
            text = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cells[0])
            assert text == name.replace("\n", "\\n").replace("\t", "\\t")
    signs = re.sub(r"\\[!-/:-@\[-`{-~]", "", "\n".join(lines[2:]))
    assert not re.search(r"[<>`\[\]]", signs)


@pytest.mark.parametrize("text", ["- one", "1. first", "2) second", "=== of a headline", "+ more", "# head", "> said"])
def test_a_sentence_in_markdown_is_a_paragraph(text):
    first = markdown(Table((Column("x", "x"),), ((1,),), caption=text)).partition("\n")[0]
    assert not re.match(r"[-+=#>]|\d+[.)]", first)
    assert first.replace("\\", "") == text


def test_no_sign_acts_in_latex_and_what_it_cannot_write_is_said():
    text = latex(table_of(EVIL, caption="a_b", notes=("50 %",)))
    comments = [line for line in text.splitlines() if line.startswith("%")]
    assert comments[1:] == ["% pdflatex has no sign for U+1F431, U+732B: shown by number."]
    assert "{[}U+732B{]} {[}U+1F431{]} & 0.33 \\\\" in text
    assert "79.3 $\\pm$ 0.4 $-$ 1 &" in text
    assert "-{}-train.budget" in text
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    assert body.count("\n") == len(EVIL) + 1
    for line in body.splitlines()[1:]:
        assert len(re.findall(r"(?<!\\)&", line)) == 1
        assert not re.search(r"(?<!\\)[%#_~^]", line)
        assert not line.startswith(("[", "*"))
    assert all(not sign.isascii() or len(shown) > 1 for sign, shown in LATEX.items())


def test_a_row_of_another_length_is_a_bug():
    with pytest.raises(ValueError, match="zip"):
        markdown(Table((Column("x", "x"),), ((1, 2),)))
