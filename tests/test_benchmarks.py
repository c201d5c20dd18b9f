"""The benchmarks' own arithmetic, and the way of a result into a document. Nothing is measured here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import ablation, accuracy, breakdown, full, pretraining, step, transfer
from benchmarks.ablation import INGREDIENTS, WHOLE, applies
from benchmarks.catalogue import CATALOGUE
from benchmarks.contenders import CONTENDERS, DEFAULTS, Contender, Shape, build, choose_attention, parameters
from benchmarks.options import ROOT, Options
from benchmarks.pretraining import ALONE, PLANS, STUDENT
from benchmarks.record import file_name, without_own_paths
from benchmarks.scaling import slope
from benchmarks.tables import MarkersMissing, caption, markers, place, place_all
from benchmarks.timing import compare, grouped, interleave, ratios, sampler
from benchmarks.timm_loop import rate
from patchlight.config import load_recipe, recipe_names
from patchlight.models import create_model
from patchlight.models.summary import count
from patchlight.runs import EvalResult, Run
from patchlight.training.checkpoint import list_checkpoints

SPREAD = {"median": 2.0, "min": 1.5, "max": 2.5}
PART = {
    "ratios": {ours: {"timm bf16": SPREAD, "Patchlight": SPREAD} for ours in ("Patchlight", "Patchlight bf16")},
    "seconds": {"timm bf16": SPREAD, "Patchlight": SPREAD},
}
RECORD = {
    "benchmark": "step",
    "command": "python -m benchmarks step",
    "date": "2026-01-02T03:04:05+00:00",
    "quick": False,
    "device": "cpu",
    "threads": 2,
    "missing": ["kornia"],
    "load_average": {"before": 0.1, "after": 2.0},
    "environment": {
        "git_commit": "0123456789abcdef",
        "hardware": {"cpu": "Some CPU", "gpu": None},
        "versions": {"torch": "2.11.0", "timm": "1.0.20", "kornia": None},
    },
    "result": {
        "shape": {"batch": 64},
        "parameters": 5362762,
        "flops_per_step": 140e9,
        "patchlight_chose": "bf16",
        "one_process": PART,
        "own_processes": PART,
    },
}


def write_record(folder: Path, **changes: object) -> None:
    (folder / "step.json").write_text(json.dumps({**RECORD, **changes}))


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_benchmark_says_what_it_is(name):
    row = CATALOGUE[name]
    assert row.about
    assert callable(row.run)
    assert callable(row.table)


def test_contenders_take_turns():
    turns: list[str] = []
    seconds = interleave({name: lambda name=name: turns.append(name) or 1.0 for name in "ABC"}, rounds=2, warmup=1)
    assert turns == list("ABCABCABC")
    assert seconds == {name: [1.0, 1.0] for name in "ABC"}


def test_sampler_calls_as_often_as_asked():
    calls: list[int] = []
    assert sampler(lambda: calls.append(1), torch.device("cpu"), calls=3, items=2)() > 0
    assert len(calls) == 3


def test_ratios_are_of_the_same_round():
    seconds = {"peer": [2.0, 9.0, 8.0], "ours": [1.0, 3.0, 2.0]}
    assert ratios(seconds, "ours")["peer"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    found = compare(seconds, ["ours"])
    assert found["ratios"]["ours"]["ours"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert found["seconds"]["peer"]["median"] == 8.0


def test_groups_are_medians():
    assert grouped({"a": [1.0, 5.0, 2.0, 7.0, 8.0, 9.0, 0.0]}, 3) == {"a": [2.0, 8.0]}


def test_slope_of_a_power():
    assert slope([1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_peers_rate_rises_and_falls():
    assert rate(0.0) == 0.0
    assert rate(0.05) == pytest.approx(1.0)
    assert rate(1.0) == pytest.approx(0.0)


@pytest.mark.parametrize("recipe", [name for name in recipe_names() if name.startswith("cifar10-") and "min" in name])
def test_each_ingredient_of_a_recipe_can_be_left_out(recipe):
    left_out = {name: settings for name, settings in INGREDIENTS.items() if applies(recipe, settings)}
    assert len(left_out) > 5
    for settings in left_out.values():
        create_model(load_recipe(recipe, settings).model)
    assert not applies(recipe, {})


def test_ablation_asks_again_only_what_is_close(monkeypatch):
    scores = {"": [0.80, 0.70], "cosine": [0.795, 0.719]}  # of each seed; all else is far below
    asked, epochs = [], {}

    def steps_in_turns(options, recipe, variants):
        slow = {"schedule.name": "cosine"}
        return {name: [5.0, 5.0, 5.5] if found == slow else [2.5, 2.0, 2.5] for name, found in variants.items()}

    def train(options, recipe, seed, settings):
        assert settings["train.budget"] == "none"
        name = settings.get("schedule.name", "") if len(set(settings) - {"schedule.name"}) == 3 else "other"
        asked.append((name, seed))
        epochs[name] = float(settings["train.epochs"])
        return {"rows": [{"val_top1": scores.get(name, [0.1, 0.1])[seed]}], "images": 100}

    monkeypatch.setattr(ablation, "steps_in_turns", steps_in_turns)
    monkeypatch.setattr(ablation, "train_ours", train)
    result = ablation.run(Options(recipes=("cifar10-cpu-10min",), minutes=5.0))
    assert epochs[""] == 300 / 2.5 / 5  # an epoch of 1,293 digits is five steps
    assert epochs["cosine"] == pytest.approx(epochs[""] / 2.2)
    assert [name for name, seed in asked if seed == 1] == ["", "cosine"]
    assert len(asked) == len(result["variants"]) + 2
    lines = ablation.table(result).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert cells[0] == [WHOLE, "", "2", "75.0% (70.0% to 80.0%)", "", "100"]
    assert cells[-1][2:5] == ["2", "75.7% (71.9% to 79.5%)", "+0.7 (-0.5 to +1.9)"]
    assert all(row[2:5] == ["1", "10.0%", "-70.0"] for row in cells[1:-1])


def test_a_step_costs_more_or_less_only_where_most_rounds_say_so():
    whole = [1.0, 1.2, 0.9, 1.1, 1.0]
    assert ablation.cost([1.1, 1.1, 1.0, 1.0, 1.0], whole) == 1
    assert ablation.cost([time * 1.5 for time in whole], whole) == pytest.approx(1.5)
    assert ablation.cost([0.5, 0.5, 0.5, 0.5, 3.0], whole) == pytest.approx(0.5)


def test_patches_that_are_left_out_are_no_work_done(tmp_path: Path):
    recipe, few = "cifar10-patchify-30min", {"train.batch_size": "2"}
    whole = breakdown.trainer_of(Options(), recipe, tmp_path / "whole", few | {"model.patch_drop_rate": "0"})
    part = breakdown.trainer_of(Options(), recipe, tmp_path / "part", few)
    counts = [count(whole.stage.model, 32).flops_per_image, count(part.stage.model, 32).flops_per_image]
    assert counts[0] == counts[1]  # of the trained model
    for trainer in (whole, part):
        trainer.stage.train_mode()
    assert breakdown.flops_of_step(whole.stage) == 3 * 2 * counts[0]
    assert 0.55 < breakdown.flops_of_step(part.stage) / breakdown.flops_of_step(whole.stage) < 0.6  # 39 of 64 tokens


def test_the_time_to_the_peers_accuracy():
    peer = {"rows": [{"wall_s": 30.0, "val_top1": 0.2}, {"wall_s": 60.0, "val_top1": 0.3}]}
    ours = {"rows": [{"wall_s": 10.0, "val_top1": 0.1}, {"wall_s": 20.0, "val_top1": 0.35}]}
    assert accuracy.head_start(ours, peer) == 3.0
    assert accuracy.head_start(peer, ours) is None
    assert accuracy.head_start(peer, peer) == 1.0


def test_a_busy_machine_is_told(tmp_path: Path):
    assert "load" not in caption(RECORD)
    assert "2 threads, load 3.3 before;" in caption({**RECORD, "load_average": {"before": 3.28, "after": 1.0}})


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("library", ["timm", "Hugging Face"])
def test_a_peers_attention_is_as_asked(library: str, fused: bool):
    device = torch.device("cpu")
    contender = Contender(library, "fp32", fused_attn=fused)
    model = build(contender, Shape(img_size=8, dim=12, depth=2, batch=1), device)
    assert choose_attention(model, contender, 1, device) == "given"
    if library == "timm":
        assert {block.attn.fused_attn for block in model.blocks} == {fused}
    else:
        assert model.model.config._attn_implementation == ("sdpa" if fused else "eager")


@pytest.mark.parametrize("name", ["timm fp32", "Hugging Face fp32", "Patchlight fp32"])
def test_models_are_of_one_size(name):
    shape = Shape(img_size=8, dim=12, depth=2, batch=1)
    model = build(CONTENDERS[name], shape, torch.device("cpu"))  # asserts the number of parameters
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


def test_parameters_of_deit_tiny():
    assert parameters(Shape()) == 5_362_762
    assert set(DEFAULTS) <= set(CONTENDERS)


def test_table_goes_between_its_markers(tmp_path: Path):
    write_record(tmp_path)
    opening, closing = markers("step")
    document = f"before\n{opening}\nold\n{closing}\nafter\n"
    written = place_all(document, tmp_path)
    assert written.startswith(f"before\n{opening}\n")
    assert written.endswith(f"{closing}\nafter\n")
    assert "old" not in written
    assert "| timm bf16 | 2.00 (1.50 to 2.50) | 2.00 (1.50 to 2.50) | 2,000 | 32 | 70 |" in written
    assert "Some CPU, 2 threads; torch 2.11.0, timm 1.0.20; commit 012345678; 2026-01-02" in written
    assert "not installed: kornia" in written
    assert place_all(written, tmp_path) == written


OPENING, CLOSING = markers("step")


@pytest.mark.parametrize("document", ["no place", OPENING, CLOSING + OPENING, 2 * (OPENING + CLOSING)])
def test_missing_markers_are_told(tmp_path: Path, document: str):
    write_record(tmp_path)
    with pytest.raises(MarkersMissing, match=r"for step\.json: write <!-- bench:step --> and <!-- /bench:step -->"):
        place_all(document, tmp_path)


def test_quick_numbers_stay_out_of_documents(tmp_path: Path):
    write_record(tmp_path, quick=True)
    with pytest.raises(ValueError, match="--quick"):
        place_all("".join(markers("step")), tmp_path)


def test_devices_have_markers_of_their_own():
    assert file_name(RECORD) == "step.json"
    assert file_name({**RECORD, "device": "cuda"}) == "step-cuda.json"
    of_one = {**RECORD, "benchmark": "ablation", "result": {"recipe": "cifar10-cpu"}}
    assert file_name(of_one) == "ablation-cifar10-cpu.json"
    opening, closing = markers("step-cuda")
    assert place(opening + closing, "step-cuda", step.table(RECORD["result"])).startswith(
        opening + "\nViT-Ti/4, 5,362,762"
    )


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_shares_the_time_and_fits_its_recipes(plan):
    trainings = PLANS[plan]
    assert sum(training.share for training in trainings) == pytest.approx(1)
    assert trainings[-1].recipe == STUDENT
    for training in trainings:
        load_recipe(training.recipe, training.settings)


def test_what_plans_begin_with_is_trained_once(monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(pretraining, "train_into", lambda path, options, *what: trained.append((path, what)))
    done: dict[tuple[object, ...], Path] = {}
    few = {"data.train_per_class": "450"}
    for limit in ({}, few):
        for plan in ("masked autoencoding, then labels", "the same, its probabilities"):
            last = pretraining.carry_out(PLANS[plan], {}, limit, Options(), 100.0, 0, tmp_path, done)
    recipes = [what[0] for _, what in trained]
    assert recipes.count("mae-cifar10") == 1  # it looks at no labels
    assert recipes.count(pretraining.TEACHER.recipe) == 2
    assert recipes.count(STUDENT) == 4
    path, (_, _, settings) = trained[-1]
    assert path == last
    teacher = str(trained[-2][0])
    assert settings == {"train.teacher": teacher, "train.distill": "soft", "train.budget": "80s", **few}


def test_gains_are_those_of_the_same_seed():
    def runs(*tests):
        return [{"test": test, "val": 0.5, "wall_s": 1.0} for test in tests]

    found = {"all": {ALONE: runs(0.5, 0.6), "other": runs(0.52, 0.61)}}
    spreads = dict.fromkeys(("test", "val", "wall_s"), SPREAD)
    summary = {"all": {ALONE: spreads, "other": spreads}}
    result = {"source": "digits", "budget_s": 60.0, "runs": found, "summary": summary}
    assert "| +1.5 (+1.0 to +2.0) |" in pretraining.table(result)


def test_a_result_names_no_place_of_the_machine():
    shared = ROOT.parent / "shared" / "data"
    record = {
        "command": f"python -m benchmarks step --source {shared} --out /var/lab/x",
        "result": {"source": str(shared)},
    }
    assert without_own_paths(record) == {
        "command": "python -m benchmarks step --source ../shared/data --out x",
        "result": {"source": "../shared/data"},
    }
    assert without_own_paths({"seconds": 2.5, "rows": ("a - b", 1)}) == {"seconds": 2.5, "rows": ["a - b", 1]}


def test_the_kept_results_name_no_place_of_a_machine():
    for path in (ROOT / "docs" / "benchmarks").glob("*.json"):
        record = json.loads(path.read_text())
        assert without_own_paths(record) == record, path.name


@pytest.mark.parametrize("name", transfer.PLANS)
def test_a_plan_of_transfer_has_all_of_the_time(name):
    plan = transfer.PLANS[name]
    config = load_recipe(plan.recipe, plan.all_settings(300.0, "some/weights"))
    stages = config.of_stages()
    assert sum(stage.train.budget.seconds for stage in stages) == pytest.approx(300)
    assert {stage.model.img_size for stage in stages} == {plan.img_size}
    assert config.model.name == "some/weights"


@pytest.mark.slow
def test_recipes_at_full_length_shortest_first_and_never_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(full, "expected_seconds", lambda recipes, options: {"vit-tiny": 30.0, "quickstart": 10.0})
    recipes = ("vit-base", "finetune", "vit-tiny", "quickstart")
    options = Options(quick=True, recipes=recipes, minutes=5, keep=tmp_path)
    settings = {"model.depth": "1", "eval.gallery": "2", "explain.faithfulness": "0"}
    asked, train_for = [], full.train_for

    def train(seconds, path, recipe, words):
        asked.append(recipe)
        if recipe == "vit-tiny":
            return None  # the time was over before its first checkpoint
        return train_for(
            seconds, path, recipe, words | (settings if recipe == "quickstart" else {"model.name": "x/y/z"})
        )

    monkeypatch.setattr(full, "train_for", train)
    rows = full.run(options)["rows"]
    assert list(rows) == ["quickstart", "vit-tiny", "vit-base", "finetune"]
    assert asked == ["quickstart", "vit-tiny", "finetune"]
    assert rows["quickstart"]["top1"] == Run.open(tmp_path / "quickstart").read(EvalResult).top1
    text = full.table(full.run(options))
    assert asked == ["quickstart", "vit-tiny", "finetune", "vit-tiny", "finetune"]
    assert "| `vit-tiny` | 0 of 100 | not begun |" in text
    assert "| `vit-base` | 0 of 100 | does not fit into the memory |" in text
    assert "no model 'x/y/z'" in rows["finetune"]["problem"]
    assert "| `finetune` | 0 of 10 | " in text
    assert f"| `quickstart` | 2 of 2 | {rows['quickstart']['top1']:.2%} (" in text


@pytest.mark.slow
def test_a_training_that_the_time_cuts_off_can_go_on(tmp_path):
    words = {"data.source": "digits", "model.depth": "1", "train.epochs": "2000", "train.device": "cpu"}
    path = tmp_path / "run"
    for seconds in (8.0, 16.0, 32.0, 64.0):  # the first seconds are those of imports, more on a slow machine
        full.train_for(seconds, path, "quickstart", words)
        if (path / "checkpoints").is_dir():
            break
    assert list_checkpoints(path / "checkpoints")
    row = full.outcome(path, "quickstart")
    assert row["top1"] is None
    assert not full.is_finished(path)
