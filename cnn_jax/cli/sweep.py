"""`cnn-jax sweep`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cnn_jax.cli.arguments import Parser, UsageError, interrupted_status, parse_recipe
from cnn_jax.recipe import resolve

if TYPE_CHECKING:
    from cnn_jax.sweeps import Sweep

_HELP = """\
usage: cnn-jax sweep [RECIPE] --vary FIELD=VALUES [--vary ...] [options]

Which setting is best? Tries many, in batches that are trained together, and
judges them on the validation part; the test part is not looked at.

  --vary FIELD=A,B,C    values of a field, or LOW..HIGH for a range, which is
                        searched in the logarithm where it spans a factor of 10
  --search HOW          grid (default), every point; random; adaptive, proposals
                        that follow from results, most dropped on the way
  --trials N            how many, unless it is a grid
  --metric NAME         of the validation part: accuracy (default) or loss
  --batch N             trials that are trained together
  --strategy HOW        auto (measured), loop, vmap or map
  --storage URL         a database that several machines share, such as
                        postgresql+psycopg://user@host/name (else a file
                        in the folder); passwords belong into ~/.pgpass
  --out DIR             the folder (else runs/DATA-MODEL-sweep-001, -002, ...)
  --overwrite           move aside what lies in DIR
  --resume DIR          go on with an interrupted sweep
  --data, --model, --epochs, --GROUP.FIELD ...   as of 'cnn-jax train'
examples:
  cnn-jax sweep --vary learning_rate=0.03,0.1,0.3 --vary seed=0..3
  cnn-jax sweep --search adaptive --trials 54 --vary learning_rate=0.001..1 \\
    --vary optimizer.weight_decay=1e-5..1e-2"""


def sweep(arguments: list[str]) -> int:
    """Try many settings of a recipe, or resume a sweep that was interrupted."""
    parser = Parser(prog="cnn-jax sweep", text=_HELP)
    parser.add_argument("--vary", action="append", default=[])
    for option in ("search", "metric", "strategy", "storage", "out", "resume"):
        parser.add_argument("--" + option)
    for option in ("trials", "batch"):
        parser.add_argument("--" + option, type=int)
    parser.add_argument("--overwrite", action="store_true")
    options, overrides = parse_recipe(parser, arguments)
    own = ("search", "metric", "strategy", "storage", "trials", "batch", "out")
    given = {name: options[name] for name in own if options[name] is not None}
    if options["resume"]:
        moved = overrides.pop("data", None)
        if overrides or given or options["vary"] or options["recipe"] or options["overwrite"]:
            raise UsageError(
                "--resume goes on with the sweep as it began: give nothing else (but --data PATH, "
                "if the data have moved)"
            )
        from cnn_jax.sweeps import Sweep

        found = Sweep.load(options["resume"], data=moved)
        if found.status == "finished":
            print(f"{found.shown} is finished: nothing to resume")
        return _end(found.resume())
    vary: dict[str, str] = {}
    for word in options["vary"]:
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise UsageError(f"--vary needs FIELD=VALUES, such as seed=0..3, not {word!r}")
        if name in vary:
            raise UsageError(f"--vary {name} is given twice")
        vary[name] = values
    recipe = resolve(options["recipe"], overrides)
    from cnn_jax.sweeps import sweep as search

    command = shlex.join(["cnn-jax", "sweep", *arguments])
    return _end(search(recipe, vary, overwrite=options["overwrite"], command=command, **given))


def _end(found: Sweep) -> int:
    if found.status == "interrupted":
        return interrupted_status(found.info)
    from cnn_jax import tables

    print(tables.settings(found.settings()))
    print(f"all trials in {found.shown}/trials.csv")
    print(found.summary())
    return 0 if found.settings() else 2
