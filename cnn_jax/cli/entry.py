"""`main`: from the words of the command line to a command and an exit status."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from cnn_jax import fields
from cnn_jax.cli.arguments import UsageError
from cnn_jax.errors import CnnJaxError, out_of_memory, printable
from cnn_jax.kept_memory import keep_freed_memory

_HELP = """\
usage: cnn-jax COMMAND [...]          'cnn-jax COMMAND --help' has more

  train      train a network, evaluate it exactly, write a run folder
  sweep      which setting of a recipe is best, on validation data
  lr-range   which learning rates train: a short test before a long run
  evaluate   figures of a run on its test, validation or train part
  compare    is one run better than another, or can it not be told?
  decide     yes or no: where to draw the line, and how often that is right
  detect     what is not normal, by a detector that has seen normal images only
  inspect    pass or fail pictures, with a heat map of what fails
  gallery    people or products by their images: enrol, identify, verify, remove
  inventory  how many pictures there are of each class, with intervals
  predict    class and calibrated probability of image files
  report     write the page of a run again
  errors     the hardest examples in a folder to sort, which 'relabel' reads
  explain    where a network sees its class, and whether that can be trusted
  principles what its layers share, see, keep under shifts and represent
  export     the weights, with all that is needed to use them
  data       what a data set holds
  models     the networks, with parameters and FLOPs
  bench      how fast convolutions and networks are here, beside stock JAX
  doctor     devices, versions, precision, caches

examples: cnn-jax train --data FOLDER   which holds a folder of images a class"""

# Command -> the module that holds the function of that name.
COMMANDS = {
    "train": "train",
    "sweep": "sweep",
    "lr-range": "lr_range",
    "evaluate": "runs",
    "compare": "compare",
    "decide": "decide",
    "detect": "detect",
    "inspect": "inspect",
    "gallery": "gallery",
    "inventory": "inventory",
    "predict": "runs",
    "report": "runs",
    "errors": "errors",
    "relabel": "errors",
    "export": "runs",
    "data": "data",
    "explain": "explain",
    "principles": "principles",
    "models": "machine",
    "bench": "bench",
    "doctor": "machine",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done. 2: the input is wrong, said in one line. 128 + n: ended by signal n, saved.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold bytes that are no UTF-8; they go out as they came in.
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except CnnJaxError as error:
        print(f"cnn-jax: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        advice = getattr(interrupt, "__notes__", [])  # how to go on, where a run has begun
        print("; ".join(["cnn-jax: interrupted", *advice]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away, as with `| head`; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except RuntimeError as error:
        if not (said := out_of_memory(error)):
            raise
        print(
            f"cnn-jax: {said} Take smaller batches "
            "(train.batch_size, train.eval_batch_size), or train.accumulate 2 or more",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        where = f" {str(error.filename)!r}" if error.filename else ""
        print(f"cnn-jax: {error.strerror or error}{where}", file=sys.stderr)
        return 2


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if arguments[0] == "--version":
        from importlib import metadata

        print(f"cnn_jax {metadata.version('cnn_jax')}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UsageError(
            f"no command {name!r}{fields.nearest(name, list(COMMANDS))} "
            f"(commands: {', '.join(COMMANDS)})"
        )
    keep_freed_memory()  # where it cannot be done, all works as well, but slower
    command: Callable[[list[str]], int] = getattr(
        importlib.import_module(f"cnn_jax.cli.{COMMANDS[name]}"), name.replace("-", "_")
    )
    return command(rest)
