"""`cnn-jax inventory`."""

from __future__ import annotations

import shlex
from pathlib import Path

from cnn_jax.cli.arguments import Parser, UsageError, name_unreadable
from cnn_jax.errors import printable

_HELP = """\
usage: cnn-jax inventory count RUN IMAGE... --out DIR [options]

How many pictures there are of each class, with intervals. A network makes
mistakes, of kinds that its validation images show; the numbers are corrected
for them. Each picture shows one product, with --unknown also one of no class.

  RUN           folder of a run that tells the classes apart
  IMAGE         image files, or folders of them
  --out DIR     writes counts.csv, images.csv and page.html
  --drift D     by how much the share of a class that is answered right may
                differ from validation, up or down (0.05)
  --level L     probability that a true number lies in its interval (0.95)
  --review P    pictures whose highest probability is below P are shown for a
                person to look at; they may be none of the classes (0.5)
  --unknown U   pictures like none of the classes are counted as unknown, and
                shown; of pictures like validation's at most the share U is
                taken for it (0: none; 0.05 takes 19 validation images)
  --data DATA   where the training images are, which --unknown reads again

The exit status is 0, or 1 where a file could not be read: it is then named, and
not counted.
example:
  cnn-jax inventory count runs/groceries-compact-001 shelf/ --out counted"""

_SHOWN = 20  # classes that are printed; the table has all


def inventory(arguments: list[str]) -> int:
    """Count pictures by class."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP)
        return 0
    if arguments[0] != "count":
        raise UsageError(f"cnn-jax inventory has no {arguments[0]!r}: it has count")
    parser = Parser(prog="cnn-jax inventory count", text=_HELP)
    parser.add_argument("run")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--data")
    for name, usual in (("drift", 0.05), ("level", 0.95), ("review", 0.5), ("unknown", 0.0)):
        parser.add_argument(f"--{name}", type=float, default=usual)
    options = parser.parse_args(arguments[1:])
    out = Path(options.out)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UsageError(f"{options.out!r} is there already: choose another --out")
    from cnn_jax import tables
    from cnn_jax.counting import COUNTS, PAGE, page_of, take_inventory, write
    from cnn_jax.data import list_images
    from cnn_jax.report.stock import render
    from cnn_jax.run import Run

    run = Run.load(options.run, data=options.data)
    found = take_inventory(
        run,
        list_images(options.images),
        drift=options.drift,
        level=options.level,
        review=options.review,
        unknown=options.unknown,
    )
    command = shlex.join(["cnn-jax", "inventory", *arguments])
    write(found, out, render(page_of(found, run, command)))
    print(tables.stock(found, _SHOWN))
    print(f"{printable(str(out / COUNTS))}\n{printable(str(out / PAGE))}")
    return name_unreadable(found.unread)
