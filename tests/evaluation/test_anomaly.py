import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import AnomalyScores, anomaly_metrics, auroc_interval, proportion


def scored(scores, anomalous, groups=None):
    scores = np.asarray(scores, np.float64)
    return AnomalyScores(
        "test", np.arange(len(scores)).astype(str), scores, np.asarray(anomalous, bool), groups
    )


def drawn(seed, n=80, ties=False, shift=1.5):
    generator = np.random.default_rng(seed)
    truth = generator.uniform(size=n) < 0.3
    truth[:2] = [True, False]
    values = generator.normal(size=n) + shift * truth
    return (values.round(1) if ties else values), truth


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_values_are_scikit_learns(seed, ties):
    values, truth = drawn(seed, ties=ties)
    found = anomaly_metrics(scored(values, truth), resamples=2)
    assert found["auroc"].value == pytest.approx(roc_auc_score(truth, values))
    assert found["average_precision"].value == pytest.approx(average_precision_score(truth, values))
    fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
    assert found["fpr_at_95_tpr"].value == pytest.approx(fpr[tpr >= 0.95 - 1e-12][0])


def test_exactly_95_percent_are_enough():
    # 20 anomalous ones, of which 19 lie above all normal ones: 0.95 * 20 rounds above 19.
    values = np.concatenate([np.arange(100, 119), [-1], np.arange(10)])
    found = anomaly_metrics(scored(values, np.arange(30) < 20), resamples=50)
    assert found["fpr_at_95_tpr"].value == 0
    values[18] = -2  # 18 are too few, so that the 19th decides, which is below all normal ones
    found = anomaly_metrics(scored(values, np.arange(30) < 20), resamples=50)
    assert found["fpr_at_95_tpr"].value == 1 and found["fpr_at_95_tpr"].percent


def test_resampled_groups_are_what_sorting_each_resample_gives():
    """The weighted figure against the plain one, on the examples repeated."""
    from cnn_jax.evaluation.anomaly import _false_positives
    from cnn_jax.evaluation.weighted import Ranking

    values, truth = drawn(0, ties=True)
    weights = np.random.default_rng(1).integers(0, 4, (80, 30)).astype(np.float64)
    found = _false_positives(Ranking.of(values, truth), weights)
    for column, value in zip(weights.T.astype(int), found, strict=True):
        fpr, tpr, _ = roc_curve(
            np.repeat(truth, column), np.repeat(values, column), drop_intermediate=False
        )
        assert value == pytest.approx(fpr[tpr >= 0.95 - 1e-12][0])
    none = weights * ~truth[:, np.newaxis]
    assert np.isnan(_false_positives(Ranking.of(values, truth), none)).all()


def test_intervals_are_those_of_the_house():
    values, truth = drawn(0)
    found = anomaly_metrics(scored(values, truth), threshold=1.0)
    assert list(found) == [
        *("auroc", "average_precision", "fpr_at_95_tpr", "false_alarm_rate", "detection_rate")
    ]
    assert found["auroc"] == auroc_interval(values, truth)
    alarms = values > 1.0
    for name, among in (("false_alarm_rate", ~truth), ("detection_rate", truth)):
        low, high, method = proportion(int(alarms[among].sum()), int(among.sum()))
        one = found[name]
        assert (one.value, one.n) == (alarms[among].mean(), among.sum())
        assert (one.low, one.high, one.method, one.percent) == (low, high, method, True)
    assert found["average_precision"].method == "bootstrap (percentile)"


def test_groups_are_resampled_and_counted():
    values, truth = drawn(0, n=200)
    groups = (np.arange(200) // 4).astype(str)
    found = anomaly_metrics(scored(values, truth, groups), threshold=1.0)
    for name in ("auroc", "average_precision", "fpr_at_95_tpr", "false_alarm_rate"):
        assert found[name].unit == "group" and found[name].method.startswith("bootstrap")
    by_group = found["false_alarm_rate_by_group"]
    normal, alarms = (~truth).reshape(50, 4), ((values > 1) & ~truth).reshape(50, 4)
    assert by_group.n == normal.any(axis=1).sum()
    assert by_group.value == alarms.any(axis=1).sum() / by_group.n
    assert by_group.value > found["false_alarm_rate"].value
    assert by_group.low < by_group.value < by_group.high


def test_one_kind_alone_has_the_figures_that_it_has():
    values, truth = drawn(0)
    normal = anomaly_metrics(scored(values[~truth], truth[~truth]), threshold=0.0)
    assert list(normal) == ["false_alarm_rate"]
    anomalous = anomaly_metrics(scored(values[truth], truth[truth]), threshold=0.0)
    assert list(anomalous) == ["detection_rate"]
    assert anomaly_metrics(scored(values[truth], truth[truth])) == {}


def test_what_cannot_be_judged_is_refused():
    unknown = AnomalyScores("test", np.array(["a"]), np.zeros(1))
    with pytest.raises(EvaluationError, match="not known which images of 'test' are anomalous"):
        anomaly_metrics(unknown)
    with pytest.raises(EvaluationError, match="no examples to evaluate"):
        anomaly_metrics(scored([], []))
    with pytest.raises(EvaluationError, match="level must be between"):
        anomaly_metrics(scored(*drawn(0)), level=95)


def test_the_same_seed_gives_the_same_intervals():
    one, two = (anomaly_metrics(scored(*drawn(0)), seed=3) for _ in range(2))
    assert one == two
    assert one["average_precision"] != anomaly_metrics(scored(*drawn(0)))["average_precision"]
