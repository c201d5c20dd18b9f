"""Where an unknown network holds maps of features: measured by running noise through it and back, not read from names.

Shapes: C channels, T tokens (P prefix tokens first), (f, g) a layer's own grid, (r, c) cells of maps; one image.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.explanation.layer import Layer, first_of
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy

# Their outputs may look like maps and be no places of the image: attention from place to place, and pooling to a fixed
# size, which small maps are spread out for; of tokens, queries, keys and values.
NO_FEATURES = (nn.Dropout, nn.Softmax, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
NO_TOKENS = (nn.Linear,)
MOST_PREFIX = 9  # tokens before the patches, a CLS token and eight registers, of a network that does not say how many
STAGE = 3  # levels of parts that a stage has inside, where a convolution with its norm has two


NOTHING = torch.empty(0)


@dataclass(frozen=True)
class Form:
    """A way to see a tensor as a map."""

    kind: str  # "first" (B, C, f, g), "last" (B, f, g, C), "tokens" (B, T, C) or "tokens, then images" (T, B, C)
    grid: tuple[int, int]
    width: int  # C
    prefix: int = 0

    def as_map(self, tensor: Tensor, cells: tuple[int, int] = (0, 0)) -> Tensor:
        """(B, C, f, g)."""
        if self.kind == "first":
            return tensor
        if self.kind == "last":
            return tensor.permute(0, 3, 1, 2)
        tokens = tensor if self.kind == "tokens" else tensor.transpose(0, 1)
        return tokens[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)

    @property
    def has_places(self) -> bool:
        """False of tokens, which may lie anywhere in an image."""
        return self.kind in ("first", "last")


@dataclass(eq=False)
class Call:
    """A call of a module in a forward pass."""

    name: str
    module: nn.Module
    number: int  # among the module's calls
    before: int  # how many calls had ended when it began
    inside: Call | None  # the call that it is a part of
    got: list[Form]
    output: Tensor = NOTHING
    gave: list[Form] = field(default_factory=list)


def measured_layers(anatomy: Anatomy, images: Tensor, target: Target) -> list[Layer]:
    """One layer for each size of the maps that a network makes, in the order in which it leaves them: the last module
    of that size on whose places the answer depends, or the one before it where that is a part of the next stage.

    The image is noise, and the answer a random mixture of what the target reads, so that the layers are the same for
    all images of a size and all classes.
    """
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn((1, *images.shape[1:]), generator=draw, device="cpu").to(images)
    with _frozen(anatomy.model), torch.enable_grad():  # so that what has a gradient depends on the pixels
        with _recorded_calls(anatomy, noise) as calls:
            answer = target.outputs(anatomy, lambda: anatomy.logits(noise.requires_grad_()))
        maps = [call for call in calls if call.gave and call.output.requires_grad]
        if not maps or not answer.requires_grad:
            return []
        score = (answer * torch.randn(answer.shape, generator=draw, device="cpu").to(answer)).sum()
        gradients = torch.autograd.grad(score, [call.output for call in maps], allow_unused=True)
    forms: dict[Call, Form] = {}
    for call, form, gradient in zip(maps, _settled([call.gave for call in maps]), gradients, strict=True):
        if form is None or gradient is None or math.prod(form.grid) == 1 or _is_detour(call, form):
            continue
        if _says_where(form, call.output, gradient):
            forms[call] = form
    ends = {form.grid: call for call, form in forms.items()}  # the last of each size
    layers = {_stage_end(call, forms, list(calls)) for call in ends.values()}
    return [
        Layer(
            call.name + (f" (call {call.number})" if call.number else ""),
            call.module,
            forms[call].as_map,
            call=call.number,
            grid=forms[call].grid,
            guessed=not forms[call].has_places,
        )
        for call in calls
        if call in layers
    ]


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


@contextlib.contextmanager
def _recorded_calls(anatomy: Anatomy, image: Tensor) -> Iterator[list[Call]]:
    """Inside the `with`, a forward pass fills the yielded list with all calls of modules, in the order of their end."""
    ended: list[Call] = []
    running: list[Call] = []
    counts: Counter[int] = Counter()
    names = {id(module): name for name, module in anatomy.model.named_modules()}

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        got = forms_of(first_of(args or tuple(kwargs.values())), anatomy, image)
        inside = running[-1] if running else None
        running.append(Call(names[id(module)], module, counts[id(module)], len(ended), inside, got))
        counts[id(module)] += 1

    def end(module: nn.Module, args: Any, output: Any) -> None:
        call = running.pop()
        tensor = first_of(output)
        if isinstance(tensor, Tensor) and not isinstance(module, NO_FEATURES):
            forms = forms_of(tensor, anatomy, image)
            call.output = tensor
            call.gave = [form for form in forms if form.has_places or not isinstance(module, NO_TOKENS)]
        ended.append(call)

    with contextlib.ExitStack() as stack:
        for module in list(anatomy.model.modules())[1:]:
            stack.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(end).remove)
        yield ended


def forms_of(tensor: Any, anatomy: Anatomy, image: Tensor) -> list[Form]:
    """The maps that the tensor of one image may be; of a network of patches those of its grid alone."""
    if not isinstance(tensor, Tensor) or tensor.ndim not in (3, 4):
        return []
    tokens_first = tensor.ndim == 3 and tensor.shape[1] == 1 < tensor.shape[0]  # as nn.Transformer has them by default
    if len(tensor) != 1 and not tokens_first:
        return []
    if tensor.ndim == 4:
        _, first, second, third = tensor.shape
        forms = [Form("first", (second, third), first), Form("last", (first, second), third)]
    else:
        prefixes = dict.fromkeys((anatomy.num_prefix_tokens, *range(MOST_PREFIX + 1)))
        count, width = tensor.shape[0 if tokens_first else 1], tensor.shape[2]
        kind = "tokens, then images" if tokens_first else "tokens"
        forms = [Form(kind, _grid_of(count - prefix, image), width, prefix) for prefix in prefixes]
    wanted = anatomy.grid(image) if anatomy.patch_size is not None else None
    forms = [form for form in forms if wanted in (None, form.grid) and _has_form(form.grid, image)]
    return forms if tensor.ndim == 4 else forms[:1]


def _grid_of(count: int, image: Tensor) -> tuple[int, int]:
    """Rows and columns of `count` cells in the image's form, or (0, 0)."""
    rows = round(math.sqrt(count * image.shape[-2] / image.shape[-1])) if count > 0 else 0
    return (rows, count // rows) if rows and count % rows == 0 else (0, 0)


def _has_form(grid: tuple[int, int], image: Tensor) -> bool:
    """Whether a grid could be that of the image: one step in both directions, to the rounding of a cell."""
    (rows, columns), (height, width) = grid, image.shape[-2:]
    return 0 < rows <= height and 0 < columns <= width and abs(rows * width - columns * height) < max(height, width)


def _settled(choices: Sequence[list[Form]]) -> list[Form | None]:
    """The form of each tensor: where channels may come first or last, as in most that are clear; tokens have the width
    that most of their grid have, so that neither wider hidden layers nor queries, keys and values side by side count.
    """
    kinds = Counter(forms[0].kind for forms in choices if len(forms) == 1)
    first = kinds["first"] >= kinds["last"]
    forms = [part[0] if len(part) == 1 or first else part[1] for part in choices]
    widths: dict[tuple[int, int], Counter[int]] = {}
    for form in forms:
        if not form.has_places:
            widths.setdefault(form.grid, Counter())[form.width] += 1
    common = {grid: counts.most_common(1)[0][0] for grid, counts in widths.items()}
    return [form if form.has_places or form.width == common[form.grid] else None for form in forms]


def _says_where(form: Form, output: Tensor, gradient: Tensor) -> bool:
    """Whether a map differs from place to place, and the answer depends on it at some place that is a cell: not on a
    CLS token alone.
    """
    features = form.as_map(output.detach())
    differs = bool((features.amax(dim=(2, 3)) > features.amin(dim=(2, 3))).any())
    return differs and bool((form.as_map(gradient) != 0).any())


def _is_detour(call: Call, form: Form) -> bool:
    """Whether a map stands inside a part that gets and gives maps of one other size, as windows and pooled keys do."""
    part = call.inside
    while part is not None:
        got, gave = ({form.grid for form in side} for side in (part.got, part.gave))
        if got & gave and form.grid not in got & gave:
            return True
        part = part.inside
    return False


def _stage_end(call: Call, forms: dict[Call, Form], calls: list[Call]) -> Call:
    """The call itself or, where it stands inside a part that makes this map a coarser one, the end of the stage before:
    the last stage of this size right inside that part, as in a list of stages, or the last call before it.
    """
    grid, outer, part = forms[call].grid, None, call.inside
    while part is not None:
        got, gave = ({form.grid for form in side} for side in (part.got, part.gave))
        if grid in got and gave and grid not in gave:
            outer = part
        part = part.inside
    if outer is None:
        return call
    same = [other for other in calls if other in forms and forms[other].grid == grid]
    heights: dict[Call | None, int] = {}  # how many levels of parts are inside each
    for other in calls:  # what is inside ends first
        heights[other.inside] = max(heights.get(other.inside, 0), heights.get(other, 0) + 1)
    stages = [other for other in same if other.inside is outer and heights.get(other, 0) >= STAGE]
    earlier = [other for other in calls[: outer.before] if other in same]
    return (stages or earlier or [call])[-1]


# Places as shares of an image's height and width, evenly over it (Roberts' sequence), and what share of the other cells
# one must beat when its own pixels change; in maps of a few cells all see the whole image.
PROBES = tuple(((0.5 + 0.7549 * i) % 1, (0.5 + 0.5698 * i) % 1) for i in range(16))
LOCAL, FEW = {False: 0.7, True: 0.5}, 16


@torch.no_grad()
def follows_places(anatomy: Anatomy, images: Tensor, layer: Layer) -> bool:
    """Whether a layer's cells lie where reading order has them: when the pixels of a cell change, its features must
    change more than those of most others, in the mean over PROBES. In a network that sorts its tokens by window they do
    not (Hiera: less than half of the cells), in others they do (93 % or more, in 40 networks of random weights).
    """
    draw = torch.Generator().manual_seed(0)
    copies = (
        torch.randn((1, *images.shape[1:]), generator=draw, device="cpu").to(images).repeat(1 + len(PROBES), 1, 1, 1)
    )
    with layer.recorded() as recorded:
        anatomy.logits(copies[:1])
    rows, columns = layer.as_map(recorded[0], anatomy.grid(images)).shape[-2:]
    height, width = images.shape[-2:]
    places = [(int(y * rows), int(x * columns)) for y, x in PROBES]
    for copy, (row, column) in zip(copies[1:], places, strict=True):
        top, bottom = row * height // rows, (row + 1) * height // rows
        left, right = column * width // columns, (column + 1) * width // columns
        copy[:, top:bottom, left:right] *= -2
    with layer.recorded() as recorded:
        anatomy.logits(copies)
    features = layer.as_map(recorded[0], anatomy.grid(images))
    change = (features[1:] - features[:1]).norm(dim=1).flatten(1)
    own = change.gather(1, torch.tensor([[row * columns + column] for row, column in places], device=change.device))
    beaten = (change < own).sum(dim=1) / (rows * columns - 1)
    return float(beaten.mean()) >= LOCAL[rows * columns < FEW]
