"""`README.md` of a run folder: what was trained, with what result, and how to use it."""

from __future__ import annotations

from pathlib import Path

from patchlight.config import GIVEN
from patchlight.reporting.facts import Facts, read_facts
from patchlight.reporting.files import write_file
from patchlight.reporting.headline import Headline, headline
from patchlight.reporting.markdown import as_block, as_text
from patchlight.reporting.sections.recipe import recipe_notes
from patchlight.units import SPACE

CONTENTS = {
    "report.html": "the result as a page: open it in a browser, send it, print it",
    "figures": "its figures as PNG, for slides",
    "model": "the kept weights (safetensors) and what is needed to build the model again",
    "config.toml": "the recipe, every setting",
    "environment.json": "versions, hardware, size of the model, time",
    "metrics.jsonl": "a line for each epoch",
    "skipped.json": "the images that could not be read and were left out",
    "first_batch.json": "the first batch that was trained on, in numbers",
    "first_batch.npz": "images of it, with their labels",
    "eval.json": "the test result in numbers",
    "validation.json": "the validation result of a training that read no test image",
    "reconstruction.json": "the loss of the reconstruction, and the epoch that is kept",
    "samples.npz": "the images, predictions and attention maps that the report shows",
    "subset_samples.npz": "the same of the subset's own test images, without maps",
    "checkpoints": "what training resumes from",
}


def build_readme(run: Path) -> Path:
    """Write the run's README.md and return its path. Raises PatchlightError as `build_report` does."""
    facts = read_facts(run)
    about, head = facts.config.about, headline(facts)
    rows = head.facts + ([("Validation", head.validation)] if head.validation else [])
    rows += [("Balanced accuracy", head.score.balanced)] if head.score and head.score.balanced else []
    rows += [("Subset test", head.score.subset)] if head.score and head.score.subset else []
    rows += recipe_notes(facts)
    rows += [("Images", note) for note in head.notes]
    lines = [f"# {as_text(facts.name)}", ""]
    lines += [as_text(about.title) + ".", ""] if about.title else []
    lines += [f"**{_result(head)}**", ""]
    lines += ["| | |", "|---|---|"] + [f"| {word} | {as_text(text)} |" for word, text in rows] + [""]
    lines += ["## Use", "", *as_block(_commands(facts), "sh"), ""]
    lines += ["## Files", ""]
    lines += [f"- `{name}`: {what}" for name, what in CONTENTS.items() if (run / name).exists()]
    text = "\n".join(lines).replace(SPACE, " ") + "\n"
    return write_file(run / "README.md", text.encode("utf-8", "replace"))


def _result(head: Headline) -> str:
    if head.reconstruction:
        return head.reconstruction
    if head.score is None and head.untested:
        return head.untested
    if head.score is None:
        return "No test result yet: the run is still training or was interrupted."
    score = head.score
    return f"{score.top1} {as_text(score.split)} accuracy on {score.images} (95 % interval {score.interval})."


def _commands(facts: Facts) -> list[str]:
    run = facts.folder
    if facts.config.train.task == "reconstruct":
        return [f"{facts.finetune_command}    # begin with its encoder", f"patchlight report {run}"]
    if facts.config.data.source == GIVEN:  # these images are not stored
        return [
            f"patchlight predict {run} IMAGE...    # what is on images of your own",
            f"patchlight eval {run} --data SOURCE  # measure it on other data",
            f"patchlight report {run}              # report.html, figures/ and this file again",
            "# In Python, with the images that it was trained on:",
            f"# patchlight.evaluate({run!r}, data=...); patchlight.train(..., out={run!r}, data=..., resume=True)",
        ]
    first = [f"{facts.run.resume_command}    # go on with the training"] if facts.result is None else []
    again = "measure it again, or on other data: --data SOURCE"
    if facts.validated is not None:
        again = "measure it on its validation images; --split test reads the test images"
    return [
        *first,
        f"patchlight eval {run}                # {again}",
        f"patchlight predict {run} IMAGE...    # what is on images of your own",
        f"patchlight report {run}              # report.html, figures/ and this file again",
        f"patchlight train {facts.recipe_file} --out NEW  # the same training once more",
    ]
