"""A run folder as `patchlight train` leaves it, of a made-up model that is mostly right. Nothing is trained."""

from __future__ import annotations

import json

import numpy as np

from patchlight.config import config_from_dict
from patchlight.evaluation.metrics import classification_metrics, softmax

ENVIRONMENT = {
    "patchlight": "0.1.0",
    "versions": {"python": "3.11.9", "torch": "2.15.0"},
    "hardware": {"os": "Linux", "cpu": "Some CPU", "cores": 2, "memory_gb": 24, "gpu": None, "device": "cpu"},
    "threads": 2,
    "precision": "bf16",
    "git_commit": None,
    "model": {
        **{"name": "vit-tiny", "params": 2691594, "trainable": [2691594], "flops_per_image": 356234567},
        **{"tokens": 65, "img_size": 32, "patch_size": 4},
    },
    "data": {"source": "digits", "train": 1293, "val": 144, "test": 360, "classes": 10},
    "time": {"train_wall_s": 61.2, "train_cpu_s": 120.1, "images_per_s": 912.0},
    "started": "2026-01-05T10:11:12+00:00",
    "command": "patchlight train quickstart",
}


def make_run(path, names=tuple("0123456789"), epochs=3, maps=True, side=32, spread=3.0):
    """A run folder of a made-up model that is mostly right."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), 400)
    logits = rng.normal(size=(400, len(names)))
    logits[np.arange(400), labels] += spread
    result = classification_metrics(logits, labels, names).to_json()
    about = {"name": "quickstart", "title": "A small ViT", "source": "DeiT", "cost": "a minute", "expect": "97 %"}
    train = {"epochs": epochs, "label_smoothing": 0.1}
    (path / "config.toml").write_text(config_from_dict({"about": about, "train": train}).to_toml(), encoding="utf-8")
    (path / "eval.json").write_text(json.dumps({"split": "test", "data": "digits", **result}))
    (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    rows = [
        {
            **{"epoch": e, "step": 10 * e, "lr": 1e-3 / e, "train/loss": 2 / e, "train/top1": None, "val/loss": 1 / e},
            **{"val/top1": 0.9 + e / 1000, "images_per_s": 900.0, "epoch_s": 3.0, "wall_s": 3.0 * e, "best": e <= 2},
        }
        for e in range(1, epochs + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    probs = softmax(logits)
    wrong = [m["index"] for m in result["mistakes"]][:4]
    right = np.flatnonzero(probs.argmax(1) == labels)[:4].tolist()
    chosen = np.array(wrong + right)
    samples = {
        "images": rng.integers(0, 256, (len(chosen), side, side, 3), dtype=np.uint8),
        "labels": labels[chosen],
        "probs": probs[chosen].astype(np.float32),
        "kind": np.array(["wrong"] * len(wrong) + ["right"] * len(right)),
    }
    np.savez_compressed(
        path / "near_copies.npz",
        seen=np.array(["train", "train"]),
        held=np.array(["val", "test"]),
        images_held=np.array([144, 400]),
        found=np.array([0, 3]),
        exact=np.array([0, 1]),
        threshold=np.array([0.5, 0.5]),
        pairs=rng.integers(0, 256, (2, 2, side, side, 3), dtype=np.uint8),
        labels=np.array([[0, 0], [1, 2]]),
        places=np.array([[5, 7], [9, 11]]),
        comparison=np.array([1, 1]),
        likeness=np.array([1.0, 0.7]),
    )
    if maps:
        samples["maps"] = rng.random((len(chosen), side // 4, side // 4)).astype(np.float32)
        samples["map_title"] = np.array("attention of the CLS token in the last layer, mean over heads")
        samples["patch_size"] = np.array(4)
        grid = (side // 4, side // 4)
        n = grid[0] * grid[1]
        np.savez_compressed(
            path / "insight.npz",
            relevance=rng.random((len(chosen), 2, *grid)),
            explored=np.array([0, 5]),
            attention=rng.integers(0, 256, (2, 2, 3 if n <= 64 else 1, n, n), dtype=np.uint8),
            pooled=rng.integers(0, 256, (2, 2, 3, *grid), dtype=np.uint8),
            distance=rng.random((2, 3)),
            entropy=rng.random((2, 3)),
            positions=rng.random((n, *grid)),
            filters=rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8),
            embed_colours=rng.integers(0, 256, (2, 2, *grid, 3), dtype=np.uint8),
            embed_likeness=rng.uniform(-1, 1, (2, 2, *grid)),
            embed_matrices=rng.uniform(-1, 1, (2, n, n)).astype(np.float16),
            embed_norms=rng.random((2, *grid)),
            embed_positions=rng.uniform(-1, 1, (n, n)).astype(np.float16),
            embed_about=np.array("a position embedding is added to each patch"),
        )
        np.savez_compressed(
            path / "snapshots.npz",
            images=samples["images"][:3],
            labels=labels[chosen][:3],
            method=np.array("chefer"),
            epochs=np.array([1, 2, 4]),
            maps=rng.random((3, 3, *grid)),
            probs=np.full((3, 3, len(names)), 0.1),
        )
    np.savez_compressed(path / "samples.npz", **samples)
    return path


def add_subset(run, names=tuple("0123456789"), spread=2.0):
    """Test images of the subset, with the result on them, beside the run's own test images."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, len(names), 200)
    logits = rng.normal(size=(200, len(names)))
    logits[np.arange(200), labels] += spread
    result = json.loads((run / "eval.json").read_text())
    subset = classification_metrics(logits, labels, names).to_json()
    (run / "eval.json").write_text(json.dumps({**result, "subset_test": subset}))
    probs = softmax(logits)
    right = probs.argmax(1) == labels
    chosen = np.concatenate([np.flatnonzero(~right)[:3], np.flatnonzero(right)[:2]])
    np.savez_compressed(
        run / "subset_samples.npz",
        images=rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8),
        labels=labels[chosen],
        probs=probs[chosen].astype(np.float32),
        kind=np.array(["wrong"] * 3 + ["right"] * 2),
    )
    return run


BATCH = {
    **{"shape": [64, 3, 32, 32], "dtype": "float32", "pixels": [0, 255], "min": -1.5, "max": 2.25, "not_finite": 0},
    **{"channel_mean": [0.4914, 0.4822, 0.4465], "channel_std": [0.2023, 0.1994, 0.2010], "mean": [0.1, -0.1, 0.0]},
    **{"std": [0.9, 1.0, 1.1], "per_class": {str(i): 4 + i % 5 for i in range(10)}, "mixed": 60},
    **{"lam": [0.25, 0.5, 0.75], "target_sums": [1.0, 1.0], "warnings": [], "errors": []},
}


def add_first_batch(run, **changes):
    """The record of a batch of ten classes whose images are mixed, and four of its images."""
    (run / "first_batch.json").write_text(json.dumps({**BATCH, **changes}))
    targets = np.eye(10, dtype=np.float32)[[3, 1, 4, 1]]
    targets[0, [3, 7]] = 0.75, 0.25
    np.savez_compressed(
        run / "first_batch.npz",
        images=np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        labels=np.array([3, 1, 4, 1]),
        targets=targets,
        mixed=np.array([True, True, False, False]),
    )
    return run


def without_result(run):
    for name in ("eval.json", "samples.npz", "insight.npz"):
        (run / name).unlink()
