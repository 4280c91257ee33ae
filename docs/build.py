"""Make the site: `python docs/build.py [FOLDER]`, by default into build/site.

Needs `pip install -e '.[docs]'`. A warning of Sphinx is an error: a link to nowhere, a name that is
not there, a docstring that cannot be read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

DOCS = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    if len(arguments) > 1:
        print("usage: python docs/build.py [FOLDER]", file=sys.stderr)
        return 2
    root = DOCS.parent
    folder = Path(arguments[0]) if arguments else root / "build" / "site"
    kept = root / "build" / "doctrees"
    options = ["-b", "html", "-W", "--keep-going", "-q", "-c", str(DOCS), "-d", str(kept)]
    status = sphinx([*options, str(root), str(folder)])
    if status == 0:
        print(f"{folder / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
