"""A run folder as one page: `report.html` with everything inside it, `figures/*.png` for slides, and `README.md`.

Only the folder's files are read, so a report needs no model, no data and no network.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from pathlib import Path

import jinja2

from patchlight.errors import PatchlightError
from patchlight.figures.style import STYLES, png
from patchlight.reporting import insight_parts, parts, run_parts
from patchlight.reporting.embed import Draw, Part
from patchlight.reporting.facts import Facts, begin_command, read_facts, resume_command
from patchlight.units import SPACE

SLIDES = {
    "curves": "loss, accuracy and learning rate over the epochs",
    "per_class": "accuracy of each class",
    "confusion": "who was taken for whom",
    "reliability": "confidence against accuracy",
    "gallery_wrong": "the most confident mistakes",
    "gallery_right": "right answers",
    "patches": "an image as the model sees it",
    "attention": "where the model looked",
    "layers_wrong": "what a mistake read, layer by layer",
    "layers_right": "what a right answer read, layer by layer",
    "attention_distance": "how far each head looks",
    "attention_entropy": "how widely each head looks",
    "painted": "what was hidden and what the model painted",
    "positions": "how alike position embeddings are",
}


def build_report(run: Path) -> Path:
    """Write `figures/*.png` and `report.html` of a run folder, and return the page's path.

    What the run does not have (no test result yet, no attention) is left out. Raises PatchlightError where `run` is no
    run folder, a file of it is damaged, or the page cannot be written.
    """
    facts = read_facts(run)
    slides: dict[str, Draw] = {}
    tiles = parts.tiles(facts)
    shown = {
        "headline": run_parts.headline(facts),
        "recipe": run_parts.recipe(facts),
        "painted": parts.painted(facts, slides),
        "curves": parts.curves(facts, slides),
        "classes": parts.classes(facts, slides),
        "calibration": parts.calibration(facts, slides),
        "galleries": parts.answers(facts, tiles, slides),
        "patches": parts.patches(facts, tiles, slides),
        "attention": parts.attention(facts, tiles, slides),
        "relevance": insight_parts.relevance(facts, tiles),
        "layers": insight_parts.layers(facts, tiles, slides),
        "explorer": insight_parts.explorer(facts, tiles),
        "movie": insight_parts.movie(facts),
        "heads": insight_parts.heads(facts, slides),
        "faithfulness": insight_parts.faithfulness(facts),
        "colour_scale": insight_parts.colour_scale(),
        "environment": run_parts.environment(facts),
    }
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html")
    folder = shlex.quote(str(facts.run))
    html = page.render(facts=facts, folder=folder, light=STYLES["light"], dark=STYLES["dark"], **shown)
    _write_slides(run / "figures", slides)
    return _write(run / "report.html", html.encode("utf-8", "replace"))


def build_readme(run: Path) -> Path:
    """Write the run's README.md: what was trained, with what result, and how to use it. Returns its path.

    Raises PatchlightError as `build_report` does.
    """
    facts = read_facts(run)
    about = facts.config.about
    headline = run_parts.headline(facts)
    lines = [f"# {_md(facts.name)}", ""]
    lines += [_md(about.title) + ".", ""] if about.title else []
    lines += [f"**{_result(headline)}**", ""]
    rows = headline["facts"] + ([("Validation", headline["validation"])] if headline["validation"] else [])
    rows += [(word, text) for word, text in run_parts.recipe(facts)["notes"]]
    rows += [("Images", note) for note in headline["notes"]]
    lines += ["| | |", "|---|---|"] + [f"| {word} | {_md(text)} |" for word, text in rows] + [""]
    lines += ["## Use", "", "```sh", *_commands(facts), "```", ""]
    lines += ["## Files", "", *_files(facts)]
    text = "\n".join(lines).replace(SPACE, " ") + "\n"
    return _write(run / "README.md", text.encode("utf-8", "replace"))


def _result(headline: Part) -> str:
    if headline["painting"]:
        return headline["painting"]
    if headline["top1"] is None:
        return "No test result yet: the run is still training or was interrupted."
    interval = f"95 % interval {headline['interval']}"
    return f"{headline['top1']} {_md(headline['split'])} accuracy on {headline['n']} images ({interval})."


def _commands(facts: Facts) -> list[str]:
    run, recipe = shlex.quote(str(facts.run)), shlex.quote(str(facts.run / "config.toml"))
    if facts.config.train.task == "reconstruct":
        return [f"{begin_command(facts)}    # begin with its encoder", f"patchlight report {run}"]
    first = [f"{resume_command(facts.run)}    # go on with the training"] if facts.result is None else []
    return [
        *first,
        f"patchlight eval {run}                # measure it again, or on other data: --data SOURCE",
        f"patchlight predict {run} IMAGE...    # what is on images of your own",
        f"patchlight report {run}              # report.html, figures/ and this file again",
        f"patchlight train {recipe} --out NEW  # the same training once more",
    ]


def _files(facts: Facts) -> list[str]:
    """The parts of the folder that are there."""
    known = {
        "report.html": "the result as a page: open it in a browser, send it, print it",
        "figures": "its figures as PNG, for slides",
        "model": "the kept weights (safetensors) and what is needed to build the model again",
        "config.toml": "the recipe, every setting",
        "environment.json": "versions, hardware, size of the model, time",
        "metrics.jsonl": "a line for each epoch",
        "eval.json": "the test result in numbers",
        "reconstruction.json": "the loss of what was painted, and the epoch that is kept",
        "samples.npz": "the images, predictions and attention maps that the report shows",
        "checkpoints": "what training resumes from",
    }
    return [f"- `{name}`: {what}" for name, what in known.items() if (facts.run / name).exists()]


def _md(text: str) -> str:
    """Foreign text in Markdown: on one line, and no sign of it means anything."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def _write_slides(folder: Path, slides: dict[str, Draw]) -> None:
    for name in SLIDES:
        if name in slides:
            _write(folder / f"{name}.png", png(slides[name]("light"), "light"))
        else:  # of an earlier report, about another result
            (folder / f"{name}.png").unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> Path:
    """All of it or nothing: a reader never sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(part).chmod(0o644)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PatchlightError(
            f"cannot write {path}: {error.strerror}; free some space or mend its permissions"
        ) from None
    return path
