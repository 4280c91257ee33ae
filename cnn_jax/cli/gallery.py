"""`cnn-jax gallery`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.cli.arguments import Parser, UsageError, name_unreadable
from cnn_jax.errors import printable

if TYPE_CHECKING:
    from cnn_jax.gallery import FittedThreshold, Gallery

_HELP = """\
usage: cnn-jax gallery COMMAND --gallery FILE [options]

People or products by their images, in one file: known ones are named, unknown
ones are said to be so. They come and go without training.

  enrol --run RUN PATH...     folders of a folder for each identity, named so;
                              all images are enrolled or, on an error, none;
                              a gallery begun with --mirror adds the embeddings
                              of mirror images, which helps with faces
  threshold --far F           fit the score that is near enough on what is
                              enrolled, for a false accept rate of an image and
                              one wrong identity; needs 6 / F identities; with
                              --run it is said whom the network has learned
  identify --run RUN PATH...  who or what images show, or 'unknown'
  verify --run RUN --name N PATH...   whether images are of N
  list                        who is enrolled, and the threshold
  remove NAME...              remove identities, and overwrite their bytes
  remove --image SOURCE...    or single images, as 'list --images' names them;
                              with neither, overwrite again what is gone

  --gallery FILE   the gallery; on a disk of this machine
  --run RUN        folder of a run, or one that export wrote; a gallery takes
                   embeddings of one network alone
  --top K          candidates that identify shows (1)
  --threshold S    a cosine between -1 and 1, in place of the fitted one
  --images         list each image
  --format F       table, csv or json
example:
  cnn-jax gallery enrol --gallery staff.gallery --run runs/faces staff/"""


def gallery(arguments: list[str]) -> int:
    """Carry out one of the commands on a gallery."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP)
        return 0
    name, rest = arguments[0], arguments[1:]
    commands: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "enrol": _enrol,
        "threshold": _threshold,
        "identify": _identify,
        "verify": _verify,
        "list": _list,
        "remove": _remove,
    }
    if name not in commands:
        raise UsageError(f"cnn-jax gallery has no {name!r}: it has {', '.join(commands)}")
    parser = Parser(prog=f"cnn-jax gallery {name}", text=_HELP)
    parser.add_argument("--gallery", required=True)
    if name in ("enrol", "identify", "verify"):
        parser.add_argument("--run", required=True)
        parser.add_argument("paths", nargs="+")
    if name == "enrol":
        parser.add_argument("--mirror", action="store_true")
    if name in ("identify", "verify"):
        parser.add_argument("--threshold", type=float)
    if name == "threshold":
        parser.add_argument("--far", type=float, required=True)
        parser.add_argument("--run")
    if name == "identify":
        parser.add_argument("--top", type=int, default=1)
    if name == "verify":
        parser.add_argument("--name", required=True)
    if name == "list":
        parser.add_argument("--images", action="store_true")
    if name == "remove":
        parser.add_argument("names", nargs="*")
        parser.add_argument("--image", nargs="+", default=[])
    if name in ("identify", "verify", "list"):
        parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    return commands[name](parser.parse_args(rest)) or 0


def _enrol(options: argparse.Namespace) -> None:
    from cnn_jax.data.reading import counted, some_of
    from cnn_jax.errors import ModelError
    from cnn_jax.recognising import Embedder, enrol_folders, is_begun

    embedder = Embedder.load(options.run)
    if not is_begun(options.gallery):
        embedder = replace(embedder, mirrored=options.mirror)
    else:
        embedder = embedder.as_in(options.gallery)
        if options.mirror and not embedder.mirrored:
            raise ModelError(
                f"{options.gallery!r} was begun without --mirror: leave it out, or begin another "
                "gallery"
            )
    done = enrol_folders(options.gallery, embedder, options.paths)
    before = done.images - done.new
    print(
        f"{counted(done.new, 'image', 'images')} of {counted(len(done.counts), 'name', 'names')} "
        f"enrolled" + (f", {before:,} were already" if before else "")
    )
    if done.single:
        print(f"with one image, whose template is that alone: {printable(some_of(done.single))}")
    if done.empty:
        print(f"without an image, and not enrolled: {printable(some_of(done.empty))}")


def _threshold(options: argparse.Namespace) -> None:
    from cnn_jax.data.reading import some_of
    from cnn_jax.gallery import Gallery
    from cnn_jax.recognising import Embedder, learned_names

    embedder = Embedder.load(options.run).as_in(options.gallery) if options.run else None
    digest = embedder.digest if embedder else None
    with Gallery.open(options.gallery, digest) as known:
        found = known.fit_threshold(options.far)
        print(_described(found, len(known.counts())))
        if embedder and (learned := learned_names(known, embedder)):
            names = printable(some_of(learned))
            print(
                f"{len(learned)} of them are in the network's data ({names}): for "
                "people whom it has not learned the rate is higher"
            )


def _described(found: FittedThreshold, identities: int) -> str:
    genuine = f"{found.accepted:,} of {found.genuine_pairs:,}" if found.genuine_pairs else "no"
    return (
        f"threshold {found.score:.4f} (cosine): {found.rule}\n"
        f"accepts {100 * found.calibration_far:.3g} % of {found.impostor_pairs:,} impostor pairs; "
        f"the true rate is at most {100 * found.bound:.3g} % with confidence "
        f"{100 * found.confidence:g} %, from {found.disjoint_pairs:,} disjoint pairs\n"
        f"accepts {genuine} pairs of one identity\n"
        f"compared with {identities:,} identities, somebody unknown is given a name in up to "
        f"{100 * found.false_alarm(identities):.3g} % of searches"
    )


def _identify(options: argparse.Namespace) -> int:
    from cnn_jax.data import list_images
    from cnn_jax.data.files import of_readable
    from cnn_jax.gallery import Gallery
    from cnn_jax.recognising import Embedder

    files = list_images(options.paths)
    embedder = Embedder.load(options.run).as_in(options.gallery)
    with Gallery.open(options.gallery, embedder.digest) as known:
        embedded, files, bad = of_readable(files, embedder.files)
        found = known.identify(embedded, top=options.top, threshold=options.threshold)
    rows = []
    for file, name, candidates, scores in zip(
        files, found.names, found.candidates.tolist(), found.scores.tolist(), strict=True
    ):
        row: dict[str, object] = {"file": str(file), "name": name, "score": scores[0]}
        if options.top > 1:
            for place, (candidate, score) in enumerate(zip(candidates, scores, strict=True), 1):
                row |= {f"candidate_{place}": candidate, f"score_{place}": score}
        rows.append(row)
    _print(rows, options.format)
    return name_unreadable(bad)


def _verify(options: argparse.Namespace) -> int:
    from cnn_jax.data import list_images
    from cnn_jax.data.files import of_readable
    from cnn_jax.gallery import Gallery
    from cnn_jax.recognising import Embedder

    files = list_images(options.paths)
    embedder = Embedder.load(options.run).as_in(options.gallery)
    with Gallery.open(options.gallery, embedder.digest) as known:
        embedded, files, bad = of_readable(files, embedder.files)
        found = known.verify(options.name, embedded, threshold=options.threshold)
    rows: list[dict[str, object]] = [
        {"file": str(file), "accepted": "yes" if accepted else "no", "score": score}
        for file, accepted, score in zip(
            files, found.accepted.tolist(), found.scores.tolist(), strict=True
        )
    ]
    _print(rows, options.format)
    return name_unreadable(bad)


def _list(options: argparse.Namespace) -> None:
    from cnn_jax.gallery import Gallery

    with Gallery.open(options.gallery) as known:
        counts, fitted, model = known.counts(), known.threshold, known.model
        rows: list[dict[str, object]]
        if options.images:
            rows = [{"name": name, "image": s} for name in counts for s in known.sources(name)]
        else:
            rows = [{"name": name, "images": count} for name, count in counts.items()]
    if rows:
        _print(rows, options.format)
    elif options.format == "json":
        print("[]")
    if options.format == "table":
        print(
            f"{len(counts):,} enrolled; model {model.digest[:12]}, {model.dimension} numbers each"
        )
        print(_described(fitted, len(counts)) if fitted else "no threshold fitted")


def _remove(options: argparse.Namespace) -> None:
    from cnn_jax.data.reading import counted
    from cnn_jax.gallery import Gallery

    if options.names and options.image:
        raise UsageError("give names, or --image with single images")
    with Gallery.open(options.gallery) as known:
        wanted: dict[str, list[str] | None] = dict.fromkeys(options.names)
        if options.image:
            wanted |= _owners(known, options.image)
        if wanted:
            known.remove_all(wanted)
        else:
            known.erase()
        left = known.counts()
    print(f"done; {counted(len(left), 'identity is', 'identities are')} enrolled")


def _owners(known: Gallery, images: list[str]) -> dict[str, list[str]]:
    """Name -> those of the images that are enrolled under it.

    Raises:
      DataError: an image of nobody, or of several identities.
    """
    from cnn_jax.errors import DataError

    owners: dict[str, list[str]] = {}
    for name in known.counts():
        for source in known.sources(name):
            owners.setdefault(source, []).append(name)
    found: dict[str, list[str]] = {}
    for image in dict.fromkeys(images):
        names = owners.get(image, [])
        if len(names) != 1:
            of = "nobody" if not names else ", ".join(names)
            raise DataError(
                f"image {image!r} is of {of}: nothing was removed; 'gallery list --images' names "
                "each image, and Gallery.remove takes the name of its identity, too"
            )
        found.setdefault(names[0], []).append(image)
    return found


def _print(rows: list[dict[str, object]], form: str) -> None:
    from cnn_jax.tables.layout import aligned, csv_text

    if form == "json":
        print(json.dumps(rows, indent=1))
        return
    cells = [
        {k: f"{v:.4f}" if isinstance(v, float) else str(v) for k, v in r.items()} for r in rows
    ]
    if form == "csv":
        print(csv_text(cells))
        return
    print(aligned([list(cells[0]), *([printable(c) for c in row.values()] for row in cells)]))
