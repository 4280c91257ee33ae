"""Projected bills and learning curves, of a small run."""

import csv

import numpy as np
import pytest

import cnn_jax
from cnn_jax import data
from cnn_jax.training.progress import Silent
from experiments.training_bills import curve, measure


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_bill_is_steps_times_their_seconds(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    made = data.from_arrays(
        rng.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8), np.arange(60) % 3, name="cifar10"
    )
    monkeypatch.setattr(measure, "PATH", tmp_path / "results.csv")
    monkeypatch.setattr(measure.data, "load", lambda *_, **__: made)
    monkeypatch.setattr(measure, "seconds_of_steps", lambda assembly, steps: [1.0, 2, 3, 4, 5, 99])
    assert measure.main(["cifar10-resnet18", "--data-dir", "-"]) == 0
    value = {row["metric"]: row for row in read(tmp_path / "results.csv")}
    train = len(made.splits["train"])
    steps = -(-train // 128) * 200  # one batch holds them all
    assert float(value["hours, projected"]["value"]) == pytest.approx(3.5 * steps / 3600)
    assert float(value["hours, projected"]["low"]) == pytest.approx(steps / 3600)
    # 0.56 billion multiply-adds of an image, the published figure for 10 classes
    forward = float(value["PFLOP of a training"]["value"]) * 1e15 / (3 * 200 * train)
    assert forward == pytest.approx(2 * 0.556e9, rel=0.01)


def test_steps_are_taken_and_timed_and_a_curve_is_the_history(tmp_path, monkeypatch):
    small = {"model.options": {"widths": [4], "units": 1}, "epochs": 2}
    run = cnn_jax.train(out=tmp_path / "run", reporter=Silent(), **small)
    taken = measure.seconds_of_steps(run.assembly, 3)
    assert len(taken) == 3 and min(taken) > 0
    monkeypatch.setattr(curve, "PATH", tmp_path / "results.csv")
    assert curve.main([str(tmp_path / "run")]) == 0
    rows = read(tmp_path / "results.csv")
    assert [(r["split"], r["metric"]) for r in rows] == [
        (f"after epoch {n} of 2", f"{part} accuracy")
        for n in (1, 2)
        for part in ("train", "validation")
    ]
    assert float(rows[3]["value"]) == pytest.approx(run.history[1]["validation_accuracy"])
