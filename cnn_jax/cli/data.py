"""`cnn-jax data`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cnn_jax.cli.arguments import Parser, UsageError, take_dotted
from cnn_jax.recipe import Recipe, resolve


def data(arguments: list[str]) -> int:
    """Print what a data set holds."""
    parser = Parser(prog="cnn-jax data", description="What a data set holds.")
    parser.add_argument("source", nargs="?", default="digits", help="name or path")
    parser.add_argument("--data-dir", help="where named data sets lie")
    parser.add_argument("--download", action="store_true", help="get it from its public home")
    parser.add_argument("--audit", action="store_true", help="search copies and near-copies")
    parser.add_argument("--out", help="page of the audit (NAME-audit.html)")
    parser.add_argument(
        "--show", nargs="?", const="", metavar="FILE.png", help="draw augmented training images"
    )
    parser.add_argument("--to-tfds", metavar="DIR", help="also write it there as a TFDS set")
    known = ["--data-dir", "--download", "--audit", "--out", "--to-tfds", "--show", "-h", "--help"]
    arguments, dotted = take_dotted(arguments, known)
    options = parser.parse_args(arguments)
    if options.out and not options.audit:
        raise UsageError("--out names the page of --audit: give both")
    if options.out and Path(options.out).is_dir():
        raise UsageError(f"--out {options.out!r} is a folder: name the page in it, such as a.html")
    from cnn_jax import audit, tables
    from cnn_jax.file_names import safe_name
    from cnn_jax.run_data import load_data

    recipe = Recipe().override({"data.source": options.source, **dotted})
    if options.data_dir:
        recipe = recipe.override({"data.root": options.data_dir})
    if options.download:
        from cnn_jax.data import download

        folder = options.data_dir or os.curdir
        recipe = recipe.override({"data.source": str(download(options.source, folder))})
    if options.show:
        from cnn_jax import preview

        preview.check_place(Path(options.show))
    dataset = load_data(recipe)
    if options.to_tfds:
        from cnn_jax.data import tfds_place

        tfds_place(dataset, options.to_tfds)
    print(tables.dataset(dataset))
    print(audit.summary(dataset, hint="" if options.audit else " (pictures: --audit)"))
    if options.audit:
        page = options.out or f"{safe_name(dataset.name)}-audit.html"
        print(tables.audit(audit.audit(dataset, page)))
        print(f"page of the audit: {page}")
    if options.to_tfds:
        from cnn_jax.data import write_tfds

        folder = write_tfds(dataset, options.to_tfds)
        print(
            f"written to {folder}; read it with --data tfds:{folder.parent.name} --data-dir "
            f"{shlex.quote(str(folder.parent.parent))}"
        )
    if options.show is not None:
        from cnn_jax import preview

        drawn = resolve(None, {"data": options.source, **dotted})
        picture = options.show or f"{safe_name(dataset.name)}-augmented.png"
        print(f"augmented images: {preview.show(drawn, dataset, picture)}")
    return 0
