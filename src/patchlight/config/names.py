"""The names that a setting may take, where another room has a table with a row for each.

A recipe is checked before torch is loaded, so the names stand here, and each table stands beside the functions that it
lists. To extend is two edits: a row there, and its name here. tests/config/test_names.py holds them equal.
"""

from __future__ import annotations


class Names(list[str]):
    """The names of one table, as the annotation of a setting. A program may append its own."""


POLICY_NAMES = Names(["none", "randaugment", "autoaugment", "trivialaugment"])  # data/policies.py, POLICIES
SAMPLER_NAMES = Names(["uniform", "balanced"])  # data/sampling.py, SAMPLERS
OPTIMIZER_NAMES = Names(["adamw", "sgd", "muon"])  # training/optim.py, OPTIMIZERS
SCHEDULE_NAMES = Names(["constant", "linear", "cosine", "cosine_restarts", "onecycle"])  # training/schedule.py, SHAPES
TASK_NAMES = Names(["classify", "reconstruct"])  # training/tasks.py, TASKS
SELECT_NAMES = Names(["best", "best_balanced", "best_f1", "last"])  # runs/measures.py, MEASURES; and "last"
TRACKER_NAMES = Names(["tensorboard", "wandb", "mlflow"])  # training/trackers/__init__.py, TRACKERS
METHOD_NAMES = Names(  # explanation/methods.py, METHODS
    [
        "attention",
        "rollout",
        "scaled-rollout",
        "grad-rollout",
        "chefer",
        "legrad",
        "gradcam",
        "hirescam",
        "layercam",
        "integrated-gradients",
        "smoothgrad",
        "occlusion",
        "random",
        "centre",
    ]
)
DEFAULT_METHOD = "chefer"  # by the faithfulness tables of docs/results.md
GIVEN = "python"  # what data.source says where images were given in Python
SPLIT_NAMES = ("train", "val", "test", "subset_test")  # the fields of data/splits.py, Splits
