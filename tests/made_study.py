"""Studies for tests: made-up runs, and the real answer to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from patchlight.runs.study import FAILED, FINISHED, PRUNED, WAITING, StudyPoint, StudyResult, StudyRun
from patchlight.studies.answer import answer

MACHINE = "cpu AMD EPYC 7B13, bf16, 2 threads"
HOSTILE = [
    "<script>alert(1)</script>",
    r"100 % of $x^2$ & more_or_less #1 \frac{1}{2} ~",
    "right\u202eleft\u2069 and \u200bhidden",
    "=HYPERLINK(1)",
    "| a | bar | and `code` *with* [links](http://example.com)",
    "a name that is so long that no figure and no column has room for the whole of it, " * 2,
    "模型 بدون",
]


@dataclass(frozen=True)
class Planned:
    """A planned variant."""

    name: str
    changes: dict = field(default_factory=dict)
    point: dict = field(default_factory=dict)
    member: str = ""


def made_run(variant: str, seed: int, val: float | None = None, **values) -> StudyRun:
    """A finished run with a curve of 8 epochs that ends at `val`; other states have no more than their reason."""
    state = values.pop("state", FINISHED)
    seconds, images = values.pop("seconds", 60.0), values.pop("images", 8000)
    epochs = 8 if state == FINISHED else 3 if state == PRUNED else 0
    curve = tuple(
        StudyPoint(
            epoch=e,
            step=e * 10,
            images=e * images // 8,
            wall_s=e * seconds / 8,
            val_top1=float((val if val is not None else 0.3) * (1 - np.exp(-0.5 * e)) / (1 - np.exp(-4.0))),
        )
        for e in range(1, epochs + 1)
    )
    ended = {
        "epoch": 8,
        "val_top1": val,
        "val_n": 5000,
        "train_flops": 3e12,
        "train_wall_s": seconds,
        "memory_gb": 0.8,
    }
    return StudyRun(
        **{
            "variant": variant,
            "seed": seed,
            "key": f"k{seed:03d}",
            "folder": f"runs/k{seed:03d}",
            "state": state,
            "params": 2_690_000,
            "machine": MACHINE,
            "git_commit": "e48a8db",
            "curve": curve,
            **(ended if state == FINISHED else {}),
            **values,
        }
    )


def made_study(
    members: Sequence[Planned],
    runs: Sequence[StudyRun],
    seeds: Sequence[int] = (0, 1, 2),
    baseline: str | None = None,
    **values,
) -> StudyResult:
    """A study of these runs, with its real answer."""
    about = {
        "plan": "each",
        "test": "chosen",
        "budget_by": "epochs",
        "baseline": baseline or members[0].name,
        "measure": "val/top1",
        **values,
    }
    of_answer = {key: about[key] for key in ("plan", "test", "budget_by", "baseline", "measure")}
    found = answer(runs, members, seeds=seeds, **of_answer)
    return StudyResult(
        **{
            "name": "made",
            "title": "A made-up study",
            "question": "Which of these is the best?",
            "recipe": "cifar10-cpu",
            "seeds": tuple(seeds),
            "budget": "each variant trains for 8 epochs",
            "why": "each of them sees the same images equally often",
            "data": "cifar10",
            "classes": 10,
            "variants": found.variants,
            "chosen": found.chosen,
            "answer": found.answer,
            "notes": found.notes,
            "runs": tuple(runs),
            "command": "patchlight study made",
            "patchlight": "0.2.0",
            **about,
        }
    )


def drawn(name: str, mean: float, seeds: Sequence[int] = (0, 1, 2), **values) -> list[StudyRun]:
    """Runs of a variant around a mean; the luck of a seed is the same for all variants, and a part is their own."""
    luck = np.random.default_rng(7).normal(0, 0.004, 99)
    own = np.random.default_rng(sum(map(ord, name))).normal(0, 0.003, 99)
    return [made_run(name, seed, round(mean + luck[seed] + own[seed], 4), **values) for seed in seeds]


LADDER = ["sgd", "+ adamw", "+ cosine and warm-up", "+ smoothing", "+ mixup", "+ drop-path", "all"]


def ladder(change: Callable[[StudyRun], StudyRun] = lambda run: run, **values) -> StudyResult:
    """Seven steps, three seeds; the test images were read for the chosen one."""
    means = (0.552, 0.601, 0.622, 0.621, 0.612, 0.611, 0.634)
    members = [Planned(name, {"optim.name": "adamw", "step": i} if i else {}) for i, name in enumerate(LADDER)]
    runs = [
        change(run)
        for i, (name, mean) in enumerate(zip(LADDER, means, strict=True))
        for run in drawn(
            name, mean, seconds=60 + 4 * i, train_flops=3e12 * (1 + 0.2 * i), **_tested(name == "all", mean)
        )
    ]
    return made_study(members, runs, plan="ladder", **values)


def _tested(is_read: bool, mean: float) -> dict:
    return {"test_top1": mean - 0.006, "test_n": 10000} if is_read else {}


def grid(**values) -> StudyResult:
    """Two members at four numbers of images, all test images read."""
    numbers = (50, 250, 1000, 4500)
    means = {"vit": (0.21, 0.33, 0.46, 0.61), "resnet18": (0.30, 0.42, 0.50, 0.60)}
    members = [
        Planned(
            f"{member}, {n}", {"model.name": member, "data.train_per_class": n}, {"data.train_per_class": n}, member
        )
        for n in numbers
        for member in means
    ]
    runs = []
    for each in members:
        mean, small = means[each.member][numbers.index(each.point["data.train_per_class"])], each.member == "vit"
        size = {"params": 2_690_000, "seconds": 30} if small else {"params": 11_170_000, "seconds": 300}
        runs += drawn(each.name, mean, train_flops=3e12 if small else 6e13, **size, **_tested(True, mean))
    return made_study(
        members, runs, baseline="vit", grid={"data.train_per_class": numbers}, test="all", name="vit-or-cnn", **values
    )


def one_seed() -> StudyResult:
    members = [Planned(name, {"model.patch_size": int(name[-1])} if name != "patch 4" else {}) for name in PATCHES]
    runs = [made_run(name, 0, 0.5 + 0.01 * i, train_wall_s=40.0 * 3**i) for i, name in enumerate(PATCHES)]
    return made_study(members, runs, seeds=(0,), baseline="patch 4", name="patch-sizes")


PATCHES = ["patch 8", "patch 4", "patch 2"]


def unfinished(waiting: bool = True) -> StudyResult:
    """Some runs finished, some pruned, some failed, and with `waiting` some not there yet; under equal time."""
    members = [Planned(name, {"optim.lr": 0.001 * i}) for i, name in enumerate(("base", "low", "high", "late"))]
    pruned = "stopped at epoch 3 because its validation accuracy was 9 points behind the median"
    runs = [
        *drawn("base", 0.6),
        *drawn("low", 0.59, (0, 1), images=16000),
        made_run("low", 2, state=PRUNED, reason=pruned),
        made_run("high", 0, state=FAILED, reason="the loss was no number at step 12; lower optim.lr"),
        made_run("high", 1, state=FAILED, reason="the loss was no number at step 12; lower optim.lr"),
        *drawn("high", 0.58, (2,)),
        *([made_run("late", 0, state=WAITING)] if waiting else drawn("late", 0.57, machine="cuda H100, bf16")),
    ]
    return made_study(members, runs, budget="each variant trains for 60 s", budget_by="time", name="states")


def crowd(count: int = 15) -> StudyResult:
    """Many variants with long and hostile names."""
    names = [HOSTILE[i] if i < len(HOSTILE) else f"variant number {i} with a long name" for i in range(count)]
    members = [Planned(name, {"about.note": name}) for name in names]
    runs = [
        run
        for i, name in enumerate(names)
        for run in drawn(name, 0.5 + 0.012 * (i * 7 % 15), train_flops=1e12 * 1.7**i, seconds=20 + 7.0 * i)
    ]
    return made_study(members, runs, name=HOSTILE[0], title=HOSTILE[1], question=HOSTILE[4])


STUDIES = {
    "ladder": ladder,
    "grid": grid,
    "one_seed": one_seed,
    "unfinished": unfinished,
    "crowd": crowd,
}
