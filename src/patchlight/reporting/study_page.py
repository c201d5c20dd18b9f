"""A study as files: its page, its tables, its figures and `study.json`. Made of the record alone, without its runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchlight.errors import first_of
from patchlight.figures.style import STYLES, pdf, png, svg
from patchlight.reporting.embed import Chart, as_chart
from patchlight.reporting.files import write_file
from patchlight.reporting.markdown import as_block, as_text
from patchlight.reporting.study_figures import StudyFigure, figures_of, is_figure
from patchlight.reporting.study_tables import (
    answer_table,
    changes_of,
    finished,
    numbers_table,
    runs_table,
    seconds,
    signs,
    value_words,
)
from patchlight.reporting.tables import csv, latex, markdown
from patchlight.reporting.templating import html_templates
from patchlight.runs.study import FAILED, FINISHED, PRUNED, StudyResult, StudyVariant
from patchlight.units import SPACE, counted, duration, mean_deviation, printable, shortened

ENDINGS = (".png", ".svg", ".pdf")
CONTENTS = {
    "report.html": "the answer as a page: open it in a browser, send it, print it",
    "figures": "its figures as PNG for slides, SVG for pages and PDF for papers",
    "table.md": "the table as Markdown",
    "table.tex": "the table for LaTeX",
    "table.csv": "all numbers of the table, with all their digits",
    "study.json": "the plan, the runs and the answer: what all of these files are made of",
}


def write_study(folder: Path, result: StudyResult) -> Path:
    """Write `study.json`, the tables, `README.md`, `figures/` and `report.html` of a study, and return the page's path.

    All is made before the first file is written, and each file is written whole. What an earlier call wrote is
    replaced, and figures that this study no longer has are deleted. Raises PatchlightError where a file cannot be
    written.
    """
    figures = figures_of(result)
    drawn = {figure.name: figure.draw("light") for figure in figures}
    files = {
        "study.json": json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n",
        "table.md": markdown(answer_table(result)) + "\n",
        "table.csv": csv(numbers_table(result)),
        "table.tex": latex(answer_table(result, says=False)) + "\n",
        "README.md": readme(result),
    }
    data = {name: text.encode("utf-8", "replace") for name, text in files.items()}
    for figure in figures:
        about = printable(figure.alt)
        data[f"figures/{figure.name}.png"] = png(drawn[figure.name], "light", description=about)
        data[f"figures/{figure.name}.svg"] = svg(drawn[figure.name], "light").encode()
        data[f"figures/{figure.name}.pdf"] = pdf(drawn[figure.name], "light", description=about)
    charts = [
        (figure, as_chart(drawn[figure.name], data[f"figures/{figure.name}.svg"].decode(), figure.alt))
        for figure in figures
    ]
    data["report.html"] = page(result, charts).encode("utf-8", "replace")  # last, as it is what people open
    for name, content in data.items():
        write_file(folder / name, content)
    for path in (folder / "figures").glob("*"):
        if path.suffix in ENDINGS and is_figure(path.stem) and f"figures/{path.name}" not in data:
            path.unlink(missing_ok=True)
    return folder / "report.html"


@dataclass(frozen=True)
class Row:
    """A variant in the page's table."""

    cells: list[str]  # the first is its name
    says: list[str]  # what the numbers say of it, and why some seeds are not finished
    is_chosen: bool


def page(result: StudyResult, charts: list[tuple[StudyFigure, Chart]]) -> str:
    """The page as HTML."""
    table, runs = answer_table(result, says=False), runs_table(result)
    rows = [
        Row(cells, list(_says(v)), v.name == result.chosen)
        for v, cells in zip(result.variants, table.shown(), strict=True)
    ]
    best = next((v for v in result.variants if v.name == result.chosen), None)
    return (
        html_templates()
        .get_template("study.html")
        .render(
            result=result,
            light=STYLES["light"],
            dark=STYLES["dark"],
            styles="",
            best=best,
            score=None if best is None or best.val_mean is None else mean_deviation(best.val_mean),
            facts=facts(result),
            heads=table.columns,
            rows=rows,
            signs=signs(result),
            charts=charts,
            changes=[(v.name, changes_of(v)) for v in result.variants],
            runs=runs,
            run_rows=runs.shown(),
            computed=computed(result),
            space=SPACE,
        )
    )


def _says(v: StudyVariant) -> Iterator[str]:
    if v.difference is not None:
        yield f"Against {v.difference.to}: {v.difference.words}."
    if v.gain is not None and (v.difference is None or v.gain.to != v.difference.to):
        yield f"Against the step before, {v.gain.to}: {v.gain.words}."
    if v.note:
        yield f"{v.note[0].upper()}{v.note[1:]}."


def facts(result: StudyResult) -> list[tuple[str, str]]:
    """Pairs of a word and a line, for the head of the page."""
    machines = sorted({run.machine for run in result.runs if run.machine})
    total = seconds([run.train_wall_s for run in result.runs if not run.reused])
    reused = ", without the runs that were reused" if any(run.reused for run in result.runs) else ""
    rows = [
        ("Recipe", f"{result.recipe}{f', size {result.size}' if result.size else ''}"),
        ("Data", f"{result.data} · {counted(result.classes, 'class', 'classes')}"),
        ("Variants", f"{len(result.variants)} · {PLANS.get(result.plan, result.plan)}"),
        ("Grid", "; ".join(f"{key}: {', '.join(map(value_words, values))}" for key, values in result.grid.items())),
        ("Baseline", f"{result.baseline}{', at each point of the grid' if result.grid else ''}"),
        ("Seeds", ", ".join(map(str, result.seeds))),
        ("Budget", result.budget),
        ("Why", result.why),
        ("Runs", states(result)),
        ("Time", f"{duration(total)} of training in all{reused}" if total else ""),
        ("Machine" if len(machines) == 1 else "Machines", first_of((shortened(name) for name in machines), 4)),
    ]
    return [(word, line) for word, line in rows if line]


PLANS = {
    "each": "each is compared with the baseline",
    "ladder": "a ladder: each step adds to the one before",
    "leave-one-out": "each leaves out one thing",
}


def states(result: StudyResult) -> str:
    """How many runs there are in which state."""
    planned = len(result.variants) * len(result.seeds)
    count = {state: sum(run.state == state for run in result.runs) for state in (FINISHED, PRUNED, FAILED)}
    waiting = planned - sum(count.values())
    words = [f"{n} {state}" for state, n in {**count, "waiting": waiting}.items() if n]
    return f"{', '.join(words)}, of {planned}"


def computed(result: StudyResult) -> list[str]:
    """How the numbers came about, in sentences."""
    kept = "the weights of its last epoch" if result.measure == "last" else "the weights that validation chose"
    before = sum(run.test_before for run in result.runs)
    sentences = [
        f"Each run keeps {kept}; its validation accuracy is that of these weights. A "
        "variant's accuracy is the mean over its finished seeds, and the number behind ± their sample deviation "
        "(with n - 1).",
        "A difference is taken seed by seed, over the seeds that both variants have finished. Its interval is the mean "
        "± t · s / √n of these differences, with Student's t at 95 % and n - 1 degrees of freedom (Student 1908).",
        "The variant with the greatest validation mean is chosen, among those that have finished all seeds; of equal "
        "ones the cheaper.",
    ]
    if result.test == "all":
        sentences.append("The test images were read once for every variant, which was asked for; they chose nothing.")
    elif result.test == "chosen":
        sentences.append("The test images are read once, for the chosen variant alone, after it is chosen.")
    else:
        sentences.append("This study reads no test images.")
    if before:
        had = "had its" if before == 1 else "had their"
        sentences.append(f"{counted(before, 'run')} {had} test images read before, by another study or training.")
    return sentences


def readme(result: StudyResult) -> str:
    """`README.md` of the study: the answer, the table and the files."""
    lines = [f"# {as_text(result.title or result.name)}", ""]
    lines += [as_text(result.question), ""] if result.question else []
    lines += [f"**{as_text(sentence)}**" if i == 0 else as_text(sentence) for i, sentence in enumerate(result.answer)]
    lines += ["", markdown(answer_table(result)), ""]
    lines += (
        ["## How far to believe it", "", *(f"- {as_text(note)}" for note in result.notes), ""] if result.notes else []
    )
    lines += ["## To run it again", "", *as_block([result.command], "sh"), ""]
    lines += ["## Files", "", *(f"- `{name}`: {what}" for name, what in CONTENTS.items())]
    count = f"{finished(result)} of {counted(len(result.variants) * len(result.seeds), 'run')} finished"
    lines += ["", f"Made by Patchlight {as_text(result.patchlight)} of {count}."]
    return "\n".join(lines).replace(SPACE, " ") + "\n"
