"""The operations of RandAugment, AutoAugment and TrivialAugment on whole batches, each image with its own magnitude.

They equal torchvision's tensor operations (nearest interpolation, black outside) pixel for pixel.

Shapes: B batch, C channels (1 or 3), H, W. Images are uint8 (B, C, H, W) on any device; magnitudes are (B,) on the
CPU, in torchvision's units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Op = Callable[[Tensor, Tensor], Tensor]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """(B,) values as (B, 1, 1, 1) on the images' device, without waiting for it."""
    return values.to(images.device, non_blocking=True).view(-1, 1, 1, 1)


# --- shape: an inverse matrix for each image, and one gather ---


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample with the nearest pixel; what lies outside is 0.

    `matrices` (B, 2, 3) float32 map an output pixel (x, y, 1), counted from the image's centre, to the input. The
    arithmetic repeats torchvision's `affine` step by step, since angles such as 30 degrees put many pixels exactly
    between two neighbours, where the last bit decides.
    """
    b, c, h, w = images.shape
    device = images.device
    theta = matrices / torch.tensor([[[0.5 * w], [0.5 * h]]])
    theta = theta.to(device, non_blocking=True)
    x = torch.arange(w, device=device) - 0.5 * (w - 1)
    y = torch.arange(h, device=device) - 0.5 * (h - 1)
    # A matrix product in float32 fuses the second product with its addition: one rounding, which float64 imitates.
    # Apple's GPUs have no float64; there a pixel on a tie may take its other neighbour.
    wide = torch.float32 if device.type == "mps" else torch.float64
    from_x = (theta[:, :, 0, None] * x).to(wide)  # (B, 2, W)
    from_y = theta[:, :, 1, None].to(wide) * y  # (B, 2, H)
    grid = (from_x[:, :, None, :] + from_y[:, :, :, None]).float()  # (B, 2, H, W), the image spans -1..1
    grid += theta[:, :, 2, None, None]
    # A frame of one black pixel stands for all that lies outside. (float32 counts exactly to 2^24 pixels.)
    column = grid[:, 0].add_(1).mul_(0.5 * w).sub_(0.5).round_().clamp_(-1, w)
    row = grid[:, 1].add_(1).mul_(0.5 * h).sub_(0.5).round_().clamp_(-1, h)
    index = row.add_(1).mul_(w + 2).add_(column).add_(1).long()
    planes = F.pad(images, (1, 1, 1, 1)).reshape(b, c, (h + 2) * (w + 2))
    return planes.gather(2, index.view(b, 1, h * w).expand(b, c, h * w)).view(b, c, h, w)


@lru_cache(maxsize=4096)
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


def _affine_op(kind: str, images: Tensor, magnitude: Tensor) -> Tensor:
    h, w = images.shape[2:]
    return affine(images, torch.tensor([_matrix(kind, m, h, w) for m in magnitude.tolist()]))


def shear_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift each row by `magnitude` times its distance from the top."""
    return _affine_op("ShearX", images, magnitude)


def shear_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift each column by `magnitude` times its distance from the left."""
    return _affine_op("ShearY", images, magnitude)


def translate_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift to the right by `magnitude` pixels, cut to a whole number."""
    return _affine_op("TranslateX", images, magnitude)


def translate_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift down by `magnitude` pixels, cut to a whole number."""
    return _affine_op("TranslateY", images, magnitude)


def rotate(images: Tensor, magnitude: Tensor) -> Tensor:
    """Turn counter-clockwise by `magnitude` degrees about the centre."""
    return _affine_op("Rotate", images, magnitude)


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
    b, c, h, w = images.shape
    if min(h, w) <= 2:
        return images
    pixels = images.float()
    # Sums over whole flat planes run faster than over rows; those that wrap around a border are not used.
    flat = pixels.reshape(b * c, h * w)
    rows = flat[:, : -2 * w] + flat[:, w:-w] + flat[:, 2 * w :]
    total = rows[:, :-2].add(rows[:, 1:-1]).add_(rows[:, 2:])
    total.add_(flat[:, w + 1 : -w - 1], alpha=4)
    smooth = pixels.clone()
    inner = F.pad(total.div_(13).round_(), (0, 2)).view(b, c, h - 2, w)  # over 13, nothing is half-way: no ties
    smooth[..., 1:-1, 1:-1] = inner[..., :-2]
    return _blend(pixels, smooth, magnitude)


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
    b, c, h, w = images.shape
    planes = b * c
    slots = images.reshape(planes, h * w).long()
    slots += torch.arange(0, planes * 256, 256, device=images.device)[:, None]
    slots = slots.view(-1)
    counts = torch.zeros(planes * 256, device=images.device)
    counts = counts.scatter_add_(0, slots, torch.ones(slots.shape, device=images.device)).view(planes, 256)
    # All but the brightest value share the 255 steps. (float32 counts exactly to 2^24 pixels.)
    brightest = images.amax(dim=(2, 3)).view(planes, 1).long()
    step = (h * w - counts.gather(1, brightest)).div_(255).floor_()
    below = counts.int().cumsum(1, dtype=torch.int32) - counts  # of floats, a GPU's cumsum is not deterministic
    table = below.add_((step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(0, 255)
    table = torch.where(step == 0, torch.arange(256.0, device=images.device), table).to(torch.uint8)
    return table.view(-1).index_select(0, slots).view(b, c, h, w)


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

# RandAugment and TrivialAugment draw from all but the last.
