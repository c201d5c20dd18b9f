"""From a study to its runs: the recipes that its variants are, equal budgets, and errors before anything is trained."""

from __future__ import annotations

import pytest
from small_study import TWO, tiny_plan

from patchlight.config import load_recipe
from patchlight.config.recipe import read_toml
from patchlight.config.study_file import STUDIES, load_study, sizes_of, study_names, study_of
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.models.summary import count
from patchlight.studies.plan import make_plan, train_flops
from patchlight.training.setup import prepare

# The images of scikit-learn in place of those of CIFAR-10, all that there are.
DIGITS = {"data.source": "digits", "data.image_size": 16, "data.train_per_class": None, "train.device": "cpu"}
OF_THE_STUDY = {"train.seed", "eval.test", "train.epochs", "train.budget"}  # what a study decides of every run


def built_in(name: str, size: str):
    """A study that comes along, on digits; where it has a grid of images per class, of fewer."""
    data = read_toml(STUDIES / f"{name}.toml")
    for part in (data, data["sizes"][size]):
        for table in (part.get("grid", {}), part.get("grid", {}).get("data", {})):
            for key in {"data.train_per_class", "train_per_class"} & table.keys():
                table[key] = [5, 20]
    settings = {key: value for key, value in DIGITS.items() if key != "data.image_size" or name != "patch-sizes"}
    return study_of(data, name, f"{name}.toml", size=size, settings=settings)


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("name", "size"), [(name, size) for name in study_names() for size in sizes_of(name)])
def test_each_run_is_its_recipe_with_what_the_study_says(name, size, tmp_path):
    study = built_in(name, size)
    assert load_study(name, size).options == study.options
    plan = make_plan(study, tmp_path / "runs")
    assert len(plan.runs) == len(study.variants) * len(study.options.seeds)
    assert [run.seed for run in plan.runs] == [seed for seed in study.options.seeds for _ in study.variants]
    assert len(plan.distinct) == len(plan.runs), "no two variants are the same recipe"
    for run in plan.runs:
        planned, recipe = run.config.flat(), load_recipe(run.variant.recipe).flat()
        for key in {*planned, *recipe} - OF_THE_STUDY:
            said = run.variant.settings.get(key, recipe.get(key)) if not key.startswith("about") else planned.get(key)
            assert planned.get(key) == plain(said), key
        assert planned["train.seed"] == run.seed
        assert planned["eval.test"] is False
        assert run.folder == tmp_path / "runs" / run.key
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("steps", [1, 23])
def test_steps_are_as_many_as_asked_for_in_batches_of_any_size(steps, tmp_path):
    variants = [
        {"name": f"{size} {drop}", "train": {"batch_size": size, "drop_last": drop}}
        for size in (7, 32, 500)
        for drop in (True, False)
    ]
    plan = tiny_plan(tmp_path, budget={"steps": steps}, variants=variants, study={"seeds": [0]})
    sets = load_splits(plan.runs[0].config.data)
    assert len(sets.train) == plan.data.train == 120
    assert [prepare(run.config, sets).stages[0].total_steps for run in plan.runs] == [steps] * 6


def test_flops_are_as_many_as_asked_for_up_to_half_a_step(tmp_path):
    variants = [
        {"name": "small"},
        {"name": "deep", "model": {"depth": 6}},
        {"name": "wide", "model": {"embed_dim": 48}},
    ]
    asked = 3e10
    plan = tiny_plan(tmp_path, budget={"flops": asked}, variants=variants, study={"seeds": [0]})
    sets = load_splits(plan.runs[0].config.data)
    steps = []
    for run in plan.runs:
        setup = prepare(run.config, sets)
        (stage,) = setup.stages
        per_image = count(setup.model, setup.card.img_size).flops_per_image
        spent = train_flops(per_image, stage.total_steps * stage.images_per_epoch / stage.steps_per_epoch)
        a_step = train_flops(per_image, stage.images_per_epoch / stage.steps_per_epoch)
        assert abs(spent - asked) <= a_step / 2
        steps.append(stage.total_steps)
    assert steps[0] > 2 * steps[1] > 20


def test_epochs_and_time_are_the_recipes_own_settings(tmp_path):
    epochs = tiny_plan(tmp_path, budget={"epochs": 1.5}).runs[0].config.train
    assert (epochs.epochs, epochs.budget) == (1.5, None)
    assert tiny_plan(tmp_path, budget={"time": "1m30s"}).runs[0].config.train.budget == "1m30s"
    own = tiny_plan(tmp_path, budget={}).runs[0].config.train
    quickstart = load_recipe("quickstart").train
    assert (own.epochs, own.budget) == (quickstart.epochs, quickstart.budget)


def test_variants_that_are_one_recipe_are_trained_once(tmp_path):
    plan = tiny_plan(tmp_path, variants=[{"name": "a"}, {"name": "c", "optim": {"lr": 0.1}}, {"name": "b"}])
    assert [run.name for run in plan.distinct] == ["a, seed 0", "c, seed 0", "a, seed 1", "c, seed 1"]
    assert plan.notes == ("'a' and 'b' are the same recipe, so each of their runs is trained once",)


def test_what_flops_leave_out_is_said(tmp_path):
    variants = [*TWO, {"name": "dropped", "model": {"patch_drop_rate": 0.3}}]
    (note,) = tiny_plan(tmp_path, variants=variants).notes
    assert note == (
        "training FLOPs are three times the forward pass's; they leave out patches that are dropped in training"
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"variants": [*TWO, {"name": "x", "optim": {"lrr": 1}}]}, "variant 'x': unknown field 'optim.lrr'; did you"),
        ({"variants": [*TWO, {"name": "x", "optim": {"lr": -1}}]}, "variant 'x': settings: optim.lr must be"),
        ({"variants": [*TWO, {"name": "x", "a.b": 1}]}, "variant 'x': unknown setting 'a.b'; known: "),
        (
            {"variants": [*TWO, {"name": "x", "recipe": "quikstart"}]},
            "variant 'x': no recipe 'quikstart'; did you mean",
        ),
        (
            {"variants": [*TWO, {"name": "x", "train": {"seed": 1}}]},
            "variant 'x': train.seed is not for a variant to set",
        ),
        ({"base": {"train": {"task": "reconstruct"}}}, "variant 'plain': train.task must be classify"),
        ({"variants": [*TWO, {"name": "x", "augment": {"crop_padding": 99, "crop_mode": "reflect"}}]}, "variant 'x': "),
        ({"variants": [*TWO, {"name": "x", "data": {"train_per_class": 10**6}}]}, "variant 'x': "),
        ({"budget": {"flops": 1e30}}, "variant 'plain': settings: train.epochs must be above 0 and at most 100000"),
        ({"base": {"data": {"source": "no/such"}}}, "variant 'plain': "),
        (
            {"base": {"data": {"val_per_class": None, "val_fraction": 0.0}, "train": {"select": "last"}}},
            "variant 'plain': a study chooses by validation images, and there are none; set data.val_fraction",
        ),
    ],
)
def test_what_cannot_end_is_said_before_anything_is_trained(parts, message, tmp_path):
    with pytest.raises(PatchlightError) as caught:
        tiny_plan(tmp_path, **parts)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_stages_share_no_budget(tmp_path):
    text = "[data]\nsource = 'digits'\n[[stages]]\ntrain.epochs = 1\n[[stages]]\ntrain.epochs = 2\n"
    recipe = tmp_path / "staged.toml"
    recipe.write_text(text)
    parts = {"study": {"recipe": str(recipe)}, "variants": [{"name": "a"}, {"name": "b", "stages.2.optim.lr": 0.1}]}
    with pytest.raises(UsageError, match="variant 'a': stages cannot share a budget; leave out"):
        tiny_plan(tmp_path, **parts)
    plan = tiny_plan(tmp_path, **parts, budget={})
    assert [run.config.of_stages()[1].optim.lr for run in plan.runs[:2]] == [
        load_recipe(str(recipe)).optim.lr,
        0.1,
    ]
