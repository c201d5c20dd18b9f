"""A file of a study, in TOML.

    [study]                    the base recipe, the plan, the seeds
    [budget]                   how long every variant trains, and why that is fair
    [base]                     settings of all variants, as in a recipe: train.batch_size = 64
    [[variants]]               name = "+ AdamW", and what it changes: optim.name = "adamw"
    [grid]                     data.train_per_class = [50, 250]: every variant with each of these
    [sizes.NAME]               what this size of the study has in place of the above

`plan` says what the variants are. "each": the base with the variant's changes. "ladder": with those of all variants
before it, too. "leave-one-out": first the base with the changes of all, then for each variant all but its own.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchlight.config.fields import kind_of, parse
from patchlight.config.recipe import read_toml
from patchlight.config.sections import SECTIONS
from patchlight.config.study import Settings, Study, StudyAbout, StudyBudget, StudyOptions, Variant
from patchlight.errors import UsageError, did_you_mean
from patchlight.paths import user_path

STUDIES = Path(__file__).parent / "studies"
PARTS = ("about", "study", "budget", "base", "variants", "grid", "sizes")
MOST_RUNS = 10_000  # of a study; more is a mistake in its file


def study_names() -> list[str]:
    """The studies that come with Patchlight."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def sizes_of(study: str | Path) -> tuple[str, ...]:
    """The names of a study's sizes, the default first."""
    return tuple(_read(study)[0].get("sizes", {}))


def load_study(
    study: str | Path,
    size: str | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> Study:
    """A study by name or path, in one of its sizes (the first unless named), with `options` of [study] and `settings`
    of all variants laid over it.

    Raises UsageError for an unknown study or size, a file that is no TOML, and a field that is wrong; whether the
    variants are recipes that can be trained is seen by `plan`.
    """
    data, path = _read(study)
    return study_of(data, path.stem, path.name, size=size, options=options, settings=settings, folder=path.parent)


def _read(study: str | Path) -> tuple[dict[str, Any], Path]:
    path = user_path(study) if str(study) else Path()
    if path.suffix != ".toml":
        if str(study) not in study_names():
            raise UsageError(f"no study '{study}'; {did_you_mean(str(study), study_names())} (or give a TOML file)")
        path = STUDIES / f"{study}.toml"
    return read_toml(path), path


def study_of(
    data: dict[str, Any],
    name: str,
    origin: str,
    *,
    size: str | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    folder: Path | None = None,
) -> Study:
    """The study that plain data (as read from TOML) describe; recipes are files relative to `folder`.

    Raises UsageError, naming `origin` and the field.
    """
    _check_parts(data, PARTS, origin)
    sizes = _tables(data.get("sizes", {}), f"{origin}: sizes")
    default = next(iter(sizes), None)
    size = size or default
    if size is not None and size not in sizes:
        raise UsageError(f"{origin} has no size '{size}'; {did_you_mean(size, sizes) if sizes else 'it has one size'}")
    if size is not None:
        data = _of_size(data, sizes[size], f"{origin}: sizes.{size}")
    chosen = _section(StudyOptions, {**data.get("study", {}), **(options or {})}, f"{origin}: study")
    if not chosen.recipe:
        raise UsageError(f"{origin}: study.recipe is missing; name the recipe that the variants change")
    if not chosen.seeds or len(set(chosen.seeds)) < len(chosen.seeds):
        raise UsageError(f"{origin}: study.seeds must be different numbers, as in [0, 1, 2]")
    budget = _section(StudyBudget, data.get("budget", {}), f"{origin}: budget")
    given = [each for each in ("epochs", "steps", "time", "flops") if getattr(budget, each) is not None]
    if len(given) > 1:
        raise UsageError(f"{origin}: budget has {' and '.join(given)}; every run has one budget, so keep one of them")
    base = {**_flat(data.get("base", {}), f"{origin}: base"), **(settings or {})}
    grid = _grid(data.get("grid", {}), f"{origin}: grid")
    variants = _variants(data.get("variants", []), chosen, base, origin)
    _check_runs(len(variants) * math.prod(map(len, grid.values())) * len(chosen.seeds), origin)
    variants = [each for variant in variants for each in _on_grid(_placed(variant, folder), grid, name)]
    study = Study(
        name,
        _section(StudyAbout, data.get("about", {}), f"{origin}: about"),
        chosen,
        budget,
        tuple(variants),
        grid,
        size,
        default,
    )
    _check_variants(study, origin)
    return study


def study_of_one(recipe: str, seeds: tuple[int, ...], settings: Settings, test: str = "chosen") -> Study:
    """A recipe with several seeds and nothing to compare with."""
    name = user_path(recipe).stem if recipe.endswith(".toml") else recipe
    data = {"study": {"recipe": recipe, "seeds": list(seeds), "test": test}}
    return study_of(data, name, "--seeds", settings=settings)


def _check_runs(runs: int, origin: str) -> None:
    if runs > MOST_RUNS:
        raise UsageError(
            f"{origin} has {runs:,} runs, and the most are {MOST_RUNS:,}; make its grid smaller, or name fewer seeds"
        )


def _check_variants(study: Study, origin: str) -> None:
    names = [variant.name for variant in study.variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{origin}: two variants are called '{twice}'; give each another name")
    members = {variant.member for variant in study.variants} - {""}
    known = members or set(names)
    if study.baseline not in known:
        raise UsageError(
            f"{origin}: study.baseline: no variant '{study.baseline}'; {did_you_mean(study.baseline, known)}"
        )


def _variants(tables: Any, options: StudyOptions, base: Settings, origin: str) -> list[Variant]:
    """The variants of the plan, before the grid."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{origin}: variants are tables; write [[variants]] with a name and settings below")
    if not tables:
        if options.plan != "each":
            raise UsageError(f"{origin}: study.plan is {options.plan}, and there are no [[variants]]; add them")
        return [Variant("", options.recipe, base, {})]
    found = [_variant(table, number, options, origin) for number, table in enumerate(tables, 1)]
    if options.plan == "leave-one-out":
        return _leave_one_out(found, base, origin)
    so_far: Settings = {}
    variants = []
    for name, recipe, changes in found:
        so_far = {**so_far, **changes} if options.plan == "ladder" else changes
        variants.append(Variant(name, recipe, {**base, **so_far}, dict(so_far)))
    return variants


def _variant(table: dict[str, Any], number: int, options: StudyOptions, origin: str) -> tuple[str, str, Settings]:
    where = f"{origin}: variant {number}"
    name, recipe = table.get("name"), table.get("recipe", options.recipe)
    if not isinstance(name, str) or not name.strip() or "\n" in name:
        raise UsageError(f'{where} needs a name: name = "+ AdamW"')
    if not isinstance(recipe, str):
        raise UsageError(f"{where}: recipe must be a recipe's name or a TOML file")
    if recipe != options.recipe and options.plan != "each":
        raise UsageError(
            f"{where}: a variant of the plan '{options.plan}' begins with study.recipe; leave out its recipe"
        )
    changes = _flat({key: value for key, value in table.items() if key not in ("name", "recipe")}, where)
    return name.strip(), recipe, changes


def _placed(variant: Variant, folder: Path | None) -> Variant:
    """The variant with the path of its recipe as it is from here, where it is a file beside the study's."""
    beside = folder / variant.recipe if folder and variant.recipe.endswith(".toml") else None
    return dataclasses.replace(variant, recipe=str(beside)) if beside and beside.is_file() else variant


def _leave_one_out(found: list[tuple[str, str, Settings]], base: Settings, origin: str) -> list[Variant]:
    for (one, _, left), (other, _, right) in itertools.combinations(found, 2):
        if both := sorted(left.keys() & right.keys()):
            raise UsageError(
                f"{origin}: variants '{one}' and '{other}' both set {both[0]}, so leaving one out would not take it "
                "away; set it in one of them"
            )
    recipe = found[0][1]
    whole: Settings = {key: value for _, _, changes in found for key, value in changes.items()}
    variants = [Variant("all", recipe, {**base, **whole}, whole)]
    for name, _, own in found:
        rest = {key: value for key, value in whole.items() if key not in own}
        variants.append(Variant(f"without {name}", recipe, {**base, **rest}, rest))
    return variants


def _on_grid(variant: Variant, grid: dict[str, tuple[Any, ...]], study: str) -> list[Variant]:
    """The variant at each point of the grid; without one, itself. The only one of a study has the study's name."""
    if not grid:
        return [variant if variant.name else dataclasses.replace(variant, name=study)]
    placed = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        place = ", ".join(f"{field_word(key)} {_value(value)}" for key, value in point.items())
        name = f"{variant.name}, {place}" if variant.name else place
        placed.append(
            Variant(
                name,
                variant.recipe,
                {**variant.settings, **point},
                {**variant.changes, **point},
                member=variant.name,
                point=point,
            )
        )
    return placed


def field_word(key: str) -> str:
    """A setting's own name in words: "data.train_per_class" is "train per class"."""
    return key.rpartition(".")[2].replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 1000:
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _grid(table: Any, origin: str) -> dict[str, tuple[Any, ...]]:
    grid = {}
    for key, values in _flat(table, origin).items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{origin}: {key} must be a list of values, as in {key} = [1, 2]")
        if any(values.count(value) > 1 for value in values):
            raise UsageError(f"{origin}: {key} has a value twice; leave one out")
        grid[key] = tuple(values)
    return grid


def _flat(table: Any, origin: str) -> Settings:
    """{"optim": {"lr": 0.1}} as {"optim.lr": 0.1}; what is in quotes in TOML, "optim.lr" = 0.1, is read alike."""
    flat: Settings = {}
    if not isinstance(table, dict):
        raise UsageError(f"{origin} must be a table of settings, as in optim.lr = 0.001")
    for section, values in table.items():
        if "." in section:
            found = {section: values}
        elif section == "stages":
            found = _of_stages(values, origin)
        elif section not in SECTIONS and isinstance(values, dict):
            raise UsageError(f"{origin}: unknown section '{section}'; {did_you_mean(section, SECTIONS)}")
        elif not isinstance(values, dict):
            raise UsageError(f"{origin}: '{section}' is no setting; write its section before it, as in train.{section}")
        else:
            found = {f"{section}.{key}": value for key, value in values.items()}
        if twice := sorted(flat.keys() & found.keys()):
            raise UsageError(f"{origin}: {twice[0]} is set twice, with and without quotes; leave one out")
        flat |= found
    return flat


def _of_stages(stages: Any, origin: str) -> Settings:
    """{"2": {"optim": {"lr": 0.1}}} as {"stages.2.optim.lr": 0.1}: a setting of the recipe's second stage."""
    parts = stages.items() if isinstance(stages, dict) else [("", None)]
    flat: Settings = {}
    for number, sections in parts:
        for section, values in sections.items() if isinstance(sections, dict) else [("", None)]:
            if not isinstance(values, dict):
                raise UsageError(
                    f"{origin}: a stage's setting is written with the stage's number, as in stages.1.optim.lr = 0.001"
                )
            flat |= {f"stages.{number}.{section}.{key}": value for key, value in values.items()}
    return flat


def _of_size(data: dict[str, Any], change: dict[str, Any], origin: str) -> dict[str, Any]:
    """`data` as a size has it: its budget, variants and grid in place of the study's, its settings over them."""
    _check_parts(change, tuple(part for part in PARTS if part != "sizes"), origin)
    whole = {**data}
    for part, values in change.items():
        over = part in ("about", "study", "base") and isinstance(values, dict)
        if part == "base":
            whole[part] = {**_flat(data.get(part, {}), origin), **_flat(values, origin)}
        else:
            whole[part] = {**data.get(part, {}), **values} if over else values
    return whole


def _check_parts(data: dict[str, Any], parts: tuple[str, ...], origin: str) -> None:
    for part, values in data.items():
        if part not in parts:
            raise UsageError(f"{origin}: unknown part [{part}]; {did_you_mean(part, parts)}")
        if part != "variants" and not isinstance(values, dict):
            raise UsageError(f"{origin}: '{part}' is a table; write [{part}] with its fields below")


def _tables(data: dict[str, Any], origin: str) -> dict[str, dict[str, Any]]:
    for name, table in data.items():
        if not isinstance(table, dict):
            raise UsageError(f"{origin}: '{name}' is a table; write [sizes.{name}] with its fields below")
    return data


def _section(cls: Any, data: dict[str, Any], origin: str) -> Any:
    hints = typing.get_type_hints(cls, include_extras=True)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in known:
            raise UsageError(f"{origin}: unknown field '{key}'; {did_you_mean(key, known)}")
    values = {
        key: parse(value, kind_of(hints[key])) if isinstance(value, str) else value for key, value in data.items()
    }
    try:
        return cls(**values)
    except UsageError as error:
        raise UsageError(f"{origin}.{error}") from None
