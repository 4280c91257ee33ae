"""Commands on a finished run: `evaluate`, `predict`, `report`, `export`."""

from __future__ import annotations

import shlex
import sys

from cnn_jax.cli.arguments import Parser


def evaluate(arguments: list[str]) -> int:
    """Print figures of a run, each with its interval."""
    parser = Parser(prog="cnn-jax evaluate", description="Figures of a run, each with interval.")
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


def predict(arguments: list[str]) -> int:
    """Print class and probability of images."""
    parser = Parser(
        prog="cnn-jax predict",
        description="Class and calibrated probability of images. 'cnn-jax errors RUN' shows the "
        "hardest images of the data themselves.",
    )
    parser.add_argument("run", help="run folder, or a folder that export wrote")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument(
        "--labels",
        action="store_true",
        help="each file's folder names its class: compare, highest loss first",
    )
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    options = parser.parse_args(arguments)
    from pathlib import Path

    from cnn_jax import tables
    from cnn_jax.classifier import Classifier
    from cnn_jax.data import list_images
    from cnn_jax.data.files import unreadable
    from cnn_jax.errors import DataError
    from cnn_jax.run import Run

    images = list_images(options.images)
    exported = (Path(options.run) / "model.safetensors").exists()
    source = Classifier.load(options.run) if exported else Run.load(options.run)
    try:
        answers, bad = source.predict(images), {}
    except DataError:
        bad = unreadable(images)
        if len(bad) in (0, len(images)):
            raise
        answers = source.predict([image for image in images if image not in bad])
    print((tables.compared if options.labels else tables.answers)(answers, options.format))
    for reason in bad.values():
        print(f"cnn-jax: {reason}", file=sys.stderr)
    return 1 if bad else 0


def report(arguments: list[str]) -> int:
    """Write the page of a run again."""
    parser = Parser(
        prog="cnn-jax report",
        description="Write report.html of a run again: figures, curves, hardest examples, "
        "errors by class. 'cnn-jax errors RUN' lists them and writes them to relabel.",
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("--data", help="where the data are, if they have moved")
    options = parser.parse_args(arguments)
    from cnn_jax.run import Run

    print(Run.load(options.run, data=options.data).report())
    return 0


def export(arguments: list[str]) -> int:
    """Write the weights with all that is needed to use them."""
    parser = Parser(prog="cnn-jax export", description="Write model.safetensors and model.json.")
    parser.add_argument("run", help="run folder")
    parser.add_argument("folder", help="where to write")
    options = parser.parse_args(arguments)
    from cnn_jax.run import Run

    weights = Run.load(options.run).export(options.folder)
    print(f"{weights} and {weights.with_suffix('.json')}")
    return 0
