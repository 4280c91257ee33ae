"""Every notebook runs from top to bottom."""

import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

pytestmark = [
    pytest.mark.notebooks,
    pytest.mark.timeout(900),  # a slow machine, or a busy one
    # Jupyter's own, about event loops and sockets at exit.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_gives_what_is_committed(notebook, monkeypatch):
    pytest.importorskip("nbclient")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(notebook.parents[1]))
    monkeypatch.syspath_prepend(str(notebook.parent))
    from build import execute

    committed = nbformat.read(notebook, as_version=4)
    done = execute(notebook, timeout=600)
    errors = [
        output["text"]
        for cell in done.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    assert errors == []
    for kept, fresh in zip(committed.cells, done.cells, strict=True):
        assert kinds(kept) == kinds(fresh), fresh["source"]


def kinds(cell):
    """What each output of a cell is: figures differ a little from machine to machine."""
    return [
        (output["output_type"], sorted(output.get("data", {})))
        for output in cell.get("outputs", [])
    ]


def test_there_are_notebooks_and_they_open_on_a_hosted_machine():
    import nbformat

    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        content = nbformat.read(notebook, as_version=4)
        code = [cell["source"] for cell in content.cells if cell["cell_type"] == "code"]
        assert "%pip install --quiet cnn_jax" in code[0], notebook.name
        assert notebook.stat().st_size < 300_000, notebook.name
        text = notebook.read_text("utf-8")
        kept = re.findall(r"(?<![\w./])/(?:home|root|tmp|work|Users|private)/[\w/.-]+", text)
        assert not kept, (notebook.name, kept)  # paths of the machine that built it
