"""The notebooks of examples/ run from top to bottom, and are committed clean."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
COLAB = "https://colab.research.google.com/github/patchlight/patchlight/blob/main/examples/"
# A warning is an error in what a notebook does, though not in the kernel's own machinery.
STRICT = """
import warnings
warnings.simplefilter("error")
for module in ("ipykernel", "IPython", "zmq", "tornado"):
    warnings.filterwarnings("default", module=module)
"""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


def test_there_is_one_for_each_of_the_five_systems():
    assert [path.name[:2] for path in NOTEBOOKS] == ["1-", "2-", "3-", "4-", "5-"]


def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """With the small settings, in an empty folder, without a network; a warning is an error there, too."""
    monkeypatch.setenv("PATCHLIGHT_EXAMPLES", "small")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside this one
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # no start-up files of whoever runs the tests
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    (tmp_path / "work").mkdir()
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(tmp_path / "work")}}
    )
    client.execute()
    if out := os.environ.get("EXECUTED"):
        nbformat.write(notebook, Path(out) / path.name)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if "Warning" in output.get("text", "")]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_the_first_cell_opens_it_in_colab(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert f"]({COLAB}{path.name})" in first.source.splitlines()[0]


def test_it_is_committed_without_what_it_put_out(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    again = (
        json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    )
    assert path.read_text(encoding="utf-8") == again, "it is written otherwise than nbformat writes it"
