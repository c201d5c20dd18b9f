"""The tables of a study: one for people and papers, one with all digits for programs, and its runs. Text alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchlight.reporting.tables import Column, Table, Value
from patchlight.runs.codec import JSON
from patchlight.runs.study import FINISHED, Difference, StudyResult, StudyVariant
from patchlight.units import counted, duration, in_points, mean_deviation, percent, short, shortened

LONGEST = 80  # characters of a variant's name in a table for people

Cell = Callable[[StudyVariant, StudyResult], Value]


@dataclass(frozen=True)
class Field:
    """A column of the answer: its key, its title, and a variant's value."""

    key: str
    title: str
    value: Cell
    left: bool = False


def with_interval(difference: Difference | None) -> str | None:
    """A difference in points with its interval: "+0.8 (+0.2 to +1.4)"."""
    if difference is None:
        return None
    if difference.low is None or difference.high is None:
        return in_points([difference.mean])[0]
    mean, low, high = in_points([difference.mean, difference.low, difference.high])
    return f"{mean} ({low} to {high})"


def _validation(v: StudyVariant, _: StudyResult) -> Value:
    return None if v.val_mean is None else mean_deviation(v.val_mean, v.val_std)


def _test(v: StudyVariant, _: StudyResult) -> Value:
    return None if v.test_mean is None else mean_deviation(v.test_mean, v.test_std)


def _seeds(v: StudyVariant, result: StudyResult) -> Value:
    return str(v.n) if v.n == len(result.seeds) else f"{v.n} of {len(result.seeds)}"


def is_baseline(v: StudyVariant, result: StudyResult) -> bool:
    """Whether others are compared with this variant."""
    return v.name == result.baseline or (bool(v.point) and v.member == result.baseline)


def _difference(v: StudyVariant, result: StudyResult) -> Value:
    return "baseline" if is_baseline(v, result) and v.difference is None else with_interval(v.difference)


def _name(v: StudyVariant, result: StudyResult) -> Value:
    name = shortened(v.name, LONGEST)
    return f"{name} (chosen)" if v.name == result.chosen and len(result.variants) > 1 else name


FIELDS = (
    Field("variant", "variant", _name, left=True),
    Field("seeds", "seeds", _seeds),
    Field("validation", "validation accuracy", _validation),
    Field("difference", "difference to baseline, points", _difference),
    Field("gain", "gain on step before, points", lambda v, _: with_interval(v.gain)),
    Field("test", "test accuracy", _test),
    Field("params", "parameters", lambda v, _: None if v.params is None else short(v.params)),
    Field("train_flops", "training FLOPs", lambda v, _: None if v.train_flops is None else short(v.train_flops)),
    Field("time", "time of a run", lambda v, _: None if v.train_wall_s is None else duration(v.train_wall_s)),
    Field("memory", "memory, GB", lambda v, _: None if v.memory_gb is None else f"{v.memory_gb:.1f}"),
)
COSTS = {"params": "parameters", "train_flops": "training FLOPs", "time": "of training a run", "memory": "GB of memory"}
ALWAYS = ("variant", "seeds", "validation")
SAYS = Field("says", "what the numbers say", lambda v, _: v.difference.words if v.difference else None, left=True)


def answer_table(result: StudyResult, says: bool = True) -> Table:
    """A row for each variant, for people; a column without any value is left out, and so is a cost that all share.

    With `says` the words of the difference are the last column, without it they are left out, as a paper's table is
    narrow.
    """
    same = {f.key for f, _ in same_for_all(result)}
    fields = [f for f in (*FIELDS, *([SAYS] if says else [])) if f.key in ALWAYS or _has(f, result)]
    fields = [f for f in fields if f.key not in same]
    rows = tuple(tuple(f.value(v, result) for f in fields) for v in result.variants)
    columns = tuple(Column(f.key, f.title, left=f.left) for f in fields)
    return Table(columns, rows, caption=caption(result), notes=table_notes(result))


def _has(f: Field, result: StudyResult) -> bool:
    return any(value not in (None, "baseline") for value in (f.value(v, result) for v in result.variants))


def same_for_all(result: StudyResult) -> list[tuple[Field, str]]:
    """Costs that are the same number for every variant: a sentence tells them, and no column does."""
    found = []
    for f in FIELDS:
        values = {f.value(v, result) for v in result.variants}
        if f.key in COSTS and len(result.variants) > 1 and len(values) == 1 and None not in values:
            found.append((f, f"{values.pop()} {COSTS[f.key]}"))
    return found


def caption(result: StudyResult) -> str:
    """What a reader of the table alone must know."""
    title = result.title or result.name
    title += "" if title.endswith(("?", "!", ".")) else "."
    trained = f"{result.recipe} on {result.data}; {result.budget}. "
    seeds = f"seeds {', '.join(map(str, result.seeds))}" if len(result.seeds) > 1 else f"seed {result.seeds[0]}"
    return f"{title} {trained}Validation chose weights and variants; {seeds}."


def table_notes(result: StudyResult) -> tuple[str, ...]:
    """What stands below the table: what its signs mean, and why a variant has not all seeds."""
    meant = signs(result)
    return (*([meant] if meant else []), *(f"{v.name}: {v.note}." for v in result.variants if v.note))


def signs(result: StudyResult) -> str:
    """What the signs of the table mean, as far as it has them."""
    said = []
    if any(v.val_std is not None for v in result.variants):
        said.append("± is the sample deviation over seeds.")
    if any(v.difference and v.difference.low is not None for v in result.variants):
        said.append("Differences are of equal seeds; in brackets is their 95 % interval (Student's t).")
    if read := [v.name for v in result.variants if v.test_mean is not None]:
        alone = read == [result.chosen] and result.test != "all"
        of = "once, for the chosen variant" if alone else f"for {counted(len(read), 'variant')} and chose none"
        said.append(f"The test images were read {of}.")
    if same := same_for_all(result):
        said.append(f"The same for all variants: {', '.join(words for _, words in same)}.")
    return " ".join(said)


def _of(difference: Difference | None) -> tuple[Value, ...]:
    if difference is None:
        return (None,) * 5
    return difference.to, difference.mean, difference.low, difference.high, len(difference.seeds)


def numbers_table(result: StudyResult) -> Table:
    """A row for each variant with all digits, for programs: rates in 0..1, times in seconds, 1 for the chosen one."""
    keys = list(dict.fromkeys(key for v in result.variants for key in v.point))
    told = ("to", "mean", "low", "high", "seeds")
    names = [
        *("variant", "member", *keys, "chosen", "seeds", "pruned", "failed", "val_top1_mean", "val_top1_std"),
        *(f"difference_{name}" for name in told),
        *(f"gain_{name}" for name in told),
        *("test_top1_mean", "test_top1_std", "test_seeds", "params", "train_flops", "train_wall_s", "memory_gb"),
        *("says", "note"),
    ]
    rows = tuple(
        (
            *(v.name, v.member, *(_plain(v.point.get(key)) for key in keys), int(v.name == result.chosen)),
            *(v.n, v.pruned, v.failed, v.val_mean, v.val_std),
            *_of(v.difference),
            *_of(v.gain),
            *(v.test_mean, v.test_std, v.test_n, v.params, v.train_flops, v.train_wall_s, v.memory_gb),
            *(v.difference.words if v.difference else None, v.note or None),
        )
        for v in result.variants
    )
    return Table(tuple(Column(name, name) for name in names), rows)


def runs_table(result: StudyResult) -> Table:
    """A row for each run, in the order of the variants and seeds."""
    places = {v.name: i for i, v in enumerate(result.variants)}
    runs = sorted(result.runs, key=lambda run: (places.get(run.variant, len(places)), run.seed))
    rows = tuple(
        (
            shortened(run.variant, LONGEST),
            run.seed,
            None if run.val_top1 is None else percent(run.val_top1, 2),
            None if run.test_top1 is None else percent(run.test_top1, 2),
            run.epoch,
            None if run.train_wall_s is None else duration(run.train_wall_s),
            (f"{run.state}, reused" if run.reused else run.state) + (f": {run.reason}" if run.reason else ""),
            run.folder,
        )
        for run in runs
    )
    columns = (
        Column("variant", "variant", left=True),
        Column("seed", "seed"),
        Column("val_top1", "validation"),
        Column("test_top1", "test"),
        Column("epoch", "kept epoch"),
        Column("train_wall_s", "time"),
        Column("state", "state", left=True),
        Column("folder", "folder", left=True),
    )
    return Table(columns, rows)


def changes_of(v: StudyVariant) -> list[str]:
    """What a variant changes, a setting each: "optim.name = adamw"."""
    return [f"{key} = {value_words(value)}" for key, value in v.changes.items()]


def value_words(value: JSON) -> str:
    """A setting's value as a recipe writes it, but for the quotes of texts."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_words, value))}]"
    return "none" if value is None else str(value)


def _plain(value: JSON) -> Value:
    return value if isinstance(value, str | int | float) or value is None else value_words(value)


def finished(result: StudyResult) -> int:
    """How many runs are."""
    return sum(run.state == FINISHED for run in result.runs)


def seconds(values: Sequence[float | None]) -> float:
    """The sum of those that are known."""
    return sum(value for value in values if value is not None)
