"""`cnn-jax data`."""

from __future__ import annotations

from cnn_jax.cli.arguments import Parser, take_dotted
from cnn_jax.recipe import Recipe


def data(arguments: list[str]) -> int:
    """Print what a data set holds."""
    parser = Parser(prog="cnn-jax data", description="What a data set holds.")
    parser.add_argument("source", nargs="?", default="digits", help="name or path")
    parser.add_argument("--data-dir", help="where named data sets lie")
    arguments, dotted = take_dotted(arguments, ["--data-dir", "-h", "--help"])
    options = parser.parse_args(arguments)
    from cnn_jax import tables
    from cnn_jax.assembly import load_data

    recipe = Recipe().override({"data.source": options.source, **dotted})
    if options.data_dir:
        recipe = recipe.override({"data.root": options.data_dir})
    print(tables.dataset(load_data(recipe)))
    return 0
