from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta

from cnn_jax.decision import fit_referral
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import CalibrationPredictions, Predictions


def drawn(n, seed, split="validation"):
    """Right with the very probability that is said."""
    generator = np.random.default_rng(seed)
    z = 6 * generator.normal(size=n)
    targets = (generator.random(n) < expit(z)).astype(np.int32)
    made = CalibrationPredictions if split == "validation" else Predictions
    ids = np.array([f"{split}/{seed}/{i}" for i in range(n)])
    logits = np.stack([np.zeros(n), z], axis=1).astype(np.float32)
    return made(split, ids, targets, logits, ("well", "ill"))


def test_the_promise_holds_in_so_many_calibrations():
    test = drawn(20_000, 10**6, "test")
    wrong = test.predicted() != test.targets
    held, kept = 0, []
    for seed in range(200):
        referral = fit_referral(drawn(400, seed), error=0.1, confidence=0.9)
        answered = ~referral.refers(test)
        held += wrong[answered].mean() <= 0.1
        kept.append(answered.mean())
    assert held >= 180
    assert np.mean(kept) > 0.3  # and is not bought by referring everyone


def test_the_bound_is_clopper_and_pearsons_of_what_is_kept():
    p = drawn(400, 0)
    referral = fit_referral(p, error=0.1)
    assert referral.kept in np.arange(1, 21) / 20
    kept = ~referral.refers(p)
    errors = (p.predicted() != p.targets)[kept].sum()
    level = 1 - 0.05 / 20  # of twenty lines
    assert referral.bound == pytest.approx(beta.ppf(level, errors + 1, kept.sum() - errors))
    assert referral.bound <= 0.1 and referral.kept == pytest.approx(kept.mean())
    assert (fit_referral(p, error=0.2).kept) > referral.kept


def test_groups_count_once():
    p = drawn(1000, 0)
    grouped = replace(p, groups=(np.arange(1000) // 10).astype(str))
    assert fit_referral(p, error=0.1).kept > fit_referral(grouped, error=0.2).kept


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"error": 0.001},
            "no line among 50 calibration examples promises an error of at most 0.0",
        ),
        ({"error": 5}, "the error of a referral lies between 0 and 1"),
        ({"error": 0.1, "confidence": 1.0}, "the confidence of a referral lies"),
    ],
)
def test_what_cannot_be_promised_is_refused(options, says):
    with pytest.raises(EvaluationError, match=says):
        fit_referral(drawn(50, 0), **options)
