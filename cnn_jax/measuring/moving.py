"""Measured: what shifts and turns of the image do to a network, layer by layer."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.measuring.subject import Subject
from cnn_jax.principles import (
    POOLINGS,
    accuracy_by_rotation,
    accuracy_by_shift,
    aliasing_energy,
    equivariance,
    receptive_fields,
    shift_consistency,
    shift_distances,
)
from cnn_jax.principles.gradients import logits_in
from cnn_jax.principles.translation import Border
from cnn_jax.report.principles_parts import Translation

DEGREES = tuple(range(0, 50, 5))
_LARGEST = 3  # pixels of the shifts under which accuracy is measured
_POOLED = 4  # pixels of the shifts under which poolings are compared
_IMAGES = 64  # of the figures by layer
# What enters the image, as `shift_consistency` names it and as the page does.
_BORDERS: dict[Border, str] = {"zero": "zeros", "circular": "the other side"}


def translation_of(subject: Subject) -> Translation:
    """Everything that the section shows."""
    images, labels = subject.test
    few = subject.seen(images[:_IMAGES])
    paths = [layer.path for layer in subject.main]
    stride = _last_stride(subject)
    one, whole = (
        equivariance(subject.model, subject.trained, few, (by, by), paths) for by in (1, stride)
    )
    largest = max(1, min(subject.image_shape[:2]) // 8)
    consistency = {
        words: shift_consistency(
            subject.logits, images, largest=largest, border=border, draws=2, groups=subject.groups
        )
        for border, words in _BORDERS.items()
    }
    reach = min(_LARGEST, min(subject.image_shape[:2]) - 1)
    first = next(iter(subject.of_maps), None)
    maps = None
    if first is not None:
        maps = subject.features(subject.trained, images[:_IMAGES], (first.path,))[first.path]
    return Translation(
        images=len(images),
        few=len(few),
        layers=[(path, one[path].error, whole[path].error, whole[path].inside) for path in paths],
        stride=stride,
        consistency=consistency,
        largest=largest,
        by_shift=accuracy_by_shift(subject.logits, images, labels, largest=reach),
        degrees=DEGREES,
        by_angle=accuracy_by_rotation(subject.logits, images, labels, DEGREES),
        aliasing=_aliasing(subject),
        poolings={} if maps is None else _poolings(maps),
        pooled="" if first is None else first.path,
        outputs=_answers(subject, few),
    )


def _last_stride(subject: Subject) -> int:
    """Pixels between positions of the last maps, where they can be told; else 2."""
    fields = receptive_fields(subject.model, subject.trained, subject.image_shape)
    strides = [
        max(field.stride)
        for layer in subject.of_maps
        if (field := fields.get(layer.path)) is not None and 0 not in field.stride
    ]
    stride = strides[-1] if strides else 2
    return int(stride) if 1 < stride < min(subject.image_shape[:2]) else 2


def _aliasing(subject: Subject) -> list[tuple[str, int, float]]:
    """Maps that a coarser layer follows, and the mean over channels of what its stride folds."""
    found = []
    images = subject.test[0][:_IMAGES]
    for before, after in zip(subject.main, subject.main[1:], strict=False):
        if len(before.outputs) != 3 or len(after.outputs) != 3:
            continue
        ratio = [b / a for b, a in zip(before.outputs[:2], after.outputs[:2], strict=True)]
        stride = round(ratio[0])
        # On smaller maps hardly a frequency lies below the new limit.
        if stride < 2 or min(after.outputs[:2]) < 4:
            continue
        maps = subject.features(subject.trained, images, (before.path,))[before.path]
        found.append((before.path, stride, float(aliasing_energy(maps, stride).mean())))
    return found


def _poolings(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Of maps with even sides as far as they go; poolings that do not fit are left out."""
    even = maps[:, : maps.shape[1] // 2 * 2, : maps.shape[2] // 2 * 2]
    largest = min(_POOLED, min(even.shape[1:3]) - 1)
    if min(even.shape[1:3]) < 4 or np.ptp(even, axis=0).max() == 0:
        return {}
    return {name: shift_distances(pool, even, largest) for name, pool in POOLINGS.items()}


def _answers(subject: Subject, few: jax.Array) -> np.ndarray:
    """Distances of the logits by pixels of shift."""
    variables = subject.trained

    def logits(x: jax.Array) -> Any:
        return logits_in(subject.model.apply(variables, x, train=False))

    largest = min(_POOLED, min(subject.image_shape[:2]) - 1)
    try:
        return shift_distances(logits, few, largest)
    except EvaluationError:  # the same answer for all images
        return np.full(largest + 1, np.nan)
