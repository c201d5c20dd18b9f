"""The run folder: its files, written whole or not at all, and what stands in them as types."""

from patchlight.runs.arrays import Insight, Reconstructions, Samples, Snapshots
from patchlight.runs.folder import Run, config_differences, kept_epoch
from patchlight.runs.records import (
    DataFacts,
    Environment,
    Epoch,
    EvalResult,
    Faithfulness,
    Interval,
    MethodScores,
    Metrics,
    Mistake,
    ModelFacts,
    Process,
    ReconstructionResult,
    Reliability,
    Score,
    TimeFacts,
    Weights,
)

__all__ = [
    "DataFacts",
    "Environment",
    "Epoch",
    "EvalResult",
    "Faithfulness",
    "Insight",
    "Interval",
    "MethodScores",
    "Metrics",
    "Mistake",
    "ModelFacts",
    "Process",
    "ReconstructionResult",
    "Reconstructions",
    "Reliability",
    "Run",
    "Samples",
    "Score",
    "Snapshots",
    "TimeFacts",
    "Weights",
    "config_differences",
    "kept_epoch",
]
