"""`cnn-jax bench`."""

from __future__ import annotations

import shlex
from pathlib import Path

from cnn_jax import fields
from cnn_jax.bench.statistics import FEWEST_PAIRS
from cnn_jax.cli.arguments import Parser, UsageError

_HELP = """\
usage: cnn-jax bench BENCHMARK [options]

Times ours, stock JAX and PyTorch in turn: medians of pair ratios, intervals.

  ops        single convolutions and poolings, with their gradients
  zoo        every distinct one of the networks of 'cnn-jax models'
  random     200 convolutions of random shapes
  models     training steps and inference of four networks
  scan       training steps in lax.scan, against a loop of them
  vmap       four networks under vmap, against a loop over them
  roofline   each layer as a share of what this machine can give
  tune       not a race: find the fastest algorithms for a model (--help tells)

  --filter TEXT      only cases and parts that contain all its words
  --pairs N          rounds (10)           --dtype D      float32 or bfloat16
  --quick            small batches, short measurements: only to try it out
  --no-torch         without PyTorch       --torch-compile   also its compiler
  --out DIR          write results.csv, and a JSON file and a picture (SVG)
  --overwrite        replace what DIR holds of the same comparisons
  --resume           measure what DIR does not hold yet
  --baseline FILE    compare with a saved results.csv; exit status 1 if slower
example: cnn-jax bench ops --filter "depthwise gradients" """

_TUNE_HELP = """\
usage: cnn-jax bench tune MODEL [options]

Measures, for each convolution of a model and its gradients, every algorithm that
can compute it; keeps in the user's cache what beats the rule beyond noise. From
then on cnn_jax uses it on this machine, with this version of jax. CPU only.

  --image-size N   height and width of the images (32)
  --channels N     of the images (3)
  --batch-size N   examples in a batch (128)
  --inference      the forward pass alone
  --pairs N        rounds of each comparison (10)
example: cnn-jax bench tune resnet18 --batch-size 64"""

# As in cnn_jax.bench.benchmarks, which imports jax.
_BENCHMARKS = ("ops", "zoo", "random", "models", "scan", "vmap", "roofline")


def bench(arguments: list[str]) -> int:
    """Measure, print a line for each comparison, write what was asked for."""
    if arguments[:1] == ["tune"]:
        return _tune(arguments[1:])
    parser = Parser(prog="cnn-jax bench", text=_HELP.rstrip())
    parser.add_argument("benchmark")
    parser.add_argument("--filter", default="")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-torch", dest="torch", action="store_false")
    parser.add_argument("--torch-compile", dest="torch_compiled", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--baseline", type=Path)
    words = vars(parser.parse_args(arguments))
    if words["benchmark"] not in _BENCHMARKS:
        near = fields.nearest(words["benchmark"], list(_BENCHMARKS))
        raise UsageError(f"no benchmark {words['benchmark']!r}{near}; {', '.join(_BENCHMARKS)}")
    if words["pairs"] is None:
        words["pairs"] = FEWEST_PAIRS if words["quick"] else 10
    _check_pairs(words["pairs"])
    if words["resume"] and (words["overwrite"] or words["baseline"] or words["out"] is None):
        raise UsageError(
            "--resume goes on with what --out DIR holds, without --overwrite and --baseline"
        )
    from cnn_jax.bench import session

    command = shlex.join(["cnn-jax", "bench", *arguments])
    changes = session.run(session.Options(**words, command=command), _say)
    return int(any(change.verdict == "slower" for change in changes))


def _tune(arguments: list[str]) -> int:
    parser = Parser(prog="cnn-jax bench tune", text=_TUNE_HELP)
    parser.add_argument("model")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--inference", dest="train", action="store_false")
    parser.add_argument("--pairs", type=int, default=10)
    words = vars(parser.parse_args(arguments))
    _check_pairs(words["pairs"])
    for name in ("image_size", "channels", "batch_size"):
        if words[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {words[name]}")
    from cnn_jax.bench import tuning

    tuning.tune(**words, say=_say)
    return 0


def _check_pairs(pairs: int) -> None:
    if pairs < FEWEST_PAIRS:
        raise UsageError(f"--pairs must be at least {FEWEST_PAIRS}: fewer have no 95 % interval")


def _say(line: str) -> None:
    print(line, flush=True)
