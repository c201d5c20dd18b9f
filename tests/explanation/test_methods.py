"""Every row of METHODS on every ViT, and each against an oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vits import VITS, images_for, of_hugging_face, of_timm, ours

from patchlight import explain, record_attention
from patchlight.errors import UsageError
from patchlight.explanation import cells
from patchlight.explanation.attention import drop_smallest, roll_out
from patchlight.explanation.capture import record_outputs
from patchlight.explanation.methods import METHODS
from patchlight.explanation.targets import ClassTarget
from patchlight.models.anatomy import dissect

BLIND = [name for name, method in METHODS.items() if not method.by_class]
BY_CLASS = [name for name, method in METHODS.items() if method.by_class]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", VITS)
def test_every_method_on_every_vit(name, method):
    """Maps of the right shape that differ from patch to patch; a batch equals its single images; nothing stays."""
    model, images = VITS[name](), images_for(name)
    model.train()
    for p in model.parameters():
        p.requires_grad_(False)
    found = explain(model, images, method=method)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    grid = images.shape[-2] // 4, images.shape[-1] // 4
    assert found.maps.shape == (3, *grid)
    assert found.pixel_maps.shape == (3, *images.shape[-2:])
    assert found.maps.isfinite().all()
    assert found.maps.flatten(1).std(dim=1).min() > 0
    singles = [explain(model, image[None], method=method) for image in images]
    torch.testing.assert_close(found.maps, torch.cat([single.maps for single in singles]))
    torch.testing.assert_close(found.probs.sum(1), torch.ones(3))
    assert found.targets.tolist() == found.probs.argmax(1).tolist()


def test_many_tokens_are_explained_a_few_images_at_a_time(monkeypatch):
    model, images = ours(), images_for("")
    anatomy, sizes = dissect(model), []
    anatomy.blocks[0].register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    together = explain(anatomy, images).maps
    assert set(sizes) == {3}
    sizes.clear()
    monkeypatch.setattr(cells, "TOKENS", 2 * (anatomy.num_prefix_tokens + 16))
    torch.testing.assert_close(explain(anatomy, images).maps, together)
    assert set(sizes) == {2, 1}


@pytest.mark.parametrize("method", METHODS)
def test_another_target_changes_the_maps_of_methods_that_see_the_class(method):
    model, images = ours(), images_for("")
    one, other = (explain(model, images, method=method, target=target).maps for target in (1, 3))
    assert torch.equal(one, other) == (method in BLIND)
    mixed = explain(model, images, method=method, target=torch.tensor([1, 3, 1])).maps
    torch.testing.assert_close(mixed, torch.stack([one[0], other[1], one[2]]))


def numpy_rollout(attention: np.ndarray) -> np.ndarray:
    """Abnar and Zuidema's equation 1 for one image (L, H, T, T), written out."""
    flow = np.eye(attention.shape[-1])
    for layer in attention.mean(axis=1):
        flow = (0.5 * layer + 0.5 * np.eye(len(layer))) @ flow
    return flow


def test_rollout_by_hand():
    model, images = ours(reg_tokens=1), images_for("")
    with record_attention(model) as recorded:
        model(images)
    maps = explain(model, images, method="rollout").maps
    for matrices, found in zip(recorded.attention.numpy(), maps, strict=True):
        np.testing.assert_allclose(numpy_rollout(matrices)[0, 2:].reshape(4, 4), found)


def test_uniform_attention_rolls_out_to_uniform_patches():
    uniform = torch.full((1, 4, 5, 5), 0.2, dtype=torch.float64)
    flow = roll_out(uniform)[0]
    torch.testing.assert_close(flow.sum(1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(flow[0, 1:], flow[0, 1].expand(4))
    torch.testing.assert_close(flow[0, 0] - flow[0, 1], torch.tensor(0.5**4, dtype=torch.float64))


def test_two_layers_by_hand():
    """Token 0 reads from 1 in the second layer, which reads from 2 in the first: so a quarter comes from 2."""
    first = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]])
    second = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    flow = roll_out(torch.stack([first, second])[None])[0]
    assert flow[0].tolist() == [0.5, 0.25, 0.25]


def test_discarding_drops_the_smallest_of_the_matrix_but_the_first():
    matrix = torch.tensor([[[0.1, 0.2, 0.7], [0.4, 0.05, 0.55], [0.3, 0.6, 0.15]]])
    kept = drop_smallest(matrix, 0.5, spare_first=True)  # the least four: 0.05, 0.1, 0.15, 0.2
    torch.testing.assert_close(kept[0], torch.tensor([[0.1, 0, 0.7], [0.4, 0, 0.55], [0.3, 0.6, 0]]))
    assert drop_smallest(matrix, 0.5, spare_first=False)[0, 0, 0] == 0
    torch.testing.assert_close(roll_out(kept[:, None]).sum(-1), torch.ones(1, 3))
    model, images = ours(), images_for("")
    whole = explain(model, images, method="rollout").maps
    assert explain(model, images, method="rollout", discard=0).maps.equal(whole)
    assert not explain(model, images, method="rollout", discard=0.9).maps.equal(whole)


def test_attention_is_the_cls_row_and_heads_are_fused_as_asked():
    model, images = ours(), images_for("")
    with record_attention(model) as recorded:
        model(images)
    row = recorded.attention[:, :, :, 0, 1:].unflatten(-1, (4, 4))
    for heads, fused in (("mean", row.mean(2)), ("max", row.amax(2)), ("min", row.amin(2))):
        assert explain(model, images, method="attention", heads=heads).maps.equal(fused[:, -1])
        assert explain(model, images, method="attention", heads=heads, layer=0).maps.equal(fused[:, 0])


@pytest.mark.parametrize(("pool", "rows"), [("avg", "mean"), ("seq", "weights")])
def test_without_a_cls_token_the_pooling_says_whose_rows_count(pool, rows):
    model, images = ours(global_pool=pool, reg_tokens=1), images_for("")
    with record_attention(model) as recorded, torch.no_grad():
        model(images)
        tokens = model.forward_features(images)[:, 1:]
    matrix = recorded.attention[:, -1].mean(1)[:, 1:, 1:]
    share = model.attn_pool.weights(tokens) if rows == "weights" else torch.full((3, 16), 1 / 16, dtype=torch.float64)
    expected = torch.einsum("bi,bij->bj", share, matrix).unflatten(1, (4, 4))
    torch.testing.assert_close(explain(model, images, method="attention").maps, expected)


def gradients_of(model, images, target):
    """Attention (B, L, H, T, T) and the gradient of a logit by it, through timm's own unfused attention."""
    kept = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, args, out: kept.append(out))
    logit = model(images)[:, target].sum()
    return torch.stack(kept, 1).detach(), torch.stack(torch.autograd.grad(logit, kept), 1)


def test_chefer_by_numpy():
    """Equations 5 and 6 of the paper on timm's model, image by image."""
    images = images_for("")
    attention, gradient = (part.numpy() for part in gradients_of(of_timm(), images, 2))
    maps = explain(of_timm(), images, method="chefer", target=2).maps
    for a, g, found in zip(attention, gradient, maps, strict=True):
        relevance = np.eye(17)
        for layer in range(3):
            relevance = relevance + np.maximum(a[layer] * g[layer], 0).mean(axis=0) @ relevance
        np.testing.assert_allclose(relevance[0, 1:].reshape(4, 4), found)


@pytest.mark.parametrize("method", ["grad-rollout", "scaled-rollout"])
def test_rollouts_of_gradients_by_numpy(method):
    images = images_for("")
    attention, gradient = (part.numpy() for part in gradients_of(of_timm(), images, 2))
    maps = explain(of_timm(), images, method=method, target=2).maps
    for a, g, found in zip(attention, gradient, maps, strict=True):
        flow = np.eye(17)
        for layer in range(3):
            if method == "grad-rollout":  # vit-explain's: the mean of heads first, then the positive part
                matrix = np.maximum((a[layer] * g[layer]).mean(axis=0), 0) + np.eye(17)
            else:
                matrix = np.maximum(a[layer] * g[layer], 0).mean(axis=0)
                matrix = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-300) + np.eye(17)
            flow = matrix / matrix.sum(axis=1, keepdims=True) @ flow
        np.testing.assert_allclose(flow[0, 1:].reshape(4, 4), found)


def test_legrad_sees_each_layers_own_decision():
    """The layer's logits as timm's head makes them; autograd for each layer by itself."""
    model, images = of_timm(), images_for("")
    totals = {"pooled": torch.zeros(3, 17, dtype=torch.float64), "mean": torch.zeros(3, 17, dtype=torch.float64)}
    for depth in (1, 2, 3):
        short = of_timm()
        short.blocks = short.blocks[:depth]
        _, gradient = gradients_of(short, images, 4)
        totals["pooled"] += gradient[:, -1].clamp(min=0).mean(dim=(1, 2))
        # The authors' way: the mean of all tokens, the CLS token too, through the last norm and the head.
        kept = []
        short.blocks[-1].attn.attn_drop.register_forward_hook(lambda m, args, out, kept=kept: kept.append(out))
        short.blocks[-1].register_forward_hook(lambda m, args, out, kept=kept: kept.append(out))
        short(images)
        logit = short.head(short.norm(kept[1].mean(dim=1)))[:, 4].sum()
        totals["mean"] += torch.autograd.grad(logit, kept[0])[0].clamp(min=0).mean(dim=(1, 2))
    for read, total in totals.items():
        expected = (total[:, 1:] / 3).unflatten(1, (4, 4))
        torch.testing.assert_close(explain(model, images, method="legrad", target=4, read=read).maps, expected)
    assert explain(model, images, method="legrad", target=4).maps.equal(
        explain(model, images, method="legrad:read=mean,first=0", target=4).maps
    )


def test_gradcam_by_its_formula():
    model, images = ours(), images_for("")
    with record_outputs([model.blocks[-1].norm1]) as outputs:
        logits = model(images)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), outputs[0])
    alpha = gradient[:, 1:].mean(1)
    expected = torch.einsum("bnd,bd->bn", outputs[0][:, 1:], alpha).relu().unflatten(1, (4, 4))
    torch.testing.assert_close(explain(model, images, method="gradcam", target=1).maps, expected.detach())


def test_integrated_gradients_are_complete():
    """They sum to the logit's rise from the baseline, the better the more steps."""
    model, images = ours(), images_for("")
    targets = torch.tensor([0, 1, 2])
    score = ClassTarget(targets).score
    rise = (score(model(images)) - score(model(torch.zeros_like(images)))).detach()
    errors = []
    for steps in (8, 64, 512):
        found = explain(model, images, method="integrated-gradients", target=targets, steps=steps)
        errors.append((found.pixel_maps.sum((1, 2)) - rise).abs().max().item())
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-3 * rise.abs().max()


def test_integrated_gradients_are_captums():
    captum = pytest.importorskip("captum.attr")
    model, images = ours(), images_for("")
    theirs = captum.IntegratedGradients(model).attribute(images, target=3, n_steps=32, method="riemann_middle")
    found = explain(model, images, method="integrated-gradients", target=3, steps=32)
    torch.testing.assert_close(found.pixel_maps, theirs.sum(1))
    torch.testing.assert_close(found.maps[:, 1, 2], found.pixel_maps[:, 4:8, 8:12].mean((1, 2)))


def test_occlusion_is_the_fall_of_the_logit():
    model, images = of_hugging_face(), images_for("")
    maps = explain(model, images, method="occlusion", target=0).maps
    painted = images.clone()
    painted[:, :, 8:12, 4:8] = 0
    with torch.no_grad():
        fall = model(images).logits[:, 0] - model(painted).logits[:, 0]
    torch.testing.assert_close(maps[:, 2, 1], fall)


def test_one_weight_in_three_libraries():
    """The same model as ours, timm's and Hugging Face's: the same maps."""
    model, images = ours(mlp_ratio=2.0), images_for("")
    theirs = of_timm(mlp_ratio=2.0)
    theirs.load_state_dict(model.state_dict())
    for method in METHODS:
        torch.testing.assert_close(
            explain(model, images, method=method, target=1).maps, explain(theirs, images, method=method, target=1).maps
        )


def test_controls():
    images = images_for("")
    chance = explain(ours(), images, method="random").maps
    assert not chance[0].equal(chance[1])
    middle = explain(ours(), images, method="centre").maps
    assert middle[0, 1:3, 1:3].min() > middle[0, 0].max()
    torch.testing.assert_close(middle[0], middle[0].flip(0).flip(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "chefr"}, "no method 'chefr'; did you mean 'chefer'"),
        ({"target": "cat"}, "target is 'predicted', a class index or one per image, not 'cat'"),
        ({"target": 5}, "class indices from 0 to 4"),
        ({"target": torch.tensor([0, 1])}, "one or 3"),
        ({"method": "attention", "heads": "median"}, "heads are fused by mean, max, min"),
        ({"method": "rollout", "discard": 1.0}, "discard is a share"),
    ],
)
def test_wrong_words_are_told(arguments, message):
    with pytest.raises(UsageError, match=message):
        explain(ours(), images_for(""), **arguments)


def test_a_single_image_must_be_a_batch():
    with pytest.raises(UsageError, match=r"a batch \(B, 3, height, width\), not of shape \(3, 16, 16\)"):
        explain(ours(), images_for("")[0])


def test_anatomy_is_found_once():
    model, images = ours(), images_for("")
    torch.testing.assert_close(explain(dissect(model), images).maps, explain(model, images).maps)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_models_have_maps(method):
    model, images = ours().bfloat16(), images_for("").bfloat16()
    found = explain(model, images, method=method)
    assert torch.isfinite(found.maps.float()).all()
