"""A recipe as typed data, and the way from TOML to it and back; `sections/` says what every setting is.

Defaults < recipe < command line. Nothing here imports torch, so that the command line can check a recipe at once.
"""

from __future__ import annotations

import copy
import dataclasses
import stat
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchlight.config.fields import Section, kind_of, parse
from patchlight.config.sections import (
    SECTIONS,
    STAGE_FIELDS,
    About,
    AugmentConfig,
    DataConfig,
    EvalConfig,
    ExplainConfig,
    LoraConfig,
    MaeConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.paths import user_path

RECIPES = Path(__file__).parent / "recipes"
MOST_BYTES = 32 * 1024  # of a recipe; Patchlight's own have less than 2,000, and TOML can be written to take hours
DEBUG_EPOCHS = 2.0  # with train.debug, where train.epochs is not given with it


@dataclass(frozen=True)
class Config:
    """A whole recipe."""

    about: About = field(default_factory=About)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    mae: MaeConfig = field(default_factory=MaeConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    explain: ExplainConfig = field(default_factory=ExplainConfig)
    stages: tuple[dict[str, dict[str, Any]], ...] = ()  # what each stage of training changes of the above

    def to_dict(self) -> dict[str, Any]:
        """Plain data for TOML or JSON: unset fields are left out and tuples are lists."""
        data: dict[str, Any] = {
            name: {
                k: list(v) if isinstance(v, tuple) else v
                for k, v in dataclasses.asdict(getattr(self, name)).items()
                if v is not None
            }
            for name in SECTIONS
        }
        return {**data, "stages": copy.deepcopy(list(self.stages))} if self.stages else data

    def flat(self) -> dict[str, Any]:
        """Every setting by its name on the command line: `train.epochs`, or `stages.1.train.epochs` of a stage."""
        data = self.to_dict()
        stages = {f"stages.{number}": stage for number, stage in enumerate(data.pop("stages", []), 1)}
        whole = {f"{section}.{key}": value for section, values in data.items() for key, value in values.items()}
        return whole | {
            f"{number}.{section}.{key}": value
            for number, stage in stages.items()
            for section, values in stage.items()
            for key, value in values.items()
        }

    def of_stages(self) -> list[Config]:
        """A complete recipe without stages for each stage; of a recipe without stages, itself alone."""
        whole = self.to_dict()
        changes = whole.pop("stages", [])
        return [config_from_dict(laid_over(whole, change)) for change in changes] or [self]

    def to_toml(self) -> str:
        """The resolved recipe as TOML text; `load_recipe` reads it back equal."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


@dataclass(frozen=True)
class FieldInfo:
    """One setting, for help texts."""

    key: str  # train.epochs
    kind: str  # "float", "numbers", or the values that it can take: "adamw|sgd|muon"
    allowed: str  # "above 0"; empty where there is no range
    default: Any
    meaning: str


def describe_fields() -> list[FieldInfo]:
    """Every setting a recipe can have, in the order of the sections."""
    infos = []
    for section, cls in SECTIONS.items():
        hints = typing.get_type_hints(cls, include_extras=True)
        for f in dataclasses.fields(cls):
            kind = kind_of(hints[f.name])
            infos.append(FieldInfo(f"{section}.{f.name}", kind.word, str(kind.range or ""), f.default, kind.meaning))
    return infos


def config_from_dict(data: dict[str, Any], origin: str = "config") -> Config:
    """Check plain data (as read from TOML) and build a Config.

    With train.debug, train.epochs is DEBUG_EPOCHS where it is not given. Raises UsageError, naming `origin`, the key
    and the nearest known one.
    """
    data = dict(data)
    if isinstance(train := data.get("train"), dict) and train.get("debug") is True:
        data["train"] = {"epochs": DEBUG_EPOCHS, **train}
    stages = data.pop("stages", [])
    sections: dict[str, Section] = {}
    for name, values in data.items():
        if name not in SECTIONS:
            raise UsageError(f"{origin}: unknown section [{name}]; {did_you_mean(name, SECTIONS)}")
        if not isinstance(values, dict):
            raise UsageError(f"{origin}: '{name}' is a section; write [{name}] with its fields below")
        known = {f"{name}.{f.name}" for f in dataclasses.fields(SECTIONS[name])}
        for key in (f"{name}.{key}" for key in values):
            if key not in known:
                raise UsageError(f"{origin}: unknown field '{key}'; {did_you_mean(key, known)}")
        try:
            sections[name] = SECTIONS[name](**values)
        except UsageError as error:
            raise UsageError(f"{origin}: {name}.{error}") from None
    check_stages(stages, data, origin)
    return Config(**sections, stages=tuple(copy.deepcopy(stages)))  # type: ignore[arg-type]


def check_stages(stages: Any, data: dict[str, Any], origin: str) -> None:
    """Raises UsageError for a stage that is no valid recipe when laid over `data`, or changes what all stages share."""
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise UsageError(f"{origin}: stages are tables; write [[stages]] with its settings below")
    for number, stage in enumerate(stages, 1):
        where = f"{origin}: stage {number}"
        for section, values in stage.items():
            if not isinstance(values, dict):
                raise UsageError(f"{where}: '{section}' needs its section before it, as in train.epochs = 3")
            for name in values:
                if not any(f"{section}.{name}".startswith(allowed) for allowed in STAGE_FIELDS):
                    raise UsageError(
                        f"{where}: {section}.{name} is the same in all stages; a stage may set "
                        f"{', '.join(allowed.rstrip('.') for allowed in STAGE_FIELDS)}"
                    )
        config_from_dict(laid_over(data, stage), where)
    if stages and data.get("train", {}).get("budget") is not None:
        raise UsageError(
            f"{origin}: train.budget cannot be divided between stages; set stages.1.train.budget and so on"
        )


def laid_over(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`data` with the fields of `changes` in place of its own: what a stage makes of the whole recipe."""
    return {
        section: {**data.get(section, {}), **changes[section]} if section in changes else data[section]
        for section in {**data, **changes}
    }


def recipe_names() -> list[str]:
    """The recipes that come with Patchlight."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipes() -> list[About]:
    """The [about] sections of the recipes that come with Patchlight."""
    return [load_recipe(name).about for name in recipe_names()]


def load_recipe(recipe: str | Config, settings: Mapping[str, Any] | None = None) -> Config:
    """A recipe by name or by path, or a Config, with settings such as `{"train.epochs": "5"}` laid over it.

    Raises UsageError for an unknown recipe, a file that is no TOML, or a field that is wrong.
    """
    if isinstance(recipe, Config):
        return apply_overrides(recipe, settings or {})
    path = user_path(recipe) if recipe else Path()
    if path.suffix != ".toml":
        if recipe not in recipe_names():
            raise UsageError(f"no recipe '{recipe}'; {did_you_mean(recipe, recipe_names())}")
        path = RECIPES / f"{recipe}.toml"
    data = read_toml(path)
    config = config_from_dict(data, path.name)
    if "name" not in data.get("about", {}):
        config = dataclasses.replace(config, about=dataclasses.replace(config.about, name=path.stem))
    return apply_overrides(config, settings or {})


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds; a byte-order mark, as some editors write it, is passed over.

    Raises UsageError where there is no such file, it is no TOML or has more than MOST_BYTES, PatchlightError where it
    cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise UsageError(f"{path} is a device or a pipe; give a recipe's name or a TOML file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UsageError(f"{path} has more than the {MOST_BYTES:,} bytes that a recipe may have; name a recipe")
        return tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"))
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"no file '{path}'; give a recipe's name or an existing TOML file") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; give a recipe's name or a TOML file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8, as TOML is; save it in that encoding") from None
    except RecursionError:
        raise UsageError(f"{path} is not valid TOML that can be read: its lists are nested too deep") from None
    except ValueError as error:  # TOMLDecodeError is one; numbers of thousands of digits are another
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise PatchlightError(f"cannot read {path}: {error.strerror}") from None


def apply_overrides(config: Config, overrides: Mapping[str, Any], origin: str = "command line") -> Config:
    """`{"section.field": value}` laid over `config`, values as words of a command line or as they are in Python; "none"
    and None unset an optional field. Where they switch train.debug on, the recipe's own epochs no longer count. Errors
    name `origin`.
    """
    data = config.to_dict()
    for key, value in overrides.items():
        holder, key = _stage_of(data, key)
        section, _, name = key.partition(".")
        if section not in SECTIONS or not name:
            raise UsageError(f"unknown setting '{key}'; {did_you_mean(key, [info.key for info in describe_fields()])}")
        hints = typing.get_type_hints(SECTIONS[section], include_extras=True)
        if name not in hints:
            raise UsageError(f"unknown field '{key}'; {did_you_mean(key, [f'{section}.{field}' for field in hints])}")
        kind = kind_of(hints[name])
        word = "none" if value is None else value.lower() if isinstance(value, str) else ""
        if word == "none" and kind.optional and "none" not in kind.choices:
            holder.get(section, {}).pop(name, None)
        else:
            holder.setdefault(section, {})[name] = parse(value, kind) if isinstance(value, str) else value
    if data["train"]["debug"] is True and not config.train.debug:
        _shorten(data, given=overrides)
    return config_from_dict(data, origin)


def _shorten(data: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Give a recipe, and each of its stages that has its own, DEBUG_EPOCHS where no epochs are `given`."""
    parts = {"train.epochs": data}
    parts |= {f"stages.{number}.train.epochs": stage for number, stage in enumerate(data.get("stages", []), 1)}
    for key, part in parts.items():
        if key not in given and "epochs" in part.get("train", {}):
            part["train"]["epochs"] = DEBUG_EPOCHS


def _stage_of(data: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The part of `data` that a command line's `key` sets, and the key in it: "stages.2.optim.lr" is "optim.lr" of the
    second stage.

    Raises UsageError for a stage that does not exist, and for a setting of the whole that every stage sets itself.
    """
    stages = data.get("stages", [])
    if not key.startswith("stages."):
        section, _, name = key.partition(".")
        if stages and all(name in stage.get(section, {}) for stage in stages):
            raise UsageError(f"every stage of this recipe has its own {key}; set stages.1.{key} and so on")
        return data, key
    number, _, inner = key.removeprefix("stages.").partition(".")
    if not (number.isdecimal() and len(number) < 9 and 1 <= int(number) <= len(stages)):
        raise UsageError(f"'{key}': this recipe has {len(stages)} stages; write stages.1.optim.lr and the like")
    return stages[int(number) - 1], inner
