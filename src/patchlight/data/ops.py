"""The operations of RandAugment, AutoAugment and TrivialAugment on whole batches, each image with its own magnitude.

They equal torchvision's tensor operations (nearest interpolation, black outside) pixel for pixel.

Shapes: B batch, C channels (1 or 3), H, W. Images are uint8 (B, C, H, W) on any device; magnitudes are (B,) on the
CPU, in torchvision's units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.machine.device import move

Op = Callable[[Tensor, Tensor], Tensor]
CACHED_PIXELS = 128 * 128  # of larger images the places would fill the memory
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """(B,) values as (B, 1, 1, 1) on the images' device, without waiting for it."""
    return move(values, images.device).view(-1, 1, 1, 1)


# --- shape: for each pixel the place it comes from, and one gather ---


def shapes(images: Tensor, kinds: Sequence[str], magnitude: Tensor) -> Tensor:
    """ShearX, ShearY, TranslateX, TranslateY or Rotate, by the image: the nearest pixel, and 0 from outside."""
    h, w = images.shape[2:]
    drawn = list(zip(kinds, magnitude.tolist(), strict=True))
    if h * w <= CACHED_PIXELS:
        places = torch.cat([_known_places(kind, strength, h, w, images.device) for kind, strength in drawn])
    else:
        places = _places([_matrix(kind, strength, h, w) for kind, strength in drawn], h, w, images.device)
    planes = F.pad(images, (1, 1, 1, 1)).flatten(2)
    return planes.gather(2, places[:, None].expand(-1, images.shape[1], -1)).view_as(images)


@lru_cache(maxsize=512)
def _known_places(kind: str, magnitude: float, height: int, width: int, device: torch.device) -> Tensor:
    return _places([_matrix(kind, magnitude, height, width)], height, width, device)


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


def _matrix(kind: str, magnitude: float, height: int, width: int) -> Matrix:
    """The inverse map of one image, in Python's floats as torchvision computes it, for the sake of the last bit."""
    if kind == "TranslateX":
        return (1.0, 0.0, float(-int(magnitude))), (0.0, 1.0, 0.0)
    if kind == "TranslateY":
        return (1.0, 0.0, 0.0), (0.0, 1.0, float(-int(magnitude)))
    if kind == "Rotate":
        angle = math.radians(-magnitude)
        return (math.cos(angle), math.sin(angle), 0.0), (-math.sin(angle), math.cos(angle), 0.0)
    # Shears hold the top left corner.
    angle = math.radians(math.degrees(math.atan(magnitude)))
    x, y = -0.5 * width, -0.5 * height
    if kind == "ShearX":
        slope = math.tan(angle)
        return (1.0, slope, (-x + slope * -y) + x), (0.0, 1.0, 0.0)
    slope = math.sin(angle) / math.cos(angle)
    return (1.0, 0.0, 0.0), (slope, 1.0, (slope * -x + -y) + y)


def shear_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift each row by `magnitude` times its distance from the top."""
    return shapes(images, ["ShearX"] * len(images), magnitude)


def shear_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift each column by `magnitude` times its distance from the left."""
    return shapes(images, ["ShearY"] * len(images), magnitude)


def translate_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift to the right by `magnitude` pixels, cut to a whole number."""
    return shapes(images, ["TranslateX"] * len(images), magnitude)


def translate_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift down by `magnitude` pixels, cut to a whole number."""
    return shapes(images, ["TranslateY"] * len(images), magnitude)


def rotate(images: Tensor, magnitude: Tensor) -> Tensor:
    """Turn counter-clockwise by `magnitude` degrees about the centre."""
    return shapes(images, ["Rotate"] * len(images), magnitude)


# --- colour: a blend with something plainer, or away from it ---


def _blend(first: Tensor, second: Tensor | None, magnitude: Tensor) -> Tensor:
    """first * (1 + magnitude) - second * magnitude, cut to 0..255; no `second` is black."""
    share = 1.0 + magnitude.double()  # rounded to float32 once, after the subtraction below, as torchvision does
    result = first * _per_image(share.float(), first)
    if second is not None:
        result += second * _per_image((1.0 - share).float(), first)
    return result.clamp_(0, 255).to(torch.uint8)


def _gray(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W), whole numbers in float32."""
    pixels = images.float()
    if images.shape[1] == 1:
        return pixels
    r, g, b = pixels.split(1, dim=1)
    return (0.2989 * r + 0.587 * g + 0.114 * b).floor_()


def brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Multiply by 1 + `magnitude` (-1..1)."""
    return _blend(images.float(), None, magnitude)


def color(images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from the gray image by `magnitude`; -1 is gray. One channel stays as it is."""
    return images if images.shape[1] == 1 else _blend(images.float(), _gray(images), magnitude)


def contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from the image's mean gray by `magnitude`; -1 is flat."""
    return _blend(images.float(), _gray(images).mean(dim=(1, 2, 3), keepdim=True), magnitude)


def sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from a 3 x 3 smoothing by `magnitude`; -1 is the smoothed image. The outermost pixels are not smoothed."""
    if min(images.shape[2:]) <= 2:
        return images
    pixels = images.float()
    return _blend(pixels, _smooth(pixels), magnitude)


def _smooth(pixels: Tensor) -> Tensor:
    b, c, h, w = pixels.shape
    # Sums over whole flat planes run faster than over rows; those that wrap around a border are not used.
    flat = pixels.reshape(b * c, h * w)
    rows = flat[:, : -2 * w] + flat[:, w:-w] + flat[:, 2 * w :]
    total = rows[:, :-2].add(rows[:, 1:-1]).add_(rows[:, 2:])
    total.add_(flat[:, w + 1 : -w - 1], alpha=4)
    smooth = pixels.clone()
    inner = F.pad(total.div_(13).round_(), (0, 2)).view(b, c, h - 2, w)  # over 13, nothing is half-way: no ties
    smooth[..., 1:-1, 1:-1] = inner[..., :-2]
    return smooth


def blends(images: Tensor, kinds: Sequence[str], magnitude: Tensor) -> Tensor:
    """Brightness, Color, Contrast or Sharpness, by the image, in this order: one blend with what each of them needs."""
    if images.shape[1] == 1 or min(images.shape[2:]) <= 2:  # some of them leave such images as they are
        parts = ((kind, torch.tensor([k == kind for k in kinds])) for kind in dict.fromkeys(kinds))
        return torch.cat([OPS[kind](images[own], magnitude[own]) for kind, own in parts])
    pixels = images.float()
    plainer = torch.zeros_like(pixels)
    dark, gray, flat, _ = (kinds.count(kind) for kind in BLENDED)
    if gray + flat:
        luma = _gray(pixels[dark : dark + gray + flat])
        plainer[dark : dark + gray] = luma[:gray]
        plainer[dark + gray : dark + gray + flat] = luma[gray:].mean(dim=(1, 2, 3), keepdim=True)
    if dark + gray + flat < len(pixels):
        plainer[dark + gray + flat :] = _smooth(pixels[dark + gray + flat :])
    return _blend(pixels, plainer, magnitude)


# --- colour: value by value ---


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


OPS: dict[str, Op] = {
    "Identity": identity,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "Rotate": rotate,
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Invert": invert,
}

# Neighbours in OPS that share most of their work: a batch has few images of each, so that calls cost more than pixels.
SHAPED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDED = ("Brightness", "Color", "Contrast", "Sharpness")
FAMILIES: dict[tuple[str, ...], Callable[[Tensor, Sequence[str], Tensor], Tensor]] = {SHAPED: shapes, BLENDED: blends}
