"""Rows of figures that were measured here and now."""

import numpy as np

from cnn_jax import data, environment
from cnn_jax.errors import DataError
from cnn_jax.evaluation import Estimate
from experiments.results import read
from experiments.rows import append_each, here, reported, row_of


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


def test_a_command_that_was_interrupted_is_given_again(tmp_path, capsys):
    path = tmp_path / "results.csv"

    def row(experiment, value, **changed):
        # An interval without ends, which is not equal to itself.
        figure = Estimate(value, float("nan"), float("nan"), 5, "counted")
        rest = {"data": "made", "data_digest": "", "split": "test", "metric": "accuracy"}
        return row_of(
            figure, experiment=experiment, **{"command": "run", **rest, **changed}, **here()
        )

    def stops():
        yield row("first", 0.5)
        raise DataError("no more")

    assert append_each(path, stops(), "made") == 2
    again = [row("first", 0.5), row("second", 0.75), row("counted", 4321)]
    assert append_each(path, again, "made") == append_each(path, again, "made") == 0
    assert [(kept.experiment, kept.value) for kept in read(path)] == [
        *(("first", 0.5), ("second", 0.75), ("counted", 4321.0)),
    ]
    whole = path.read_bytes()
    capsys.readouterr()
    for other in (row("first", 0.25), row("second", 0.75, command="another")):
        assert append_each(path, [other], "made") == 2
        assert "is there already" in capsys.readouterr().err
    assert path.read_bytes() == whole
    twice = tmp_path / "twice.csv"  # one command has a figure once
    assert append_each(twice, [row("first", 0.5), row("first", 0.5)], "made") == 2
