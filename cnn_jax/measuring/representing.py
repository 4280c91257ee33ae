"""Measured: what layers represent, from the pixels to the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Estimate
from cnn_jax.measuring.subject import Subject
from cnn_jax.principles import (
    class_selectivity,
    gabor_fits,
    linear_cka,
    linear_probe,
    maximise_activation,
    top_patches,
)
from cnn_jax.principles.layers import Layer
from cnn_jax.principles.patches import cut
from cnn_jax.principles.probes import grid_means
from cnn_jax.report.pictures import viewable
from cnn_jax.report.principles import Hierarchy, Unit

_UNITS = 3  # of each layer that are shown
_PATCHES = 5
_FILTERS = 32  # that a Gabor function is fitted to
_NOISE = 30
_SMALLEST = 5  # sides of filters; of 3 x 3 pixels a Gabor function explains 90 % of noise
_CELLS = 2  # along each axis, over which maps are averaged for probes and likeness


def hierarchy_of(subject: Subject, beside: Subject | None = None) -> Hierarchy:
    """Everything that the section shows.

    Args:
      subject: the network.
      beside: one whose layers it is compared with, on the images of `subject`; None for itself.
    """
    paths = [layer.path for layer in subject.main]
    trained = _of_parts(subject, subject.trained, paths)
    fresh = _of_parts(subject, subject.fresh, paths)
    pixels = _probe(subject, [part[0] for part in _parts(subject)])
    images = subject.test[0]
    features = subject.features(subject.trained, images, paths)
    filters = _first_kernel(subject)
    fits = None
    if filters is not None and min(filters.shape[:2]) >= _SMALLEST:
        fits = gabor_fits(filters[..., :_FILTERS], noise=_NOISE)
    return Hierarchy(
        layers=["pixels", *paths],
        probes=[pixels, *(_probe(subject, [part[path] for part in trained]) for path in paths)],
        untrained=[pixels, *(_probe(subject, [part[path] for part in fresh]) for path in paths)],
        examples=(len(subject.train[0]), len(images)),
        cka=likeness_of(features, subject if beside is None else beside, images),
        cka_of="the same network" if beside is None else beside.run.shown,
        selectivity=[_selectivity(features[path], subject.test[1]) for path in paths],
        filters=filters,
        gabor_r2=np.array([]) if fits is None else fits.r2,
        noise_r2=np.array([]) if fits is None else fits.noise_r2,
        units=_units(subject, features),
    )


def _parts(subject: Subject) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return subject.train, subject.validation, subject.test


def _of_parts(
    subject: Subject, variables: Mapping[str, Any], paths: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """For each part path -> what a probe sees: maps are averaged at once, to save memory."""
    return [
        {path: grid_means(each, _CELLS)
         for path, each in subject.features(variables, images, paths).items()}
        for images, _ in _parts(subject)
    ]  # fmt: skip


def _probe(subject: Subject, features: Sequence[Any]) -> Estimate:
    examples = [(each, part[1]) for each, part in zip(features, _parts(subject), strict=True)]
    train, validation, test = examples
    probe = linear_probe(train, validation, test, cells=_CELLS, groups=subject.groups)
    return probe.accuracy


def likeness_of(
    features: Mapping[str, np.ndarray], other: Subject, images: np.ndarray
) -> np.ndarray:
    """float64 `[L, M]`: unbiased linear CKA of layers with those of another network.

    0 where a layer is the same for all images. Maps are averaged over a grid first.
    """
    paths = [layer.path for layer in other.main]
    its = other.features(other.trained, images, paths)
    flat, others = (
        [grid_means(each, _CELLS) for each in some.values()] for some in (features, its)
    )
    found = np.zeros((len(flat), len(others)))
    for (i, j), _ in np.ndenumerate(found):
        with contextlib.suppress(EvaluationError):
            found[i, j] = linear_cka(flat[i], others[j])
    return found


def _selectivity(features: np.ndarray, labels: np.ndarray) -> float | None:
    """The mean over units; None of features that may be negative."""
    if features.min() < 0 or len(np.unique(labels)) < 2:
        return None
    return float(class_selectivity(features, labels).mean())


def _first_kernel(subject: Subject) -> np.ndarray | None:
    """float `[h, w, C, D]` of the first convolution."""
    first = next((layer for layer in subject.every if layer.convolves), None)
    if first is None:
        return None
    scope: Any = subject.trained["params"]
    for name in first.path.partition("#")[0].split("/"):
        scope = scope[name]
    return np.asarray(scope["kernel"], np.float64)


def _units(subject: Subject, features: Mapping[str, np.ndarray]) -> list[Unit]:
    """The most selective units of the first, a middle and the last layer that gives maps."""
    of_maps = subject.of_maps
    if not of_maps:
        return []
    chosen = [of_maps[k] for k in sorted({0, len(of_maps) // 2, len(of_maps) - 1})]
    return [unit for layer in chosen for unit in _of_layer(subject, layer, features[layer.path])]


def _of_layer(subject: Subject, layer: Layer, features: np.ndarray) -> list[Unit]:
    images, labels = subject.test
    selectivity = class_selectivity(np.maximum(features, 0), labels)
    order = np.argsort(-selectivity, kind="stable")[:_UNITS].tolist()
    seen = subject.seen(images)
    patches = top_patches(
        subject.model, subject.trained, seen, layer.path, units=order, count=_PATCHES
    )
    preprocess = subject.run.classifier.preprocess
    made = maximise_activation(
        subject.model,
        subject.trained,
        subject.image_shape,
        layer.path,
        order,
        preprocess=preprocess.normalise,
        colours=np.asarray(preprocess.to_unit(jnp.asarray(subject.train[0][:64]))),
    )
    return [
        Unit(
            name=f"{layer.path}, unit {unit}",
            selectivity=float(selectivity[unit]),
            patches=[
                cut(viewable(images[i]), box)
                for i, box in zip(found.images.tolist(), found.boxes, strict=True)
            ],
            values=found.values.tolist(),
            made=viewable(made.images[k]),
            value=float(made.values[k]),
        )
        for k, (unit, found) in enumerate(zip(order, patches, strict=True))
    ]
