"""The command line: parses and calls, nothing else.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from cnn_jax import fields
from cnn_jax.errors import CnnJaxError
from cnn_jax.recipe import SHORT_NAMES, Recipe, resolve

_HELP = """\
usage: cnn-jax COMMAND [...]

  train      train a network, evaluate it exactly, write a run folder
  evaluate   figures of a run on its test, validation or train part
  predict    class and calibrated probability of image files
  report     write the page of a run again
  export     weights to one safetensors file with all that is needed to use them
  data       what a data set holds
  models     the networks, with parameters and FLOPs
  doctor     devices, versions, precision, caches

examples:
  cnn-jax train                            handwritten digits, half a minute
  cnn-jax train --data path/to/folder      a folder of images for each class
  cnn-jax train --data cifar10 --data-dir ~/sets --epochs 20
  cnn-jax predict runs/digits-compact-001 image.png
'cnn-jax COMMAND --help' has more."""

_TRAIN_HELP = """\
usage: cnn-jax train [RECIPE] [options]

  RECIPE                a .toml file or a bundled name; else that of the data
  --data NAME|PATH      digits, mnist, cifar10, ..., an .npz, a table, a folder
  --data-dir DIR        where named data sets lie
  --model NAME          see 'cnn-jax models'
  --epochs N            --batch-size N     --learning-rate X     --seed N
  --until converged     until the loss no longer falls
  --baselines           also pixel nearest neighbour and logistic regression
  --out DIR             the run folder (else runs/DATA-MODEL-001, -002, ...)
  --overwrite           move aside what lies in DIR
  --resume RUN          go on with an interrupted run, bit for bit
  --GROUP.FIELD VALUE   any other field of the recipe; groups are data, model,
                        augment, loss, optimizer, schedule, train
examples:
  cnn-jax train --data mnist --data-dir ~/sets
  cnn-jax train my.toml --model resnet18 --train.dtype bfloat16
  cnn-jax train --augment.translate 2 --model.options.widths '[16, 32]'"""


class _UsageError(CnnJaxError):
    """A command line that makes no sense."""


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors and our own help text."""

    def __init__(self, prog: str, description: str = "", text: str = "") -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self._text = text

    def format_help(self) -> str:
        return self._text + "\n" if self._text else super().format_help()

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


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
        print(f"cnn-jax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cnn-jax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away, as with `| head`; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
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
    if name not in _COMMANDS:
        raise _UsageError(
            f"no command {name!r}{fields.nearest(name, list(_COMMANDS))} "
            f"(commands: {', '.join(_COMMANDS)})"
        )
    return _COMMANDS[name](rest)


def _train(arguments: list[str]) -> int:
    parser = _Parser(prog="cnn-jax train", text=_TRAIN_HELP)
    parser.add_argument("recipe", nargs="?")
    for option in SHORT_NAMES:
        parser.add_argument("--" + option.replace("_", "-"))
    for option in ("out", "resume"):
        parser.add_argument("--" + option)
    for option in ("overwrite", "baselines"):
        parser.add_argument("--" + option, action="store_true")
    known = [s for action in parser._actions for s in action.option_strings]
    command = shlex.join(["cnn-jax", "train", *arguments])
    arguments, dotted = _take_dotted(arguments, known)
    options = vars(parser.parse_args(arguments))
    overrides = {o: options[o] for o in SHORT_NAMES if options[o] is not None}
    overrides.update(dotted)
    if options["resume"]:
        moved = overrides.pop("data", None)
        if overrides or any(options[o] for o in ("recipe", "out", "overwrite", "baselines")):
            raise _UsageError(
                "--resume goes on with the run's own recipe: give nothing else (but --data PATH, "
                "if the data have moved)"
            )
        from cnn_jax.run import Run

        run = Run.load(options["resume"], data=moved)
        if run.status == "finished":
            print(f"{run.shown} is finished: nothing to resume")
        run.resume(command=command)
    else:
        from cnn_jax.run import train

        run = train(
            resolve(options["recipe"], overrides),
            out=options["out"],
            overwrite=options["overwrite"],
            baselines=options["baselines"],
            command=command,
        )
    if run.status == "interrupted":
        return 143 if "SIGTERM" in str(run.info["reason"]) else 130
    print(run.summary())
    print(f"run folder {run.shown}, page {run.shown}/report.html")
    return 0


def _take_dotted(arguments: list[str], known: list[str]) -> tuple[list[str], dict[str, str]]:
    """Options with a dot, or that are unknown, out of the arguments; fields by name."""
    names = fields.names(Recipe())
    tables = tuple(f"{n}." for n in names if isinstance(fields.get(Recipe(), n), Mapping))
    kept, dotted = [], {}
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if not argument.startswith("--") or name in known:
            kept.append(argument)
            continue
        field = name[2:].replace("-", "_")
        if field not in names and not field.startswith(tables):
            near = fields.nearest(name, known + [f"--{n}" for n in names])
            raise _UsageError(f"no option {name!r}{near}")
        if not equals:
            following = next(waiting, None)
            if following is None:
                raise _UsageError(f"{name} needs a value")
            value = following
        dotted[field] = value
    return kept, dotted


def _evaluate(arguments: list[str]) -> int:
    parser = _Parser(prog="cnn-jax evaluate", description="Figures of a run, each with interval.")
    parser.add_argument("run", help="run folder")
    parser.add_argument("--split", default="test", help="test, validation or train")
    parser.add_argument("--data", help="where the data are, if they have moved")
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    options = parser.parse_args(arguments)
    from cnn_jax import tables
    from cnn_jax.run import Run

    command = shlex.join(["cnn-jax", "evaluate", *arguments])
    figures = Run.load(options.run, data=options.data).evaluate(options.split, command=command)
    print(tables.figures(figures, options.format))
    return 0


def _predict(arguments: list[str]) -> int:
    parser = _Parser(
        prog="cnn-jax predict", description="Class and calibrated probability of images."
    )
    parser.add_argument("run", help="run folder, or a folder that export wrote")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    options = parser.parse_args(arguments)
    from pathlib import Path

    from cnn_jax import tables
    from cnn_jax.classifier import Classifier
    from cnn_jax.data import list_images
    from cnn_jax.run import Run

    images = list_images(options.images)
    exported = (Path(options.run) / "model.safetensors").exists()
    source = Classifier.load(options.run) if exported else Run.load(options.run)
    print(tables.answers(source.predict(images), options.format))
    return 0


def _report(arguments: list[str]) -> int:
    parser = _Parser(prog="cnn-jax report", description="Write report.html of a run again.")
    parser.add_argument("run", help="run folder")
    parser.add_argument("--data", help="where the data are, if they have moved")
    options = parser.parse_args(arguments)
    from cnn_jax.run import Run

    print(Run.load(options.run, data=options.data).report())
    return 0


def _export(arguments: list[str]) -> int:
    parser = _Parser(prog="cnn-jax export", description="Write model.safetensors and model.json.")
    parser.add_argument("run", help="run folder")
    parser.add_argument("folder", help="where to write")
    options = parser.parse_args(arguments)
    from cnn_jax.run import Run

    print(Run.load(options.run).export(options.folder))
    return 0


def _data(arguments: list[str]) -> int:
    parser = _Parser(prog="cnn-jax data", description="What a data set holds.")
    parser.add_argument("source", nargs="?", default="digits", help="name or path")
    parser.add_argument("--data-dir", help="where named data sets lie")
    arguments, dotted = _take_dotted(arguments, ["--data-dir", "-h", "--help"])
    options = parser.parse_args(arguments)
    from cnn_jax import tables
    from cnn_jax.assembly import load_data

    recipe = Recipe().override({"data.source": options.source, **dotted})
    if options.data_dir:
        recipe = recipe.override({"data.root": options.data_dir})
    print(tables.dataset(load_data(recipe)))
    return 0


def _models(arguments: list[str]) -> int:
    parser = _Parser(prog="cnn-jax models", description="The networks and what they cost.")
    parser.add_argument("--image-size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--channels", type=int, default=3, help="(3)")
    parser.add_argument("--num-classes", type=int, default=10, help="(10)")
    options = parser.parse_args(arguments)
    from cnn_jax import tables

    print(tables.models(options.image_size, options.channels, options.num_classes))
    return 0


def _doctor(arguments: list[str]) -> int:
    _Parser(prog="cnn-jax doctor", description="What jax finds here.").parse_args(arguments)
    from cnn_jax import doctor

    print(doctor.examine())
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "report": _report,
    "export": _export,
    "data": _data,
    "models": _models,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
