"""What a page, its README and its curves say of uneven classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_run import ENVIRONMENT, add_subset, make_run
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from patchlight.config import load_recipe
from patchlight.figures import charts
from patchlight.reporting.page import build_report
from patchlight.reporting.readme import build_readme
from patchlight.runs import Run


def text_of(run) -> str:
    html = build_report(run).read_text(encoding="utf-8")
    return " ".join(html.replace("\N{NO-BREAK SPACE}", " ").replace("&#39;", "'").split())


def cells_of(text: str, name: str) -> list[str]:
    """Of a class's row in the (first) table."""
    row = text.split(f'<tr><th scope="row">{name}</th>')[1].split("</tr>")[0]
    return [cell.split("</td>")[0] for cell in row.split('<td class="n">')[1:]]


def change(run, name: str, **values) -> None:
    data = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps({**data, **values}))


def answers(run):
    """The true and the predicted class of every test image."""
    matrix = np.array(json.loads((run / "eval.json").read_text())["confusion"])
    pairs = [(i, j) for (i, j), n in np.ndenumerate(matrix) for _ in range(n)]
    return [i for i, _ in pairs], [j for _, j in pairs]


@pytest.mark.parametrize("old", [False, True], ids=["today's", "of 0.2.0"])
def test_a_row_for_each_class(tmp_path, no_charts, old):
    run = make_run(tmp_path / "run")
    change(run, "eval.json", confusion=[[i + 1 + 6 * (i == j) * i for j in range(10)] for i in range(10)])
    labels, preds = answers(run)
    if old:  # its eval.json has the confusion matrix alone, and environment.json no counts
        data = json.loads((run / "eval.json").read_text())
        new = ("scores", "macro", "balanced_accuracy")
        (run / "eval.json").write_text(json.dumps({k: v for k, v in data.items() if k not in new}))
    else:
        counts = {str(i): 1000 + i for i in range(10)}
        change(run, "environment.json", data={**ENVIRONMENT["data"], "train_per_class": counts})
    text = text_of(run)
    top1 = json.loads((run / "eval.json").read_text())["top1"]
    assert f"large classes count most, is {100 * top1:.1f} %" in text
    theirs = precision_recall_fscore_support(labels, preds, zero_division=0)
    for i in range(10):
        expected = [f"{theirs[3][i]}", *(f"{100 * column[i]:.1f} %" for column in theirs[:3])]
        assert cells_of(text, str(i)) == [*([] if old else [f"{1000 + i:,}"]), *expected]
    macro = precision_recall_fscore_support(labels, preds, average="macro", zero_division=0)[:3]
    assert cells_of(text, "mean of the classes (macro)")[-3:] == [f"{100 * value:.1f} %" for value in macro]
    balanced = f"{100 * balanced_accuracy_score(labels, preds):.1f} %"
    assert f"Balanced accuracy, the mean recall of classes that have images, is {balanced}; accuracy," in text
    assert f"Balanced accuracy {balanced}, the mean of the classes' accuracies." in text  # beside the score
    assert f"| Balanced accuracy | {balanced} |" in build_readme(run).read_text()


def test_nearly_even_test_images_have_one_number_beside_the_score(tmp_path, no_charts):
    run = make_run(tmp_path / "run", names=("a", "b"))
    for rows, told in (([[14, 0], [1, 9]], False), ([[16, 0], [1, 9]], True)):  # 1.4 and 1.6 times the images
        change(run, "eval.json", confusion=rows)
        assert ("the mean of the classes' accuracies" in text_of(run)) == told


def test_even_test_images_have_one_accuracy(tmp_path, no_charts):
    run = make_run(tmp_path / "run", names=("a", "b"))
    change(run, "eval.json", confusion=[[190, 10], [20, 180]])
    text = text_of(run)
    assert "so accuracy and balanced accuracy are the same" in text
    assert "the mean of the classes' accuracies" not in text
    assert "Balanced accuracy |" not in build_readme(run).read_text()


def test_of_many_classes_the_hardest_are_shown_and_the_others_named(tmp_path, no_charts):
    run = make_run(tmp_path / "run", names=tuple(f"class {i}" for i in range(100)))
    text = text_of(run)
    table = text.split('<table class="of-classes">')[1].split("</table>")[0]
    assert table.count('<tr><th scope="row">') == 31  # with the mean
    assert "These are the 30 classes with the lowest F1. The other 70 are in eval.json, under scores." in text
    assert "mean of all 100 classes (macro)" in table
    scores = json.loads((run / "eval.json").read_text())["scores"]
    lowest = sorted(value["f1"] for value in scores.values() if value["f1"] is not None)[:30]
    shown = [line.split('<td class="n">')[-1].split(" ")[0] for line in table.split("<tbody>")[1].split("<tr>")[1:31]]
    assert shown == [f"{100 * value:.1f}" for value in lowest]


def test_the_subsets_test_images_have_a_table_of_their_own(tmp_path, no_charts):
    text = text_of(add_subset(make_run(tmp_path / "run")))
    assert text.count('<table class="of-classes">') == 2
    assert "Precision, recall and F1, the subset's 200" in text


def test_a_class_without_images_has_no_recall(tmp_path, no_charts):
    run = make_run(tmp_path / "run", names=("a", "b", "c"))
    change(run, "eval.json", confusion=[[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert cells_of(text_of(run), "c") == ["0", "0.0 %", "\N{EN DASH}", "0.0 %"]


def test_the_recipe_tells_the_loss_and_the_draws(tmp_path, no_charts):
    run = make_run(tmp_path / "run")
    weights = {"class_weights": "balanced", "select": "best_balanced"}
    settings = {"data.sampler": "balanced", **{f"train.{key}": value for key, value in weights.items()}}
    config = load_recipe(str(run / "config.toml"), settings)
    (run / "config.toml").write_text(config.to_toml())
    assert "cross entropy, weighted by class (balanced)</td>" in text_of(run)  # nothing more is recorded
    counts = {str(i): 10 * (i + 1) for i in range(10)}
    change(
        run,
        "environment.json",
        data={**ENVIRONMENT["data"], "train_per_class": counts},
        class_weights=[[5.5 / (i + 1) for i in range(10)]],
    )
    text = text_of(run)
    assert "cross entropy, weighted by class (balanced): 0.55 for 9, 0.611 for 8" in text
    assert "of every class equally many an epoch (data.sampler balanced)" in text
    assert "the best by validation: the highest balanced accuracy" in text
    assert "The training loss counts label smoothing and class weights, the validation loss does not" in text
    assert "Training images were drawn so that all classes come equally often" in text


def test_the_curves_show_the_measure_that_selects(tmp_path, no_slides):
    run = make_run(tmp_path / "run")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    more = [{"val/balanced_accuracy": 0.5 + 0.1 * i, "val/macro_f1": 0.4} for i in range(len(rows))]

    def write(key):
        lines = [json.dumps({**row, **own, "best_by": key}) for row, own in zip(rows, more, strict=True)]
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return charts.PANELS["accuracy"].values(Run(run).epochs())

    assert list(write("val/top1")) == ["val/top1"]
    config = load_recipe(str(run / "config.toml"), {"train.select": "best_balanced"})
    (run / "config.toml").write_text(config.to_toml())
    found = write("val/balanced_accuracy")
    assert list(found) == ["val/top1", "val/balanced_accuracy"]
    np.testing.assert_allclose(found["val/balanced_accuracy"], [0.5, 0.6, 0.7])
    (axes,) = charts.curves(Run(run).epochs(), kept=2, panels=["accuracy"]).axes
    assert axes.get_title(loc="left") == "Accuracy and balanced accuracy"
    assert "val., balanced accuracy" in axes.get_legend_handles_labels()[1]
    text = text_of(run)
    assert "val/balanced_accuracy from 0.5 to 0.7" in text
    assert "The weights were kept by the balanced accuracy of the validation images." in text
    assert "balanced accuracy 60.0 %, accuracy 90.2 % at epoch 2 of 3, the one kept" in text
