import dataclasses

import numpy as np
import pytest
from scipy.special import expit, logit, logsumexp

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import Predictions


def example(n=6, k=3, kind="class", seed=0, scale=1.0, **changes):
    generator = np.random.default_rng(seed)
    targets = {
        "class": generator.integers(0, k, n).astype(np.int32),
        "multilabel": generator.integers(0, 2, (n, k)).astype(np.float32),
        "soft": generator.dirichlet(np.ones(k), n).astype(np.float32),
    }
    values = {
        "split": "validation",
        "ids": np.array([f"id{i:04d}" for i in range(n)]),
        "targets": targets.get(kind, targets["class"]),
        "logits": (scale * generator.normal(size=(n, k))).astype(np.float32),
        "classes": tuple(f"c{i}" for i in range(k)),
        "kind": kind,
    }
    return Predictions(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros((6, 2), np.float32)}, "logits of 'validation' are"),
        ({"targets": np.zeros(5, np.int32)}, "not 6 long"),
        ({"groups": np.array(["a"])}, "not 6 long"),
        ({"ids": np.array(list("aabcde"))}, "predicted twice"),
        ({"targets": np.array([0, 1, 2, 0, 1, 3], np.int32)}, "integers in 0..2"),
        ({"targets": np.zeros(6, np.float32)}, "integers in 0..2"),
        ({"kind": "regression"}, "kind must be"),
        ({"kind": "soft", "targets": np.zeros(6, np.int32)}, "soft targets"),
        ({"kind": "soft", "targets": np.ones((6, 3), np.float32)}, "sum to 1"),
        ({"kind": "multilabel", "targets": np.full((6, 3), 0.5, np.float32)}, "0 or 1"),
        ({"logits": np.zeros((6, 1), np.float32), "classes": ("only",)}, "need two"),
        ({"logits": np.full((6, 3), np.nan, np.float32)}, "6 of 6 predictions .* not finite"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    with pytest.raises(EvaluationError, match=message):
        example(**changes)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_probabilities_and_log_odds_are_exact_even_when_saturated(scale):
    p = example(50, 4, scale=scale)
    z = p.logits.astype(np.float64) / 2
    rest = np.stack([logsumexp(np.delete(z, k, axis=1), axis=1) for k in range(4)], axis=1)
    np.testing.assert_allclose(p.log_odds(2.0), z - rest, rtol=1e-12, atol=1e-12)
    log_p = z - logsumexp(z, axis=1, keepdims=True)
    np.testing.assert_allclose(p.log_probabilities(2.0), log_p, rtol=1e-12, atol=1e-12)
    nll = -log_p[np.arange(50), p.targets]
    np.testing.assert_allclose(p.negative_log_likelihood(2.0), nll, rtol=1e-12, atol=1e-12)


def test_multilabel_probabilities_keep_their_digits_near_zero():
    p = example(4, 1, kind="multilabel", logits=np.array([[-80], [-40], [0], [40]], np.float32))
    np.testing.assert_allclose(p.probabilities(), expit(p.logits.astype(np.float64)), rtol=1e-12)
    np.testing.assert_array_equal(p.log_odds(4.0), p.logits.astype(np.float64) / 4)
    assert logit(p.probabilities()[0, 0]) == pytest.approx(-80)


def test_multilabel_and_soft_likelihoods_against_their_definitions():
    p = example(20, 3, kind="multilabel")
    q = p.probabilities()
    binary = -(p.targets * np.log(q) + (1 - p.targets) * np.log(1 - q)).mean(axis=1)
    np.testing.assert_allclose(p.negative_log_likelihood(), binary, rtol=1e-12)
    p = example(20, 3, kind="soft")
    cross_entropy = -(p.targets * np.log(p.probabilities())).sum(axis=1)
    np.testing.assert_allclose(p.negative_log_likelihood(), cross_entropy, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(EvaluationError, match="temperature must be positive"):
        example().probabilities(temperature)


def test_aligned_undoes_any_order_and_refuses_strangers():
    p = example(groups=np.array(list("aabbcc")))
    order = np.array([4, 2, 0, 5, 1, 3])
    moved = dataclasses.replace(
        p, ids=p.ids[order], targets=p.targets[order], logits=p.logits[order], groups=None
    )
    again = p.aligned(moved)
    np.testing.assert_array_equal(again.ids, moved.ids)
    np.testing.assert_array_equal(again.logits, moved.logits)
    np.testing.assert_array_equal(again.groups, p.groups[order])
    other_ids = np.array(["id0000", "id0001", "id0002", "id0003", "id0004", "zz"])
    for changes, message in [
        ({"ids": other_ids}, "same examples"),
        ({"targets": (p.targets + 1) % 3}, "disagree on the targets"),
        ({"classes": ("x", "y", "z")}, "same classes"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            p.aligned(dataclasses.replace(p, **changes))
    with pytest.raises(EvaluationError, match="same examples"):
        p.aligned(example(5))


@pytest.mark.parametrize("kind", ["class", "multilabel", "soft"])
@pytest.mark.parametrize("groups", [None, np.array(list("aabbcc"))])
def test_file_holds_everything(tmp_path, kind, groups):
    p = example(kind=kind, groups=groups, run_digest="abc")
    p.save(tmp_path / "predictions" / "validation.npz")
    again = Predictions.load(tmp_path / "predictions" / "validation.npz")
    for field in dataclasses.fields(p):
        before, after = getattr(p, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(before, after)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
    assert [f.name for f in (tmp_path / "predictions").iterdir()] == ["validation.npz"]


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"nowhere\.npz"):
        Predictions.load(tmp_path / "nowhere.npz")
    example().save(tmp_path / "p.npz")
    whole = (tmp_path / "p.npz").read_bytes()
    altered = bytearray(whole)
    altered[100:140] = bytes(40)
    np.save(tmp_path / "single.npy", np.zeros(3))
    foreign = (tmp_path / "single.npy").read_bytes()
    for damaged in (whole[: len(whole) // 2], bytes(altered), b"", b"not a zip file", foreign):
        (tmp_path / "p.npz").write_bytes(damaged)
        with pytest.raises(EvaluationError, match="cannot read predictions"):
            Predictions.load(tmp_path / "p.npz")
