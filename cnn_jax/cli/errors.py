"""`cnn-jax errors` and `cnn-jax relabel`: from hard examples to corrected labels."""

from __future__ import annotations

import shlex

from cnn_jax.cli.arguments import Parser, UsageError

_HELP = """\
usage: cnn-jax errors RUN [options]

Examples with the highest loss, highest first: hard ones and wrong labels.

  --split PART   test (default), validation or train
  --top N        how many (20)
  --class NAME   only examples that were given this class
  --format F     table, csv or json
  --data PATH    where the data are, if they have moved
  --to DIR       also write them as a folder to relabel: move files to another
                 class's folder, or to _remove, then run 'cnn-jax relabel DIR'
'cnn-jax report RUN' writes them with pictures into the page of the run."""


def errors(arguments: list[str]) -> int:
    """Print the hardest examples of a run, and write them as a folder to relabel."""
    parser = Parser(prog="cnn-jax errors", text=_HELP)
    parser.add_argument("run")
    parser.add_argument("--split", default="test")
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--class", dest="of_class")
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    parser.add_argument("--data")
    parser.add_argument("--to")
    options = parser.parse_args(arguments)
    if options.to and options.format != "table":
        raise UsageError("--to writes labels.csv: leave --format out")
    from cnn_jax import relabelling, tables
    from cnn_jax.errors import EvaluationError
    from cnn_jax.run import Run

    if options.to:
        relabelling.check_place(options.to)
    run = Run.load(options.run, data=options.data)
    command = shlex.join(["cnn-jax", "errors", *arguments])
    fate = relabelling.fate_of(run, options.split, command=command)
    chosen = fate.hardest(options.top, of_class=options.of_class)
    if not len(chosen):
        raise EvaluationError(f"no {options.split} example has the class {options.of_class!r}")
    print(tables.fates(fate, chosen, options.format))
    if options.to:
        folder = relabelling.export_examples(run, fate, chosen, options.to)
        print(
            f"{len(chosen)} examples in {folder}: move files to the folder of the right class, or "
            f"to {relabelling.REMOVE}, then: cnn-jax relabel {shlex.quote(str(folder))}"
        )
    return 0


def relabel(arguments: list[str]) -> int:
    """Write the corrections that a person made by moving files."""
    parser = Parser(
        prog="cnn-jax relabel",
        description="Write corrections.csv from what was moved in a folder of 'errors --to'.",
    )
    parser.add_argument("folder", help="that folder")
    parser.add_argument("--overwrite", action="store_true", help="replace other corrections")
    options = parser.parse_args(arguments)
    from cnn_jax import relabelling, tables

    found = relabelling.find_corrections(options.folder)
    path = relabelling.write_corrections(options.folder, found, overwrite=options.overwrite)
    print(tables.relabelled(found))
    if path is None:
        print("nothing was moved yet: no corrections written")
        return 0
    print(f"train with them: cnn-jax train ... --data.corrections {shlex.quote(str(path))}")
    return 0
