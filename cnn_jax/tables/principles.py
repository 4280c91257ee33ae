"""What `cnn-jax principles` prints: how far a linear classifier gets with each layer."""

from __future__ import annotations

from cnn_jax.report.principles_parts import Hierarchy
from cnn_jax.tables.layout import aligned


def probes(found: Hierarchy) -> str:
    """A line for each layer: accuracy of a probe, trained and as initialised."""
    rows = [("layer", "linear probe", "as initialised")]
    for layer, trained, untrained in zip(found.layers, found.probes, found.untrained, strict=True):
        rows.append((layer, str(trained), f"{100 * untrained.value:.2f} %"))
    return aligned(rows)
