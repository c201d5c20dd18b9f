"""All methods of explanation in one table, and the one call that uses it.

Shapes: B batch, K classes, (h, w) pixels, (r, c) cells of an image: patches or, where a network has none, equal parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from patchlight.config import DEFAULT_METHOD
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.explanation import attention, cams, perturbation, relevance
from patchlight.explanation.capture import as_found
from patchlight.explanation.cells import batch_size, cells_of
from patchlight.explanation.features import layer_about
from patchlight.explanation.inputs import check_images, check_weights, first_pass
from patchlight.explanation.options import call_text, check_options, options_of, read_call, typed_options
from patchlight.explanation.targets import (
    ClassTarget,
    Difference,
    Similarity,
    Target,
    Wanted,
    probabilities,
    resolve_target,
)
from patchlight.models.anatomy import Anatomy, VitAnatomy, dissect
from patchlight.units import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREATEST = 1 - 1e-5  # a cosine that is 1 but for rounding


@dataclass(frozen=True)
class Method:
    """`run(anatomy, images, target, **options)` -> maps (B, r, c), or (B, h, w) where `on_pixels`."""

    run: Callable[..., Tensor]
    about: str  # true with any options
    by_class: bool  # False: blind to the class, the same map for every target
    attention: bool = False  # whether it reads attention, which a VitAnatomy alone has
    on_pixels: bool = False
    signed: bool = False  # values below 0 speak against the target, and 0 says nothing
    slope: bool = False  # takes the gradient at the image itself, which is 0 where the score is at its greatest
    on_layer: bool = False  # reads a layer of features, by the option `layer`
    even: bool = False  # has the same map for a score and for its opposite, as the size of a gradient has


METHODS: dict[str, Method] = {
    "attention": Method(attention.attention, "attention of the pooled token in one layer", False, attention=True),
    "rollout": Method(attention.rollout, "attention multiplied through all layers", False, attention=True),
    "scaled-rollout": Method(
        relevance.scaled_rollout,
        "rollout of attention times its gradient, rows scaled so that each layer mixes as much as it keeps",
        True,
        attention=True,
        slope=True,
    ),
    "grad-rollout": Method(
        relevance.grad_rollout, "rollout of attention times its gradient", True, attention=True, slope=True
    ),
    "chefer": Method(
        relevance.chefer, "relevance passed through attention, by its gradient", True, attention=True, slope=True
    ),
    "legrad": Method(relevance.legrad, "gradient by attention, of the layers' own decisions", True, attention=True),
    "gradcam": Method(
        cams.gradcam, "features of a layer, weighed by their mean gradient", True, slope=True, on_layer=True
    ),
    "hirescam": Method(
        cams.hirescam, "features of a layer times their gradient", True, signed=True, slope=True, on_layer=True
    ),
    "layercam": Method(
        cams.layercam, "features of a layer times their positive gradient", True, slope=True, on_layer=True
    ),
    "integrated-gradients": Method(
        relevance.integrated_gradients,
        "gradient by pixels, from the mean colour on",
        True,
        on_pixels=True,
        signed=True,
    ),
    "smoothgrad": Method(
        relevance.smoothgrad, "size of the gradient by pixels, mean of noisy copies", True, on_pixels=True, even=True
    ),
    "occlusion": Method(perturbation.occlusion, "fall of the score when a patch is painted over", True, signed=True),
    "random": Method(perturbation.random, "control: random numbers", False),
    "centre": Method(perturbation.centre, "control: the middle of the image", False),
}
CONTROLS = ("random", "centre")
DEFAULT_ELSEWHERE = "gradcam"  # of networks without attention that can be seen


@dataclass(frozen=True)
class Explanation:
    """Maps of `method` for `target`, with what the model made of the images."""

    method: str
    options: Mapping[str, Any] = field(kw_only=True)
    maps: Tensor  # (B, r, c): higher is more evidence; only order and relative size mean something
    pixel_maps: Tensor  # (B, h, w)
    target: Target
    probs: Tensor  # (B, K); of a model without a head its features (B, D)
    strength: Tensor  # (B,) the target's probability, or the cosine of a Similarity
    images: Tensor  # (B, 3, h, w), as they were given
    layer: str | None = None  # which features the method read, as in "layer4, 4 x 4 cells"
    # The share of the images' height and width that `native` maps cover: below 1 where pixels at the right and below
    # are in no patch, above 1 where the network fills images up.
    covered: tuple[float, float] = (1.0, 1.0)

    @property
    def targets(self) -> Tensor:
        """(B,) class indices. Raises UsageError where the target is no class."""
        if not isinstance(self.target, ClassTarget):
            raise UsageError(f"the target of these maps is a {type(self.target).__name__}, not a class")
        return self.target.indices

    @property
    def by_class(self) -> bool:
        """False where the method is blind to the class."""
        return METHODS[self.method].by_class

    @property
    def signed(self) -> bool:
        """Whether values below 0 speak against the target, and 0 says nothing."""
        return is_signed(METHODS[self.method], self.target)

    @property
    def native(self) -> Tensor:
        """The maps as the method makes them: (B, h, w) of one on pixels, else (B, r, c)."""
        return self.pixel_maps if METHODS[self.method].on_pixels else self.maps

    @property
    def about(self) -> str:
        """What the method computes, with all its options: "... (heads=mean, layer=-1)"."""
        method = METHODS[self.method]
        options = ", ".join(f"{name}={value}" for name, value in (options_of(method.run) | dict(self.options)).items())
        return f"{method.about} ({options})" if options else method.about

    @property
    def call(self) -> str:
        """The method with its options, as `--method` takes it."""
        return call_text(self.method, self.options)

    def plot(self) -> Figure:
        """Images above their maps, with the target's probability. Pixels are stretched to 0..255 per image."""
        from patchlight.figures.boards import MapRow, maps_board

        count = self.images.shape[1]
        if count not in (1, 3):
            raise UsageError(
                f"images of {count} channels have no picture; draw `native`, the maps, beside one of yours"
            )
        low, high = self.images.amin(dim=(1, 2, 3), keepdim=True), self.images.amax(dim=(1, 2, 3), keepdim=True)
        pixels = 255 * (self.images - low) / (high - low).clamp(min=1e-12)
        pictures = pixels.round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        row = MapRow(
            self.call,
            self.native.float().cpu().numpy(),
            self.signed,
            crisp=METHODS[self.method].on_pixels,
            covered=self.covered,
        )
        captions = [f"map for {words}" for words in _words(self.target, self.strength.tolist())]
        return maps_board(pictures, captions, [row], self.call)


def _words(target: Target, strengths: list[float]) -> list[str]:
    """What each map is about, with its probability or, of features, its cosine."""
    if isinstance(target, ClassTarget):
        return [f"class {i}, {percent(p)}" for i, p in zip(target.indices.tolist(), strengths, strict=True)]
    if isinstance(target, Difference):
        pairs = zip(target.indices.tolist(), target.others.tolist(), strengths, strict=True)
        return [f"class {one}, not {other}, {percent(p)}" for one, other, p in pairs]
    return [f"likeness, cosine {p:.2f}" for p in strengths]


def explain(
    model: nn.Module | Anatomy,
    images: Tensor,
    *,
    method: str | None = None,
    target: Wanted = "predicted",
    normalized: bool | None = None,
    **options: Any,
) -> Explanation:
    """Where in `images` a network sees the evidence for a class, or for another target.

    `model`: any image classifier or backbone; methods that read attention take ViTs of Patchlight, timm and Hugging
    Face. `images`: (B, 3, h, w), normalised as the model was trained. `method`: a row of METHODS, with its `options` as
    arguments or in words, "rollout:heads=max,discard=0.9"; None is `default_method`. `target`: "predicted", a class
    index for all, one per image (B,), or a Target: `Difference` of two classes, `Similarity` to features.

    The model is put in eval mode for the time of the call and given back as it was. Raises UsageError for an unknown
    method, option or target, and for images that are not normalised: that are not finite, go far beyond what a
    normalised pixel can be, or lie in 0 to 1 (`normalized=True` says that this is meant). Raises PatchlightError for a
    model that the method cannot explain, or that does not take images of this size.
    """
    check_images(model.model if isinstance(model, Anatomy) else model, images, normalized)
    return explain_inputs(model, images, method=method, target=target, **options)


def explain_inputs(
    model: nn.Module | Anatomy,
    images: Tensor,
    *,
    method: str | None = None,
    target: Wanted = "predicted",
    **options: Any,
) -> Explanation:
    """`explain` of images that are known to be normalised."""
    anatomy = model if isinstance(model, Anatomy) else dissect(model)
    name, chosen, options = find_call(method or default_method(anatomy), options)
    check_applies(name, anatomy)
    check_weights(anatomy.model)
    with as_found(anatomy.model):
        images = images.clone() if images.is_inference() else images
        size = batch_size(anatomy, images)
        outputs = first_pass(anatomy, images, size)
        goal = resolve_target(target, outputs, anatomy.has_head)
        strength = _strength(anatomy, images, goal, outputs, size)
        if chosen.slope and isinstance(goal, Similarity) and bool((found := strength > GREATEST).any()):
            raise UsageError(
                f"image {int(found.nonzero()[0])} is what it is compared with: no change makes it more alike, so "
                f"{name} has no gradient to go by; take integrated-gradients, smoothgrad or occlusion, or another image"
            )
        parts = zip(images.split(size), goal.split(size), strict=True)
        found = torch.cat([run_method(chosen, anatomy, part, some, **options) for part, some in parts]).detach()
        cells = cells_of(anatomy, images)
        layer = layer_about(anatomy, images, goal, options.get("layer", -1)) if chosen.on_layer else None
    return Explanation(
        method=name,
        options=options,
        maps=cells.pool(found) if chosen.on_pixels else found,
        pixel_maps=found if chosen.on_pixels else cells.enlarge(found),
        target=goal,
        probs=probabilities(outputs) if anatomy.has_head else outputs.float(),
        strength=strength,
        images=images,
        layer=layer,
        covered=(1.0, 1.0) if chosen.on_pixels else cells.covered,
    )


def _strength(anatomy: Anatomy, images: Tensor, goal: Target, outputs: Tensor, size: int) -> Tensor:
    """(B,): of classes by the outputs that are known, of another target by what it reads itself."""
    if isinstance(goal, ClassTarget | Difference):
        return goal.strength(outputs)
    strengths = []
    with torch.no_grad():
        for part, some in zip(images.split(size), goal.split(size), strict=True):
            strengths.append(some.strength(some.outputs(anatomy, lambda part=part: anatomy.logits(part))))  # type: ignore[misc]
    return torch.cat(strengths)


def run_method(method: Method, anatomy: Anatomy, images: Tensor, target: Target, **options: Any) -> Tensor:
    """The method's maps. Of a Difference by a method that has no sign, the evidence for the one class over the other,
    less that for the other over the one; of one that cannot tell these two apart, where it says that they differ.
    """
    maps = method.run(anatomy, images, target, **options)
    if isinstance(target, Difference) and is_signed(method, target) and not method.signed:
        maps = maps - method.run(anatomy, images, Difference(target.others, target.indices), **options)
    return maps.detach()


def is_signed(method: Method, target: Target) -> bool:
    return method.signed or (method.by_class and not method.even and isinstance(target, Difference))


def maps_of(method: Method, anatomy: Anatomy, images: Tensor, target: Target, **options: Any) -> Tensor:
    """The method's maps on the cells, (B, r, c)."""
    maps = run_method(method, anatomy, images, target, **options)
    return cells_of(anatomy, images).pool(maps) if method.on_pixels else maps


def default_method(anatomy: Anatomy) -> str:
    """Of a ViT whose attention can be seen DEFAULT_METHOD, of other networks DEFAULT_ELSEWHERE."""
    return DEFAULT_METHOD if isinstance(anatomy, VitAnatomy) else DEFAULT_ELSEWHERE


def methods_for(anatomy: Anatomy) -> list[str]:
    """The methods that can explain a network, in the table's order."""
    return [name for name, method in METHODS.items() if isinstance(anatomy, VitAnatomy) or not method.attention]


def find_method(name: str) -> Method:
    if name not in METHODS:
        raise UsageError(f"no method '{name}'; {did_you_mean(name, METHODS)}")
    return METHODS[name]


def find_call(word: str, options: Mapping[str, Any] | None = None) -> tuple[str, Method, dict[str, Any]]:
    """A method's name, row and options, of "NAME" or "NAME:OPTION=VALUE,..." and further `options`.

    Raises UsageError for an unknown method or option, a value of another type, or an option that is given twice.
    """
    name, written = read_call(word)
    method, given = find_method(name), dict(options or {})
    if twice := sorted(set(written) & set(given)):
        raise UsageError(f"{twice[0]} is given in '{word}' and as an argument; leave one out")
    return name, method, typed_options(name, written, method.run) | check_options(name, given, method.run)


def check_applies(name: str, anatomy: Anatomy) -> None:
    """Raises PatchlightError where the method reads attention, and the network has none that can be seen."""
    if METHODS[name].attention and not isinstance(anatomy, VitAnatomy):
        others = ", ".join(other for other in methods_for(anatomy) if other not in CONTROLS)
        raise PatchlightError(f"{name} reads attention, and {anatomy.no_attention}; these need no attention: {others}")
