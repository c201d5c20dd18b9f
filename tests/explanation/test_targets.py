"""What maps can be about: a class, one class and not another, the likeness to an image or to a text."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from networks import network, pictures_for
from torch import Tensor, nn
from vits import BACKBONES, backbone, images_for, of_hugging_face, of_timm, ours, two_towers

from patchlight import explain
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.methods import METHODS, is_signed, run_method
from patchlight.explanation.targets import ClassTarget, Difference, Similarity, features_of, similar_to
from patchlight.models.anatomy import dissect

LINEAR = ["hirescam", "integrated-gradients", "occlusion"]  # in the target's score
BY_CLASS = [name for name, method in METHODS.items() if method.by_class]
UNSIGNED = [name for name in BY_CLASS if not METHODS[name].signed and name != "smoothgrad"]
ONE, OTHER = torch.tensor([2, 0, 4]), torch.tensor([1, 3, 1])


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return dissect(model).logits(images)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("make", [ours, of_timm, of_hugging_face], ids=["ours", "timm", "Hugging Face"])
def test_the_map_of_a_difference_is_the_difference_of_the_maps(make, method):
    """Where a map is linear in the score: cat, not dog, is cat less dog."""
    model, images = make(), images_for("")
    both = explain(model, images, method=method, target=Difference(ONE, OTHER))
    one, other = (explain(model, images, method=method, target=part) for part in (ONE, OTHER))
    torch.testing.assert_close(both.maps, one.maps - other.maps)
    assert both.signed


def test_a_difference_adds_up_to_the_difference_of_logits():
    """Completeness, and Draelos and Carin's: of hirescam behind a mean and a linear head, without the biases."""
    images = pictures_for("timm resnet", 3)
    model = network("timm resnet")
    logits, bias = logits_of(model, images), model.fc.bias.detach()
    apart = logits.gather(1, ONE[:, None]) - logits.gather(1, OTHER[:, None])
    found = explain(model, images, method="hirescam", target=Difference(ONE, OTHER))
    torch.testing.assert_close(found.maps.mean(dim=(1, 2)) * 4, apart[:, 0] - (bias[ONE] - bias[OTHER]))
    torch.testing.assert_close(found.strength, apart[:, 0].float().sigmoid())
    vit, images = ours(), images_for("")
    found = explain(vit, images, method="integrated-gradients:steps=512", target=Difference(ONE, OTHER))
    rise = logits_of(vit, images) - logits_of(vit, torch.zeros_like(images))
    expected = rise.gather(1, ONE[:, None]) - rise.gather(1, OTHER[:, None])
    torch.testing.assert_close(found.pixel_maps.sum(dim=(1, 2)), expected[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", UNSIGNED)
def test_a_method_without_a_sign_takes_the_evidence_for_the_other_away(method):
    """The same map with the other sign for the opposite question, and neither is empty."""
    model, images = ours(), images_for("")
    both = explain(model, images, method=method, target=Difference(ONE, OTHER))
    opposite = explain(model, images, method=method, target=Difference(OTHER, ONE))
    torch.testing.assert_close(both.maps, -opposite.maps)
    assert both.maps.abs().flatten(1).amax(dim=1).min() > 0
    anatomy = dissect(model)
    for_one, for_other = (
        METHODS[method].run(anatomy, images, target).detach()
        for target in (Difference(ONE, OTHER), Difference(OTHER, ONE))
    )
    torch.testing.assert_close(
        run_method(METHODS[method], anatomy, images, Difference(ONE, OTHER)), for_one - for_other
    )
    assert both.signed
    assert not explain(model, images, method=method, target=ONE).signed


def test_the_size_of_a_gradient_is_the_same_for_the_opposite_question():
    """So taking the one from the other would leave nothing: smoothgrad keeps its map, which has no sign."""
    model, images = ours(), images_for("")
    both, opposite = (
        explain(model, images, method="smoothgrad", target=target)
        for target in (Difference(ONE, OTHER), Difference(OTHER, ONE))
    )
    torch.testing.assert_close(both.maps, opposite.maps)
    assert both.maps.min() > 0
    assert not both.signed
    assert not is_signed(METHODS["rollout"], Difference(ONE, OTHER))


def test_a_difference_may_be_of_two_numbers():
    model, images = ours(), images_for("")
    named = explain(model, images, method="chefer", target=Difference(3, 1))
    each = explain(model, images, method="chefer", target=Difference(torch.full((3,), 3), torch.full((3,), 1)))
    torch.testing.assert_close(named.maps, each.maps)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Difference(torch.tensor([0, 5, 1]), ONE), "targets are class indices from 0 to 4, one or 3"),
        (Difference(ONE, torch.tensor([0, 1])), "targets are class indices from 0 to 4, one or 3"),
        (Difference(1.5, 2), "targets are class indices, whole numbers from 0 to 4"),
        (ClassTarget(torch.tensor([-1, 0, 0])), "targets are class indices from 0 to 4"),
        (Similarity(torch.zeros(24)), r"of the shape \(1, D\), or \(3, D\) for as many images, not torch.float32 of"),
        (Similarity(torch.zeros(2, 24)), r"of the shape \(1, D\), or \(3, D\)"),
        (Similarity(torch.zeros(1, 24).long()), r"not torch.int64 of \(1, 24\)"),
        (Similarity(torch.ones(1, 7)), "the target has 7 numbers and the model's features 24"),
    ],
)
def test_targets_that_are_none_are_told(target, message):
    with pytest.raises(UsageError, match=message):
        explain(ours(), images_for(""), target=target)


@pytest.mark.parametrize("target", [ClassTarget(ONE), Difference(ONE, OTHER), "predicted", 2])
def test_features_have_no_classes(target):
    with pytest.raises(UsageError, match="the model has no head, so it gives features and no classes"):
        explain(backbone("Dinov2Model"), images_for(""), target=target)


def test_a_target_that_was_made_in_inference_mode():
    model, head_less, images = ours(), backbone("Dinov2Model"), images_for("")
    with torch.inference_mode():
        one, other = ONE.clone(), OTHER.clone()
        like = similar_to(head_less, images_for("", 1, seed=9))
        vectors = like.vectors.clone()
    assert vectors.is_inference()
    assert not like.vectors.is_inference()
    inside = explain(model, images, method="gradcam", target=Difference(one, other)).maps
    torch.testing.assert_close(inside, explain(model, images, method="gradcam", target=Difference(ONE, OTHER)).maps)
    found = explain(head_less, images, method="chefer", target=Similarity(vectors)).maps
    torch.testing.assert_close(found, explain(head_less, images, method="chefer", target=like).maps)


FEATURES = {
    "ours": (ours, lambda m, x: m.forward_features(x)[:, 0]),
    "timm": (of_timm, lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True)),
    "timm, attention pooling": (
        lambda: of_timm(global_pool="map", class_token=False),
        lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True),
    ),
    "Hugging Face ViT": (of_hugging_face, lambda m, x: m.vit(x).last_hidden_state[:, 0]),
    "Hugging Face CLIP": (
        lambda: two_towers("CLIP", "ForImageClassification"),
        lambda m, x: m.vision_model(x).last_hidden_state[:, 1:].mean(dim=1),
    ),
    "timm resnet": (
        lambda: network("timm resnet"),
        lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True),
    ),
    "timm convnext": (
        lambda: network("timm convnext"),
        lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True),
    ),
    "torchvision swin": (
        lambda: network("torchvision swin"),
        lambda m, x: m.permute(m.norm(m.features(x))).mean(dim=(2, 3)),
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_the_features_of_a_classifier_are_what_its_head_reads(name):
    make, theirs = FEATURES[name]
    model = make()
    images = (
        images_for("")
        if "resnet" not in name and "convnext" not in name and "swin" not in name
        else pictures_for(name, 3)
    )
    other = images[:1].flip(3)
    with torch.no_grad():
        features, wanted = theirs(model, images), theirs(model, other)
    like = similar_to(model, other)
    torch.testing.assert_close(like.vectors, wanted)
    found = explain(model, images, method="hirescam", target=like)
    torch.testing.assert_close(found.strength, F.cosine_similarity(features, wanted).float())
    assert found.maps.isfinite().all()
    with pytest.raises(UsageError, match="a Similarity, not a class"):
        _ = found.targets


def test_a_model_of_several_heads_is_told():
    distilled = timm.models.deit.VisionTransformerDistilled(
        img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5
    ).double()
    told = r"VisionTransformerDistilled has 2 linear heads \(head, head_dist\), so which features are its own cannot be"
    with pytest.raises(PatchlightError, match=told):
        similar_to(distilled, images_for(""))
    with pytest.raises(PatchlightError, match=told):
        explain(distilled, images_for(""), target=Similarity(torch.ones(1, 24)))
    assert explain(distilled, images_for(""), target=Difference(1, 2)).maps.isfinite().all()  # of the mean of both
    none = timm.models.deit.VisionTransformerDistilled(
        img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0
    ).double()
    tokens = none.eval().forward_features(images_for(""))
    torch.testing.assert_close(similar_to(none, images_for("")).vectors, (tokens[:, 0] + tokens[:, 1]) / 2)
    teacher = of_hugging_face("DeiT", num_labels=5)
    assert similar_to(teacher, images_for("")).vectors.shape == (3, 24)
    vgg = network("torchvision vgg")
    with pytest.raises(PatchlightError, match=r"Vgg has 2 linear heads \(classifier\.0, classifier\.3\)"):
        similar_to(vgg, pictures_for("torchvision vgg"))


def test_a_head_that_is_not_known_or_reads_no_vector_is_told():
    class Odd(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name, self.conv = name, nn.Conv2d(3, 4, 4, 4)
            self.add_module(name, nn.Linear(4, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.get_submodule(self.name)(self.conv(x).flatten(2).transpose(1, 2)).mean(dim=1)

    images = images_for("")
    with pytest.raises(PatchlightError, match="Odd has no linear head that is known"):
        similar_to(Odd("verdict").double(), images)
    with pytest.raises(
        PatchlightError, match=r"the head of Odd, head, reads features of the shape \(3, 16, 4\), not one"
    ):
        similar_to(Odd("head").double(), images)
    with pytest.raises(UsageError, match=r"the image is a batch \(1, 3, height, width\), not of shape \(3, 16, 16\)"):
        similar_to(ours(), images[0])


TOWERS = ["CLIP, projected", "CLIP, both towers", "MetaCLIP 2", "SigLIP", "SigLIP, both towers", "timm"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOWERS)
def test_likeness_to_a_text_by_finite_differences(name):
    """A vector of the shared space stands for a text; the pixels' gradient is the slope of the cosine that is measured
    from outside, and integrated gradients add up to its rise.
    """
    model, images = BACKBONES[name](), images_for("", 2)
    anatomy = dissect(model)
    width = logits_of(model, images).shape[1]
    text = torch.randn(1, width, generator=torch.Generator().manual_seed(8), dtype=torch.float64)

    def cosine(x: Tensor) -> Tensor:
        return F.cosine_similarity(logits_of(model, x), text)

    target = Similarity(text.expand(2, -1))
    at = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.scores(anatomy, at).sum(), at)
    draw, step = torch.Generator().manual_seed(1), 1e-5
    for _ in range(3):
        way = torch.randn(images.shape, generator=draw, dtype=torch.float64)
        slope = (cosine(images + step * way) - cosine(images - step * way)) / (2 * step)
        torch.testing.assert_close((gradient * way).sum(dim=(1, 2, 3)), slope, rtol=1e-3, atol=1e-6)
    found = explain(model, images, method="integrated-gradients:steps=256", target=Similarity(text))
    rise = cosine(images) - cosine(torch.zeros_like(images))
    torch.testing.assert_close(found.pixel_maps.sum(dim=(1, 2)), rise, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(found.strength, cosine(images).float())
    fall = explain(model, images, method="occlusion", target=Similarity(text)).maps
    hidden = images.clone()
    hidden[:, :, 8:12, :4] = 0
    torch.testing.assert_close(fall[:, 2, 0], cosine(images) - cosine(hidden))


def test_a_text_of_the_models_own_tower():
    model, images = two_towers("CLIP"), images_for("", 2)
    words = torch.tensor([[1, 5, 7, 2]])
    text = model.get_text_features(input_ids=words).pooler_output.detach()
    both = model(input_ids=words, pixel_values=images)
    found = explain(model, images, method="legrad", target=Similarity(text))
    cosines = both.logits_per_image[:, 0] / model.logit_scale.exp()
    torch.testing.assert_close(found.strength, cosines.detach().float())
    assert found.maps.isfinite().all()
    assert found.maps.flatten(1).std(dim=1).min() > 0


def test_captum_takes_the_likeness_apart_alike():
    captum = pytest.importorskip("captum.attr")
    model, images = backbone("Dinov2Model"), images_for("")
    like = similar_to(model, images_for("", 1, seed=7))

    def score(x: Tensor) -> Tensor:
        return F.cosine_similarity(model(x).pooler_output, like.vectors.expand(len(x), -1))

    theirs = captum.IntegratedGradients(score).attribute(images, n_steps=16, method="riemann_middle")
    found = explain(model, images, method="integrated-gradients", target=like, steps=16)
    torch.testing.assert_close(found.pixel_maps, theirs.sum(dim=1))


def test_each_image_may_have_its_own_likeness():
    model, images = backbone("ViTModel", pooled=False), images_for("")
    others = images_for("", 3, seed=5)
    like = similar_to(model, others)
    found = explain(model, images, method="gradcam", target=like)
    for row in range(3):
        single = explain(
            model, images[row : row + 1], method="gradcam", target=similar_to(model, others[row : row + 1])
        )
        torch.testing.assert_close(found.maps[row], single.maps[0])


def test_features_are_of_one_pass_and_leave_no_hook():
    model, passes = ours(), []
    model.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    anatomy = dissect(model)
    features_of(anatomy, lambda: anatomy.logits(images_for("")))
    assert len(passes) == 1
    assert not model.head._forward_pre_hooks
