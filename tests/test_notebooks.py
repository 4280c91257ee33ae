"""Every notebook runs from top to bottom."""

import shutil
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

pytestmark = [
    pytest.mark.notebooks,
    # Jupyter's own, about event loops and sockets at exit.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(notebook.parents[1]))
    shutil.copy(notebook, tmp_path)
    content = nbformat.read(tmp_path / notebook.name, as_version=4)
    assert not any(cell.get("outputs") for cell in content.cells)  # committed without outputs
    done = nbclient.NotebookClient(content, timeout=200, cwd=str(tmp_path)).execute()
    text = str([cell.get("outputs") for cell in done.cells])
    assert "test accuracy" in text
    errors = [
        output["text"]
        for cell in done.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    assert errors == []


def test_there_are_notebooks():
    assert NOTEBOOKS
