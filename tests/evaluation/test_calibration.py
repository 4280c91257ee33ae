"""Adaptive and class-wise errors, and the risk-coverage curve, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    Predictions,
    calibration_figures,
    classification_metrics,
    risk_coverage,
)


def drawn(n, k, seed, kind="class", *, ties=False):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k)) * 2
    if kind == "multilabel":
        targets = (generator.random((n, k)) < expit(logits)).astype(np.float32)
    else:
        cumulative = softmax(logits, axis=1).cumsum(axis=1)
        targets = (cumulative > generator.random((n, 1))).argmax(axis=1).astype(np.int32)
    logits = (logits.round() if ties else logits).astype(np.float32)
    return Predictions(
        "test", np.arange(n).astype(str), targets, logits, tuple("abcdefgh"[:k]), kind
    )


def binned(index, score, right):
    gaps = [abs((right[index == b] - score[index == b]).sum()) for b in set(index.tolist())]
    return sum(gaps) / len(score)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(20, 90),
    k=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["class", "multilabel"]),
)
def test_errors_are_the_sums_they_are_defined_by(n, k, seed, kind):
    p = drawn(n, k, seed, kind)
    found = calibration_figures(p, temperature=0.7, bins=10, resamples=1)
    q = p.probabilities(0.7)
    actual = p.targets if kind == "multilabel" else np.eye(k)[p.targets]
    wide = [binned(np.ceil(q[:, c] * 10), q[:, c], actual[:, c]) for c in range(k)]
    assert found["classwise_ece"].value == pytest.approx(np.mean(wide))
    if kind == "multilabel":
        assert "ece" not in found
        assert found["brier"].value == pytest.approx(((q - actual) ** 2).mean())
        return
    confidence, right = q.max(axis=1), (p.predicted() == p.targets).astype(float)
    order = np.argsort(confidence)
    equal = np.empty(n, int)
    equal[order] = np.arange(n) * 10 // n
    assert found["adaptive_ece"].value == pytest.approx(binned(equal, confidence, right))
    usual = classification_metrics(p, temperature=0.7, resamples=1)
    for name in ("nll", "brier"):
        assert found[name].value == pytest.approx(usual[name].value)
    same = calibration_figures(p, temperature=0.7, resamples=1)
    assert same["ece"].value == pytest.approx(usual["ece"].value)


def test_equal_confidences_share_a_bin():
    p = drawn(40, 2, 0)
    p = replace(p, logits=np.tile([[0, 2]], (40, 1)).astype(np.float32))
    found = calibration_figures(p, resamples=1)
    gap = abs((p.targets == 1).mean() - p.probabilities()[0, 1])
    assert found["adaptive_ece"].value == pytest.approx(gap)


def test_calibrated_probabilities_have_low_errors():
    p = drawn(20_000, 4, 0)
    spoiled = replace(p, logits=3 * p.logits)
    for name in ("ece", "adaptive_ece", "classwise_ece"):
        good = calibration_figures(p, resamples=50)[name]
        assert good.value < 0.02
        bad = calibration_figures(spoiled, resamples=50)[name]
        assert bad.low > 0.05 and bad.low < bad.value + 0.01


@settings(deadline=None, max_examples=25)
@given(st.integers(5, 80), st.integers(0, 10**6), st.booleans())
def test_the_curve_is_the_error_of_what_is_kept(n, seed, ties):
    p = drawn(n, 3, seed, ties=ties)
    curve = risk_coverage(p, resamples=20, seed=1)
    # Log odds, of which equal ones are ties however their sums were rounded.
    score, wrong = p.log_odds().max(axis=1), p.predicted() != p.targets
    lines = np.unique(score)[::-1]
    assert len(curve.coverage) == len(lines)
    for coverage, risk, confidence, line in zip(
        curve.coverage, curve.risk, curve.confidence, lines, strict=True
    ):
        kept = score >= line
        assert coverage == pytest.approx(kept.mean()) and risk == pytest.approx(wrong[kept].mean())
        assert confidence == pytest.approx(expit(line))
    assert curve.coverage[-1] == 1
    expected = np.mean([wrong[score >= s].mean() for s in score])
    assert curve.area.value == pytest.approx(expected)


def test_sure_errors_cost_area():
    right = drawn(400, 3, 0)
    confidence = right.probabilities().max(axis=1)
    least, most = (
        confidence < np.quantile(confidence, 0.1),
        confidence > np.quantile(confidence, 0.9),
    )
    areas = []
    for wrong in (least, most):
        targets = np.where(wrong, (right.predicted() + 1) % 3, right.predicted())
        areas.append(risk_coverage(replace(right, targets=targets.astype(np.int32))).area)
    assert areas[0].high < areas[1].low


def test_bad_input_is_refused():
    p = drawn(20, 3, 0)
    soft = replace(p, kind="soft", targets=softmax(p.logits, axis=1))
    with pytest.raises(EvaluationError, match="needs hard labels"):
        calibration_figures(soft)
    with pytest.raises(EvaluationError, match="in 1 bin or more"):
        calibration_figures(p, bins=0)
    with pytest.raises(EvaluationError, match="a risk-coverage curve needs one class"):
        risk_coverage(drawn(20, 3, 0, "multilabel"))
