"""Shared weights, weights that are not, and what is no network, on made images."""

import csv
import functools
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import linen

from cnn_jax import data, nn
from cnn_jax.evaluation import Predictions, predictions_type
from cnn_jax.models import count_flops
from experiments import kept
from experiments.results import ResultsError
from experiments.sharing import measure
from experiments.sharing.hog import hog_and_svm
from experiments.sharing.networks import (
    LocalLayer,
    multiply_adds,
    networks,
    parameters,
)


def striped(each, side, rng):
    """Stripes in three directions, each begun anywhere: pixels alone say little."""
    labels = np.repeat(np.arange(3), each)
    y, x = np.mgrid[:side, :side]
    angles = labels[:, None, None] * np.pi / 3
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1, 1))
    waves = np.sin(1.2 * (x * np.cos(angles) + y * np.sin(angles)) + phase)
    images = 127 + 60 * waves + rng.normal(0, 10, waves.shape)
    return images[..., None].clip(0, 255).astype(np.uint8), labels


def made(side, train=24):
    rng = np.random.default_rng(0)
    parts = [striped(each, side, rng) for each in (train, 12, 8)]
    return data.from_arrays(*parts[0], test=parts[1], validation=parts[2], name="mnist")


@pytest.mark.parametrize(("side", "size", "stride"), [(9, 5, 2), (7, 4, 3)])
def test_a_locally_connected_layer_is_flax_and_with_tied_weights_the_convolution(
    side, size, stride
):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    layer = LocalLayer(4, size, stride)
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    stock = linen.ConvLocal(4, (size, size), strides=stride)
    bias = jax.random.normal(jax.random.key(2), variables["params"]["bias"].shape)
    own = {"params": {**variables["params"], "bias": bias}}
    apply = jax.jit(layer.apply)
    np.testing.assert_allclose(apply(own, x), jax.jit(stock.apply)(own, x), atol=1e-5)

    convolution = nn.Conv(4, (size, size), strides=stride)
    shared = jax.jit(convolution.init)(jax.random.key(3), x)["params"]
    flat = shared["kernel"].transpose(2, 0, 1, 3).reshape(-1, 4)  # as ConvLocal has them
    tied = {
        "kernel": np.broadcast_to(flat, own["params"]["kernel"].shape),
        "bias": np.broadcast_to(shared["bias"], bias.shape),
    }
    wanted = jax.jit(convolution.apply)({"params": shared}, x)
    np.testing.assert_allclose(apply({"params": tied}, x), wanted, atol=1e-5)


def test_kernels_begin_as_large_as_those_of_a_convolution():
    x = np.zeros((1, 28, 28, 4), np.float32)
    kernel = jax.jit(LocalLayer(8, 5).init)(jax.random.key(0), x)["params"]["kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / 100), rel=0.02)


def test_dense_networks_cost_what_the_cnn_costs():
    shape = (28, 28, 1)
    cnn, local, as_small, as_busy = networks(shape, 10).values()
    assert parameters(cnn, shape) == 26 * 8 + 201 * 16 + 401 * 32 + 513 * 10
    assert parameters(as_small, shape) == pytest.approx(parameters(cnn, shape), rel=0.01)
    assert parameters(local, shape) == 196 * 26 * 8 + 49 * 201 * 16 + 16 * 401 * 32 + 513 * 10
    assert multiply_adds(as_busy, shape) == pytest.approx(multiply_adds(cnn, shape), rel=0.01)
    assert multiply_adds(local, shape) == multiply_adds(cnn, shape)
    for network in (cnn, local, as_small, as_busy):
        assert 2 * multiply_adds(network, shape) == count_flops(network, shape)


def test_gradients_of_hog_tell_stripes_that_pixels_do_not():
    pytest.importorskip("skimage")
    dataset = made(16)
    of_test = {b.name: accuracy(b.predictions["test"]) for b in measure.baselines(dataset)}
    assert of_test["HOG and linear SVM"] == 1
    assert of_test["logistic regression"] < 0.8
    # Classes that nothing was learned of have the lowest answer.
    train = dataset.splits["train"]
    few = train.take(np.flatnonzero(train.targets["label"] != 1))
    two = dataset.replace(splits={**dataset.splits, "train": few})
    logits = hog_and_svm(two).predictions["test"].logits
    assert (logits[:, 1] < logits[:, [0, 2]].min(axis=1)).all()


def accuracy(predictions: Predictions) -> float:
    return float((predictions.predicted() == predictions.labels()).mean())


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ResultsError, match=r"scikit-image .* pip install"):
        hog_and_svm(made(12, train=4))


def test_repeated_images_come_as_often_as_each_other():
    dataset = made(8, train=4)
    train = measure.repeated(dataset, 100).splits["train"]
    assert len(train) == 96
    assert (np.bincount(train.targets["label"]) == 32).all()
    np.testing.assert_array_equal(train.images[12:24], dataset.splits["train"].images)


def learned(network, dataset, out, members):
    """Answers in place of a population: the higher the rate, the more of them are right."""

    def answers(own, part):
        split = dataset.splits[part]
        labels = split.targets["label"]
        wrong = (
            np.random.default_rng(own["seed"]).random(len(labels))
            > 50 * own["optimizer.learning_rate"]
        )
        logits = np.eye(3, dtype=np.float32)[(labels + wrong) % 3]
        classes = dataset.classes["label"]
        return predictions_type(part)(part, split.ids, labels, logits, classes)

    runs = {
        name: SimpleNamespace(predictions=functools.partial(answers, own))
        for name, own in members.items()
    }
    return SimpleNamespace(
        members=runs, predictions=lambda part: [run.predictions(part) for run in runs.values()]
    )


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The experiment on few images, with two small networks; and where its rows go."""
    path = tmp_path / "results.csv"
    few = dict(list(networks((8, 8, 1), 3, (2, 3)).items())[:3:2])
    monkeypatch.setattr(measure, "PATH", path)
    monkeypatch.setattr(measure, "load", lambda folder: made(8))
    monkeypatch.setattr(measure, "networks", lambda *_: few)
    monkeypatch.setattr(measure, "PILOT_SHOTS", 8)
    monkeypatch.setattr(measure, "RATES", (0.001, 0.01))
    monkeypatch.setattr(measure, "EPOCH", 150)
    return few, path


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, {(r["experiment"], r["metric"]): float(r["value"]) for r in rows}


def test_every_row_and_what_it_says(small, tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage")
    few, path = small
    asked = []

    def trained(network, dataset, out, members, *, may_fail=False):
        assert may_fail == out.name.startswith("pilot")
        asked.extend((out.name, own["optimizer.learning_rate"]) for own in members.values())
        return learned(network, dataset, out, members)

    monkeypatch.setattr(measure, "trained", trained)
    monkeypatch.setattr(measure, "SHOTS", (4, 12))
    arguments = ["--data-dir", "-", "--out", str(tmp_path / "runs"), "--seeds", "2"]
    assert measure.main(arguments) == 0
    rows, value = read(path)
    assert len(value) == len(rows) == 2 * 2 + 2 * 2 + 2 * (5 + 4)
    assert value["CNN", "parameters"] == parameters(few["CNN"], (8, 8, 1))
    assert value["CNN", "rate 0.001, accuracy"] < value["CNN", "rate 0.01, accuracy"]
    assert {rate for name, rate in asked if not name.startswith("pilot")} == {0.01}
    assert len({name for name, _ in asked}) == 2 + 2 * 2 * 2
    for shots in (4, 12):
        metric = f"{shots} of each, accuracy"
        gain = value["CNN minus HOG and linear SVM", metric]
        assert gain == pytest.approx(value["CNN", metric] - value["HOG and linear SVM", metric])
    of_test = [row for row in rows if row["split"] == "few of each class, test"]
    assert {(row["covers"], row["n_seeds"], row["n"]) for row in of_test} == {("both", "2", "36")}
    capsys.readouterr()
    assert measure.main([*arguments[:-1], "1"]) == 2
    assert "2 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_populations_are_trained_once_and_only_as_asked(small, tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage")
    _, path = small
    monkeypatch.setattr(measure, "SHOTS", (12,))
    arguments = ["--data-dir", "-", "--out", str(tmp_path / "runs"), "--seeds", "2"]
    assert measure.main(arguments) == 0
    _, first = read(path)
    path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(kept, "train_population", None)
        assert measure.main(arguments) == 0
    assert read(path)[1] == first
    path.unlink()
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(measure, "RATES", (0.001, 0.003))
        assert measure.main(arguments) == 2
    assert "other seeds or settings" in capsys.readouterr().err
    path.unlink()
    monkeypatch.setattr(measure, "LEARNING", {**measure.LEARNING, "train.batch_size": 25})
    assert measure.main(arguments) == 2
    assert "another train" in capsys.readouterr().err
