"""`cnn-jax inspect`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_jax.cli.arguments import Parser, UsageError, take_dotted
from cnn_jax.errors import printable

if TYPE_CHECKING:
    from cnn_jax.detecting import Detector

_HELP = """\
usage: cnn-jax inspect FOLDER --out DIR [--normal CLASS] [options]
       cnn-jax inspect --load DETECTOR --out DIR IMAGE...

Pass or fail pictures, with a heat map of what fails. From a folder of normal
pictures it first learns what is normal; or it takes a detector that an earlier
call, or 'cnn-jax detect --out', has kept.

  FOLDER             train/good, test/good, test/DEFECT, ground_truth/DEFECT as of
                     MVTec AD, or another layout that 'cnn-jax data' reads
  --normal CLASS     the class that is normal (good)
  --out DIR          writes inspection.csv, page.html, maps/ and, where it has
                     learned, detector/
  --method M         synthetic (a U-Net that has learned to find defects made by
                     computer), or another one of 'cnn-jax detect'
  --features F       as of 'cnn-jax detect'
  --tile N           look at the pictures in windows of N x N pixels, at their own
                     resolution: for large ones, or where sizes differ
  --overlap S        least share that a window has in common with the next (0.25)
  --false-alarm A    share of normal pictures that may fail (0.05)
  --confidence C     how surely (0.95); both need 59 normal pictures to draw the
                     line, beside those that are learned from
  --data-dir DIR     where named data sets lie
  --GROUP.FIELD V    any field of the recipe by which a network learns

  --load DETECTOR    inspect other pictures by it
  IMAGE              image files, or folders of them

The exit status is 0, or 1 where a file could not be read, be it one to learn
from: it is then named, and the others are looked at.
examples:
  cnn-jax inspect path/to/bottle --out inspected
  cnn-jax inspect --load inspected/detector --out today new/"""

_OF_LEARNING = (
    *("normal", "method", "features", "tile", "overlap"),
    *("false-alarm", "confidence", "data-dir"),
)


def inspect(arguments: list[str]) -> int:
    """Pass or fail pictures, by a detector that is learned first or that was kept."""
    parser = Parser(prog="cnn-jax inspect", text=_HELP)
    for name in ("normal", "method", "features", "data-dir", "out", "load"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--tile", type=int)
    for name in ("overlap", "false-alarm", "confidence"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("images", nargs="*")
    known = [f"--{name}" for name in (*_OF_LEARNING, "out", "load", "help")]
    rest, dotted = take_dotted(arguments, [*known, "-h"])
    options = parser.parse_args(rest)
    if options.out is None:
        raise UsageError("give --out, a folder for the table, the page and the heat maps")
    out = Path(options.out)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UsageError(f"{options.out!r} is there already: choose another --out")
    if options.load is not None:
        detector, files = _kept(options, dotted)
    else:
        detector, files = _learned(options, dotted, shlex.join(["cnn-jax", "inspect", *arguments]))
    return _inspect(detector, files, out, shlex.join(["cnn-jax", "inspect", *arguments]))


def _kept(options: argparse.Namespace, dotted: dict[str, str]) -> tuple[Detector, list[Path]]:
    given = [n for n in _OF_LEARNING if getattr(options, n.replace("-", "_")) is not None]
    if unfit := [*given, *dotted]:
        raise UsageError(f"--{unfit[0]} is for learning a detector: leave it out of --load")
    if not options.images:
        raise UsageError("--load: name the images to inspect, or folders of them")
    from cnn_jax.data import list_images
    from cnn_jax.data.masks import masks_among
    from cnn_jax.detecting import Detector

    listed = list_images(options.images)
    masks = set(masks_among(listed))
    return Detector.load(options.load), [file for file in listed if file not in masks]


def _learned(
    options: argparse.Namespace, dotted: dict[str, str], command: str
) -> tuple[Detector, list[Path]]:
    """A detector of the folder's normal pictures, and the files of its test part."""
    if len(options.images) != 1:
        raise UsageError("name one folder to learn from, or --load a detector")
    if options.tile is None and options.overlap is not None:
        raise UsageError("--overlap is of windows: give --tile, too")
    from cnn_jax import detecting, tables
    from cnn_jax.detecting.tiles import Tiles, files_of
    from cnn_jax.recipe import resolve
    from cnn_jax.run_data import load_data, original_files, resolve_data

    named = {"data": options.images[0], **dotted}
    if options.data_dir is not None:
        named["data_dir"] = options.data_dir
    recipe = resolve("inspection", named)
    dataset = resolve_data(recipe, load_data(recipe))
    ids = [str(name) for split in dataset.splits.values() for name in split.ids]
    files = original_files(recipe, [*ids, *dataset.unread])
    unread = [files[name] for name in dataset.unread if name in files]
    tested = [*files_of(dataset.splits["test"], files), *unread]
    tiles = None
    if options.tile is not None:
        overlap = {} if options.overlap is None else {"overlap": options.overlap}
        tiles = Tiles(options.tile, **overlap)
    given = {
        name: value
        for name in ("features", "false_alarm", "confidence")
        if (value := getattr(options, name)) is not None
    }
    found = detecting.detect(
        dataset,
        options.normal or "good",
        method=options.method or "synthetic",
        recipe=recipe,
        tiles=tiles,
        files=files,
        command=command,
        **given,
    )
    found.save(Path(options.out) / "detector")  # logged before anything is shown
    print(f"{tables.detection(found, 'table')}\n")
    return found.detector, tested


def _inspect(detector: Detector, files: list[Path], out: Path, command: str) -> int:
    from cnn_jax.inspecting import CSV, PAGE, Report, inspect, page_of
    from cnn_jax.report.inspection import render
    from cnn_jax.whole_files import write_whole

    report = Report(out, detector.alarm.threshold)
    report.write(inspect(detector, files))
    write_whole(out / PAGE, render(page_of(report, detector, command)))
    counts = report.counts
    said = f"{counts['pass']:,} pass, {counts['fail']:,} fail"
    if counts["unread"]:
        said += f", {counts['unread']:,} cannot be read"
    print(f"{said}\n{printable(str(out / CSV))}\n{printable(str(out / PAGE))}")
    for why in report.unread.values():
        print(f"cnn-jax: {printable(why)}", file=sys.stderr)
    return 1 if report.unread else 0
