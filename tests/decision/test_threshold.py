from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom, norm
from sklearn.metrics import roc_curve

from cnn_jax.decision import adjust_prevalence, allowed_beyond, fit_threshold
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import CalibrationPredictions, Predictions


def scored(scores, sick, split="validation", groups=None):
    """Two classes whose log odds are the scores."""
    scores = np.asarray(scores, np.float32)
    kind = Predictions if split == "test" else CalibrationPredictions
    return kind(
        split,
        np.array([f"{split}/{i}" for i in range(len(scores))]),
        np.asarray(sick).astype(np.int32),
        np.stack([np.zeros_like(scores), scores], axis=1),
        ("normal", "pneumonia"),
        groups=groups,
    )


def drawn(seed, n=60, *, ties=False):
    generator = np.random.default_rng(seed)
    sick = np.arange(n) < n // 3
    scores = generator.normal(size=n) + 1.5 * sick
    return scored(scores.round(1) if ties else scores, sick)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.05, 0.99), st.booleans())
def test_the_line_is_the_best_that_keeps_the_wanted_share(seed, wanted, ties):
    p = drawn(seed, ties=ties)
    z, sick = p.log_odds()[:, 1], p.targets == 1
    lines = np.unique(z)
    for_sensitivity = fit_threshold(p, positive="pneumonia", sensitivity=wanted)
    keeps = [line for line in lines if (z[sick] >= line).mean() >= wanted - 1e-12]
    np.testing.assert_array_equal(for_sensitivity.flags(p), z >= max(keeps))
    for_specificity = fit_threshold(p, positive="pneumonia", specificity=wanted)
    flags = for_specificity.flags(p)
    kept = (~flags[~sick]).mean()
    assert kept >= wanted - 1e-12
    # Flagging one more level of the healthy would break it.
    below = z[~flags]
    if len(below):
        assert (~(z >= below.max())[~sick]).mean() < wanted or sick[z == below.max()].all()
    assert set(z[flags]).isdisjoint(z[~flags])


def test_the_line_lies_in_the_middle_of_a_gap():
    p = scored([-5, -4, -3, 3, 4, 5], np.arange(6) > 2)
    for rule in ({"sensitivity": 0.9}, {"specificity": 0.9}, {}):
        assert fit_threshold(p, positive="pneumonia", **rule).log_odds == pytest.approx(0)
    some = fit_threshold(p, positive="pneumonia", sensitivity=0.5)
    assert some.log_odds == pytest.approx(3.5)  # two of three are found
    mixed = scored([-5, 5], [1, 0])
    everyone = fit_threshold(mixed, positive="pneumonia", sensitivity=0.9)
    assert everyone.flags(mixed).all()
    nobody = fit_threshold(mixed, positive="pneumonia", specificity=0.9)
    assert nobody.log_odds == np.inf and nobody.probability == 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_youden_is_the_top_of_scikit_learns_curve(seed, ties):
    p = drawn(seed, ties=ties)
    found = fit_threshold(p, positive="pneumonia").flags(p)
    sick = p.targets == 1
    false, true, _ = roc_curve(sick, p.log_odds()[:, 1], drop_intermediate=False)
    assert found[sick].mean() - found[~sick].mean() == pytest.approx((true - false).max())


def test_the_first_class_can_be_the_one_looked_for():
    p = drawn(0)
    other = replace(p, logits=p.logits[:, ::-1].copy(), targets=1 - p.targets)
    one = fit_threshold(p, positive="pneumonia", sensitivity=0.9)
    two = fit_threshold(other, positive="normal", sensitivity=0.9)
    assert one.log_odds == two.log_odds
    np.testing.assert_array_equal(one.flags(p), two.flags(other))


def test_it_is_judged_by_other_examples_and_other_groups():
    groups = np.array([f"patient {i // 2}" for i in range(60)])
    p = replace(drawn(0), groups=groups)
    threshold = fit_threshold(p, positive="pneumonia", sensitivity=0.9)
    assert (threshold.fitted_on.n, threshold.fitted_on.groups) == (60, 30)
    test = scored(drawn(1).logits[:, 1], np.arange(60) < 20, "test", np.char.add(groups, " b"))
    figures = threshold.figures(test)
    assert figures.sensitivity.n == 20 and figures.sensitivity.unit == "group"
    shared = replace(test, groups=np.where(np.arange(60) < 2, groups, test.groups))
    with pytest.raises(EvaluationError, match=r"shares 1 groups .* such as 'patient 0'"):
        threshold.figures(shared)
    # The same examples under the name of test are the same examples.
    renamed = Predictions("test", p.ids, p.targets, p.logits / 2, p.classes, groups=test.groups)
    with pytest.raises(EvaluationError, match=r"60 of whose 60 examples are, by their ids, among"):
        threshold.figures(renamed)


def test_of_equally_good_lines_the_lowest_is_taken():
    # 0.8 - 0.5 and 0.3 - 0 differ in floating point: both lines gain 0.3.
    sick = np.repeat([0, 1, 0, 1, 0], [3, 5, 5, 5, 2])
    threshold = fit_threshold(scored(np.arange(20), sick), positive="pneumonia")
    assert threshold.log_odds == pytest.approx(2.5)


@pytest.mark.parametrize("share", [1e-12, 1 - 1e-12])
def test_tiny_shares_are_no_trouble(share):
    p = drawn(0)
    for name in ("sensitivity", "specificity"):
        flags = fit_threshold(p, positive="pneumonia", **{name: share}).flags(p)
        assert flags[p.targets == 1].any() or name == "specificity"


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_what_may_lie_beyond_is_the_binomial_bound(rate, confidence):
    for n in (10, 59, 100, 523):
        fine = [b for b in range(n) if binom.cdf(b, n, rate) <= 1 - confidence]
        if fine:
            assert allowed_beyond(n, rate, confidence) == max(fine)
        else:
            with pytest.raises(EvaluationError, match="are needed; give more"):
                allowed_beyond(n, rate, confidence)


def test_fifty_nine_are_needed_for_95_in_95():
    assert allowed_beyond(59, 0.05, 0.95) == 0
    with pytest.raises(EvaluationError, match=r"58 independent .* 59 are needed"):
        allowed_beyond(58, 0.05, 0.95)


@pytest.mark.parametrize("side", ["sensitivity", "specificity"])
def test_the_promise_holds_in_so_many_calibrations(side):
    """Scores of known distribution, so that the true rate of each threshold is known."""
    generator = np.random.default_rng(0)
    held, wanted, confidence = 0, 0.9, 0.9
    for _ in range(1000):
        scores, sick = generator.normal(size=160), np.arange(160) < 80
        p = scored(scores + 2 * sick, sick)
        line = fit_threshold(
            p, positive="pneumonia", confidence=confidence, **{side: wanted}
        ).log_odds
        true = norm.sf(line - 2) if side == "sensitivity" else norm.cdf(line)
        held += true >= wanted
    # At least 90 %; at most what the discreteness of 80 examples adds.
    assert binom.ppf(0.001, 1000, confidence) <= held <= 970


def test_a_promise_counts_groups():
    p = drawn(0, n=300)  # 100 are sick
    fit_threshold(p, positive="pneumonia", sensitivity=0.95, confidence=0.95)
    grouped = replace(p, groups=np.arange(300).astype(str))
    assert fit_threshold(
        grouped, positive="pneumonia", sensitivity=0.95, confidence=0.95
    ).log_odds == pytest.approx(
        fit_threshold(p, positive="pneumonia", sensitivity=0.95, confidence=0.95).log_odds
    )
    pairs = replace(drawn(0, n=600), groups=(np.arange(600) // 2).astype(str))
    promise = fit_threshold(pairs, positive="pneumonia", sensitivity=0.95, confidence=0.95)
    assert promise.rule == "sensitivity of 95 % of groups with confidence 95 %"
    found = promise.flags(pairs) | (pairs.targets == 0)
    assert found.reshape(-1, 2).all(axis=1)[:100].mean() > 0.95
    with pytest.raises(EvaluationError, match="50 independent"):
        fit_threshold(
            replace(p, groups=(np.arange(300) // 2).astype(str)),
            positive="pneumonia",
            sensitivity=0.95,
            confidence=0.95,
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"positive": "flu"}, "no class 'flu' to look for: choose one of normal, pneumonia"),
        ({"sensitivity": 0.9, "specificity": 0.9}, "not both"),
        ({"sensitivity": 95}, "between 0 and 1, not at 95"),
        ({"confidence": 0.9}, "goes with a wanted"),
        ({"sensitivity": 0.9, "confidence": 1.0}, "confidence of a promise"),
    ],
)
def test_bad_wishes_are_refused(options, says):
    with pytest.raises(EvaluationError, match=says):
        fit_threshold(drawn(0), **{"positive": "pneumonia", **options})


def test_a_class_alone_has_no_threshold():
    p = drawn(0)
    with pytest.raises(EvaluationError, match="none but 'pneumonia'"):
        fit_threshold(p.take(p.targets == 1), positive="pneumonia")


def test_another_prevalence_is_bayes_rule():
    """Two normal distributions: the posterior at any prevalence is known."""
    x = np.linspace(-3, 4, 50)

    def posterior(share):
        sick, well = share * norm.pdf(x, 1), (1 - share) * norm.pdf(x)
        return sick / (sick + well)

    p = scored(logit(posterior(0.7)), np.arange(50) < 25)
    old, new = {"normal": 0.3, "pneumonia": 0.7}, {"normal": 0.98, "pneumonia": 0.02}
    adjusted = adjust_prevalence(p, new, trained=old)
    assert type(adjusted) is type(p)
    np.testing.assert_allclose(adjusted.probabilities()[:, 1], posterior(0.02), atol=1e-6)
    # Of several labels each has its own share.
    labels = np.eye(2, dtype=np.float32)[p.targets]
    many = Predictions(
        "test", p.ids, labels, np.stack([logit(posterior(0.7))] * 2, 1), p.classes, "multilabel"
    )
    shares = {"normal": 0.7, "pneumonia": 0.7}
    adjusted = adjust_prevalence(many, {"normal": 0.4, "pneumonia": 0.02}, trained=shares)
    for column, share in enumerate((0.4, 0.02)):
        found = expit(adjusted.logits[:, column])
        np.testing.assert_allclose(found, posterior(share), atol=1e-6)


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ({"normal": 0.5}, "needed of each of normal, pneumonia"),
        ({"normal": 0.5, "pneumonia": 0.4}, "sum to 1, not to 0.9"),
        ({"normal": 0.0, "pneumonia": 1.0}, "between 0 and 1"),
    ],
)
def test_bad_shares_are_refused(to, says):
    with pytest.raises(EvaluationError, match=says):
        adjust_prevalence(drawn(0), to, trained={"normal": 0.3, "pneumonia": 0.7})
