"""What training says of itself, in one line each."""

from __future__ import annotations

import datetime
from typing import Any

from torch import nn

from patchlight.units import clock


def trainable_line(model: nn.Module, what: str, epochs: float, rate: float) -> str:
    """What is trained in a stage, for how long and at which rate."""
    params = [p.numel() for p in model.parameters()]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    return (
        f"training {what}, {sum(trained):,} of {sum(params):,} parameters, for {epochs:.3g} epochs at a rate of "
        f"{rate:g}"
    )


def budget_line(
    budget: Any, epochs: float, steps: int, pace: float, val_s: float, memory_gb: float, left: float
) -> str:
    """What the budget holds: epochs of so many steps, at a pace in images/s; `left` seconds to the end."""
    memory = f"{memory_gb:.1f} GB of memory; " if memory_gb else ""
    end = datetime.datetime.now() + datetime.timedelta(seconds=left)
    return (
        f"the budget of {budget} holds {epochs:.3g} epochs of {steps:,} steps at {pace:,.0f} images/s and "
        f"{1000 * val_s:,.0f} ms a validation; {memory}done in {clock(left)}, at {end:%H:%M:%S}"
    )


def step_line(loss: float, accuracy: float | None, rate: float, pace: float) -> str:
    """Where an epoch stands: mean loss and accuracy so far, the rate, and images/s."""
    right = "" if accuracy is None else f"acc {accuracy:.1%}  "
    return f"loss {loss:.3f}  {right}lr {rate:.1e}  {pace:,.0f} images/s"


def epoch_line(row: dict[str, Any], epochs: float, left: float) -> str:
    """A line of `metrics.jsonl` for people; `left` seconds of training are to come."""
    parts = [f"epoch {row['epoch']}/{epochs:.3g}", f"loss {row['train/loss']:.3f}"]
    if row["train/top1"] is not None:
        parts.append(f"acc {row['train/top1']:.1%}")
    if row["val/top1"] is not None:
        parts.append(f"val loss {row['val/loss']:.3f}  val acc {row['val/top1']:.1%}{' *' if row['best'] else '  '}")
    parts += [f"lr {row['lr']:.1e}", f"{row['images_per_s']:,.0f} images/s", f"{clock(left)} left"]
    return "  ".join(parts)
