"""The report of a run folder as `patchlight train` leaves it, with and without its parts, whole and damaged."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from patchlight.config import config_from_dict
from patchlight.errors import PatchlightError
from patchlight.evaluation.metrics import classification_metrics, softmax
from patchlight.reporting.facts import read_facts
from patchlight.reporting.page import SLIDES, build_readme, build_report

ENVIRONMENT = {
    "patchlight": "0.1.0",
    "versions": {"python": "3.11.9", "torch": "2.15.0"},
    "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gb": 24, "gpu": None, "device": "cpu"},
    "threads": 2,
    "precision": "bf16",
    "git_commit": None,
    "model": {
        **{"name": "vit-tiny", "params": 2691594, "trainable": 2691594, "flops_per_image": 356234567},
        **{"tokens": 65, "img_size": 32, "patch_size": 4},
    },
    "data": {"source": "digits", "train": 1293, "val": 144, "test": 360, "classes": 10},
    "time": {"train_wall_s": 61.2, "train_cpu_s": 120.1, "images_per_s": 912.0},
    "started": "2026-01-05T10:11:12+00:00",
    "command": "patchlight train quickstart",
}


def make_run(path, names=tuple("0123456789"), epochs=3, maps=True, side=32, spread=3.0):
    """A run folder of a made-up model that is mostly right."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), 400)
    logits = rng.normal(size=(400, len(names)))
    logits[np.arange(400), labels] += spread
    result = classification_metrics(logits, labels, names)
    about = {"name": "quickstart", "title": "A small ViT", "source": "DeiT", "cost": "a minute", "expect": "97 %"}
    train = {"epochs": epochs, "label_smoothing": 0.1}
    (path / "config.toml").write_text(config_from_dict({"about": about, "train": train}).to_toml(), encoding="utf-8")
    (path / "eval.json").write_text(json.dumps({"split": "test", "data": "digits", **result}))
    (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    rows = [
        {
            **{"epoch": e, "step": 10 * e, "lr": 1e-3 / e, "train/loss": 2 / e, "train/top1": None, "val/loss": 1 / e},
            **{"val/top1": 0.9 + e / 1000, "images_per_s": 900.0, "epoch_s": 3.0, "wall_s": 3.0 * e, "best": e <= 2},
        }
        for e in range(1, epochs + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    probs = softmax(logits)
    wrong = [m["index"] for m in result["mistakes"]][:4]
    right = np.flatnonzero(probs.argmax(1) == labels)[:4].tolist()
    chosen = np.array(wrong + right)
    samples = {
        "images": rng.integers(0, 256, (len(chosen), side, side, 3), dtype=np.uint8),
        "labels": labels[chosen],
        "probs": probs[chosen].astype(np.float32),
        "kind": np.array(["wrong"] * len(wrong) + ["right"] * len(right)),
    }
    if maps:
        samples["maps"] = rng.random((len(chosen), side // 4, side // 4)).astype(np.float32)
        samples["map_title"] = np.array("attention of the CLS token in the last layer, mean over heads")
        samples["patch_size"] = np.array(4)
        grid = (side // 4, side // 4)
        n = grid[0] * grid[1]
        np.savez_compressed(
            path / "insight.npz",
            relevance=rng.random((len(chosen), 2, *grid)),
            explored=np.array([0, 5]),
            attention=rng.integers(0, 256, (2, 2, 3 if n <= 64 else 1, n, n), dtype=np.uint8),
            pooled=rng.integers(0, 256, (2, 2, 3, *grid), dtype=np.uint8),
            distance=rng.random((2, 3)),
            entropy=rng.random((2, 3)),
            positions=rng.random((n, *grid)),
            filters=rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8),
        )
        np.savez_compressed(
            path / "snapshots.npz",
            images=samples["images"][:3],
            labels=labels[chosen][:3],
            method=np.array("chefer"),
            epochs=np.array([1, 2, 4]),
            maps=rng.random((3, 3, *grid)),
            probs=np.full((3, 3, len(names)), 0.1),
        )
    np.savez_compressed(path / "samples.npz", **samples)
    return path


def without_result(run):
    for name in ("eval.json", "samples.npz", "insight.npz"):
        (run / name).unlink()


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


@pytest.fixture
def no_slides(monkeypatch):
    """For a test of the page alone: the PNG files, half of the time, are empty."""
    monkeypatch.setattr("patchlight.report.html.png", lambda figure, theme: b"")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")


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


def test_patches_are_those_of_the_image_that_the_model_takes(tmp_path, no_slides):
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
        *("What was trained", "How it learned", "Which classes it knows", "Whether its confidence can be trusted"),
        *(
            "Its most confident mistakes",
            "And some it got right",
            "What the model sees",
            "Where it looked",
            "Why the one class, why not the other",
            "What each patch reads",
            "How its looking changed",
            "How its parts see",
            "How far the maps can be believed",
            "Environment",
        ),
    ]
    places = [page.text.index(head) for head in heads]
    assert places == sorted(places)


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
    assert len(html) < 1.5e6
    assert all(page.alts)
    assert page.tags.count("h1") == 1


def test_slides(run, page):
    of_classifiers = set(SLIDES) - {"painted"}
    assert {path.stem for path in (run / "figures").iterdir()} == of_classifiers
    for name in of_classifiers:
        picture = Image.open(run / "figures" / f"{name}.png").convert("RGB")
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert picture.width > 300


def scores(**means):
    return {key: {"mean": mean, "low": mean - 0.05, "high": mean + 0.05} for key, mean in means.items()}


TABLE = {
    "n": 500,
    "rows": [
        {"method": "chefer", "by_class": True, "ms": 1.5, "scores": scores(**{"deletion mean": 0.2, "pointing": 0.52})},
        {"method": "rollout", "by_class": False, "ms": 1, "scores": scores(**{"deletion mean": 0.5, "pointing": 0.9})},
        {"method": "random", "by_class": False, "ms": 0, "scores": scores(**{"deletion mean": 0.6, "pointing": 0.1})},
        {"method": "centre", "by_class": False, "ms": 0, "scores": scores(**{"deletion mean": 0.55, "pointing": 0.5})},
    ],
}


def test_the_faithfulness_table_marks_what_beats_no_control(tmp_path, no_slides):
    run = make_run(tmp_path / "run", epochs=1)
    assert "Not measured yet: patchlight explain" in report(run).text
    (run / "faithfulness.json").write_text(json.dumps(TABLE))
    text = report(run).text
    assert "On 500 test images, for the predicted class" in text
    assert "chefer 0.20 0.15 to 0.25 ✗ 0.52 0.47 to 0.57 1.50" in text
    assert "rollout blind to the class ✗ 0.50 0.45 to 0.55 0.90 0.85 to 0.95 1.00" in text
    assert "random control 0.60 0.55 to 0.65 0.10" in text
    (run / "faithfulness.json").write_text(json.dumps({"n": 3, "rows": [{"method": "chefer"}]}))
    with pytest.raises(PatchlightError, match=r"faithfulness\.json .* remove it"):
        build_report(run)


def test_attention_can_be_explored(run, page):
    """The bytes in the page are those of the file, image by image."""
    with np.load(run / "insight.npz") as file:
        arrays = {key: file[key] for key in ("attention", "pooled")}
    for key, images in arrays.items():
        found = re.findall(rf'data-{key}="([^"]+)"', page.html)
        assert [base64.b64decode(data) for data in found] == [image.tobytes() for image in images]
    assert 'data-layers="2" data-heads="3" data-rows="8" data-columns="8" data-pooled-heads="3"' in page.html


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", np.array([1, 2])),
        ("labels", np.array([0, 1, 99])),
        ("maps", np.full((3, 3, 8, 8), np.inf)),
        ("images", np.zeros((3, 8, 8))),
    ],
)
def test_snapshots_that_do_not_fit_are_refused(tmp_path, key, value):
    copy = make_run(tmp_path / "run", epochs=1)
    with np.load(copy / "snapshots.npz") as file:
        snapshots = dict(file)
    np.savez(copy / "snapshots.npz", **{**snapshots, key: value})
    with pytest.raises(PatchlightError, match=r"snapshots\.npz .* remove it"):
        build_report(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("relevance", np.zeros((8, 8, 8))),
        ("relevance", np.full((8, 2, 8, 8), np.nan)),
        ("attention", np.zeros((2, 2, 3, 9, 9), np.uint8)),
        ("explored", np.array([0, 99])),
        ("positions", np.zeros((3, 8, 8))),
        ("distance", np.zeros((5, 5))),
        ("pooled", np.zeros((2, 2, 3, 9, 9), np.uint8)),
    ],
)
def test_insight_that_does_not_fit_is_refused(tmp_path, key, value):
    copy = make_run(tmp_path / "run", epochs=1)
    with np.load(copy / "insight.npz") as file:
        insight = dict(file)
    np.savez(copy / "insight.npz", **{**insight, key: value})
    with pytest.raises(PatchlightError, match=r"insight\.npz .* remove it"):
        build_report(copy)


def test_no_half_files_are_left(run, page):
    assert not list(run.rglob(".*"))


def test_the_same_run_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "run")
    without_result(run)
    first = build_report(run).read_bytes()
    assert build_report(run).read_bytes() == first


def test_foreign_text_stays_text(tmp_path, no_slides):
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


def test_a_network_without_attention(tmp_path, no_slides):
    run = make_run(tmp_path / "resnet", maps=False)
    environment = {**ENVIRONMENT, "model": {"name": "resnet18", "params": 11173962, "patch_size": None}}
    (run / "environment.json").write_text(json.dumps(environment))
    page = report(run)
    assert "11.2 M parameters" in page.text
    assert "this model is none" in page.text
    assert "What the model sees" not in page.text
    assert not (run / "figures" / "attention.png").exists()


def test_a_run_that_was_interrupted(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "figures").mkdir()
    (run / "figures" / "attention.png").write_bytes(b"of an earlier report")
    for name in ("eval.json", "samples.npz", "environment.json", "snapshots.npz"):
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


def test_rows_without_validation(tmp_path, no_slides):
    run = make_run(tmp_path / "run")
    without_result(run)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "lr": 0.1, "train/loss": NaN}\n{"epoch": 2, "train/loss": 1}\n')
    page = report(run)
    assert "There were no validation images." in page.text
    assert "epoch 2 of 3 was kept" in page.text


def test_parts_of_the_environment_may_be_missing(tmp_path, no_slides):
    run = make_run(tmp_path / "run", epochs=1)
    without_result(run)
    for environment in ({"model": None, "hardware": {"gpu": "H200", "cores": "many"}, "versions": []}, {}):
        (run / "environment.json").write_text(json.dumps(environment))
        assert "vit-tiny" in report(run).text


def test_what_is_odd_about_the_images_stands_beside_the_score(tmp_path, no_slides):
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


def test_the_last_epoch_where_the_recipe_says_so(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "config.toml").write_text('[train]\nselect = "last"\nepochs = 3\n')
    assert read_facts(run).selected["epoch"] == 3


def test_a_perfect_model_with_a_class_that_has_no_images(tmp_path, no_slides):
    run = make_run(tmp_path / "run", spread=100.0)
    logits = np.eye(11)[np.arange(10)] * 50
    result = classification_metrics(logits, np.arange(10), [*"0123456789", "unseen"])
    (run / "eval.json").write_text(json.dumps(result))
    (run / "samples.npz").unlink()
    page = report(run)
    assert "100.0 %" in page.text
    assert "1 class has no test images" in page.text
    assert "Most frequent mistakes" not in page.text


def test_many_classes_and_large_images(tmp_path, no_slides):
    run = make_run(tmp_path / "run", names=[f"class {i}" for i in range(100)], side=160)
    page = report(run)
    assert "Top-5 accuracy" in page.text
    assert any(address.startswith("data:image/jpeg") for address in page.addresses)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("eval.json", b"{", "is not valid JSON (line 1); write it anew with `patchlight train"),
        ("eval.json", b"[]", "does not hold what docs/design.md says"),
        ("eval.json", b'{"n": 3}', "does not hold what docs/design.md says"),
        ("eval.json", b"\xff\xfe", "is not text in UTF-8"),
        ("environment.json", b"nonsense", "is not valid JSON (line 1); remove it"),
        ("metrics.jsonl", b'{"epoch": 1}\n{"epo', "line 2, is not the record of an epoch; remove the line"),
        ("metrics.jsonl", b'{"loss": 1}\n', "line 1, is not the record of an epoch"),
        ("samples.npz", b"not a zip", "cannot be read as an .npz"),
        ("samples.npz", b"PK\x03\x04 cut off", "cannot be read as an .npz"),
        ("config.toml", b"[train", "is not valid TOML"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, words):
    run = make_run(tmp_path / "run", epochs=1)
    (run / name).write_bytes(content)
    for build in (build_report, build_readme):
        with pytest.raises(PatchlightError) as caught:
            build(run)
        assert name in str(caught.value)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("key", ["per_class", "confusion", "reliability", "top1_ci95", "ece", "n"])
def test_a_result_that_lacks_a_part_is_refused(run, tmp_path, key):
    copy = make_run(tmp_path / "run", epochs=1)
    result = json.loads((copy / "eval.json").read_text())
    for broken in (None, "text", [1]):
        (copy / "eval.json").write_text(json.dumps({**result, key: broken}))
        with pytest.raises(PatchlightError, match=r"eval\.json does not hold"):
            build_report(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", np.zeros((8, 4, 4), np.uint8)),
        ("images", np.zeros((8, 4, 4, 3))),
        ("labels", np.full(8, 10)),
        ("labels", np.zeros(3, int)),
        ("probs", np.ones((8, 3))),
        ("maps", np.zeros((2, 4, 4))),
        ("images", np.array([{}] * 8, dtype=object)),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, key, value):
    copy = make_run(tmp_path / "run", epochs=1)
    with np.load(copy / "samples.npz") as file:
        samples = dict(file)
    np.savez(copy / "samples.npz", **{**samples, key: value})
    with pytest.raises(PatchlightError, match=r"samples\.npz .* write it anew with"):
        build_report(copy)


def test_no_run_folder(tmp_path):
    for build in (build_report, build_readme):
        with pytest.raises(PatchlightError, match="is not a run folder"):
            build(tmp_path)


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
