"""Passing or failing picture files by a kept detector, one after the other, and saying why."""

from __future__ import annotations

import csv
import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnn_jax.data import read_header
from cnn_jax.data.large import MOST_PIXELS
from cnn_jax.detecting import Detector
from cnn_jax.detecting.looking import Look
from cnn_jax.errors import DataError, RunError
from cnn_jax.report import overlay
from cnn_jax.report.inspection import InspectionPage, Shown

CSV, PAGE, MAPS = "inspection.csv", "page.html", "maps"
FIELDS = ("image", "verdict", "score", "threshold", "map", "reason")
# Pictures on the page: those that fail by the most, and those that barely pass.
SHOWN_FAILED, SHOWN_PASSED = 48, 6
# Files that are looked at together.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Inspected:
    """What became of one file.

    Attributes:
      file: as it was given.
      look: what the detector saw; None where the file cannot be read.
      failed: whether its score is above the alarm's threshold.
      reason: why it cannot be read, or empty.
    """

    file: Path
    look: Look | None
    failed: bool = False
    reason: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `fail` or `unread`."""
        return "unread" if self.look is None else "fail" if self.failed else "pass"


def inspect(detector: Detector, files: Sequence[str | os.PathLike[str]]) -> Iterator[Inspected]:
    """Pass or fail each file, in their order; those that cannot be read are told, not dropped.

    A file of several pictures, such as an animation, counts as one that cannot be read: a verdict
    on the first would be taken for one on all.

    Args:
      detector: with its alarm.
      files: picture files.
    """
    paths = [Path(file) for file in files]
    # Large pictures one by one: none is looked at again because another cannot be read.
    together, most = (_AT_ONCE, None) if detector.tiles is None else (1, MOST_PIXELS)
    for start in range(0, len(paths), together):
        some = paths[start : start + together]
        reasons = {file: why for file in some if (why := _several(file, most))}
        looks, bad = _looks(detector, [file for file in some if file not in reasons])
        reasons |= bad
        for file in some:
            look = looks.get(file)
            if look is None:
                yield Inspected(file, None, reason=reasons[file])
            else:
                yield Inspected(file, look, look.score > detector.alarm.threshold)


def _several(file: Path, most_pixels: int | None) -> str:
    """Why a file is no single picture; empty where it is one."""
    try:
        header = read_header(file, most_pixels)
    except DataError as error:
        return str(error)
    return f"{str(file)!r} has several pictures: save each as a file" if header.animated else ""


def _looks(detector: Detector, files: Sequence[Path]) -> tuple[dict[Path, Look], dict[Path, str]]:
    """What is seen in files, and why the others of them cannot be read."""
    try:
        return dict(zip(files, detector.look(files), strict=True)), {}
    except DataError as error:
        if len(files) == 1:
            return {}, {files[0]: str(error)}
    looks: dict[Path, Look] = {}
    reasons: dict[Path, str] = {}
    for file in files:
        found, bad = _looks(detector, [file])
        looks |= found
        reasons |= bad
    return looks, reasons


@dataclass
class Report:
    """What is written of an inspection while it goes on.

    Attributes:
      folder: where `inspection.csv`, `maps/` and at last `page.html` go.
      threshold: of the alarm.
      counts: verdict -> how many so far.
      unread: files that cannot be read, and why.
    """

    folder: Path
    threshold: float
    counts: dict[str, int] = field(default_factory=lambda: {"pass": 0, "fail": 0, "unread": 0})
    unread: dict[Path, str] = field(default_factory=dict)
    _failed: list[tuple[float, int, Shown]] = field(default_factory=list)
    _passed: list[tuple[float, int, Shown]] = field(default_factory=list)

    def write(self, found: Iterable[Inspected]) -> None:
        """A row for each file as soon as it is known, so that what is done is there if it stops.

        Raises:
          RunError: something cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MAPS).mkdir(exist_ok=True)
            with open(self.folder / CSV, "w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(FIELDS)
                for number, one in enumerate(found, start=1):
                    rows.writerow(self._row(number, one))
                    file.flush()
        except OSError as error:
            raise RunError(f"cannot write to {str(self.folder)!r}: {error.strerror}") from error

    def _row(self, number: int, one: Inspected) -> tuple[object, ...]:
        self.counts[one.verdict] += 1
        name = os.fspath(one.file).encode("utf-8", "replace").decode()
        if one.look is None:
            self.unread[one.file] = one.reason
            return name, one.verdict, "", "", "", one.reason
        drawn = ""
        if one.failed and one.look.heat is not None:
            drawn = f"{MAPS}/{number:06}.png"
            _save(self.folder / drawn, one.look)
        kept, most = (self._failed, SHOWN_FAILED) if one.failed else (self._passed, SHOWN_PASSED)
        shown = Shown(name, one.look.score, one.look.picture, warm(one.look.heat))
        heapq.heappush(kept, (one.look.score, number, shown))
        if len(kept) > most:
            heapq.heappop(kept)
        return name, one.verdict, repr(one.look.score), repr(self.threshold), drawn, ""

    def shown(self) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
        """Those that fail by the most, and those that barely pass, highest score first."""
        failed, passed = (
            tuple(one for _, _, one in sorted(kept, key=lambda entry: entry[:2], reverse=True))
            for kept in (self._failed, self._passed)
        )
        return failed, passed


def page_of(report: Report, detector: Detector, command: str) -> InspectionPage:
    """What the page of an inspection shows."""
    alarm = detector.alarm
    failed, passed = report.shown()
    things = "groups of normal pictures" if alarm.of_groups else "normal pictures"
    looked = "whole pictures"
    if detector.tiles is not None:
        tiles = detector.tiles
        looked = (
            f"windows of {tiles.size}×{tiles.size} pixels that overlap by {100 * tiles.overlap:g} %"
        )
    return InspectionPage(
        counts=dict(report.counts),
        threshold=alarm.threshold,
        promise=(
            f"A picture fails where its score is above {alarm.threshold:.4g}. Of {things} like the "
            f"{alarm.n:,} on which that line was drawn at most {100 * alarm.false_alarm:g} % fail, "
            f"with confidence {100 * alarm.confidence:g} %. What share of the others it finds is "
            "known only where some have been seen."
        ),
        kept=detector.verdict,
        failed=failed,
        passed=passed,
        unread=tuple((str(file), why) for file, why in report.unread.items()),
        facts=(
            ("detector", f"{detector.method} of {detector.features}"),
            ("normal is", detector.normal),
            ("learned from", detector.data_name),
            ("looks at", looked),
            ("data digest", detector.data_digest[:16]),
        ),
        command=command,
    )


def warm(heat: np.ndarray | None) -> np.ndarray | None:
    """float32 `[h, w]`, 0 or more: how far each pixel lies above the middle one of its picture."""
    if heat is None:
        return None
    above = np.maximum(heat - np.median(heat), 0).astype(np.float32)
    return above if above.any() else None


def _save(path: Path, look: Look) -> None:
    """The picture in grey with the heat on it, as PNG."""
    from PIL import Image

    heat = warm(look.heat)
    longest = max(look.picture.shape[:2])
    pixels = (
        overlay.enlarged(look.picture, longest)
        if heat is None
        else overlay.overlaid(look.picture, heat, longest)
    )
    Image.fromarray(pixels).save(path)
