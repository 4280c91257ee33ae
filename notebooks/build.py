"""Execute the notebooks and keep their outputs.

    python notebooks/build.py [NAME ...]

Each runs in a folder of its own, on this machine's first device; what it writes is thrown away. The
tests execute them again and compare the kinds of outputs, cell by cell.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path, *, timeout: int = 300) -> nbformat.NotebookNode:
    """A notebook with the outputs of a fresh kernel; its file is left alone."""
    content = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder).resolve())
        client = NotebookClient(
            content,
            timeout=timeout,
            coalesce_streams=True,
            resources={"metadata": {"path": place}},
        )
        done = client.execute()
    for cell in done.cells:
        cell.metadata.pop("execution", None)  # times, which differ each time
    done.metadata = {"language_info": {"name": "python"}}
    # Where it ran is nobody's business, and no path on another machine.
    text = nbformat.writes(done).replace(f"{place}/", "")
    return nbformat.reads(text, as_version=4)


def main(names: list[str]) -> int:
    """Run the command; returns the exit status."""
    paths = sorted(FOLDER.glob("*.ipynb"))
    wanted = [path for path in paths if not names or path.stem in names]
    if unknown := set(names) - {path.stem for path in paths}:
        print(f"no notebook {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for path in wanted:
        nbformat.write(execute(path), path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
