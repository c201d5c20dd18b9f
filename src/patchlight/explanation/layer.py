"""A place in a network that holds a map of features.

Shapes: B batch, C channels, (f, g) a layer's own grid, (r, c) cells of maps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """A map of features: what a module gives or, where it `reads`, gets, when it is called for the `call`-th time."""

    name: str
    module: nn.Module
    as_map: Callable[[Tensor, tuple[int, int]], Tensor]  # the tensor, and (r, c) of the images' cells -> (B, C, f, g)
    call: int = 0  # counted from 0 in each forward pass: an activation may be one module in many places
    reads: bool = False
    grid: tuple[int, int] | None = None  # (f, g); None where it is that of the cells
    guessed: bool = False  # its tokens are supposed to be in reading order

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """Inside the `with`, a forward pass puts the layer's tensor into the yielded list.

        What follows gets a copy of an output, as it may change it in place, as a ReLU does.
        """
        found: list[Tensor] = []
        calls = 0

        def keep(value: Any) -> bool:
            nonlocal calls
            if calls == self.call:
                found.append(first_of(value))
            calls += 1
            return calls == self.call + 1

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(args or tuple(kwargs.values()))

        def after(module: nn.Module, args: Any, output: Any) -> Any:
            if not keep(output):
                return None
            if type(output) in (tuple, list):
                return type(output)([found[0].clone(), *output[1:]])
            return found[0].clone() if isinstance(output, Tensor) else None

        if self.reads:
            handle = self.module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = self.module.register_forward_hook(after)
        try:
            yield found
        finally:
            handle.remove()


def first_of(value: Any) -> Any:
    """The value itself, or the first of several."""
    return value[0] if isinstance(value, (tuple, list)) and value else value
