"""Losses against formulas in NumPy float64 and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from cnn_jax.errors import ModelError
from cnn_jax.evaluation import CalibrationPredictions
from cnn_jax.training.task import Classification, MultiLabel, logits_of

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(20, 4)).astype(np.float32) * 3
LABELS = RNG.integers(0, 4, 20).astype(np.int32)
SOFT = RNG.dirichlet(np.ones(4), 20).astype(np.float32)
MANY = RNG.integers(0, 2, (20, 4)).astype(np.float32)
KEY = jax.random.key(0)


def log_softmax(z):
    z = z.astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def loss_of(task, batch, smoothing=0.0):
    hyper = {"label_smoothing": jnp.float32(smoothing)}
    loss, weight = task.loss(jnp.asarray(LOGITS), batch, hyper, key=KEY)
    assert loss.dtype == weight.dtype == jnp.float32 and loss.shape == weight.shape == (20,)
    return np.asarray(loss), np.asarray(weight)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy(smoothing, soft):
    target = SOFT.astype(np.float64) if soft else np.eye(4)[LABELS]
    q = (1 - smoothing) * target + smoothing / 4
    expected = -(q * log_softmax(LOGITS)).sum(axis=1)
    label = jnp.asarray(SOFT if soft else LABELS)
    got, weight = loss_of(Classification(4), {"label": label}, smoothing)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_array_equal(weight, 1)


def test_class_weights_weigh_examples_by_their_class():
    weights = (0.5, 1.0, 2.0, 4.0)
    _, weight = loss_of(Classification(4, weights), {"label": jnp.asarray(LABELS)})
    np.testing.assert_allclose(weight, np.array(weights)[LABELS], rtol=1e-6)
    _, weight = loss_of(Classification(4, weights), {"label": jnp.asarray(SOFT)})
    np.testing.assert_allclose(weight, SOFT @ np.array(weights), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss(gamma):
    hyper = {"label_smoothing": jnp.float32(0), "focal": jnp.float32(gamma)}
    log_p = log_softmax(LOGITS)[np.arange(20), LABELS]
    expected = -((1 - np.exp(log_p)) ** gamma) * log_p
    got, _ = Classification(4, focal=True).loss(
        jnp.asarray(LOGITS), {"label": jnp.asarray(LABELS)}, hyper, key=KEY
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    p_t = np.where(MANY > 0.5, p, 1 - p)
    got, _ = MultiLabel(4, focal=True).loss(
        jnp.asarray(LOGITS), {"label": jnp.asarray(MANY)}, hyper, key=KEY
    )
    np.testing.assert_allclose(got, (-((1 - p_t) ** gamma) * np.log(p_t)).mean(axis=1), rtol=1e-4)


def test_logit_adjustment_adds_the_priors_while_training_only():
    priors = np.log([0.7, 0.2, 0.06, 0.04])
    hyper = {"label_smoothing": jnp.float32(0), "logit_adjustment": jnp.float32(1.5)}
    task = Classification(4, log_priors=tuple(priors))
    got, _ = task.loss(jnp.asarray(LOGITS), {"label": jnp.asarray(LABELS)}, hyper, key=KEY)
    shifted = LOGITS + 1.5 * priors
    expected = -log_softmax(shifted)[np.arange(20), LABELS]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_array_equal(task.predictions(jnp.asarray(LOGITS))["logits"], LOGITS)
    task = MultiLabel(4, log_priors=tuple(priors))
    got, _ = task.loss(jnp.asarray(LOGITS), {"label": jnp.asarray(MANY)}, hyper, key=KEY)
    expected = (np.logaddexp(0, shifted) - MANY * shifted).mean(axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_adjusted_logits_learn_what_equally_frequent_classes_would_teach():
    """For one x with p(y | x) known, the minimiser is log p(y | x) - log prior (Menon, sec. 4)."""
    posterior, priors = np.array([0.6, 0.3, 0.1]), np.array([0.8, 0.15, 0.05])
    task = Classification(3, log_priors=tuple(np.log(priors)))
    hyper = {"label_smoothing": jnp.float32(0), "logit_adjustment": jnp.float32(1)}
    label = jnp.asarray(posterior[None], jnp.float32)
    best = np.log(posterior / priors)[None]

    def loss(logits):
        return task.loss(logits, {"label": label}, hyper, key=KEY)[0].sum()

    gradient = jax.grad(loss)(jnp.asarray(best, jnp.float32))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert best.argmax() != posterior.argmax()


@pytest.mark.parametrize("kind", [Classification, MultiLabel])
def test_focal_loss_is_finite_however_sure_the_network(kind):
    label = jnp.array([0, 1], jnp.int32) if kind is Classification else jnp.eye(2)
    hyper = {"label_smoothing": jnp.float32(0), "focal": jnp.float32(0.5)}

    def total(logits):
        return kind(2, focal=True).loss(logits, {"label": label}, hyper, key=KEY)[0].sum()

    for size in (0.0, 30.0, 200.0, -200.0):
        logits = jnp.array([[size, -size], [-size, size]])
        value, gradient = jax.value_and_grad(total)(logits)
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_mixed_targets_are_the_mixture_of_the_losses():
    share, other = RNG.random(20).astype(np.float32), RNG.permutation(LABELS)
    mixed = {
        "label": jnp.asarray(LABELS),
        "mix_label": jnp.asarray(other),
        "mix_share": jnp.asarray(share),
    }
    first, _ = loss_of(Classification(4), {"label": jnp.asarray(LABELS)})
    second, _ = loss_of(Classification(4), {"label": jnp.asarray(other)})
    got, _ = loss_of(Classification(4), mixed)
    np.testing.assert_allclose(got, (1 - share) * first + share * second, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy(smoothing):
    z, q = LOGITS.astype(np.float64), (1 - smoothing) * MANY + smoothing / 2
    p = 1 / (1 + np.exp(-z))
    expected = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean(axis=1)
    got, _ = loss_of(MultiLabel(4), {"label": jnp.asarray(MANY)}, smoothing)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    weights = (1.0, 0.0, 2.0, 1.0)
    expected = -((q * np.log(p) + (1 - q) * np.log(1 - p)) * weights).mean(axis=1)
    got, _ = loss_of(MultiLabel(4, weights), {"label": jnp.asarray(MANY)}, smoothing)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_losses_of_huge_logits_stay_finite():
    huge = jnp.array([[1e4, -1e4], [-1e4, 1e4]], jnp.float32)
    hyper = {"label_smoothing": jnp.float32(0.1)}
    for task, label in (
        (Classification(2), jnp.array([0, 0])),
        (MultiLabel(2), jnp.array([[1.0, 0.0], [0.0, 0.0]])),
    ):
        loss, grad = jax.value_and_grad(
            lambda z, t=task, y=label: t.loss(z, {"label": y}, hyper, key=KEY)[0].sum()
        )(huge)
        assert np.isfinite(loss) and np.isfinite(grad).all()


def predictions_of(targets, kind):
    return CalibrationPredictions(
        "validation", np.arange(20).astype(str), targets, LOGITS, tuple("abcd"), kind
    )


def test_scores_against_scikit_learn():
    p = predictions_of(LABELS, "class")
    score = Classification(4).score(p)
    assert score["loss"] == pytest.approx(log_loss(LABELS, p.probabilities(), labels=range(4)))
    assert score["accuracy"] == accuracy_score(LABELS, LOGITS.argmax(axis=1))
    p = predictions_of(MANY, "multilabel")
    score = MultiLabel(4).score(p)
    expected = np.mean([log_loss(MANY[:, k], p.probabilities()[:, k]) for k in range(4)])
    assert score["loss"] == pytest.approx(expected)
    assert score["accuracy"] == ((LOGITS > 0) == MANY).mean()


def test_correct_agrees_with_the_score():
    for task, target, kind in (
        (Classification(4), LABELS, "class"),
        (Classification(4), SOFT, "soft"),
        (MultiLabel(4), MANY, "multilabel"),
    ):
        correct = task.correct(jnp.asarray(LOGITS), {"label": jnp.asarray(target)})
        expected = task.score(predictions_of(target, kind))["accuracy"]
        assert float(correct.mean()) == pytest.approx(expected)


def test_outputs_may_be_a_dict_and_must_hold_logits():
    np.testing.assert_array_equal(logits_of({"logits": jnp.asarray(LOGITS)}), LOGITS)
    assert logits_of(jnp.asarray(LOGITS, jnp.bfloat16)).dtype == jnp.float32
    with pytest.raises(ModelError, match="nothing called 'logits'"):
        logits_of({"embedding": jnp.ones((2, 3))})
    with pytest.raises(ModelError, match=r"shape \[2\]"):
        logits_of(jnp.ones(2))
