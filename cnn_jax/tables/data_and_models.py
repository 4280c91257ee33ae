"""Data sets, models and learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax import models as model_room
from cnn_jax.data import Dataset
from cnn_jax.errors import printable
from cnn_jax.learning_rates import RangeTest
from cnn_jax.tables.layout import aligned

if TYPE_CHECKING:
    pass


def dataset(data: Dataset) -> str:
    """Parts, classes, origin."""
    lines = [f"{data.name}: images of {'×'.join(map(str, data.image_shape))}"]
    lines += [f"  {note}" for note in data.notes]
    classes = data.classes["label"]
    header = ("class", *data.splits)
    counts = [
        np.bincount(t, minlength=len(classes)) if t.ndim == 1 else t.sum(axis=0).astype(int)
        for t in (split.targets["label"] for split in data.splits.values())
    ]
    rows = [
        (printable(name), *(f"{int(column[k]):,}" for column in counts))
        for k, name in enumerate(classes)
    ]
    total = ("in all", *(f"{len(split):,}" for split in data.splits.values()))
    marked = [
        (f"with {printable(name)}", *(_holding(split.masks, r) for split in data.splits.values()))
        for r, name in enumerate(data.regions)
        if r
    ]
    lines.append(aligned([header, *rows, total, *marked]))
    for label, value in (
        ("licence", data.licence),
        ("cite", data.citation),
        ("digest", data.digest),
    ):
        if value:
            lines.append(f"{label}: {value}")
    return "\n".join(lines)


def _holding(masks: np.ndarray | None, region: int) -> str:
    """How many images hold a region."""
    assert masks is not None  # a data set with regions has masks
    return f"{int((masks == region).reshape(len(masks), -1).any(axis=1).sum()):,}"


def audit(rows: Sequence[Sequence[str]]) -> str:
    """Counts of copies, by where they lie."""
    return aligned([("copies", "equal", "near"), *rows])


def models(image_size: int, channels: int, num_classes: int) -> str:
    """Every network with its parameters and FLOPs."""
    rows = [("model", "parameters", "FLOPs a forward pass", "stem", "logits of each")]
    for name in model_room.names():
        row = model_room.describe(
            name, num_classes=num_classes, image_shape=(image_size, image_size, channels)
        )
        unit = "pixel" if model_room.segments(name) else "image"
        rows.append((row.name, f"{row.parameters:,}", _si(row.flops), row.stem, unit))
    return aligned(rows) + f"\nat {image_size}×{image_size}×{channels}, {num_classes} classes"


def _si(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"


def learning_rates(seen: RangeTest) -> str:
    """The smoothed loss over the learning rate, in some twenty lines."""
    shown = range(0, len(seen.rates), -(-len(seen.rates) // 20))
    # Where the loss has exploded its height means nothing: bars end a little above the start.
    lowest, highest = seen.smoothed.min(), 1.1 * seen.smoothed[0]
    share = np.clip((seen.smoothed - lowest) / (highest - lowest), 0, 1)
    filled = 1 + np.round(39 * share).astype(int)
    rows = [(f"{seen.rates[i]:.1e}", f"{seen.smoothed[i]:.3f}", "*" * filled[i]) for i in shown]
    return aligned([("rate", "loss", ""), *rows])
