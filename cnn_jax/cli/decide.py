"""`cnn-jax decide`."""

from __future__ import annotations

import shlex

from cnn_jax.cli.arguments import Parser, UsageError
from cnn_jax.errors import printable

_HELP = """\
usage: cnn-jax decide RUN [--positive CLASS] [options]

Where to draw the line between yes and no, and what follows: sensitivity,
specificity and predictive values on the test part, each with its interval. The
line is drawn on the validation part alone. Of a run that segments: whether a
region is anywhere in the image.

  --positive CLASS  the class (known for some public sets) or region that is
                    looked for; needless where there is one region
  --sensitivity S   find this share of it, such as 0.95
  --specificity S   or leave this share of the others alone; with neither, the
                    greatest sensitivity + specificity
  --confidence C    draw the line further out, so far that the wanted share is
                    reached with this confidence
  --prevalence P    also predictive values where this share has it
  --page FILE.html  also write a page: curves, cases with heat maps or outlines,
                    model card
  --data PATH       where the page's images are, if they have moved
  --format F        table or json
example:
  cnn-jax decide runs/x-rays --sensitivity 0.95 --prevalence 0.02"""


def decide(arguments: list[str]) -> int:
    """Print a threshold from validation data and what it does on test."""
    parser = Parser(prog="cnn-jax decide", text=_HELP)
    parser.add_argument("run")
    parser.add_argument("--positive")
    for name in ("sensitivity", "specificity", "confidence", "prevalence"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--page")
    parser.add_argument("--data")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    if options.data and not options.page:
        raise UsageError("--data is where the images of a --page are: name that too")
    from cnn_jax import clinic, deciding, tables
    from cnn_jax.run import Run

    if options.page:
        clinic.check_place(options.page)  # before the use of the test part is logged
    run = Run.load(options.run, data=options.data)
    if options.data:
        _ = run.dataset  # rather now than after the figures
    command = shlex.join(["cnn-jax", "decide", *arguments])
    decision = deciding.decide(
        run,
        positive=options.positive,
        sensitivity=options.sensitivity,
        specificity=options.specificity,
        confidence=options.confidence,
        prevalence=options.prevalence,
        command=command,
    )
    print(tables.decision(decision, options.format))
    if options.page:
        clinic.write_clinic_page(
            run, decision, options.page, command=command, needs_images=bool(options.data)
        )
        if options.format == "table":
            print(f"page {printable(options.page)}")
    return 0
