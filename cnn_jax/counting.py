"""Taking an inventory: how many pictures there are of each class, with intervals."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.data import decode_image
from cnn_jax.data.sources import find_unreadable
from cnn_jax.decision import Confusion, Count, fit_confusion
from cnn_jax.decision.stock import check_unknown
from cnn_jax.errors import DataError, EvaluationError, RunError
from cnn_jax.evaluation import CalibrationPredictions, Predictions
from cnn_jax.evaluation.predictions import log_probabilities
from cnn_jax.familiarity import Familiarity
from cnn_jax.report.stock import StockPage, Unsure
from cnn_jax.run import Run
from cnn_jax.whole_files import write_whole

COUNTS, IMAGES, PAGE = "counts.csv", "images.csv", "page.html"
# Pictures on the page: those of which the network is least sure.
SHOWN = 60
_SHOWN_SIDE = 160


@dataclass(frozen=True, eq=False)
class Inventory:
    """What was counted.

    Attributes:
      counts: of each class, in the order of the run's classes.
      confusion: by which they were corrected.
      drift, level: of the intervals.
      review: a picture whose highest probability is below this is for a person.
      files: the pictures that could be read, N paths.
      answers: N names of classes, or `unknown`.
      likeliest: N names of classes; as `answers`, but for what is unknown.
      probability: float64 `[N]`, the calibrated probability of the likeliest class.
      unread: files that could not be read, and why.
    """

    counts: tuple[Count, ...]
    confusion: Confusion
    drift: float
    level: float
    review: float
    files: tuple[Path, ...]
    answers: tuple[str, ...]
    likeliest: tuple[str, ...]
    probability: np.ndarray
    unread: Mapping[Path, str]

    @property
    def unsure(self) -> np.ndarray:
        """Positions of the pictures that are for a person: unknown ones, then least probable."""
        known = np.array([a == b for a, b in zip(self.answers, self.likeliest, strict=True)])
        order = np.lexsort((self.probability, known))
        found: np.ndarray = order[(self.probability[order] < self.review) | ~known[order]]
        return found


def take_inventory(
    run: Run,
    files: Sequence[str | os.PathLike[str]],
    *,
    drift: float = 0.05,
    level: float = 0.95,
    review: float = 0.5,
    unknown: float = 0.0,
) -> Inventory:
    """Count the pictures of each class among some files, each of which shows one.

    A file of several pictures, such as an animation, counts as one that cannot be read. What the
    network answers for pictures of each class is known from the run's validation part; the counts
    are corrected for that, see `decision.Confusion.count`.

    Args:
      run: a finished run, of one class for each image.
      files: image files.
      drift, level: see `decision.Confusion.count`.
      review: a picture whose highest probability is below this is for a person to look at, since it
        may show something that is none of the classes. It counts as what it is likeliest to be all
        the same: take it away where it is not, and count again.
      unknown: share of the classes' own pictures that may be taken for something else. Such
        pictures are counted as `unknown`, one more class, and are for a person too; see
        `Familiarity` and `decision.fit_confusion`. The training images are read again for it.
        0: everything is of some class.

    Raises:
      RunError: the run does not tell classes of images apart, or has no validation predictions.
      DataError: no file can be read.
      EvaluationError: drift, level or review out of range; or `unknown`, or too few validation
        images for it.
      ModelError: the network has no features by which it could tell what is unknown.
    """
    if run.regions or run.recognises:
        raise RunError(f"{run.shown!r} does not tell classes of images apart: name one that does")
    held = run.predictions("validation")
    assert isinstance(held, CalibrationPredictions)
    if not 0 <= review <= 1:
        raise EvaluationError(f"review is a probability, 0 to 1, not {review}")
    if not 0 <= unknown < 1:
        raise EvaluationError(f"the share taken for unknown lies in 0..1, not {unknown}")
    if held.kind != "class":
        raise EvaluationError(f"counts need one class for each image, not {held.kind!r}")
    if unknown:
        check_unknown(held, unknown)
    known = Familiarity.of(run) if unknown else None
    if known is None:
        confusion = fit_confusion(held)
    else:
        place = {name: row for row, name in enumerate(run.ids("validation"))}
        rows = [place[name] for name in held.ids.tolist()]
        familiar = known.of_part(run, "validation")[rows]
        confusion = fit_confusion(held, familiarity=familiar, unknown=unknown)
    paths = [Path(file) for file in files]
    bad = find_unreadable(paths)
    readable = [path for row, path in enumerate(paths) if row not in bad]
    if not readable:
        raise DataError(next(iter(bad.values()), "no pictures to count"))
    ids, logits = run.classifier.logits(readable)
    predictions = Predictions(
        split="new",
        ids=np.asarray(ids, np.str_),
        targets=np.zeros(len(ids), np.int32),  # not known, and not looked at
        logits=logits,
        classes=held.classes,
    )
    answers = confusion.answers(predictions, None if known is None else known.of_files(readable))
    log_p = log_probabilities(logits / run.temperature, "class")
    return Inventory(
        counts=confusion.count(answers, drift=drift, level=level),
        confusion=confusion,
        drift=drift,
        level=level,
        review=review,
        files=tuple(readable),
        answers=tuple(confusion.classes[answer] for answer in answers.tolist()),
        likeliest=tuple(held.classes[answer] for answer in logits.argmax(axis=1).tolist()),
        probability=np.exp(log_p.max(axis=1)),
        unread={paths[row]: why for row, why in bad.items()},
    )


def write(inventory: Inventory, folder: str | os.PathLike[str], page: str) -> None:
    """Write `counts.csv`, a row for each class, `images.csv`, a row for each file, and the page.

    Args:
      inventory: what was counted.
      folder: made where it is not there.
      page: HTML of `report.stock.render`.

    Raises:
      RunError: something cannot be written.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with open(place / COUNTS, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("class", "answered", "mean", "low", "high"))
            for count in inventory.counts:
                mean = f"{count.mean:.3f}"
                rows.writerow((count.name, count.answered, mean, count.low, count.high))
        with open(place / IMAGES, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("image", "class", "likeliest", "probability", "look", "reason"))
            looked_at = set(inventory.unsure.tolist())
            for row, path in enumerate(inventory.files):
                name, likeliest = inventory.answers[row], inventory.likeliest[row]
                p = f"{inventory.probability[row]:.6f}"
                look = "look" if row in looked_at else ""
                rows.writerow((_told(path), name, likeliest, p, look, ""))
            for path, why in inventory.unread.items():
                rows.writerow((_told(path), "", "", "", "unread", why))
        write_whole(place / PAGE, page)
    except OSError as error:
        raise RunError(f"cannot write to {str(folder)!r}: {error.strerror}") from error


def page_of(inventory: Inventory, run: Run, command: str) -> StockPage:
    """What the page of an inventory shows."""
    fit = run.classifier.recipe.data.fit
    shown = []
    for row in inventory.unsure[:SHOWN].tolist():
        path = inventory.files[row]
        try:
            picture = decode_image(path, (_SHOWN_SIDE, _SHOWN_SIDE, 3), fit)
        except DataError:  # it was there a moment ago
            continue
        name, p = inventory.likeliest[row], float(inventory.probability[row])
        unknown = inventory.answers[row] != name
        shown.append(Unsure(_told(path), name, p, picture, unknown))
    fitted = inventory.confusion.fitted_on
    return StockPage(
        counts=inventory.counts,
        pictures=len(inventory.files),
        level=inventory.level,
        drift=inventory.drift,
        review=inventory.review,
        unsure_count=len(inventory.unsure),
        unknown=inventory.confusion.line is not None,
        unsure=tuple(shown),
        unread=tuple((_told(path), why) for path, why in inventory.unread.items()),
        facts=(
            ("run", run.shown),
            ("confusion from", f"{fitted.n:,} validation images, {fitted.groups:,} independent"),
            ("classes without any", _without(inventory.confusion)),
        ),
        command=command,
    )


def _without(confusion: Confusion) -> str:
    learned = slice(None, -1 if confusion.line is not None else None)
    bare = confusion.counts.sum(axis=1)[learned] == 0
    names = [name for name, none in zip(confusion.classes[learned], bare, strict=True) if none]
    return ", ".join(names) or "none"


def _told(path: Path) -> str:
    return os.fspath(path).encode("utf-8", "replace").decode()
