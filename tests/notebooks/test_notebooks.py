"""Notebooks run from the first cell to the last, and show what they promise."""

import re
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "patching.ipynb"


@pytest.mark.slow
def test_the_whole_way_in_python(tmp_path):
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 10
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    shown = [output["data"] for output in outputs if "data" in output]
    assert [sorted(data) for data in shown].count(["image/png", "text/plain"]) == 3  # the pictures
    words = [data["text/plain"] for data in shown]
    assert max(map(len, words)) < 200
    assert words[0] == "Split('Digits', 'train', 1,168 images)"
    assert words[4].startswith("(Point(alpha=0.5")
    assert 0.5 < float(words[-1]) < 0.9
    said = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    if find_spec("ipywidgets") is None:  # with it there are bars
        assert "fine-tuning on Digits ...\n" in said
    assert not any(sign in said for sign in ("\x1b", "Traceback"))
    assert not re.search(r"wisepatch/[a-z_/]+\.py", said), said
