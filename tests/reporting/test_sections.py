"""The table of sections, and that it is extended by a module and a row."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from made_run import make_run
from PIL import Image

from patchlight.reporting.embed import encode
from patchlight.reporting.page import build_report
from patchlight.reporting.sections import SECTIONS, calibration, faithfulness
from patchlight.runs import EvalResult

# A section as somebody writes it outside the package: one module.
LENGTHS = """
import functools

from matplotlib.figure import Figure

from patchlight.figures.style import styled
from patchlight.reporting.embed import chart
from patchlight.reporting.section import Content, Section


def bars(seconds, theme):
    with styled(theme) as s:
        figure = Figure(figsize=(4, 3))
        figure.add_subplot().bar(range(1, len(seconds) + 1), seconds, color=s.blue)
    return figure


def content(facts):
    if not facts.epochs:
        return None
    draw = functools.partial(bars, [row.epoch_s for row in facts.epochs])
    return Content({"bars": chart(draw, "Seconds of each epoch."), "most": "<3 s"}, {"lengths": draw})


SECTION = Section(
    title="How long its epochs took",
    content=content,
    template='<p class="lengths">At most {{ most }}.</p>{{ chart(bars) }}',
    slides={"lengths": "seconds of each epoch"},
    style=".lengths { color: red; }",
)
"""


def test_a_section_from_outside_is_a_module_and_a_row(tmp_path, monkeypatch):
    (tmp_path / "lengths.py").write_text(LENGTHS)
    monkeypatch.syspath_prepend(tmp_path)
    import lengths

    run = make_run(tmp_path / "run", epochs=2, maps=False)
    SECTIONS.append(lengths.SECTION)
    try:
        html = build_report(run).read_text(encoding="utf-8")
        assert html.index("<h2>Environment</h2>") < html.index("<h2>How long its epochs took</h2>")
        assert '<p class="lengths">At most &lt;3 s.</p>' in html
        assert 'alt="Seconds of each epoch."' in html
        assert ".lengths { color: red; }" in html
        with Image.open(run / "figures" / "lengths.png") as figure:
            assert figure.info["Description"] == "seconds of each epoch"
        (run / "metrics.jsonl").unlink()  # what a run does not have is left out, and an older figure goes
        assert "How long its epochs took" not in build_report(run).read_text(encoding="utf-8")
        assert not (run / "figures" / "lengths.png").exists()
    finally:
        SECTIONS.remove(lengths.SECTION)


def test_titles_and_figures_are_each_of_one_section():
    titles = [section.title for section in SECTIONS]
    slides = [name for section in SECTIONS for name in section.slides]
    assert len(set(titles)) == len(titles)
    assert len(set(slides)) == len(slides)


@pytest.mark.parametrize("module", ["page", "readme"])
def test_pages_are_made_without_torch(module):
    code = f"import sys, patchlight.reporting.{module}; print(sorted({{'torch', 'timm', 'scipy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("confidence", "verdict"),
    [(0.9, "10.0 points overconfident"), (0.7, "10.0 points underconfident"), (0.81, "chance can explain")],
)
def test_what_calibration_is_said_to_be(confidence, verdict):
    table = {"edges": [0, 0.5, 1], "count": [0, 100], "confidence": [None, confidence], "accuracy": [None, 0.8]}
    rates = {"n": 100, "loss": 0.5, "top1": 0.8, "top1_ci95": [0.76, 0.84], "top5": 1, "ece": 0.1}
    counts = {"per_class": {"a": 0.8}, "confusion": [[100]], "reliability": table}
    result = EvalResult.from_json({"data": "digits", "split": "test", **rates, **counts})
    content = calibration.content(SimpleNamespace(result=result))  # type: ignore[arg-type]
    assert content is not None
    assert verdict in str(content.values["verdict"])


def test_the_tables_of_faithfulness_show_all_that_is_measured():
    """The page imports no torch, so it repeats the names of measures."""
    from patchlight.analysis.faithfulness import MEASURES

    shown = {name: better for name, _, better in faithfulness.MEASURES}
    assert shown == {name: measure.better for name, measure in MEASURES.items()}
    assert shown["randomized"] == "near 0"  # and not low: -1 is the same map upside down


def test_tokens_before_the_first_layer_are_shown_where_a_folder_has_them(tmp_path, no_slides):
    run = make_run(tmp_path / "run")
    title = "<h2>Its patches as tokens, before the first layer</h2>"
    html = build_report(run).read_text(encoding="utf-8")
    assert html.index("<h2>What the model sees</h2>") < html.index(title)
    assert "so a position embedding is added to each; its norm is" in " ".join(html.split())
    assert html.count("<figcaption>likeness, with positions</figcaption>") == 2
    assert {"patch_embeddings.png", "patch_likeness.png"} <= {path.name for path in (run / "figures").iterdir()}
    with np.load(run / "insight.npz") as file:
        arrays = dict(file)
    alone = {"embed_colours": arrays["embed_colours"][:, :1], "embed_likeness": arrays["embed_likeness"][:, :1]}
    alone |= {"embed_matrices": arrays["embed_matrices"][:1], "embed_about": np.array("no position embedding is added")}
    kept = {name: value for name, value in arrays.items() if name != "embed_positions"}
    np.savez_compressed(run / "insight.npz", **kept | alone)
    html = build_report(run).read_text(encoding="utf-8")
    assert "Of its positions: no position embedding is added." in html
    assert "with positions" not in html
    older = {name: value for name, value in arrays.items() if not name.startswith("embed_")}
    np.savez_compressed(run / "insight.npz", **older)
    assert title not in build_report(run).read_text(encoding="utf-8")
    assert not (run / "figures" / "patch_embeddings.png").exists()


@pytest.mark.parametrize("colours", [1, 200, 256, 300])
def test_a_picture_of_few_colours_is_the_same_in_fewer_bytes(colours):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (colours, 3), dtype=np.uint8)[rng.integers(0, colours, (64, 64))]
    data = encode(image, "png")
    with Image.open(io.BytesIO(data)) as back:
        np.testing.assert_array_equal(np.asarray(back.convert("RGB")), image)
    assert (len(data) < 6000) == (colours <= 256)
