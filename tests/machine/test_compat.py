"""What is private in others' libraries is in `compat` alone; each function there is right, with it and without it."""

from __future__ import annotations

import ast
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from vits import of_hugging_face, ours

from patchlight.machine import compat

ROOT = Path(__file__).parents[2]
DOCUMENTED = {"_replace", "_asdict", "_fields"}  # of named tuples: public, underscore or not


def private_names(path: Path) -> list[str]:
    """Names with a leading underscore that a file reads of anything but its own classes, or imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found += [node.attr]
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("patchlight"):
            found += [alias.name for alias in node.names]
    on_self = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    return [
        name
        for name in found
        if name.startswith("_") and not name.startswith("__") and name not in own | on_self | DOCUMENTED
    ]


@pytest.mark.parametrize("folder", ["src/patchlight", "benchmarks"])
def test_nothing_else_reads_private_names(folder):
    found = {str(p.relative_to(ROOT)): private_names(p) for p in (ROOT / folder).rglob("*.py") if p.stem != "compat"}
    assert not {path: names for path, names in found.items() if names}


def test_instructions_are_those_that_torch_reports(monkeypatch):
    assert {compat.processor_multiplies(precision) for precision in ("bf16", "fp16")} <= {True, False}
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_fp16_supported", lambda: False, raising=False)
    assert compat.processor_multiplies("bf16")
    assert not compat.processor_multiplies("fp16")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert not compat.processor_multiplies("bf16")


@pytest.mark.parametrize("there", [True, False])
def test_gamma_numbers_come_from_the_generator(monkeypatch, there):
    if not there:
        monkeypatch.delattr(torch, "_standard_gamma")
    shape = torch.full((4000,), 1.7, dtype=torch.float64)
    before = torch.get_rng_state()
    first, again, other = (
        compat.standard_gamma(shape, torch.Generator().manual_seed(seed)).numpy() for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert kstest(first, "gamma", args=(1.7,)).pvalue > 0.001


@pytest.mark.parametrize("there", [True, False])
def test_many_tensors_at_once(monkeypatch, there):
    if not there:
        monkeypatch.delattr(torch, "_foreach_copy_")
        monkeypatch.delattr(torch, "_foreach_lerp_")
    targets, ends = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.full((3,), 4.0)]
    compat.lerp_all(targets, ends, 0.25)
    assert [t.tolist() for t in targets] == [[0.25] * 2, [1.0] * 3]
    compat.copy_all(targets, ends)
    assert [t.tolist() for t in targets] == [[1.0] * 2, [4.0] * 3]


def test_a_hugging_face_models_layers():
    found = compat.recorded_classes(of_hugging_face())
    assert found.keys() >= {"attentions", "hidden_states"}
    assert compat.recorded_classes(ours()) == {}


def test_a_hugging_face_models_kind_of_attention():
    model = of_hugging_face()
    for kind in ("eager", "sdpa"):
        model.set_attn_implementation(kind)
        assert compat.attention_kind(model) == kind
    del model.config.__dict__["_attn_implementation_internal"]
    model.config.__class__ = type("Config", (), {})
    assert compat.attention_kind(model) == "sdpa"


def test_the_trainer_keeps_to_one_gpu():
    class Arguments:
        n_gpu = property(lambda self: self._n_gpu)
        _n_gpu = 4

    arguments = Arguments()
    compat.use_one_gpu(arguments)
    assert arguments.n_gpu == 1


def test_a_walk_over_a_tar_archive_forgets_its_headers():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index in range(50):
            archive.addfile(tarfile.TarInfo(f"{index}"))
    buffer.seek(0)
    names = []
    with tarfile.open(fileobj=buffer) as archive:
        while (member := archive.next()) is not None:
            compat.forget_members(archive)
            names.append(member.name)
        assert archive.members == []
    assert names == [str(index) for index in range(50)]
    compat.forget_members(object())  # where that name is gone
