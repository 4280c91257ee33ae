"""Rows of figures that were measured here and now."""

import numpy as np

from cnn_jax import data, environment
from cnn_jax.evaluation import Estimate
from experiments.rows import reported


def test_a_row_says_what_was_measured_where_and_on_what(capsys):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
    dataset = data.from_arrays(images, np.arange(12) % 2, name="made")
    figure = Estimate(0.5, 0.4, 0.6, 12, "Wilson", percent=True)
    row = reported(figure, dataset, "a network", "accuracy", "test", command="run", seed="3")
    assert (row.experiment, row.metric, row.split, row.data) == (
        *("a network", "accuracy", "test", "made"),
    )
    assert (row.value, row.low, row.high, row.n, row.method) == (0.5, 0.4, 0.6, 12, "Wilson")
    assert (row.data_digest, row.seed, row.command) == (dataset.digest[:16], "3", "run")
    assert row.hardware and "jax=" in row.versions
    # Nothing outside a git checkout, as in a copy of the sources.
    assert row.commit == environment.commit()
    said = capsys.readouterr().out
    assert said == "a network, test: accuracy 50.00 % [40.0, 60.0], n = 12, seed 3\n"
