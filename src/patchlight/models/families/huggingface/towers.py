"""Layout of the vision towers of CLIP and SigLIP, alone, with their last map, beside a text tower, or as classifiers.

Shapes: B batch, T tokens (CLIP's CLS token first), D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from patchlight.models.families.huggingface.attention import attention_layer, explicit, is_visible
from patchlight.models.families.huggingface.classifier import answers, inner
from patchlight.models.families.huggingface.vit import VitParts, named, vit_structure
from patchlight.models.families.names import Names
from patchlight.models.structure import Structure

# By the tower's `config.model_type`, whether it has a CLS token. Others that name their parts so may pool otherwise.
TOWERS = {
    "clip_vision_model": True,
    "metaclip_2_vision_model": True,
    "altclip_vision_model": True,
    "chinese_clip_vision_model": True,
    "siglip_vision_model": False,
}


def towers(model: nn.Module) -> Structure | None:
    """The structure of a model with a tower of TOWERS; None of another."""
    network = inner(model)
    tower: Any = getattr(network, "vision_model", network)
    if getattr(getattr(tower, "config", None), "model_type", None) not in TOWERS:
        return None
    blocks = tuple(tower.encoder.layers)
    attentions = [block.self_attn for block in blocks]
    if not blocks or not all(is_visible(attention) for attention in attentions):
        return None
    names, embeddings = Names(network), tower.embeddings
    has_cls = TOWERS[tower.config.model_type]
    positions = embeddings.position_embedding.weight
    pooling, decode, pool_weights = _output(network, tower, has_cls=has_cls)
    return vit_structure(
        model,
        VitParts(
            embeddings=(embeddings, *named(tower, ["pre_layrnorm"])),
            patch_embed=embeddings.patch_embedding,
            patch_kernel=None,
            patch_size=(embeddings.patch_size, embeddings.patch_size),
            tokens=(positions, *named(embeddings, ["class_embedding"])),
            num_prefix_tokens=int(has_cls),
            positions=positions.unsqueeze(0),
            position_prefix=int(has_cls),
            blocks=blocks,
            attentions=tuple(attention_layer(attention, names.of(attention)) for attention in attentions),
            explicit_attention=lambda: explicit(tower),
            set_fused_attn=lambda fused: tower.set_attn_implementation("sdpa" if fused else "eager"),
            last_norms=(tower.post_layernorm,),
            heads=tuple(named(network, ["classifier"])),
            pooling=pooling,
            decode=decode,
            pool_weights=pool_weights,
            logits=lambda images: _answer(network, images),
        ),
    )


def _answer(network: Any, images: Tensor) -> Tensor:
    """Logits (B, K) or, of a model without a classifier, the embedding (B, D) that texts are compared with."""
    if hasattr(network, "get_image_features"):  # both towers
        features: Tensor = network.get_image_features(pixel_values=images).pooler_output
        return features
    return answers(network, images, lambda last: last.mean(dim=1))  # the mean is of SigLIP's tower without its head


def _output(
    network: Any, tower: Any, *, has_cls: bool
) -> tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None]:
    """`pooling`, `decode` and `pool_weights` of VitAnatomy. Classifiers read the mean patch, CLIP's without a norm."""
    norm: nn.Module = tower.post_layernorm
    head: Any = getattr(tower, "head", None)
    classifier = next(iter(named(network, ["classifier"])), None)
    last: nn.Module = next(iter(named(network, ["visual_projection"])), nn.Identity())
    if classifier is not None and has_cls:
        return "avg", lambda tokens: classifier(tokens[:, 1:].mean(dim=1)), None
    if classifier is not None or (head is None and not has_cls):
        return "avg", lambda tokens: (classifier or last)(norm(tokens).mean(dim=1)), None
    if has_cls:
        return "token", lambda tokens: last(norm(tokens[:, 0])), None

    def pool_weights(tokens: Tensor) -> Tensor:
        """(B, T): how the head's own query attends to them, mean over its heads."""
        keys = norm(tokens)
        weights: Tensor = head.attention(head.probe.expand(len(keys), -1, -1), keys, keys)[1]
        return weights[:, 0]

    return "seq", lambda tokens: last(head(norm(tokens))), pool_weights
