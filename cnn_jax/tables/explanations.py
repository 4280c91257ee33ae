"""What `cnn-jax explain` prints: how each method fared."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from cnn_jax.evaluation import Estimate
from cnn_jax.explaining import Explained
from cnn_jax.tables.layout import aligned


def audits(found: Sequence[Explained]) -> str:
    """A line for each method that was audited, and below what is wrong with it."""
    some = [one.audit for one in found if one.audit is not None]
    if not some:
        return ""
    rows = [("method", "weights", "left", "deletion", "insertion", "ROAD", "edges")]
    for audit in some:
        left = f"{round(100 * audit.randomisation.retained.value)} %"
        parts = (audit.deletion, audit.insertion, audit.road, audit.deletion_edges)
        gains = [_gain(each) for each in parts]
        rows.append((audit.method, audit.weights, left, gains[0], gains[1], gains[2], gains[3]))
    said = [f"{each.method}: {why}" for each in some for why in each.failures]
    wrapped = [textwrap.fill(text, 79, subsequent_indent="  ") for text in said]
    return "\n".join([aligned(rows), *wrapped])


def _gain(gain: Estimate) -> str:
    """With a star where the interval lies above 0."""
    return f"{gain.value:+.3f}{'*' if gain.low > 0 else ''}"
