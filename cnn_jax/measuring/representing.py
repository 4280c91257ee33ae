"""Measured: what layers represent, from the pixels to the answer."""

from __future__ import annotations

import contextlib
import math
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
from cnn_jax.report.principles_parts import Hierarchy, Unit

_UNITS = 3  # of each layer that are shown
_PATCHES = 5
_FILTERS = 32  # that a Gabor function is fitted to
_NOISE = 30
_SMALLEST = 5  # sides of filters; of 3 x 3 pixels a Gabor function explains 90 % of noise
_INPUTS = 1024  # of a probe: as many parts as give no more are averaged over


def hierarchy_of(subject: Subject, beside: Subject | None = None) -> Hierarchy:
    """Everything that the section shows.

    Args:
      subject: the network.
      beside: one whose layers it is compared with, on the images of `subject`; None for itself.
    """
    paths = [layer.path for layer in subject.main]
    trained = _of_parts(subject, subject.trained, paths)
    fresh = _of_parts(subject, subject.fresh, paths)
    pixels = _probe(subject, [averaged(part[0]) for part in _parts(subject)])
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
        inputs=[averaged(images).shape[1], *(trained[2][path].shape[1] for path in paths)],
        selectivity=[_selectivity(features[path], subject.test[1]) for path in paths],
        filters=filters,
        gabor_r2=np.array([]) if fits is None else fits.r2,
        noise_r2=np.array([]) if fits is None else fits.noise_r2,
        units=_units(subject, features),
    )


def averaged(features: np.ndarray) -> np.ndarray:
    """Maps averaged over a grid of as many parts as give a probe at most 1,024 inputs."""
    if features.ndim == 2:
        return features
    return grid_means(features, max(1, math.isqrt(_INPUTS // features.shape[-1])))


def _parts(subject: Subject) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return subject.train, subject.validation, subject.test


def _of_parts(
    subject: Subject, variables: Mapping[str, Any], paths: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """For each part path -> what a probe sees: maps are averaged at once, to save memory."""
    return [
        {path: averaged(each)
         for path, each in subject.features(variables, images, paths).items()}
        for images, _ in _parts(subject)
    ]  # fmt: skip


def _probe(subject: Subject, features: Sequence[Any]) -> Estimate:
    examples = [(each, part[1]) for each, part in zip(features, _parts(subject), strict=True)]
    train, validation, test = examples
    probe = linear_probe(train, validation, test, groups=subject.groups)
    return probe.accuracy


def likeness_of(
    features: Mapping[str, np.ndarray], other: Subject, images: np.ndarray
) -> np.ndarray:
    """float64 `[L, M]`: unbiased linear CKA of layers with those of another network.

    NaN where a layer is the same for all images.
    """
    paths = [layer.path for layer in other.main]
    its = other.features(other.trained, images, paths)
    flat, others = (
        [each.reshape(len(each), -1) for each in some.values()] for some in (features, its)
    )
    found = np.full((len(flat), len(others)), np.nan)
    for (i, j), _ in np.ndenumerate(found):
        with contextlib.suppress(EvaluationError):
            found[i, j] = linear_cka(flat[i], others[j])
    return found


def _selectivity(features: np.ndarray, labels: np.ndarray) -> tuple[float, float] | None:
    """The mean over units, and that of classes dealt anew; None of features below 0."""
    if features.min() < 0 or len(np.unique(labels)) < 2:
        return None
    dealt = np.random.default_rng(0).permutation(labels)
    own, chance = (float(class_selectivity(features, of).mean()) for of in (labels, dealt))
    return own, chance


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
