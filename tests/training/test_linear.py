import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from cnn_jax.errors import DataError
from cnn_jax.training.linear import fit_linear


def three_clouds(n=120, dimensions=20):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, n)
    centres = generator.normal(size=(3, dimensions))
    inputs = 0.5 + centres[labels] + 2 * generator.normal(size=(n, dimensions))
    return inputs.astype(np.float32), labels


@pytest.mark.parametrize("penalty", [0.1, 0.003])
def test_linear_fit_is_scikit_learns(penalty):
    inputs, labels = three_clouds()
    fit = fit_linear(inputs, np.eye(3, dtype=np.float32)[labels], penalty, tolerance=1e-9)
    oracle = LogisticRegression(C=1 / (penalty * 120), tol=1e-7, max_iter=10_000)
    oracle.fit(inputs.astype(np.float64), labels)
    np.testing.assert_allclose(fit.weight, oracle.coef_.T, atol=1e-3)
    expected = oracle.decision_function(inputs)
    shift = (fit.logits(inputs) - expected).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(fit.logits(inputs) - shift, expected, atol=1e-3)


def test_sigmoid_fit_is_one_binary_regression_per_label():
    inputs, labels = three_clouds()
    targets = np.stack([labels == 0, labels > 0], axis=1)
    fit = fit_linear(inputs, targets.astype(np.float32), 0.1, sigmoid=True, tolerance=1e-9)
    for k in range(2):
        oracle = LogisticRegression(C=1 / (0.1 * 120), tol=1e-7, max_iter=10_000)
        oracle.fit(inputs.astype(np.float64), targets[:, k])
        np.testing.assert_allclose(fit.weight[:, k], oracle.coef_[0], atol=1e-3)
        assert fit.bias[k] == pytest.approx(oracle.intercept_[0], abs=1e-3)


def test_fit_says_how_far_it_came():
    inputs, labels = three_clouds()
    targets = np.eye(3, dtype=np.float32)[labels]

    def objective(fit):
        log_p = log_softmax(fit.logits(inputs).astype(np.float64), axis=1)
        loss = -log_p[np.arange(len(labels)), labels].mean()
        return loss + 0.1 / 2 * (fit.weight.astype(np.float64) ** 2).sum()

    least = objective(fit_linear(inputs, targets, 0.1, tolerance=1e-10))
    for tolerance in (1e-1, 1e-3, 1e-5):
        fit = fit_linear(inputs, targets, 0.1, tolerance=tolerance)
        assert objective(fit) - least <= fit.excess <= tolerance
    early = fit_linear(inputs, targets, 0.1, tolerance=1e-10, max_iterations=2)
    assert early.iterations == 2
    assert early.excess > 1e-10


def test_penalty_must_be_positive():
    with pytest.raises(DataError, match="must be positive"):
        fit_linear(np.zeros((2, 1), np.float32), np.eye(2, dtype=np.float32), 0.0)
