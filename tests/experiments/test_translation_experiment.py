"""The figures of shifts, on made images."""

import csv
import functools

import numpy as np
import pytest
from scipy import stats

from cnn_jax import data
from experiments import kept
from experiments.translation import augmented, equivalence, measure


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 255, (3, 16, 16, 1))

    def part(each):
        labels = np.repeat(np.arange(3), each)
        images = rng.normal(patterns[labels], 30).clip(0, 255).astype(np.uint8)
        return images, labels

    images, labels = part(16)
    return data.from_arrays(images, labels, test=part(8), validation=part(4), name="mnist")


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """Runs one of the two commands, short; returns its rows."""
    monkeypatch.setattr(measure, "load", lambda folder, shots=0: made)
    learning = {**measure.LEARNING, "train.epochs": 2, "train.batch_size": 16}
    monkeypatch.setattr(measure, "LEARNING", learning)
    # one program for each method, rather than several to choose from
    alone = functools.partial(kept.train_population, strategy="loop")
    monkeypatch.setattr(kept, "train_population", alone)

    def rows(command, seeds=2):
        path = tmp_path / "results.csv"
        monkeypatch.setattr(command, "PATH", path)
        arguments = ["--data-dir", "-", "--out", str(tmp_path / "runs"), "--seeds", str(seeds)]
        if status := command.main(arguments):
            return status
        with open(path, newline="") as file:
            found = list(csv.DictReader(file))
        path.unlink()
        return found

    return rows


@pytest.mark.slow
def test_every_row_and_what_it_says(run, monkeypatch, capsys):
    monkeypatch.setattr(measure, "NETWORK", {**measure.NETWORK, "widths": (4, 8)})
    rows = run(measure)
    value = {(r["experiment"], r["metric"]): float(r["value"]) for r in rows}
    for metric in ("consistency", "untrained consistency"):
        assert value["adaptive polyphase sampling", metric] == 1
        assert value["strided convolutions", metric] < 1
    gain = value["blur pooling minus strided convolutions", "accuracy"]
    both = value["blur pooling", "accuracy"] - value["strided convolutions", "accuracy"]
    assert gain == pytest.approx(both)
    assert 0 <= value["blur pooling minus strided convolutions", "p of no equivalence"] <= 1
    for pixels in ("nearest neighbour on pixels", "logistic regression on pixels"):
        gain = value[f"blur pooling minus {pixels}", "accuracy"]
        both = value["blur pooling", "accuracy"] - value[pixels, "accuracy"]
        assert gain == pytest.approx(both)
    assert {r["data"] for r in rows} == {"mnist"} and len(rows) == 2 + 3 * 5 + 2 * 4
    capsys.readouterr()
    assert run(measure, seeds=3) == 2
    assert "keeps 2 members by other seeds" in capsys.readouterr().err


@pytest.mark.slow
def test_equivalence_is_of_two_methods_that_learn_shifts(run, monkeypatch):
    learning = {**equivalence.LEARNING, "train.epochs": 1, "train.batch_size": 16}
    monkeypatch.setattr(equivalence, "LEARNING", learning)
    rows = run(equivalence)
    of = "adaptive polyphase sampling minus strided convolutions"
    assert len(rows) == 2 + 2 * 5 + 4
    assert {r["metric"] for r in rows if r["experiment"] == of} == {
        *("accuracy", "consistency", "untrained consistency", "p of no equivalence"),
    }
    assert all("equivalence" in r["command"] for r in rows)


def test_equivalence_is_the_interval_of_twice_the_error_within_the_margin():
    rng = np.random.default_rng(0)
    for _ in range(50):
        gains = rng.normal(rng.uniform(-0.006, 0.006), 0.004, 10)
        half = stats.t.ppf(0.95, 9) * gains.std(ddof=1) / np.sqrt(10)
        within = abs(gains.mean()) + half < 0.005
        assert (measure.equivalence(gains, 0.005) < 0.05) == within


@pytest.mark.slow
def test_augmentation_helps_where_images_are_moved_and_pixels_see_the_same(run, monkeypatch):
    monkeypatch.setattr(augmented, "LARGEST", 3)
    rows = run(augmented)
    value = {
        (r["experiment"], r["split"].split()[-1], r["metric"]): float(r["value"]) for r in rows
    }
    assert len(value) == len(rows) == (2 + 2 + 4 + 1) * (4 + 10)
    assert {row["n"] for row in rows} == {"24"}  # images, in however many ways each is shown
    plain, other = augmented.METHODS
    for metric in ("accuracy", "3 px accuracy"):
        gain = value[f"{other} minus {plain}", "shifted", metric]
        assert gain == pytest.approx(
            value[other, "shifted", metric] - value[plain, "shifted", metric]
        )
        pixels = "nearest neighbour on pixels"
        gain = value[f"{other} minus {pixels}", "shifted", metric]
        assert gain == pytest.approx(
            value[other, "shifted", metric] - value[pixels, "shifted", metric]
        )
    # A pattern in noise is told by its pixels until it is moved.
    assert value["nearest neighbour on pixels", "turned", "accuracy"] > 0.9
    assert value["nearest neighbour on pixels", "turned", "45° accuracy"] < 0.7


def test_what_is_shown_is_moved_by_every_shift_and_turned_either_way():
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[:, 14, 14] = 255
    shown = augmented.shown(images)
    places = []
    for metric, some in shown["shifted"].items():
        own = [tuple((np.argwhere(image[..., 0])[0] - 14).tolist()) for image in some]
        assert own[::2] == own[1::2]
        assert metric == "accuracy" or all(max(map(abs, by)) == int(metric[0]) for by in own)
        places += own[::2]
    assert sorted(places) == [(y, x) for y in range(-7, 8) for x in range(-7, 8)]
    assert [len(some) for some in shown["turned"].values()] == [2, *[4] * 9]


def test_an_image_is_one_group_in_however_many_ways_it_is_shown():
    labels = np.array([0, 1, 1])
    figures = {"accuracy": np.zeros((3, 1)), "moved": np.arange(6.0)[:, None]}

    def predict(images, targets):
        assert targets.tolist() == [0, 1, 1] * 3
        return np.hstack([images, -images]) - 1

    found = augmented.answered(predict, figures, labels, ("a", "b"))
    assert found["accuracy"].groups.tolist() == found["accuracy"].ids.tolist()
    assert found["moved"].targets.tolist() == [0, 1, 1, 0, 1, 1]
    assert found["moved"].logits[:, 0].tolist() == [-1, 0, 1, 2, 3, 4]
    assert found["moved"].groups.tolist() == ["000000", "000001", "000002"] * 2
