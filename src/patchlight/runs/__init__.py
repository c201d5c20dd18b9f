"""The run folder: its files, written whole or not at all, and what stands in them."""

from patchlight.runs.folder import RESULTS, Run, config_differences, kept_row

__all__ = ["RESULTS", "Run", "config_differences", "kept_row"]
