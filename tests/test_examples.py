"""The notebooks of examples/ run from top to bottom, open in Colab, and are committed clean."""

from __future__ import annotations

import os
import re
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


@pytest.mark.slow
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """With the small settings, in an empty folder, without a network; a warning is an error there, too.

    With the folder EXAMPLES_OUT in the environment the notebooks that ran are written there, to be looked at.
    """
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("PATCHLIGHT_EXAMPLES", "small")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside this one
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # without start-up files of whoever runs the tests
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    where = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where).execute()
    if folder := os.environ.get("EXAMPLES_OUT"):
        nbformat.write(notebook, Path(folder) / path.name)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output.text for output in outputs if "Warning" in output.get("text", "")]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert len(list(work.glob("runs/*/report.html"))) >= 1


def test_the_first_cell_opens_it_in_colab(path):
    first, install = nbformat.read(path, as_version=4).cells[:2]
    assert first.cell_type == "markdown"
    assert first.source.startswith("[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]")
    assert f"]({COLAB}{path.name})" in first.source.splitlines()[0]
    assert "git+https://github.com/patchlight/patchlight" in install.source


def test_links_from_a_notebook_lead_somewhere(path):
    linked = re.findall(r"https://github\.com/patchlight/patchlight/blob/main/([^#)\s]+)", path.read_text("utf-8"))
    assert linked
    assert [target for target in linked if not (ROOT / target).is_file()] == []


def test_it_is_committed_without_what_it_put_out(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    text = path.read_text(encoding="utf-8")
    assert text == nbformat.writes(notebook, indent=1) + "\n", "nbformat writes it otherwise"
