"""Measured: which units work, how gradients reach the layers, and whether they are right."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import CnnJaxError
from cnn_jax.measuring.subject import Subject
from cnn_jax.principles import activity, cross_entropy, gradient_error, gradient_norms
from cnn_jax.principles.gradients import logits_in
from cnn_jax.report.principles_parts import Learning

_IMAGES = 64  # whose gradient is measured
_CHECKED = 4  # through which backpropagation is held against differences


def learning_of(subject: Subject) -> Learning:
    """Everything that the section shows."""
    paths = [layer.path for layer in subject.main]
    features = subject.features(subject.trained, subject.test[0], paths)
    worked = []
    for path, values in features.items():
        if values.min() < 0:  # no ReLU at its end
            continue
        found = activity(values)
        worked.append((path, found.sparsity, int(found.dead.sum()), len(found.dead)))
    x, labels = subject.seen(subject.train[0][:_IMAGES]), subject.train[1][:_IMAGES]
    before, after = (
        gradient_norms(subject.model, variables, x, labels)
        for variables in (subject.fresh, subject.trained)
    )
    return Learning(
        activity=worked,
        gradients=[(path, before[path].relative, after[path].relative) for path in after],
        error=_error(subject),
    )


def _error(subject: Subject) -> float | None:
    """Of backpropagation through the network in float64; None where it does not compute in it."""
    images, labels = subject.train
    seen = np.asarray(subject.seen(images[:_CHECKED]), np.float64)
    fixed = {name: value for name, value in subject.trained.items() if name != "params"}

    def loss(parameters: Any) -> jax.Array:
        with_fixed: Any = {
            "params": parameters,
            **jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), fixed),
        }
        model = subject.model
        if hasattr(model, "dtype"):
            model = model.clone(dtype=jnp.float64)
        outputs: Any = model.apply(with_fixed, jnp.asarray(seen), train=False)
        if logits_in(outputs).dtype != jnp.float64:
            raise _SinglePrecisionError
        return cross_entropy(outputs, jnp.asarray(labels[:_CHECKED]))

    try:
        return gradient_error(loss, subject.trained["params"])
    except (_SinglePrecisionError, CnnJaxError):
        return None


class _SinglePrecisionError(Exception):
    """The network computes in float32 whatever it is given."""
