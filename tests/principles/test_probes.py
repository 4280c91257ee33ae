"""Linear probes against scikit-learn, and by what must come out."""

import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.principles import linear_probe
from cnn_jax.principles.probes import grid_means


def _parts(rng, spread, counts=(300, 200, 400)):
    centres = rng.normal(size=(3, 6))
    parts = []
    for count in counts:
        labels = rng.integers(0, 3, count)
        parts.append((centres[labels] + spread * rng.normal(size=(count, 6)), labels + 4))
    return parts


def test_it_is_as_right_as_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    train, validation, test = _parts(np.random.default_rng(0), 1.0)
    found = linear_probe(train, validation, test, penalties=(0.01,))
    mean, std = train[0].mean(axis=0), train[0].std(axis=0)
    oracle = LogisticRegression(C=1 / (0.01 * len(train[0])), tol=1e-8, max_iter=1000)
    oracle.fit((train[0] - mean) / std, train[1])
    wanted = oracle.score((test[0] - mean) / std, test[1])
    assert found.accuracy.value == pytest.approx(wanted, abs=1 / len(test[1]))
    assert found.inputs == 6 and found.penalty == 0.01 and found.excess <= 1e-3
    assert found.accuracy.low < wanted < found.accuracy.high


def test_the_penalty_is_that_of_validation_and_never_of_test():
    rng = np.random.default_rng(1)
    train, validation, test = _parts(rng, 3.0, (20, 400, 400))
    noisy = [(np.concatenate([x, rng.normal(size=(len(x), 40))], axis=1), y)
             for x, y in (train, validation, test)]  # fmt: skip
    strong = linear_probe(*noisy)
    assert strong.penalty >= 0.1  # few examples and much noise
    other = linear_probe(*noisy[:2], (noisy[2][0], rng.permutation(noisy[2][1])))
    assert other.penalty == strong.penalty
    wide = _parts(rng, 0.3)
    assert linear_probe(*wide).penalty < 0.1  # easy: the least penalty has the lowest loss


def test_it_does_not_hang_on_the_scale_of_features_nor_on_dead_ones():
    parts = _parts(np.random.default_rng(2), 1.0)
    scaled = [
        (np.concatenate([x * [1e-4, 1, 1, 1, 1, 1e5] + 7, np.full((len(x), 2), 3.0)], axis=1), y)
        for x, y in parts
    ]
    assert linear_probe(*scaled).accuracy.value == pytest.approx(
        linear_probe(*parts).accuracy.value, abs=0.011
    )


def test_maps_are_averaged_over_a_grid():
    maps = np.arange(2 * 4 * 6 * 1, dtype=np.float64).reshape(2, 4, 6, 1)
    found = grid_means(maps, 2)
    wanted = [maps[0, r : r + 2, c : c + 3].mean() for r in (0, 2) for c in (0, 3)]
    np.testing.assert_allclose(found[0], wanted)
    assert grid_means(maps, 5).shape == (2, 4 * 5)  # no more parts than positions
    np.testing.assert_allclose(grid_means(maps, 1)[:, 0], maps.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(grid_means(maps[:, 0, :, 0], 3), maps[:, 0, :, 0])


def test_groups_make_the_interval_wider():
    parts = _parts(np.random.default_rng(3), 1.5)
    groups = np.repeat(np.arange(40), 10)
    order = np.argsort(parts[2][1], kind="stable")  # a group is of one class: units are alike
    test = parts[2][0][order], parts[2][1][order]
    alone = linear_probe(parts[0], parts[1], test).accuracy
    together = linear_probe(parts[0], parts[1], test, groups=groups).accuracy
    assert together.value == alone.value and together.unit == "group"


def test_what_has_no_answer():
    train, validation, test = _parts(np.random.default_rng(4), 1.0)
    for parts, options, message in [
        ((train, validation, (test[0], test[1][:5])), {}, "test has 400 images"),
        ((train, (validation[0][:0], validation[1][:0]), test), {}, "validation has 0 images"),
        ((train, validation, (test[0][:, :4], test[1])), {}, "of test have another shape"),
        ((train, validation, (test[0] * np.nan, test[1])), {}, "test are not finite"),
        (((train[0], train[1] * 0), validation, test), {}, "two classes in train"),
        ((train, validation, test), {"penalties": ()}, "a penalty to try"),
        ((train, validation, test), {"cells": 0}, "one cell at least"),
        (((train[0][:, :, None], train[1]), validation, test), {}, r"\[N, h, w, C\]"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            linear_probe(*parts, **options)
