"""`cnn-jax compare`."""

from __future__ import annotations

import shlex

from cnn_jax.cli.arguments import Parser, UsageError

_HELP = """\
usage: cnn-jax compare A B [options]

Is A better than B? Compares what finished runs predicted for the same examples,
and says better, worse, or that it cannot be told and what would settle it.

A and B are run folders. Several seeds of one recipe are the folder that
'cnn-jax train --seeds' wrote, or run folders by commas or by a pattern in
quotes; then the answer holds for another seed and another test set:
  cnn-jax compare runs/digits-a runs/digits-b
  cnn-jax compare 'runs/digits-a-*' 'runs/digits-b-*'

  --metric NAME  accuracy (default), auroc, nll, macro_f1, ...; of masks dice
                 (default), hausdorff95, lesion_sensitivity, ...; of people
                 never seen eer (default), rank1, ... 'cnn-jax evaluate' lists
                 them; of nll, brier, ece, eer, distances and false alarms the
                 lower is better
  --split PART   test (default), validation or train
  --level P      confidence level (0.95)
  --format F     table or json"""


def compare(arguments: list[str]) -> int:
    """Print which of two sides is better, or what would tell."""
    parser = Parser(prog="cnn-jax compare", text=_HELP)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--metric")
    parser.add_argument("--split", default="test")
    parser.add_argument("--level", type=float, default=0.95)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    if not 0 < options.level < 1:
        raise UsageError(f"--level must be between 0 and 1, such as 0.95, not {options.level}")
    from cnn_jax import comparing, tables

    verdict = comparing.compare(
        comparing.runs_of(options.a),
        comparing.runs_of(options.b),
        options.metric,
        part=options.split,
        level=options.level,
        command=shlex.join(["cnn-jax", "compare", *arguments]),
    )
    print(tables.verdict(verdict, (options.a, options.b), options.format))
    return 0
