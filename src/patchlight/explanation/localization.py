"""Does a map lie where people say that the object is? Maps against masks that people drew, one number for each image.

This asks whether a map agrees with people, not whether it is faithful to the model: a model that looks at the
background has a right map outside of the mask. `faithfulness` asks the other question.

Beside each number stands its chance level: what pixels get that are drawn at random, without regard to their place.
Photographs have their subject in the middle, so the controls `random` and `centre` of METHODS are what a method has to
beat.

Maps are taken by their positive part, which is the evidence for the class. A map without any says nothing, and gets the
chance level, as a map that is the same everywhere does. Of an empty mask, or of one that is the whole image, there is
nothing to find: both numbers are NaN.

Shapes: B images, (h, w) pixels, N = h w. Maps are (B, h, w), masks (B, h, w) bool. All is computed on the CPU in
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from patchlight.errors import UsageError, did_you_mean
from patchlight.units import counted


class Scored(NamedTuple):
    """A number for each image, and what chance gives there. NaN where there is nothing to find."""

    values: Tensor  # (B,) in 0..1
    chance: Tensor  # (B,) in 0..1

    def means(self) -> tuple[float, float, int]:
        """Mean value and mean chance level, and of how many images; NaN of none."""
        known = ~self.values.isnan()
        return float(self.values.nanmean()), float(self.chance.nanmean()), int(known.sum())


def check_tolerance(tolerance: float) -> None:
    """Raises UsageError for a negative one, or NaN."""
    if not tolerance >= 0:
        raise UsageError(f"tolerance is a distance in pixels, 0 or more, not {tolerance}")


def pointing_game(maps: Tensor, masks: Tensor, *, tolerance: float = 0) -> Scored:
    """Zhang et al. 2018 (Excitation Backprop), section 4.1: 1 where the map's greatest value lies in the mask, else 0.
    Where several are greatest, their share of hits.

    The paper counts a hit up to 15 pixels outside of the mask, on photographs of about 500 pixels. `tolerance` is that
    distance in pixels of the map, at most so far between two pixels' middles; 0, the default, allows none. Chance is
    the share of the image that counts as a hit; where that is all of it, the game cannot be lost, and there is no
    number. Raises UsageError for a negative tolerance.
    """
    values, _ = _flat(maps, masks)
    check_tolerance(tolerance)
    hit = _widened(masks, tolerance).flatten(1)
    top = values == values.amax(dim=1, keepdim=True)
    area = hit.double().mean(dim=1)
    return _where_known(masks, area, (top & hit).sum(dim=1) / top.sum(dim=1), area)


def energy_inside(maps: Tensor, masks: Tensor) -> Scored:
    """Wang et al. 2020 (Score-CAM), section 4.3, the energy-based pointing game: the share of the map's sum that lies
    in the mask (there in a bounding box). Chance is the mask's share of the image.
    """
    values, inside = _flat(maps, masks)
    area, total = inside.double().mean(dim=1), values.sum(dim=1)
    share = (values * inside).sum(dim=1) / total.where(total > 0, torch.ones_like(total))
    return _where_known(masks, area, share.where(total > 0, area), area)


def iou_at_own_area(maps: Tensor, masks: Tensor) -> Scored:
    """Intersection over union of the mask and as many of the map's greatest pixels as the mask has. No threshold is
    chosen, so maps of different methods are compared by the order of their pixels alone.

    Equal pixels of which only some are taken lie in the mask by their share. Chance, with p the mask's share of the
    image, is p / (2 - p), since random pixels of share p hit p^2.
    """
    values, inside = _flat(maps, masks)
    count = inside.sum(dim=1, keepdim=True)
    least = values.sort(dim=1, descending=True).values.gather(1, (count - 1).clamp(min=0))
    above, equal = values > least, values == least
    missing = count - above.sum(dim=1, keepdim=True)
    share = (equal & inside).sum(dim=1) / equal.sum(dim=1)
    common = (above & inside).sum(dim=1) + missing.squeeze(1) * share
    area = inside.double().mean(dim=1)
    return _where_known(masks, area, common / (2 * count.squeeze(1) - common), area / (2 - area))


def best_iou(maps: Tensor, masks: Tensor) -> Scored:
    """Intersection over union at the threshold that is best for each image: what could be reached by someone who knows
    the mask, so an upper bound. Equal pixels are taken together. The least threshold takes the whole image and gives
    the mask's share of it, below which no map falls: that stands as its chance level.
    """
    values, inside = _flat(maps, masks)
    values, order = values.sort(dim=1, descending=True)
    common = inside.gather(1, order).cumsum(dim=1).double()
    taken = torch.arange(1, values.shape[1] + 1, dtype=torch.float64, device=values.device)
    iou = common / (taken + inside.sum(dim=1, keepdim=True) - common)
    last = torch.ones_like(inside)  # of a run of equal values
    last[:, :-1] = values[:, :-1] > values[:, 1:]
    area = inside.double().mean(dim=1)
    return _where_known(masks, area, iou.where(last, torch.zeros_like(iou)).amax(dim=1), area)


def mean_iou(maps: Tensor, masks: Tensor) -> Scored:
    """The segmentation test of Chefer et al. 2021 (CVPR, section 4): pixels above the map's mean are foreground, the
    others background; the mean of the intersections over union of both. It rewards background, so it is high for small
    masks, and it depends on how a map's values are spread: it is here to be compared with published tables. Those add
    up the intersections and unions of all images before they divide, and take the negative part of a signed map, too.

    Chance is that of random pixels, as many as are above the mean.
    """
    values, inside = _flat(maps, masks)
    above = values > values.mean(dim=1, keepdim=True)
    area, taken, common = (each.sum(dim=1).double() for each in (inside, above, above & inside))
    whole = values.shape[1]

    def both(common: Tensor) -> Tensor:
        return (common / (area + taken - common) + (whole - area - taken + common) / (whole - common)) / 2

    return _where_known(masks, area / whole, both(common), both(area * taken / whole))


@dataclass(frozen=True)
class Measure:
    """`run(maps, masks)` -> Scored."""

    run: Callable[..., Scored]
    about: str


MEASURES: dict[str, Measure] = {
    "pointing": Measure(pointing_game, "greatest value inside"),
    "energy": Measure(energy_inside, "share of the map inside"),
    "iou": Measure(iou_at_own_area, "IoU of the greatest pixels, as many as the mask has"),
    "best_iou": Measure(best_iou, "IoU at the best threshold, an upper bound"),
    "mean_iou": Measure(mean_iou, "mean IoU of fore- and background at the map's mean, as in published tables"),
}
DEFAULT = ("pointing", "energy", "iou", "best_iou")


@dataclass(frozen=True)
class Localization:
    """Maps of a method against masks. `scores` by the rows of MEASURES."""

    scores: dict[str, Scored]
    left_out: tuple[int, ...]  # images whose mask is empty or the whole image
    silent: tuple[int, ...]  # others whose map has no positive value, and which get the chance level
    tolerance: float  # of the pointing game, in pixels

    def sentences(self) -> tuple[str, ...]:
        """What is not measured as the others are."""
        said = []
        if self.left_out:
            said.append(f"{counted(len(self.left_out), 'image')} left out: the mask is empty or the whole image")
        if self.silent:
            said.append(f"{counted(len(self.silent), 'map')} without any evidence for the class, counted as chance")
        if self.tolerance:
            said.append(
                f"a hit of the pointing game may lie {self.tolerance:g} pixels outside of the mask, in pixels of the "
                "model's input"
            )
        if "pointing" in self.scores:
            values = self.scores["pointing"].values
            known = int((~values.isnan()).sum())
            if found := len(values) - known - len(self.left_out):
                said.append(
                    f"pointing is of {known} of {counted(len(values), 'image')}: in {found} a hit may lie anywhere, as "
                    "the tolerance reaches all of the image"
                )
            elif known < len(values):
                said.append(f"pointing is of {known} of {counted(len(values), 'image')}")
        return tuple(said)


def localize(maps: Tensor, masks: Tensor, *, measures: Iterable[str] = DEFAULT, tolerance: float = 0) -> Localization:
    """Every measure of maps (B, h, w) on pixels, as `Explanation.pixel_maps` are, against masks (B, h, w) bool.

    `tolerance` is for the pointing game. Raises UsageError for an unknown measure, for shapes that differ, for masks
    that are not bool and for maps with values that are no finite numbers.
    """
    names = list(dict.fromkeys(measures))
    for name in names:
        if name not in MEASURES:
            raise UsageError(f"no measure '{name}'; {did_you_mean(name, MEASURES)}")
    values, _ = _flat(maps, masks)
    known = _known(masks)
    silent = known & (values.amax(dim=1) <= 0)
    scores = {
        name: MEASURES[name].run(maps, masks, **({"tolerance": tolerance} if name == "pointing" else {}))
        for name in names
    }
    return Localization(
        scores,
        left_out=tuple((~known).nonzero().flatten().tolist()),
        silent=tuple(silent.nonzero().flatten().tolist()),
        tolerance=tolerance if "pointing" in names else 0,
    )


def _flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The maps' positive parts, scaled to a maximum of 1, and the masks, (B, N) each. Raises UsageError as `localize`
    does.
    """
    if maps.ndim != 3 or maps.shape != masks.shape or not maps.shape[1] * maps.shape[2]:
        raise UsageError(
            f"maps and masks are both (B, height, width) in pixels, not {tuple(maps.shape)} and {tuple(masks.shape)}; "
            "give the maps on pixels"
        )
    if masks.dtype != torch.bool:
        raise UsageError(f"masks are bool, not {masks.dtype}; give masks > 0")
    values = maps.detach().cpu().double().flatten(1)
    if len(wrong := (~values.isfinite().all(dim=1)).nonzero().flatten()):
        raise UsageError(f"the map of image {int(wrong[0])} holds values that are no finite numbers; leave it out")
    values = values.clamp(min=0)
    top = values.amax(dim=1, keepdim=True)
    return values / top.where(top > 0, torch.ones_like(top)), masks.cpu().flatten(1)


def _known(masks: Tensor) -> Tensor:
    """(B,) whether the mask divides the image."""
    inside = masks.cpu().flatten(1)
    return inside.any(dim=1) & ~inside.all(dim=1)


def _where_known(masks: Tensor, hit: Tensor, values: Tensor, chance: Tensor) -> Scored:
    """NaN where there is nothing to find, or where `hit`, the share of the image that counts as found, is all of it."""
    known, nothing = _known(masks) & (hit < 1), torch.full_like(chance, torch.nan)
    return Scored(values.double().where(known, nothing), chance.where(known, nothing))


def _widened(masks: Tensor, tolerance: float) -> Tensor:
    """Masks, not empty, with all pixels that are at most `tolerance` pixels away from them."""
    masks = masks.cpu()
    if tolerance < 1:
        return masks
    from scipy.ndimage import distance_transform_edt  # slow to import

    near = [distance_transform_edt(~mask) <= tolerance for mask in masks.numpy()]
    return torch.from_numpy(np.stack(near)) if near else masks
