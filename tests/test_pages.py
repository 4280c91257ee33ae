"""The pages of the site: their Python runs from top to bottom, one page a namespace."""

import ast
import dataclasses
import re
import sys
from pathlib import Path

import pytest

import cnn_jax
import experiments
from cnn_jax.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.glob("*/*.md") if path.parent.name in ("principles", "extend"))


def blocks(page):
    """The Python of a page, each block after as many empty lines as stand before it there."""
    return [code for _, code in named_blocks(page)]


def named_blocks(page):
    """The same, each after the file that the line before it names, or an empty name."""
    text = page.read_text("utf-8")
    block = re.compile(
        r"^(?:`(\S+[.]py)`[^\n]*\n\n)?```python\n(.*?)^```$", re.DOTALL | re.MULTILINE
    )
    for found in block.finditer(text):
        yield found[1] or "", "\n" * text[: found.start(2)].count("\n") + found[2]


def test_there_are_pages_of_principles_and_of_what_can_be_added():
    assert {page.stem for page in PAGES} >= {
        "convolution",
        "pooling",
        "learning",
        "model",
        "metric",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_python_is_python(page):
    assert [ast.parse(block, page.name) for block in blocks(page)]


@pytest.mark.notebooks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_runs(page, tmp_path, capsys, monkeypatch):
    # What a page calls a file of experiments/ is one, and its tests are called as pytest would.
    monkeypatch.setattr(
        experiments, "__path__", [*experiments.__path__, str(tmp_path / "experiments")]
    )
    space = {"__name__": page.stem, "__file__": str(tmp_path / "page.py")}
    for name, block in named_blocks(page):
        if name:
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_text(block, "utf-8")
            (tmp_path / name).with_name("__init__.py").touch()
        exec(compile(block, str(page), "exec"), space)
    for name in [name for name in space if name.startswith("test_")]:
        space[name](tmp_path, monkeypatch)
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture
def generate(monkeypatch):
    """The module that writes pages from the code."""
    monkeypatch.syspath_prepend(str(DOCS))
    import generate

    yield generate
    del sys.modules["generate"]


def test_every_room_has_a_page_of_its_public_names(generate):
    modules = {name for name in cnn_jax.__all__ if Path(DOCS.parent, "cnn_jax", name).is_dir()}
    rooms = modules - {"population", "recipe", "pretraining", "sweeps", "detecting"}
    assert rooms <= set(generate.ROOMS)
    for room in ("ops", "evaluation", "explaining"):
        page = generate._room_page(room)
        module = getattr(__import__(f"cnn_jax.{room}"), room)
        for name in getattr(module, "__all__", ("explain_run",)):
            assert re.search(rf"^[.]{{2}} \S+:: cnn_jax[.]{room}[.]{name}$", page, re.M), name


def test_every_field_of_the_recipe_is_told_what_it_means(generate):
    for part in dataclasses.fields(Recipe):
        value = getattr(Recipe(), part.name)
        if dataclasses.is_dataclass(value):
            meanings = generate._attributes(type(value))
            assert set(meanings) >= {field.name for field in dataclasses.fields(value)}, part.name
            assert all(meaning.strip() for meaning in meanings.values())


def test_docstrings_become_what_sphinx_reads(generate):
    def adapted(text, what="function"):
        lines = text.split("\n")
        generate.adapt(None, what, "", None, None, lines)
        return "\n".join(lines)

    assert adapted("|f(x)| of `a|b` and `Name`s") == r"\|f(x)\| of ``a|b`` and ``Name``\ s"
    assert adapted("a * b, *emphasis*, **options") == r"a \* b, *emphasis*, \*\*options"
    assert adapted("  **options: fields") == "  **options: fields"  # an argument, for napoleon
    code = adapted("What.\n\n    import cnn_jax\n", "module")
    assert code == "What.\n\n.. code-block:: python\n\n    import cnn_jax\n"
