"""How Sphinx makes the site. Its sources are the Markdown files and notebooks of this repository.

The root of the repository is the source folder, so that a link between two files works as it does
where the files are read alone. `docs/build.py` calls this.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout and not another version that is installed
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402

project = "cnn_jax"
author = "the authors of cnn_jax"
project_copyright = "the authors of cnn_jax, Apache-2.0"
version = release = installed("cnn_jax")
root_doc = "docs/index"

include_patterns = [
    "docs/*.md",
    "docs/*/*.md",
    "docs/generated/api/*.md",
    "notebooks/*.ipynb",
    "experiments/*/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
# What has no page is not walked through either: environments and runs hold many files.
exclude_patterns = [".*", "build", "runs", "tests", "cnn_jax", "dist", "**/.ipynb_checkpoints"]

extensions = [
    "myst_nb",  # Markdown and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # Args, Returns, Raises
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = (
    "off"  # outputs are those that are committed; `pytest -m notebooks` compares them
)
nb_merge_streams = True

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "code"  # a name between backticks is code, as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "cnn_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(ROOT / "docs" / "_static" / "scorer.js")
html_additional_pages = {"index": "forward.html"}  # the address without a page
templates_path = ["_templates"]
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True


def setup(app):
    """Write the generated pages before Sphinx looks for them, and adapt docstrings."""
    generate.write(ROOT / "docs" / "generated")
    app.connect("autodoc-process-docstring", generate.adapt, priority=400)  # before napoleon
