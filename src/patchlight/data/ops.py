"""The operations of RandAugment, AutoAugment and TrivialAugment on whole batches, each image with its own magnitude.

They equal torchvision's tensor operations (nearest interpolation, black outside) pixel for pixel. OPS, at the end, is
their table: to add one, write its function and its row.

Shapes: B batch, C channels (1 or 3), H, W. Images are uint8 (B, C, H, W) on any device; magnitudes are (B,) on the
CPU, in torchvision's units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.machine.device import move

Function = TypeVar("Function")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Magnitudes:
    """The strengths of an operation, evenly spaced over the bins that a policy draws from.

    Bin 0 has `first`, the last bin `narrow`, or `wide` in TrivialAugment's wide space. With `share_of`, `narrow` is a
    share of that side of the image, and the magnitude a number of pixels.
    """

    first: float
    narrow: float
    wide: float
    signed: bool = True  # a policy gives half of the images the negative magnitude
    whole: bool = False  # rounded to whole numbers
    share_of: Literal["width", "height"] | None = None

    def values(self, wide: bool, bins: int, height: int, width: int) -> Tensor:
        """The magnitude of each bin, without sign: (bins,) float32, for images of `height` x `width` pixels."""
        last = self.wide if wide else self.narrow
        if self.share_of is not None and not wide:
            last *= width if self.share_of == "width" else height
        if self.whole:
            return self.first - (torch.arange(bins) / ((bins - 1) / (self.first - last))).round()
        return torch.linspace(self.first, last, bins)


@dataclass(frozen=True)
class Operation(Generic[Function]):
    """A row of OPS: all that is known of an operation.

    `family` runs the operations that share their work, on images of several of them in one call; it is given the
    `function` of each image, those of one operation next to each other. A family's docstring says what function it
    takes.
    """

    function: Function
    family: Callable[[Tensor, Sequence[Function], Tensor], Tensor]
    magnitudes: Magnitudes | None = None
    drawn: bool = True  # by RandAugment and TrivialAugment

    def __call__(self, images: Tensor, magnitude: Tensor) -> Tensor:
        """The operation on each of `images` with its own `magnitude` (B,), which some ignore; new images."""
        return self.family(images, [self.function] * len(images), magnitude)


def runs(values: Sequence[Value]) -> Iterator[tuple[Value, slice]]:
    """Each value with the slice in which it stands, where equal values stand next to each other."""
    start = 0
    for value, group in groupby(values):
        stop = start + sum(1 for _ in group)
        yield value, slice(start, stop)
        start = stop


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """(B,) values as (B, 1, 1, 1) on the images' device, without waiting for it."""
    return move(values, images.device).view(-1, 1, 1, 1)


# --- warps: for each pixel the place it comes from, and one gather ---

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
Warp = Callable[[float, int, int], Matrix]
CACHED_PIXELS = 128 * 128  # the places of larger images would fill the memory


def warp(images: Tensor, matrices: Sequence[Warp], magnitude: Tensor) -> Tensor:
    """The family of affine maps: each output pixel is the nearest pixel of its image, and 0 from outside.

    A function takes (magnitude, height, width) and returns the 2 x 3 matrix that maps output to input positions, in
    pixels from the centre. It is computed in Python's floats, as torchvision does, because the last bit can matter.
    """
    h, w = images.shape[2:]
    drawn = list(zip(matrices, magnitude.tolist(), strict=True))
    if h * w <= CACHED_PIXELS:
        places = torch.cat([_known_places(matrix, strength, h, w, images.device) for matrix, strength in drawn])
    else:
        places = _places([matrix(strength, h, w) for matrix, strength in drawn], h, w, images.device)
    planes = F.pad(images, (1, 1, 1, 1)).flatten(2)
    return planes.gather(2, places[:, None].expand(-1, images.shape[1], -1)).view_as(images)


@lru_cache(maxsize=512)
def _known_places(matrix: Warp, magnitude: float, height: int, width: int, device: torch.device) -> Tensor:
    return _places([matrix(magnitude, height, width)], height, width, device)


def _places(matrices: list[Matrix], height: int, width: int, device: torch.device) -> Tensor:
    """Where each output pixel comes from, (B, H * W) int64, in an image with a frame of one black pixel, which stands
    for all that lies outside.

    The arithmetic repeats torchvision's `affine` step by step, since angles such as 30 degrees put many pixels exactly
    between two neighbours, where the last bit decides.
    """
    theta = torch.tensor(matrices) / torch.tensor([[0.5 * width], [0.5 * height]])
    theta = move(theta, device)[..., None]  # (B, 2, 3, 1)
    x = torch.arange(width, device=device) - 0.5 * (width - 1)
    y = torch.arange(height, device=device) - 0.5 * (height - 1)
    # A matrix product in float32 fuses the second product with its addition: one rounding, which float64 imitates.
    from_x, from_y = (theta[:, :, 0] * x).double(), theta[:, :, 1].double() * y  # (B, 2, W), (B, 2, H)
    grid = (from_x[:, :, None, :] + from_y[..., None]).float() + theta[:, :, 2:]  # the image spans -1..1
    column = grid[:, 0].add(1).mul_(0.5 * width).sub_(0.5).round_().clamp_(-1, width)
    row = grid[:, 1].add(1).mul_(0.5 * height).sub_(0.5).round_().clamp_(-1, height)
    return row.add_(1).mul_(width + 2).add_(column).add_(1).long().flatten(1)


def shear_x(magnitude: float, height: int, width: int) -> Matrix:
    """Shift each row by `magnitude` times its distance from the top."""
    x, y = -0.5 * width, -0.5 * height  # the top left corner stays
    slope = math.tan(_shear_angle(magnitude))
    return (1.0, slope, (-x + slope * -y) + x), (0.0, 1.0, 0.0)


def shear_y(magnitude: float, height: int, width: int) -> Matrix:
    """Shift each column by `magnitude` times its distance from the left."""
    x, y = -0.5 * width, -0.5 * height
    angle = _shear_angle(magnitude)
    slope = math.sin(angle) / math.cos(angle)
    return (1.0, 0.0, 0.0), (slope, 1.0, (slope * -x + -y) + y)


def _shear_angle(magnitude: float) -> float:
    """In radians, by way of degrees, as torchvision has it."""
    return math.radians(math.degrees(math.atan(magnitude)))


def translate_x(magnitude: float, height: int, width: int) -> Matrix:
    """Shift to the right by `magnitude` pixels, cut to a whole number."""
    return (1.0, 0.0, float(-int(magnitude))), (0.0, 1.0, 0.0)


def translate_y(magnitude: float, height: int, width: int) -> Matrix:
    """Shift down by `magnitude` pixels, cut to a whole number."""
    return (1.0, 0.0, 0.0), (0.0, 1.0, float(-int(magnitude)))


def rotate(magnitude: float, height: int, width: int) -> Matrix:
    """Turn counter-clockwise by `magnitude` degrees about the centre."""
    angle = math.radians(-magnitude)
    return (math.cos(angle), math.sin(angle), 0.0), (-math.sin(angle), math.cos(angle), 0.0)


# --- blends: towards a plainer image, or away from it ---

Plainer = Callable[[Tensor], Tensor | None]


def blend(images: Tensor, plainer: Sequence[Plainer], magnitude: Tensor) -> Tensor:
    """The family of blends: image * (1 + magnitude) - plainer image * magnitude, cut to 0..255; magnitudes are -1..1.

    A function takes float32 pixels (B, C, H, W), 0..255, and returns the plainer images, of a shape that expands to
    theirs, or None where the operation leaves such images as they are.
    """
    pixels = images.float()
    plain = torch.empty_like(pixels)
    unchanged = []
    for function, part in runs(plainer):
        made = function(pixels[part])
        if made is None:
            unchanged.append(part)
            made = pixels[part]
        plain[part] = made
    keep = 1.0 + magnitude.double()  # rounded to float32 once, after the subtraction below, as torchvision does
    result = pixels * _per_image(keep.float(), pixels)
    result += plain.mul_(_per_image((1.0 - keep).float(), pixels))
    result = result.clamp_(0, 255).to(torch.uint8)
    for part in unchanged:
        result[part] = images[part]
    return result


def black(pixels: Tensor) -> Tensor:
    """Brightness is multiplied by 1 + magnitude."""
    return pixels.new_zeros(())


def gray(pixels: Tensor) -> Tensor | None:
    """Colours are moved away from the gray image; -1 is gray. One channel stays as it is."""
    return None if pixels.shape[1] == 1 else _luma(pixels)


def mean_gray(pixels: Tensor) -> Tensor:
    """Contrast is the distance from the image's mean gray; -1 is flat."""
    return _luma(pixels).mean(dim=(1, 2, 3), keepdim=True)


def smooth(pixels: Tensor) -> Tensor | None:
    """Sharpness is the distance from a 3 x 3 smoothing (centre 5, neighbours 1); -1 is the smoothed image.

    The outermost pixels are not smoothed; images that have no others stay as they are.
    """
    b, c, h, w = pixels.shape
    if min(h, w) <= 2:
        return None
    # Sums over whole flat planes run faster than over rows; those that wrap around a border are not used.
    flat = pixels.reshape(b * c, h * w)
    rows = flat[:, : -2 * w] + flat[:, w:-w] + flat[:, 2 * w :]
    total = rows[:, :-2].add(rows[:, 1:-1]).add_(rows[:, 2:])
    total.add_(flat[:, w + 1 : -w - 1], alpha=4)
    smoothed = pixels.clone()
    inner = F.pad(total.div_(13).round_(), (0, 2)).view(b, c, h - 2, w)  # over 13, nothing is half-way: no ties
    smoothed[..., 1:-1, 1:-1] = inner[..., :-2]
    return smoothed


def _luma(pixels: Tensor) -> Tensor:
    """The gray image (B, 1, H, W), whole numbers in float32."""
    if pixels.shape[1] == 1:
        return pixels
    r, g, b = pixels.split(1, dim=1)
    return (0.2989 * r + 0.587 * g + 0.114 * b).floor_()


# --- operations that share no work with others ---

PerImage = Callable[[Tensor, Tensor], Tensor]


def one_by_one(images: Tensor, functions: Sequence[PerImage], magnitude: Tensor) -> Tensor:
    """The family of all others: a function takes uint8 images and their magnitudes and returns new images."""
    parts = [function(images[part], magnitude[part]) for function, part in runs(functions)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def posterize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Keep the `magnitude` (0..8) highest bits."""
    bits = magnitude.to(torch.int64)
    mask = (torch.full_like(bits, 255) << (8 - bits)) & 255
    return images & _per_image(mask.to(torch.uint8), images)


def solarize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Invert the values that are at least `magnitude` (0..255)."""
    threshold = _per_image(magnitude.ceil().to(torch.uint8), images)
    return images ^ (images >= threshold).to(torch.uint8).mul_(255)


def invert(images: Tensor, magnitude: Tensor) -> Tensor:
    """255 minus each value; has no magnitude."""
    return ~images


def identity(images: Tensor, magnitude: Tensor) -> Tensor:
    """The images themselves; has no magnitude."""
    return images


def autocontrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a constant channel stays as it is. Has no magnitude."""
    low = images.amin(dim=(2, 3), keepdim=True).float()
    high = images.amax(dim=(2, 3), keepdim=True).float()
    constant = high == low
    scale = torch.where(constant, 1.0, 255.0 / (high - low))
    low = torch.where(constant, 0.0, low)
    return images.float().sub_(low).mul_(scale).clamp_(0, 255).to(torch.uint8)


def equalize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Spread each channel's histogram evenly (Pillow's rule). Has no magnitude."""
    planes = images.flatten(2).flatten(0, 1)
    values = planes.long()
    counts = torch.zeros(len(planes), 256, device=images.device)
    counts.scatter_add_(1, values, torch.ones(values.shape, device=images.device))
    # All but the brightest value share the 255 steps. (float32 counts exactly to 2^24 pixels.)
    brightest = planes.amax(dim=1, keepdim=True).long()
    step = (planes.shape[1] - counts.gather(1, brightest)).div_(255).floor_()
    below = counts.int().cumsum(1, dtype=torch.int32) - counts  # of floats, a GPU's cumsum is not deterministic
    table = below.add_((step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(0, 255)
    table = torch.where(step == 0, torch.arange(256.0, device=images.device), table).to(torch.uint8)
    return table.gather(1, values).view_as(images)


OPS: dict[str, Operation[Any]] = {
    "Identity": Operation(identity, one_by_one),
    "ShearX": Operation(shear_x, warp, Magnitudes(0.0, 0.3, 0.99)),
    "ShearY": Operation(shear_y, warp, Magnitudes(0.0, 0.3, 0.99)),
    "TranslateX": Operation(translate_x, warp, Magnitudes(0.0, 150.0 / 331.0, 32.0, share_of="width")),
    "TranslateY": Operation(translate_y, warp, Magnitudes(0.0, 150.0 / 331.0, 32.0, share_of="height")),
    "Rotate": Operation(rotate, warp, Magnitudes(0.0, 30.0, 135.0)),
    "Brightness": Operation(black, blend, Magnitudes(0.0, 0.9, 0.99)),
    "Color": Operation(gray, blend, Magnitudes(0.0, 0.9, 0.99)),
    "Contrast": Operation(mean_gray, blend, Magnitudes(0.0, 0.9, 0.99)),
    "Sharpness": Operation(smooth, blend, Magnitudes(0.0, 0.9, 0.99)),
    "Posterize": Operation(posterize, one_by_one, Magnitudes(8.0, 4.0, 2.0, signed=False, whole=True)),
    "Solarize": Operation(solarize, one_by_one, Magnitudes(255.0, 0.0, 0.0, signed=False)),
    "AutoContrast": Operation(autocontrast, one_by_one),
    "Equalize": Operation(equalize, one_by_one),
    "Invert": Operation(invert, one_by_one, drawn=False),  # AutoAugment alone has it
}
