"""Measured: what convolutions cost, and what each layer sees of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnn_jax.errors import ModelError
from cnn_jax.measuring.subject import Subject
from cnn_jax.principles import EffectiveField, effective_field, receptive_fields
from cnn_jax.report.principles_parts import FieldOfLayer, SharedLayer

_IMAGES = 16  # over which effective fields are averaged


def sharing_of(subject: Subject) -> list[SharedLayer]:
    """A row for each convolution."""
    found = []
    for layer in subject.every:
        costs = layer.costs()
        if not costs or layer.kernel is None:
            continue
        height, width, _, features = layer.kernel
        three = [costs[kind] for kind in ("convolution", "locally connected", "dense")]
        found.append(
            SharedLayer(
                layer.path,
                f"{height} × {width}, {layer.inputs[2]:,} to {features:,} channels",
                (three[0].parameters, three[1].parameters, three[2].parameters),
                (three[0].multiply_adds, three[1].multiply_adds, three[2].multiply_adds),
            )
        )
    return found


def fields_of(subject: Subject) -> list[FieldOfLayer]:
    """A row for each main layer."""
    fields = receptive_fields(subject.model, subject.trained, subject.image_shape)
    found = []
    for layer in subject.main:
        field = fields.get(layer.path)
        trained = _effective(subject, subject.trained, layer.path)
        fresh = _effective(subject, subject.fresh, layer.path)
        found.append(
            FieldOfLayer(
                layer.path,
                None if field is None else field.size,
                None if field is None else field.stride,
                None if trained is None else trained.sigma,
                None if trained is None else trained.r2,
                None if fresh is None else fresh.sigma,
                None if trained is None else trained.influence,
            )
        )
    return found


def _effective(subject: Subject, variables: Mapping[str, Any], path: str) -> EffectiveField | None:
    """None where the layer gives no maps, its units are dead, or no Gaussian fits."""
    images = subject.seen(subject.test[0][:_IMAGES])
    try:
        return effective_field(subject.model, variables, images, path)
    except ModelError:
        return None
