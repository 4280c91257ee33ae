"""CKA, activity and selectivity: laws, and sums by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import ortho_group

from cnn_jax.errors import EvaluationError
from cnn_jax.principles import activity, class_selectivity, linear_cka

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_knows_no_rotation_scale_or_offset(unbiased):
    x, y = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 9))
    y[:, :3] += x[:, :3]
    same = linear_cka(x, y, unbiased=unbiased)
    assert 0 < same < 1 and linear_cka(x, x, unbiased=unbiased) == pytest.approx(1)
    turned = 3.5 * x @ ortho_group.rvs(6, random_state=0) + 100
    assert linear_cka(turned, x, unbiased=unbiased) == pytest.approx(1)
    assert linear_cka(turned, y, unbiased=unbiased) == pytest.approx(same)
    assert linear_cka(y, x, unbiased=unbiased) == pytest.approx(same)
    maps = x.reshape(40, 3, 1, 2)
    assert linear_cka(maps, y, unbiased=unbiased) == pytest.approx(same)


def test_the_plain_one_is_the_formula_of_the_paper():
    x, y = RNG.normal(size=(12, 4)), RNG.normal(size=(12, 3))
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    cross = np.linalg.norm(b.T @ a) ** 2
    wanted = cross / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    assert linear_cka(x, y, unbiased=False) == pytest.approx(wanted)


def test_the_unbiased_hsic_is_the_mean_over_four_different_images():
    """Song et al. 2012: the U-statistic, by all quadruples."""
    x, y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))

    def u_statistic(k, one):
        terms = [
            k[a, b] * (one[a, b] + one[c, d] - 2 * one[a, c])
            for a, b, c, d in itertools.permutations(range(len(k)), 4)
        ]
        return np.mean(terms)

    k, one = x @ x.T, y @ y.T
    wanted = u_statistic(k, one) / np.sqrt(u_statistic(k, k) * u_statistic(one, one))
    assert linear_cka(x, y) == pytest.approx(wanted)


def test_noise_is_like_noise_for_the_plain_one_alone():
    draws = [(RNG.normal(size=(30, 200)), RNG.normal(size=(30, 200))) for _ in range(300)]
    assert np.mean([linear_cka(x, y, unbiased=False) for x, y in draws]) > 0.8
    assert abs(np.mean([linear_cka(x, y) for x, y in draws])) < 0.02


def test_activity_and_selectivity_by_hand():
    features = np.zeros((4, 1, 2, 4))
    features[:, :, 0, 0] = 1  # half of the positions
    features[:2, :, :, 1] = 3  # one class alone
    features[:, :, :, 2] = 5  # always, and alike
    found = activity(features)
    np.testing.assert_allclose(found.active, [0.5, 0.5, 1, 0])
    assert found.dead.tolist() == [False, False, False, True] and found.sparsity == 0.5
    np.testing.assert_allclose(class_selectivity(features, [0, 0, 1, 1]), [0, 1, 0, 0])
    # three classes: means 3, 1.5 and 0
    three = np.array([[3.0], [1], [2], [0]])
    assert class_selectivity(three, [0, 1, 1, 2]) == pytest.approx([(3 - 0.75) / (3 + 0.75)])


def test_what_has_no_answer():
    x = RNG.normal(size=(5, 3))
    for one, other, message in [
        (x, x[:4], "on the same images, 4 at least"),
        (x[:3], x[:3], "4 at least"),
        (x, np.ones((5, 2)), "the same for all images"),
        (x, np.full((5, 2), np.nan), "finite"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            linear_cka(one, other)
    with pytest.raises(EvaluationError, match=r"features are \[N, ..., C\], not \[5\]"):
        activity(x[:, 0])
    with pytest.raises(EvaluationError, match="0 or more"):
        class_selectivity(x, [0, 0, 1, 1, 1])
    for labels in ([0, 0, 1], [0] * 5):
        with pytest.raises(EvaluationError, match="two classes at least"):
            class_selectivity(np.abs(x), labels)
