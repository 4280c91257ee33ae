"""`cnn-jax detect`."""

from __future__ import annotations

import argparse
import shlex
import sys

from cnn_jax.cli.arguments import Parser, UsageError, name_unreadable, take_dotted
from cnn_jax.errors import printable

_HELP = """\
usage: cnn-jax detect --data NAME|PATH --normal CLASS [options]
       cnn-jax detect --load DIR [--format F] IMAGE...

Find what is not normal with a detector that has seen normal images only. Its
alarm is drawn on normal images of the validation part, with a promise: at most
the given share of normal images raises it.

  --normal CLASS     the class that is normal; all others are not
  --method M         neighbours, mahalanobis, pca, padim, patchcore, autoencoder,
                     synthetic (finds defects made by computer in normal images)
  --features F       pixels; or what a network learns from the normal images
                     without labels: rotation, cutpaste, contrastive; or the
                     folder of a run, or of an exported model.safetensors
  --false-alarm A    share of normal images that may raise the alarm (0.05)
  --confidence C     how surely, over calibrations (0.95); both need 59 normal
                     images or groups, and are refused with fewer
  --data-dir DIR     where named data sets lie
  --out DIR          write detector, scores and figures there, and that the test
                     part was looked at
  --format F         table or json
  --GROUP.FIELD V    any field of the recipe by which a network learns

  --load DIR         score new images by the detector that --out wrote there
  IMAGE              image files, or folders of them
  --format F         table, csv or json
examples:
  cnn-jax detect --data path/to/folder --normal good --out found
  cnn-jax detect --load found image.png"""

_OF_DATA = ("data", "normal", "method", "features", "data-dir", "out")
_OF_ALARM = ("false-alarm", "confidence")


def detect(arguments: list[str]) -> int:
    """Print what a detector of anomalies does on the test part, or says of new images."""
    parser = Parser(prog="cnn-jax detect", text=_HELP)
    for name in (*_OF_DATA, "load", "format"):
        parser.add_argument(f"--{name}")
    for name in _OF_ALARM:
        parser.add_argument(f"--{name}", type=float)
    known = [f"--{name}" for name in (*_OF_DATA, *_OF_ALARM, "load", "format", "help")]
    parser.add_argument("images", nargs="*")
    rest, dotted = take_dotted(arguments, [*known, "-h"])
    options = parser.parse_args(rest)
    if options.load is not None:
        given = [name for name in (*_OF_DATA, *_OF_ALARM) if _given(options, name) is not None]
        if unfit := [*given, *dotted]:
            raise UsageError(f"--{unfit[0]} is for fitting a detector: leave it out of --load")
        return _score(options)
    if options.images:
        raise UsageError(
            f"{options.images[0]!r} is no option: new images are scored with --load DIR"
        )
    return _fit(options, dotted, shlex.join(["cnn-jax", "detect", *arguments]))


def _given(options: argparse.Namespace, name: str) -> object:
    return getattr(options, name.replace("-", "_"))


def _fit(options: argparse.Namespace, dotted: dict[str, str], command: str) -> int:
    if options.data is None or options.normal is None:
        raise UsageError("give --data, and --normal with the class that is normal")
    if options.format not in (None, "table", "json"):
        raise UsageError(f"--format is table or json, not {options.format!r}")
    from cnn_jax import detecting, tables
    from cnn_jax.recipe import resolve
    from cnn_jax.run_data import load_data, resolve_data
    from cnn_jax.training.progress import Silent

    named = {"data": options.data, **dotted}
    if options.data_dir is not None:
        named["data_dir"] = options.data_dir
    recipe = resolve(None, named)
    if options.out is not None:
        detecting.check_new(options.out)
    given = {
        name: value
        for name in ("method", "features", "false_alarm", "confidence")
        if (value := getattr(options, name)) is not None
    }
    if options.format == "json":  # nothing else belongs on stdout
        given["reporter"] = Silent()
    dataset = resolve_data(recipe, load_data(recipe))
    found = detecting.detect(dataset, options.normal, recipe=recipe, command=command, **given)
    if options.out is not None:
        found.save(options.out)  # logged before anything is shown
    print(tables.detection(found, options.format or "table"))
    where = _where(options.out)
    if options.format == "json":
        print(where, file=sys.stderr)
    else:
        print(f"\n{where}")
    return 0


def _where(out: str | None) -> str:
    """Where all is, and that the test part is used up by each look."""
    from cnn_jax import detecting
    from cnn_jax.data.reading import counted

    if out is None:
        return "nothing is kept, nor that the test part was looked at: give --out DIR"
    said = f"detector, scores and figures in {printable(out)}"
    if beside := detecting.uses_beside(out):
        where = ", ".join(map(printable, beside))
        times = counted(sum(beside.values()), "time", "times")
        said += (
            f"\nthis test part was looked at {times} before, by {where}: "
            "the best of several has flattered figures"
        )
    return said


def _score(options: argparse.Namespace) -> int:
    """Score new images, readable ones at least."""
    if not options.images:
        raise UsageError("--load: name the images to score, or folders of them")
    if options.format not in (None, "table", "csv", "json"):
        raise UsageError(f"--format is table, csv or json, not {options.format!r}")
    from cnn_jax import tables
    from cnn_jax.data import list_images
    from cnn_jax.data.files import of_readable
    from cnn_jax.detecting import Detector

    detector, images = Detector.load(options.load), list_images(options.images)
    found, _, bad = of_readable(images, detector.predict)
    print(tables.scored(found, detector, options.format or "table"))
    return name_unreadable(bad)
