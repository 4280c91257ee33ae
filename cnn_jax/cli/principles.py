"""`cnn-jax principles`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from cnn_jax.cli.arguments import Parser, UsageError
from cnn_jax.errors import printable

_HELP = """\
usage: cnn-jax principles RUN [options]

One page on what the network of a run does: what its convolutions share, what
shifts and turns change, what each layer sees and represents, which units work,
how gradients reach them.

  RUN            folder of a finished run that tells classes of images apart
  --beside RUN2  compare its layers with those of another run, of another seed say
  --images N     test images that are looked at, at most (256)
  --train N      train images that linear probes learn from, at most (1000)
  --page FILE    where the page goes (RUN/principles.html)
  --data DATA    where the data are, if they have moved
example:
  cnn-jax principles runs/digits-compact-001"""


def principles(arguments: list[str]) -> int:
    """Measure the principles on a run and write a page."""
    parser = Parser(prog="cnn-jax principles", text=_HELP)
    parser.add_argument("run")
    for name in ("beside", "page", "data"):
        parser.add_argument(f"--{name}")
    for name in ("images", "train"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args(arguments)
    from cnn_jax import measuring, tables
    from cnn_jax.run import Run

    run = Run.load(options.run, data=options.data)
    place = Path(options.page) if options.page else run.path / "principles.html"
    if options.page and place.exists():
        raise UsageError(f"{options.page!r} is there already: choose another --page")
    if not os.access(place.parent, os.W_OK):  # now, and not after the work
        raise UsageError(f"{str(place.parent)!r} is no folder that can be written: choose --page")
    beside = None if options.beside is None else Run.load(options.beside, data=options.data)
    given = {"images": options.images, "train_images": options.train}
    page = measuring.measure(
        run,
        beside=beside,
        command=shlex.join(["cnn-jax", "principles", *arguments]),
        reporter=lambda text: print(f"cnn-jax: {text}", file=sys.stderr, flush=True),
        **{name: value for name, value in given.items() if value is not None},
    )
    path = measuring.write_principles_page(page, place)
    print(tables.probes(page.hierarchy))
    print(printable(str(path)))
    return 0
