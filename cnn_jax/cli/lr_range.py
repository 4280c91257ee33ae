"""`cnn-jax lr-range`."""

from __future__ import annotations

from cnn_jax.cli.arguments import Parser, parse_recipe
from cnn_jax.recipe import resolve

_HELP = """\
usage: cnn-jax lr-range [RECIPE] [options]

Trains some steps while the learning rate rises until the loss explodes, and
says where it fell fastest. Nothing is saved.

  --low X      first learning rate (1e-5)
  --high X     last learning rate (10)
  --steps N    number of steps (150)
  and all options of 'cnn-jax train' that choose data, model and recipe"""


def lr_range(arguments: list[str]) -> int:
    """Print how the loss answers to the learning rate."""
    parser = Parser(prog="cnn-jax lr-range", text=_HELP)
    parser.add_argument("--low", type=float, default=1e-5)
    parser.add_argument("--high", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=150)
    options, overrides = parse_recipe(parser, arguments)
    from cnn_jax import tables
    from cnn_jax.learning_rates import range_test
    from cnn_jax.run_data import load_data

    recipe = resolve(options.pop("recipe"), overrides)
    seen = range_test(recipe, load_data(recipe), **options)
    print(tables.learning_rates(seen))
    print(
        f"suggested learning rate {seen.suggested:.2g} (worse beyond {seen.highest:.2g}): "
        f"--learning-rate {seen.suggested:.2g}"
    )
    return 0
