"""The names of a network's parts: of its modules, and the keys of its state dict."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn


class Names:
    """Looked up once, so that a structure is made in a few milliseconds."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._tensors: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self._words = {key: frozenset(key.split(".")) for key in self._tensors}

    def of(self, module: nn.Module) -> str:
        """The name of a module inside the model."""
        return self._modules[id(module)]

    def keys_of(self, *parts: nn.Module | Tensor | None) -> frozenset[str]:
        """The keys of all parameters and saved buffers of these parts; parts that are None have none."""
        wanted: set[int] = set()
        for part in parts:
            if isinstance(part, nn.Module):
                wanted |= {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
            elif part is not None:
                wanted.add(id(part))
        return frozenset(key for key, tensor in self._tensors.items() if id(tensor) in wanted)

    def keys_with(self, words: Collection[str]) -> frozenset[str]:
        """The keys that have one of these words between their dots."""
        return frozenset(key for key, own in self._words.items() if not own.isdisjoint(words))

    def keys_ending(self, ending: str) -> frozenset[str]:
        return frozenset(key for key in self._tensors if key.endswith(ending))

    def keys_inside(self, parts: Collection[str], apart: Collection[str]) -> frozenset[str]:
        """The keys inside a part of one of these names, but for those with one of the words `apart`."""
        inside = (key for key in self.keys_with(parts) - self.keys_with(apart))
        return frozenset(key for key in inside if not set(key.split(".")[:-1]).isdisjoint(parts))

    def matrices_of(self, *parts: nn.Module) -> frozenset[str]:
        """The keys of the parameters with two dimensions inside these parts."""
        return frozenset(key for key in self.keys_of(*parts) if is_matrix(self._tensors[key]))

    def has_part(self, names: Collection[str]) -> bool:
        """Whether a module or tensor has one of these names."""
        last = {name.rpartition(".")[2] for name in (*self._modules.values(), *self._tensors)}
        return not last.isdisjoint(names)


def gives_features(head: nn.Module) -> bool:
    """Whether the last map of a head was taken out, by an identity in its place or by nothing."""
    if isinstance(head, nn.Sequential):
        parts = list(head)
        if not parts or (isinstance(parts[-1], nn.Identity) and not isinstance([head, *parts][-2], nn.Linear)):
            return True
    return _has_identity(head) and not _has_matrix(head)


def is_headless(model: nn.Module, heads: Collection[str]) -> bool:
    """Whether the parts of these names, of which a model's classes come, give features."""
    found = [part for name in heads if isinstance(part := getattr(model, name, None), nn.Module)]
    featured = [part for part in found if gives_features(part)]
    return bool(featured) and not any(_has_matrix(part) for part in found if part not in featured)


def _has_identity(part: nn.Module) -> bool:
    return any(isinstance(module, nn.Identity) for module in part.modules())


def _has_matrix(part: nn.Module) -> bool:
    return any(p.ndim > 1 for p in part.parameters())


def no_vit(model: nn.Module) -> str:
    """Why there are no maps of attention."""
    return (
        f"{type(model).__name__} is no Vision Transformer whose attention can be seen; those of Patchlight, timm's "
        "VisionTransformer and its like, and Hugging Face's ViT, DeiT, BEiT, DINOv2, CLIP and SigLIP are. gradcam, "
        "integrated-gradients, smoothgrad and occlusion explain every network"
    )


def is_matrix(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and tensor.ndim == 2
