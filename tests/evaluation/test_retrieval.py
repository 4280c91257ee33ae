"""Retrieval figures: against plain loops, hand-worked rankings and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import EmbeddingPredictions, retrieval_metrics, retrieve


def predictions_of(embeddings, subjects):
    subjects = np.asarray(subjects, np.str_)
    ids = np.array([f"{n:05}" for n in range(len(subjects))])
    return EmbeddingPredictions("test", ids, subjects, np.asarray(embeddings, np.float32))


def angles(degrees, subjects):
    """Embeddings on a circle: nearest is what has nearly the same angle."""
    radians = np.deg2rad(degrees)
    return predictions_of(np.column_stack([np.cos(radians), np.sin(radians)]), subjects)


def plain(queries, gallery):
    """Every search sorted by itself, in Python."""
    found = []
    known = queries if gallery is None else gallery

    def cosine(a, b):
        a, b = a.astype(np.float64), b.astype(np.float64)
        return round(float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)), 12)

    for i, (name, own) in enumerate(zip(queries.subjects, queries.embeddings, strict=True)):
        rest = [
            (-cosine(own, other), bool(other_name == name))
            for j, (other_name, other) in enumerate(
                zip(known.subjects, known.embeddings, strict=True)
            )
            if gallery is not None or i != j
        ]
        r = sum(same for _, same in rest)
        if not r:
            continue
        first = [same for _, same in sorted(rest)][:r]
        precision = [sum(first[: n + 1]) / (n + 1) for n in range(r)]
        found.append(
            (
                float(first[0]),
                sum(first) / r,
                sum(p for p, same in zip(precision, first, strict=True) if same) / r,
            )
        )
    return np.array(found).T


def test_a_ranking_worked_by_hand():
    """From a at 0 degrees: b 5, a 10, a 20, b 30, a 40: R is 3 and the first three are wrong,
    right, right: R-precision 2/3, MAP@R (1/2 + 2/3) / 3."""
    found = retrieve(angles([0, 5, 10, 20, 30, 40], ["a", "b", "a", "a", "b", "a"]))
    assert found.relevant[0] == 3 and found.precision_at_1[0] == 0
    assert found.r_precision[0] == pytest.approx(2 / 3)
    assert found.map_at_r[0] == pytest.approx((1 / 2 + 2 / 3) / 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.integers(1, 6), st.booleans())
def test_they_are_those_of_plain_loops(seed, n, people, apart):
    rng = np.random.default_rng(seed)
    # Of few directions, so that cosines are often equal.
    embeddings = rng.integers(-1, 2, (n, 3)) + np.array([0, 0, 3.0])
    subjects = rng.integers(0, people, n).astype(str)
    queries, gallery = predictions_of(embeddings, subjects), None
    if apart:
        gallery = predictions_of(rng.normal(size=(9, 3)), rng.integers(0, people, 9).astype(str))
    expected = plain(queries, gallery)
    if not expected.size:
        with pytest.raises(EvaluationError, match="to be found"):
            retrieve(queries, gallery)
        return
    found = retrieve(queries, gallery)
    np.testing.assert_allclose(found.precision_at_1, expected[0])
    np.testing.assert_allclose(found.r_precision, expected[1])
    np.testing.assert_allclose(found.map_at_r, expected[2], atol=1e-12)
    # MAP@R is never above R-precision, and both are 1 where all right ones come first.
    assert (found.map_at_r <= found.r_precision + 1e-12).all()
    means = retrieval_metrics(queries, gallery, resamples=50)
    for name, values in zip(("precision_at_1", "r_precision", "map_at_r"), expected, strict=True):
        assert means[name].value == pytest.approx(values.mean())
        assert not means[name].low > means[name].high  # a single subject has no interval


def test_products_apart_are_found_and_one_direction_is_not():
    names = np.repeat(["milk", "juice", "tea"], 5)
    apart = np.repeat(np.eye(3), 5, axis=0)
    for figure in retrieval_metrics(predictions_of(apart, names)).values():
        assert figure.value == 1.0
    alike = retrieve(predictions_of(np.ones((15, 3)), names))
    assert not alike.precision_at_1.any() and not alike.map_at_r.any()
    # Length does not matter.
    longer = predictions_of(apart * np.arange(1, 16)[:, None], names)
    assert retrieve(longer).map_at_r.all()


def test_many_searches_are_done_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    predictions = predictions_of(rng.normal(size=(60, 4)), rng.integers(0, 9, 60).astype(str))
    whole = retrieve(predictions)
    monkeypatch.setattr("cnn_jax.evaluation.retrieval._NUMBERS_AT_ONCE", 200)
    np.testing.assert_array_equal(retrieve(predictions).map_at_r, whole.map_at_r)


def test_what_cannot_be_searched():
    queries = predictions_of(np.eye(3), ["a", "b", "c"])
    with pytest.raises(EvaluationError, match="no image of 'test' has another"):
        retrieval_metrics(queries)
    with pytest.raises(EvaluationError, match="dimensions"):
        retrieve(queries, predictions_of(np.eye(2), ["a", "b"]))
    with pytest.raises(EvaluationError):
        retrieve(predictions_of(np.zeros((2, 3)), ["a", "a"]))
