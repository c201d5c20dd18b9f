"""A head on a frozen backbone: with features that are kept, the training is the same, and each image is seen once."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from saved import SAVED
from small import rows_of, run_fit, small_config, small_splits, stopped_at_save

from patchlight.config import ModelConfig
from patchlight.errors import Interrupted
from patchlight.evaluation.features import pooled_features
from patchlight.models import load_model
from patchlight.training import fit as fitting
from patchlight.training import frozen
from patchlight.training.frozen import can_keep_features, frozen_features
from patchlight.training.setup import prepare
from patchlight.training.state import StopSignal

HEAD = {"epochs": 3, "trainable": "head"}


def scores_of(run):
    return [[row[key] for key in ("train/loss", "train/top1", "val/loss", "val/top1")] for row in rows_of(run)]


def seen(monkeypatch):
    """The sizes of the batches that go through the blocks of our models, while training and validating."""
    sizes = []
    fit_stage = fitting.fit_stage

    def counted(stage, *words):
        block = stage.model.blocks[0]
        handle = block.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
        state = fit_stage(stage, *words)
        handle.remove()
        return state

    monkeypatch.setattr(fitting, "fit_stage", counted)
    return sizes


@pytest.mark.parametrize(
    "more",
    [{}, {"ema_decay": 0.5}, {"micro_batch_size": 4}, {"label_smoothing": 0.1}, {"batch_size": 20, "drop_last": False}],
)
def test_training_is_the_same(tmp_path, monkeypatch, more):
    sizes = seen(monkeypatch)
    _, kept = run_fit(tmp_path, "kept", train={**HEAD, **more})
    assert sizes == [8, 8, 12, 48]  # a few to see whether it can be, then each image once
    sizes.clear()
    monkeypatch.setattr(fitting, "can_keep_features", lambda *args: False)
    _, plain = run_fit(tmp_path, "plain", train={**HEAD, **more})
    assert sum(sizes) == 3 * (48 + (0 if "ema_decay" in more else 12))  # the average is validated, another model
    np.testing.assert_allclose(scores_of(kept), scores_of(plain), rtol=1e-5)
    weights = [load_model(run.path)[0].state_dict() for run in (kept, plain)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-5, rtol=1e-5)


def test_a_resumed_run_is_the_same(tmp_path):
    stages = [{"train": {"epochs": 1, "trainable": "all"}}, {"train": HEAD}]
    _, whole = run_fit(tmp_path, "whole", stages=stages)
    with stopped_at_save(2):  # the features are those of what the first stage trained
        run_fit(tmp_path, "cut", stages=stages)
    _, cut = run_fit(tmp_path, "cut", resume=True, stages=stages)
    np.testing.assert_allclose(scores_of(cut), scores_of(whole), rtol=1e-6)


def test_a_stop_while_features_are_made(tmp_path, monkeypatch):
    _, whole = run_fit(tmp_path, "whole", train=HEAD)

    def stopped(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return pooled_features(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(frozen, "pooled_features", stopped)
        with pytest.raises(Interrupted, match="stopped by SIGTERM while the features"):
            run_fit(tmp_path, "cut", train=HEAD)
    _, cut = run_fit(tmp_path, "cut", resume=True, train=HEAD)
    np.testing.assert_allclose(scores_of(cut), scores_of(whole), rtol=1e-6)


def features_of(config):
    data = small_splits()
    (stage,) = prepare(config, data).stages
    stage.begin(stage.model)
    return frozen_features(stage, data, StopSignal()) if can_keep_features(stage, data.train) else None


@pytest.mark.parametrize("kind", ["timm", "huggingface", "resnet18"])
def test_models_of_all_kinds(tmp_path, kind):
    name = str(SAVED[kind](tmp_path / "weights")) if kind in SAVED else kind
    config = dataclasses.replace(small_config(train=HEAD), model=ModelConfig(name=name, img_size=16))
    found = features_of(config)
    assert found is not None
    assert (len(found.train), len(found.val)) == (48, 12)


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {**HEAD, "trainable": "all"}},
        {"train": {**HEAD, "trainable": "last 1"}},
        {"train": {**HEAD, "epochs": 1}},
        {"train": {**HEAD, "debug": True}},
        {"train": {**HEAD, "budget": "10s"}},
        {"train": {**HEAD, "engine": "hf"}},
        {"train": {**HEAD, "compile": True}},
        {"train": HEAD, "augment": {"flip": "random"}},
        {"train": HEAD, "model": {"drop_rate": 0.001}},
    ],
    ids=str,
)
def test_where_nothing_is_kept(sections):
    assert features_of(small_config(**sections)) is None
