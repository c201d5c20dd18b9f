"""What `patchlight explain` computes about images, a few at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from vits import ours

from patchlight.analysis.embeddings import embedded
from patchlight.analysis.subject import Subject, TokenMaps, token_maps
from patchlight.explanation import cells
from patchlight.models.anatomy import dissect
from patchlight.models.card import ModelCard, ModelSpec


def subject_of(model: torch.nn.Module) -> Subject:
    names = tuple(f"class{i}" for i in range(5))
    card = ModelCard("vit", ModelSpec("patchlight", "vit", {}, 16, 5), names, (0.5,) * 3, (0.25,) * 3)
    pixels = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Subject.of(dissect(model.float()), card, pixels, None)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_batches_change_nothing(monkeypatch, batch):
    """Not even where the blank image, by which positions are measured, is alone in the last."""
    model = ours(reg_tokens=2)
    whole = subject_of(model)
    together, tokens = token_maps(whole.anatomy, whole), embedded(whole.anatomy, whole.inputs)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    monkeypatch.setattr(cells, "BATCH", batch)
    parts = subject_of(model)
    torch.testing.assert_close(parts.probs, whole.probs)
    apart, again = token_maps(parts.anatomy, parts), embedded(parts.anatomy, parts.inputs)
    assert max(seen) == batch
    for field in dataclasses.fields(TokenMaps):
        one, other = getattr(together, field.name), getattr(apart, field.name)
        np.testing.assert_allclose(
            one.astype(float), other.astype(float), rtol=1e-4, atol=1 if one.dtype == "u1" else 1e-5
        )
    for name in ("patches", "tokens", "positions"):
        torch.testing.assert_close(getattr(again, name), getattr(tokens, name))
    assert again.about == tokens.about
