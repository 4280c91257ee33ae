"""Against scikit-learn by the written protocol; against the published code with `-m parity`."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, roc_auc_score

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Predictions, medmnist_figures


def drawn(n, k, seed, kind="class", *, ties=False):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k))
    if kind == "multilabel":
        targets = (generator.random((n, k)) < 0.3).astype(np.float32)
        logits += targets
    else:
        targets = generator.integers(0, k, n).astype(np.int32)
        logits += np.eye(k)[targets]
    logits = (logits.round() if ties else logits).astype(np.float32)
    names = tuple(f"c{i}" for i in range(k))
    return Predictions("test", np.arange(n).astype(str), targets, logits, names, kind)


def by_the_protocol(p):
    # Of the very probabilities: softmax summed in another order breaks ties.
    y, q = p.targets, p.probabilities()
    z = p.logits.astype(np.float64)
    np.testing.assert_allclose(q, expit(z) if p.kind == "multilabel" else softmax(z, axis=1))
    if p.kind == "multilabel":
        auc = np.mean([roc_auc_score(y[:, i], q[:, i]) for i in range(q.shape[1])])
        return auc, np.mean([accuracy_score(y[:, i], q[:, i] > 0.5) for i in range(q.shape[1])])
    if q.shape[1] == 2:
        return roc_auc_score(y, q[:, -1]), accuracy_score(y, q[:, -1] > 0.5)
    auc = np.mean([roc_auc_score(y == i, q[:, i]) for i in range(q.shape[1])])
    return auc, accuracy_score(y, q.argmax(axis=1))


@settings(deadline=None, max_examples=30)
@given(
    k=st.integers(2, 6),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["class", "multilabel"]),
    ties=st.booleans(),
)
def test_values_are_those_of_the_protocol(k, seed, kind, ties):
    p = drawn(120, k, seed, kind, ties=ties)
    found = medmnist_figures(p, resamples=2)
    auc, acc = by_the_protocol(p)
    assert found["auc"].value == pytest.approx(auc, abs=1e-12)
    assert found["acc"].value == pytest.approx(acc, abs=1e-12)


def test_a_probability_of_one_half_is_the_first_class():
    p = Predictions(
        "test",
        np.array(["a", "b", "c"]),
        np.array([0, 1, 1], np.int32),
        np.array([[2, 2], [0, 0], [0, 1]], np.float32),
        ("malignant", "normal"),
    )
    assert medmnist_figures(p)["acc"].value == pytest.approx(2 / 3)


def test_intervals_enclose_and_groups_widen_them():
    p = drawn(200, 3, 1)
    alone = medmnist_figures(p)
    four = Predictions(
        "test",
        np.arange(800).astype(str),
        np.tile(p.targets, 4),
        np.tile(p.logits, (4, 1)),
        p.classes,
        groups=np.tile(p.ids, 4),
    )
    grouped = medmnist_figures(four)
    for name in ("auc", "acc"):
        assert alone[name].low < alone[name].value < alone[name].high
        assert grouped[name].value == pytest.approx(alone[name].value)
        width = grouped[name].high - grouped[name].low
        assert width == pytest.approx(alone[name].high - alone[name].low, rel=0.15)


def test_a_perfect_answer_has_an_interval():
    p = drawn(60, 2, 0)
    p = Predictions("test", p.ids, p.targets, np.eye(2, dtype=np.float32)[p.targets], p.classes)
    for figure in medmnist_figures(p).values():
        assert figure.value == 1 and 0.8 < figure.low < 1


def test_a_class_without_examples_is_refused():
    p = drawn(40, 3, 0)
    with pytest.raises(EvaluationError, match="needs examples of 'c2'"):
        medmnist_figures(p.take(p.targets < 2))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("task", "kind", "k"),
    [
        ("binary-class", "class", 2),
        ("multi-class", "class", 7),
        ("ordinal-regression", "class", 5),
        ("multi-label, binary-class", "multilabel", 14),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_values_are_the_published_evaluators(monkeypatch, task, kind, k, seed):
    """`pip install --no-deps medmnist`: its two functions alone, without what it imports."""
    spec = importlib.util.find_spec("medmnist")
    if spec is None or spec.origin is None:
        pytest.skip("medmnist is not installed: pip install --no-deps medmnist==3.0.2")
    stub = types.ModuleType("medmnist")
    stub.info = types.ModuleType("medmnist.info")
    stub.info.INFO, stub.info.DEFAULT_ROOT = {}, ""
    published = types.ModuleType("evaluator")
    code = Path(spec.origin).with_name("evaluator.py").read_text("utf-8")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "medmnist", stub)
        patched.setitem(sys.modules, "medmnist.info", stub.info)
        patched.setitem(sys.modules, "pandas", types.ModuleType("pandas"))
        exec(compile(code, "evaluator.py", "exec"), vars(published))
    p = drawn(300, k, seed, kind, ties=seed == 4)
    labels = p.targets[:, None] if kind == "class" else p.targets
    found = medmnist_figures(p, resamples=2)
    score = p.probabilities()
    assert found["auc"].value == pytest.approx(published.getAUC(labels, score, task), abs=1e-12)
    assert found["acc"].value == pytest.approx(published.getACC(labels, score, task), abs=1e-12)
