"""Patchlight measured against its peers: `python -m benchmarks --help`. A row of `catalogue.py` is a benchmark."""
