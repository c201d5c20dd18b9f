"""The report of a run folder as `patchlight train` leaves it, with and without its parts, whole and damaged."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from made_run import ENVIRONMENT, add_first_batch, add_subset, make_run, without_result
from PIL import Image

from patchlight.config import config_from_dict, load_recipe
from patchlight.errors import PatchlightError
from patchlight.evaluation.metrics import classification_metrics
from patchlight.reporting.page import build_report
from patchlight.reporting.readme import build_readme
from patchlight.reporting.sections import SECTIONS


class Page(HTMLParser):
    """The tags of a page, its addresses and its visible text."""

    def __init__(self, html):
        super().__init__()
        self.html = html
        self.tags, self.addresses, self.alts, self.words, self.hidden = [], [], [], [], 0
        self.feed(html)
        self.text = " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.hidden += tag in ("style", "script")
        found = dict(attrs)
        self.addresses += [found[key] for key in ("src", "href", "srcset") if key in found]
        if tag == "img":
            self.alts.append(found.get("alt"))

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)


def report(run):
    return Page(build_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "quickstart")
    return add_first_batch(add_subset(run))


@pytest.fixture(scope="module")
def page(run):
    return report(run)


def test_the_page_says_what_happened(run, page):
    result = json.loads((run / "eval.json").read_text())
    low, high = (f"{100 * bound:.1f}" for bound in result["top1_ci95"])
    for words in (
        f"{100 * result['top1']:.1f} %",
        f"95 % interval {low} \N{EN DASH} {high} %",
        "400 images",
        "vit-tiny · 2.69 M parameters · 356 M FLOPs per image · 65 tokens",
        "1,293 training · 144 validation · 360 test · 10 classes",
        "1 min 1 s · 2 min 0 s of CPU time · 912 images/s",
        "Some CPU · 2 cores · 24 GB",
        "90.2 % at epoch 2 of 3, the one kept",
        "patchlight train quickstart",
        "32 \N{MULTIPLICATION SIGN} 32 / 4² = 64 patches",
        "65 tokens go through the blocks: one more than patches",
        "Attention of the CLS token in the last layer, mean over heads. This says where the last layer read from",
        "label smoothing 0.1",
        "[schedule]",
    ):
        assert words in page.text, words


def test_patches_are_those_of_the_image_that_the_model_takes(tmp_path, no_charts):
    """Of small images that are enlarged for it."""
    run = make_run(tmp_path / "enlarged")
    about = {**ENVIRONMENT, "model": {**ENVIRONMENT["model"], "tokens": 197, "img_size": 224, "patch_size": 16}}
    (run / "environment.json").write_text(json.dumps(about))
    with np.load(run / "samples.npz") as found:
        samples = {**found, "patch_size": np.array(16)}
    np.savez(run / "samples.npz", **samples)
    text = report(run).text
    assert "224 \N{MULTIPLICATION SIGN} 224 / 16² = 196 patches" in text
    assert "197 tokens go through the blocks: one more than patches" in text


def test_the_parts_are_in_order(page):
    heads = [
        *(
            "What was trained",
            "A batch as it was trained on",
            "How it learned",
            "Which classes it knows",
            "Whether its confidence can be trusted",
        ),
        *(
            "Its most confident mistakes",
            "And some it got right",
            "Answers on the subset's own test images",
            "What the model sees",
            "Where it looked",
            "Evidence for the predicted class and for the true one",
            "What each patch reads",
            "How its maps changed during training",
            "What its heads, positions and filters are like",
            "How far the maps can be believed",
            "Environment",
        ),
    ]
    places = [page.text.index(head) for head in heads]
    assert places == sorted(places)


def test_the_subsets_test_stands_beside_the_full_one(run, page, tmp_path, no_slides):
    result = json.loads((run / "eval.json").read_text())
    subset = result["subset_test"]
    low, high = (f"{100 * bound:.1f}" for bound in subset["top1_ci95"])
    for words in (
        f"On the subset's own test images {100 * subset['top1']:.1f} % (95 % interval {low} \N{EN DASH} {high} %, "
        "200 images)",
        "Beside the 400 test images stand the 200 test images that were cut off the training set",
        "Most frequent mistakes on all test images",
        f"From the subset's own test images, {100 * subset['top1']:.1f} % of which it knows: first its most confident "
        "mistakes, then right answers, class by class in turn.",
    ):
        assert words in page.text, words
    assert [alt for alt in page.alts if alt.startswith("Confusion matrix of")] == [
        f"Confusion matrix of the {images}: true classes in rows, predicted ones in columns."
        for images in ("400 test images", "200 test images of the subset")
        for _ in ("light", "dark")
    ]
    text = build_readme(run).read_text(encoding="utf-8")
    assert (
        f"| Subset test | {100 * subset['top1']:.1f} % (95 % interval {low} \N{EN DASH} {high} %, 200 images) |" in text
    )
    # A folder of before, with four numbers, says them and has nothing more to show.
    old = make_run(tmp_path / "old", epochs=1)
    score = {key: subset[key] for key in ("n", "loss", "top1", "top1_ci95")}
    (old / "eval.json").write_text(json.dumps({**json.loads((old / "eval.json").read_text()), "subset_test": score}))
    before = report(old)
    assert f"On the subset's own test images {100 * subset['top1']:.1f} % (95 % interval {low}" in before.text
    assert "of the subset: true" not in " ".join(before.alts)
    assert "Answers on the subset's own test images" not in before.text
    assert "Most frequent mistakes on all" not in before.text
    assert not (old / "figures" / "confusion_subset.png").exists()


def test_of_the_subsets_answers_only_those_are_told_that_are_there(tmp_path, no_charts):
    run = add_subset(make_run(tmp_path / "run", epochs=1))
    with np.load(run / "subset_samples.npz") as file:
        arrays = dict(file)
    for kind, told in (("right", "right answers, class by class in turn"), ("wrong", "its most confident mistakes")):
        kept = {name: values[arrays["kind"] == kind] for name, values in arrays.items()}
        np.savez_compressed(run / "subset_samples.npz", **kept)
        assert f"of which it knows: {told}." in report(run).text


def test_the_first_batch_is_told_and_shown(page, tmp_path, no_charts):
    for words in (
        "The first batch as the model was given it: augmented, normalised, and mixed. Below are the first 4 of its 64",
        "64 x 3 x 32 x 32 float32",
        "normalised by mean 0.4914, 0.4822, 0.4465 and deviation 0.2023, 0.1994, 0.2010",
        "values -1.5000 to 2.2500, all finite",
        "60 of 64 images are mixed, lambda 0.25 to 0.75, mean 0.50",
        "10 of 10 classes: 4 of 0, 5 of 1",
        "0.75 3 + 0.25 7 1 + 1 4 1",
    ):
        assert words in page.text, words
    assert "Training image of 0.75 3 + 0.25 7" in page.alts
    assert "Not as it should be" not in page.text
    odd = add_first_batch(make_run(tmp_path / "odd", epochs=1), not_finite=7, warnings=["all images are of one class"])
    text = report(odd).text
    assert "Not as it should be: All images are of one class." in text
    assert "all but 7 finite" in text
    assert "A batch as it was trained on" not in report(make_run(tmp_path / "none", epochs=1)).text


def test_the_calibration_sentence_is_computed(run, page):
    table = json.loads((run / "eval.json").read_text())["reliability"]
    says, right, n = re.search(
        r"When it says about (\d+) % , it is right (\d+) % of the time \( ?([\d,]+) images", page.text
    ).groups()
    place = table["count"].index(int(n))
    assert round(100 * table["confidence"][place]) == int(says)
    assert round(100 * table["accuracy"][place]) == int(right)


def test_the_page_needs_nothing_else(run, page):
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "fetch(" not in page.html
    assert page.tags.count("script") == 2  # attention to explore and the movie, inline
    assert "link" not in page.tags
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "@import" not in html
    assert "url(" not in html
    assert len(html) < 1.55e6
    assert all(page.alts)
    assert page.tags.count("h1") == 1


def test_slides(run, page):
    words = {name: about for section in SECTIONS for name, about in section.slides.items()}
    of_classifiers = words.keys() - {"painted"}
    assert {path.stem for path in (run / "figures").iterdir()} == of_classifiers
    for name in of_classifiers:
        with Image.open(run / "figures" / f"{name}.png") as picture:
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
            assert picture.width > 300
            assert picture.info["Description"] == words[name]


def scores(*better: str, **means: float) -> dict[str, dict]:
    """Measures with intervals, tested against both controls; those in `better` are better than both."""
    rows = {key: {"mean": mean, "low": mean - 0.05, "high": mean + 0.05} for key, mean in means.items()}
    for key, row in rows.items():
        random, centre = ({"difference": 0.1, "p": p, "better": key in better or p < 0.05} for p in (0.01, 0.2))
        row["against"] = {"random": random, "centre": centre}
    return rows


def table(n: int = 500, **fields) -> dict:
    means = {"deletion mean": 0.2, "insertion mean": 0.5, "pointing": 0.52}
    controls = [
        {
            "method": name,
            "by_class": False,
            "ms": 0,
            "scores": scores(**{key: value / 2 for key, value in means.items()}),
        }
        for name in ("random", "centre")
    ]
    for row in controls:
        for score in row["scores"].values():
            del score["against"]
    rows = [
        {"method": "chefer", "by_class": True, "ms": 1.5, "scores": scores("deletion mean", **means)},
        {"method": "rollout:heads=max", "by_class": False, "ms": 1, "scores": scores("pointing", **means)},
    ]
    return {"n": n, "rows": [*rows, *controls], "target": "the class 'cat'", "tested": "all of it", **fields}


def test_heads_of_the_faithfulness_table_say_which_way_is_better(tmp_path, no_charts):
    run, made = make_run(tmp_path / "run", epochs=1), table()
    for row in made["rows"]:
        row["scores"] |= {name: {"mean": 0.1, "low": 0.1, "high": 0.2} for name in ("randomized", "other class")}
    (run / "faithfulness.json").write_text(json.dumps(made))
    text = report(run).text
    assert "method mean \N{DOWNWARDS ARROW} low mean \N{UPWARDS ARROW} high" in text
    assert "random model near 0 other class pointing \N{UPWARDS ARROW} high" in text


def test_the_faithfulness_table_marks_what_is_not_shown_to_beat_both_controls(tmp_path, no_charts):
    run = make_run(tmp_path / "run", epochs=1)
    assert "Not measured yet: patchlight explain" in report(run).text
    (run / "faithfulness.json").write_text(json.dumps(table()))
    page = report(run)
    assert "On 500 test images, for the class 'cat': means and 95 % intervals." in page.text
    assert "chefer 0.20 0.15 to 0.25 ✗ 0.50 0.45 to 0.55" in page.text
    assert "rollout:heads=max blind to the class ✗ 0.20 0.15 to 0.25 ✗ 0.50 0.45 to 0.55" in page.text
    assert "rollout:heads=max blind to the class 0.52 0.47 to 0.57 1.00" in page.text
    assert "Controls, which do not look at the model random 0.10 0.05 to 0.15 0.25 0.20 to 0.30 centre" in page.text
    assert "A cell with a cross is not shown to be better than both controls" in page.text
    assert "Tested was all of it." in page.text
    assert 'title="not shown to be better than centre"' in page.html  # than random it is
    assert "older version" not in page.text
    (run / "faithfulness.json").write_text(json.dumps({"n": 3, "rows": [{"method": "chefer"}]}))
    assert "faithfulness.json is damaged: rows[0].ms is missing; " in report(run).text


def test_of_few_images_the_table_has_means_alone(tmp_path, no_charts):
    """Whether a file has intervals of so few, as older versions wrote, or not."""
    run = make_run(tmp_path / "run", epochs=1)
    for fields in ({"n": 19, "tested": None}, {"n": 1, "tested": None, "target": None}):
        measured = table(**fields)
        for row in measured["rows"]:
            for score in row["scores"].values():
                score.pop("against", None)
        (run / "faithfulness.json").write_text(json.dumps(measured))
        text = report(run).text
        assert f"On {fields['n']} test images" in text
        assert "Of fewer than 20 images there are no intervals, and no cell has a cross" in text
        assert "chefer 0.20 0.50" in text
        assert "✗ 0" not in text
        assert "Tested was" not in text


def test_an_older_table_has_no_crosses_and_says_why(tmp_path, no_charts):
    run = make_run(tmp_path / "run", epochs=1)
    measured = {"n": 500, "rows": table()["rows"]}
    for row in measured["rows"]:
        for score in row["scores"].values():
            score.pop("against", None)
    (run / "faithfulness.json").write_text(json.dumps(measured))
    text = report(run).text
    assert "On 500 test images, for the predicted class: means and 95 % intervals." in text
    assert (
        "No cell has a cross, because an older version measured these, which made no test: patchlight explain" in text
    )
    assert "chefer 0.20 0.15 to 0.25 0.50 0.45 to 0.55" in text
    assert "✗ 0" not in text


def test_attention_can_be_explored(run, page):
    """The bytes in the page are those of the file, image by image."""
    with np.load(run / "insight.npz") as file:
        arrays = {key: file[key] for key in ("attention", "pooled")}
    for key, images in arrays.items():
        found = re.findall(rf'data-{key}="([^"]+)"', page.html)
        assert [base64.b64decode(data) for data in found] == [image.tobytes() for image in images]
    assert 'data-layers="2" data-heads="3" data-rows="8" data-columns="8" data-pooled-heads="3"' in page.html


def test_no_half_files_are_left(run, page):
    assert not list(run.rglob(".*"))


def test_the_same_run_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "run")
    without_result(run)
    first = build_report(run).read_bytes()
    assert build_report(run).read_bytes() == first


def test_foreign_text_stays_text(tmp_path, no_charts):
    evil = "<script>alert(1)</script>"
    run = make_run(tmp_path / "run", names=[evil, "$x^2$", '"><img src=http://x>', "ok"], maps=False, spread=1.0)
    config = {"about": {"name": "<b>bold</b>", "title": "a & b | `c`", "source": "<em>us</em>"}}
    (run / "config.toml").write_text(config_from_dict(config).to_toml())
    page = report(run)
    assert evil in page.text
    assert "<b>bold</b>" in page.text
    assert "script" not in page.tags
    assert all(address.startswith("data:image/") for address in page.addresses)
    readme = build_readme(run).read_text(encoding="utf-8")
    assert r"a & b \| \`c\`" in readme
    assert r"\<em\>us\</em\>" in readme
    assert r"a & b \| \`c\`" in readme


def test_a_network_without_attention(tmp_path, no_charts):
    run = make_run(tmp_path / "resnet", maps=False)
    size = {"params": 11173962, "trainable": [11173962], "flops_per_image": 557_000_000, "img_size": 32}
    environment = {**ENVIRONMENT, "model": {"name": "resnet18", "patch_size": None, **size}}
    (run / "environment.json").write_text(json.dumps(environment))
    page = report(run)
    assert "11.2 M parameters" in page.text
    assert "this model is not one" in page.text
    assert "What the model sees" not in page.text
    assert not (run / "figures" / "attention.png").exists()


def test_a_run_that_was_interrupted(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "figures").mkdir()
    (run / "figures" / "attention.png").write_bytes(b"of an earlier report")
    for name in ("eval.json", "samples.npz", "environment.json", "snapshots.npz", "near_copies.npz"):
        (run / name).unlink()
    page = report(run)
    assert "No test result yet." in page.text
    resume = f"patchlight train {run / 'config.toml'} --out {run} --resume"
    assert resume in page.text
    assert resume in build_readme(run).read_text()
    assert "90.2 % at epoch 2" in page.text
    assert "Which classes it knows" not in page.text
    assert [path.name for path in (run / "figures").iterdir()] == ["curves.png"]
    assert "No test result yet" in build_readme(run).read_text()
    (run / "metrics.jsonl").unlink()
    assert "No epoch has been recorded yet." in report(run).text


def test_rows_without_validation(tmp_path, no_charts):
    run = make_run(tmp_path / "run")
    without_result(run)
    same = '"step": 10, "lr": 0.1, "images_per_s": 900, "epoch_s": 3'
    rows = [f'{{"epoch": {epoch}, {same}, "train/loss": {loss}}}\n' for epoch, loss in ((1, "NaN"), (2, 1))]
    (run / "metrics.jsonl").write_text("".join(rows))
    page = report(run)
    assert "There were no validation images." in page.text
    assert "epoch 2 of 3 was kept" in page.text


def test_what_is_odd_about_the_images_stands_beside_the_score(tmp_path, no_charts):
    run = make_run(tmp_path / "my run")
    odd = {**ENVIRONMENT, "data": {**ENVIRONMENT["data"], "notes": ["test images that are copies: 57"]}}
    assert "but see what is said of the images" not in report(run).text
    (run / "environment.json").write_text(json.dumps(odd))
    page = report(run)
    assert "Test images that are copies: 57." in page.text
    assert "but see what is said of the images" in page.text
    assert "The training loss counts label smoothing, the validation loss does not" in page.text
    assert f"patchlight explain '{run}' --faithfulness" in page.text
    build_readme(run)
    assert "Test images that are copies: 57." in (run / "README.md").read_text()


def test_a_perfect_model_with_a_class_that_has_no_images(tmp_path, no_charts):
    run = make_run(tmp_path / "run", spread=100.0)
    logits = np.eye(11)[np.arange(10)] * 50
    result = classification_metrics(logits, np.arange(10), [*"0123456789", "unseen"])
    (run / "eval.json").write_text(json.dumps({"split": "test", "data": "digits", **result.to_json()}))
    (run / "samples.npz").unlink()
    page = report(run)
    assert "100.0 %" in page.text
    assert "1 class has no test images" in page.text
    assert "Most frequent mistakes" not in page.text


@pytest.mark.slow
def test_many_classes_and_large_images(tmp_path, no_slides):
    run = make_run(tmp_path / "run", names=[f"class {i}" for i in range(100)], side=160)
    page = report(run)
    assert "Top-5 accuracy" in page.text
    assert any(address.startswith("data:image/jpeg") for address in page.addresses)


def test_a_page_that_cannot_be_written_is_an_error_in_words(tmp_path):
    run = make_run(tmp_path / "run", epochs=1)
    without_result(run)
    (run / "figures").write_text("in the way")
    with pytest.raises(PatchlightError, match=r"cannot write .*curves\.png"):
        build_report(run)
    assert not (run / "report.html").exists()


def test_readme(run, page):
    text = build_readme(run).read_text(encoding="utf-8")
    top1 = json.loads((run / "eval.json").read_text())["top1"]
    assert text.startswith("# quickstart\n")
    assert f"**{100 * top1:.1f} % test accuracy on 400 images (95 % interval" in text
    for words in (
        "| Model | vit-tiny · 2.69 M parameters",
        "| Recipe from | DeiT |",
        "- `report.html`",
        "- `samples.npz`",
    ):
        assert words in text
    for verb in ("eval", "predict", "report"):
        assert f"patchlight {verb} {run}" in text
    assert "checkpoints" not in text  # there are none
    assert "\N{NO-BREAK SPACE}" not in text


def test_early_stopping_mixing_and_smoothing_are_said(tmp_path, no_charts):
    """At the head of the page, in the README and under the curves; and nothing of them where they were not."""
    words = (
        "tage 2 stopped after epoch 4 of 9: 2 epochs without a better validation accuracy",
        "The triangle marks it",
    )
    under = ("training accuracy may well lie below", "with the label smoothing of", "An upright line is where a stage")
    run = make_run(tmp_path / "run", epochs=6)
    plain, readme = " ".join(build_report(run).read_text().split()), build_readme(run).read_text()
    assert not any(word in plain or word in readme for word in (*words, *under))
    assert "The training loss counts label smoothing" in plain  # it has no curve of the smoothed validation loss
    config = load_recipe(str(run / "config.toml")).to_dict()
    config["train"]["select"] = "last"
    stages = [{"train": {"epochs": 2}}, {"train": {"epochs": 9, "early_stop_epochs": 2}}]
    (run / "config.toml").write_text(config_from_dict({**config, "stages": stages}).to_toml())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {
            "stage": 1 if row["epoch"] <= 2 else 2,
            "train/top1": 0.3,
            "train/mixed": True,
            "val/loss_smoothed": 1.2,
        }
    rows[-1]["early_stop"] = {"stage": 2, "epoch": 4, "epochs": 9, "patience": 2, "measure": "accuracy"}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, readme = " ".join(build_report(run).read_text().split()), build_readme(run).read_text()
    assert all(word in page for word in (*words, *under))
    assert page.count(words[0]) == 2  # at the head, and under the curves
    assert f"| Early stop | S{words[0]} |" in readme
    assert "at epoch 6 of 6, the one kept" in readme  # 2 and 4, as the second stage has no more
    assert "The training loss counts label smoothing" not in page
