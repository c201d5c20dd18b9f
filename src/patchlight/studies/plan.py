"""From a study to its runs: each variant with each seed as a whole recipe, its key and its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlight.config import Config, DataConfig, apply_overrides, load_recipe
from patchlight.config.study import Settings, Study, StudyBudget, Variant
from patchlight.data.batches import steps_per_epoch
from patchlight.data.images import digest
from patchlight.data.splits import Splits, load_splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.models import check_model, load_backbone
from patchlight.models.summary import count
from patchlight.studies.identity import run_key
from patchlight.training.checks import check_data, check_recipe
from patchlight.training.setup import DEBUG_STEPS


@dataclass(frozen=True)
class DataKnown:
    """What a plan needs to know of a recipe's images."""

    train: int
    val: int
    class_names: tuple[str, ...]
    side: int  # pixels
    digests: dict[str, str]


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study, done or not."""

    variant: Variant
    seed: int
    settings: Settings  # all that is laid over the variant's recipe, the budget and the seed among them
    config: Config  # the recipe that they make
    key: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A study and its runs: first all variants with the first seed, then with the next."""

    study: Study
    runs: tuple[PlannedRun, ...]
    data: DataKnown  # of the baseline
    notes: tuple[str, ...] = ()

    @property
    def distinct(self) -> tuple[PlannedRun, ...]:
        """One run for each key: variants may turn out to be the same recipe."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.key, run)
        return tuple(first.values())

    def of(self, variant: str) -> list[PlannedRun]:
        return [run for run in self.runs if run.variant.name == variant]


def make_plan(study: Study, pool: Path) -> Plan:
    """Lay out all runs of a study, whose folders are `pool`/KEY.

    The images are loaded and every variant is checked, so that nothing is trained of a study that cannot end. Raises
    UsageError or PatchlightError, which names the variant.
    """
    known = _data_of(study)
    settings: dict[str, Settings] = {}
    for variant in study.variants:
        with _named(variant):
            own = _settings_of(variant, study)
            settings[variant.name] = {
                **own,
                **of_budget(recipe_with(variant.recipe, own), study.budget, known[variant.name]),
            }
            recipe_with(variant.recipe, settings[variant.name])  # the budget in its range
    runs = []
    for seed in study.options.seeds:
        for variant in study.variants:
            own = {**settings[variant.name], "train.seed": seed}
            config = recipe_with(variant.recipe, own)
            if config.train.track and config.train.track_name is None:
                of_study = "" if variant.name == study.name else f"{study.name}: "
                own["train.track_name"] = f"{of_study}{variant.name}, seed {seed}"
                config = recipe_with(variant.recipe, own)
            key = run_key(config, known[variant.name].digests)
            runs.append(PlannedRun(variant, seed, own, config, key, pool / key))
    configs = [run.config for run in runs]
    notes = [*_same_recipes(runs), *_not_counted(configs), *_early_ends(configs)]
    return Plan(study, tuple(runs), known[study.variants[0].name], tuple(notes))


@contextlib.contextmanager
def _named(variant: Variant) -> Iterator[None]:
    """An error inside begins with the variant's name."""
    try:
        yield
    except PatchlightError as error:
        raise type(error)(f"variant '{variant.name}': {error}" if variant.name else str(error)) from None


def _data_of(study: Study) -> dict[str, DataKnown]:
    """What is known of each variant's images, by its name. Every recipe is checked, first without its images, then with
    them; each data set is loaded once.
    """
    loads: dict[tuple[DataConfig, int | None], list[tuple[Variant, Config]]] = {}
    for variant in study.variants:
        with _named(variant):
            config = recipe_with(variant.recipe, _settings_of(variant, study))
            if config.train.task != "classify":
                raise UsageError("train.task must be classify: a study compares accuracies")
            check_model(config.model)
            check_recipe(config)
        loads.setdefault((config.data, config.model.img_size), []).append((variant, config))
    known = {}
    for (data, size), users in loads.items():
        with _named(users[0][0]):
            sets = load_splits(data, size)
        of_sets = _known(sets)
        for variant, config in users:
            with _named(variant):
                if sets.val is None:
                    raise UsageError(
                        "a study chooses by validation images, and there are none; set data.val_fraction or "
                        "data.val_per_class"
                    )
                check_data(config, sets)
            known[variant.name] = of_sets
    return known


def recipe_with(recipe: str, settings: Settings) -> Config:
    """A recipe with settings laid over it, as a study's file has them."""
    return apply_overrides(load_recipe(recipe), settings, origin="settings")


def _settings_of(variant: Variant, study: Study) -> Settings:
    """A variant's settings with the study's device. No run reads its test images: the study does, in the end."""
    _check_decided(variant, study)
    device = study.options.device
    return {**variant.settings, "eval.test": False, **({} if device == "auto" else {"train.device": device})}


def _check_decided(variant: Variant, study: Study) -> None:
    """Raises UsageError for a setting that would be replaced by what the study decides for all."""
    decided = {"train.seed": "study.seeds are the seeds of all", "eval.test": "study.test says whose are read"}
    if study.options.device != "auto":
        decided["train.device"] = f"study.device is {study.options.device}"
    if kind := study.budget.kind:
        decided |= dict.fromkeys(("train.epochs", "train.budget"), f"budget.{kind} says how long all train")
    for key in variant.settings:
        if key in decided:
            raise UsageError(f"{key} is not for a variant to set: {decided[key]}; leave out one of the two")


def _known(sets: Splits) -> DataKnown:
    val = 0 if sets.val is None else len(sets.val)
    digests = {name: digest(images) for name, images in sets.sets.items()}
    return DataKnown(len(sets.train), val, sets.train.class_names, sets.train.image_size[0], digests)


def of_budget(config: Config, budget: StudyBudget, data: DataKnown) -> Settings:
    """The settings that give a recipe the budget that all variants have.

    Steps and FLOPs become epochs, of which there may be fractions. Raises UsageError for a recipe with stages, whose
    parts of a budget nobody has said.
    """
    if budget.kind is None:
        return {}
    if config.stages:
        raise UsageError("stages cannot share a budget; leave out [budget], so that each stage has its own")
    if budget.time is not None:
        return {"train.budget": str(budget.time)}
    batch_size = min(config.train.batch_size, data.train)
    steps = steps_per_epoch(data.train, batch_size, config.train.drop_last)
    steps = min(DEBUG_STEPS, steps) if config.train.debug else steps
    if budget.epochs is not None:
        epochs = budget.epochs
    elif budget.steps is not None:
        epochs = budget.steps / steps
    else:
        assert budget.flops is not None
        a_step = train_flops(_flops(config, data), min(batch_size, data.train / steps))
        epochs = max(1, round(budget.flops / a_step)) / steps
    return {"train.budget": None, "train.epochs": epochs}


def train_flops(forward: float, images: float) -> float:
    """Floating-point operations of training: a backward pass costs two forward passes (Kaplan et al. 2020, 2.1)."""
    return 3 * forward * images


def _flops(config: Config, data: DataKnown) -> int:
    size = config.model.img_size or data.side
    names = data.class_names
    model = load_backbone(config.model, img_size=size, num_classes=len(names), class_names=names).model
    return count(model, size).flops_per_image


def _same_recipes(runs: Sequence[PlannedRun]) -> list[str]:
    """A sentence on variants that are the same recipe, whose runs are trained once."""
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(run.key, []).append(run.variant.name)
    same = {tuple(each) for each in names.values() if len(each) > 1}
    return [
        f"{' and '.join(map(repr, each))} are the same recipe, so each of their runs is trained once" for each in same
    ]


def _early_ends(recipes: Sequence[Config]) -> list[str]:
    """A sentence where the budget may not be used up."""
    if any(stage.train.early_stop_epochs for config in recipes for stage in config.of_stages()):
        return ["runs may end before their budget does, as train.early_stop_epochs is set"]
    return []


def _not_counted(recipes: Sequence[Config]) -> list[str]:
    """A sentence on what training FLOPs do not tell of these recipes."""
    stages = [stage for config in recipes for stage in config.of_stages()]
    parts = {
        "layers that are frozen, and cost less": any(stage.train.trainable != "all" for stage in stages),
        "a teacher's passes": any(stage.train.teacher for stage in stages),
        "patches that are dropped in training": any(stage.model.patch_drop_rate for stage in stages),
    }
    left_out = [words for words, there in parts.items() if there]
    return (
        [f"training FLOPs are three times the forward pass's; they leave out {' and '.join(left_out)}"]
        if left_out
        else []
    )
