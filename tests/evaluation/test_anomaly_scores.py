import dataclasses

import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import AnomalyScores, CalibrationScores, Predictions, scores_type


def example(n=4, **changes):
    values = {
        "split": "validation",
        "ids": np.array([f"id{i}" for i in range(n)]),
        "scores": np.random.default_rng(0).normal(size=n),
    }
    kind = scores_type(changes.get("split", "validation"))
    return kind(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.zeros(3)}, r"are float64 \[3\], not float64 \[4\]"),
        ({"scores": np.zeros((4, 1))}, r"are float64 \[4, 1\], not"),
        ({"scores": np.zeros(4, np.float32)}, r"are float32 \[4\], not float64"),
        ({"scores": np.array([0, np.nan, np.inf, 1])}, "2 of 4 scores .* are not finite"),
        ({"anomalous": np.zeros(4, int)}, r"is int64 \[4\], not bool \[4\]"),
        ({"anomalous": np.zeros(3, bool)}, r"is bool \[3\], not bool \[4\]"),
        ({"groups": np.array(["a"])}, "groups of 'validation' are not 4 long"),
        ({"ids": np.array(list("aabc"))}, "scored twice"),
        ({"split": "test", "scores": np.zeros(5)}, "scores of 'test'"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    with pytest.raises(EvaluationError, match=message):
        example(**changes)


@pytest.mark.parametrize("split", ["validation", "calibration", "test", "train", "elsewhere"])
@pytest.mark.parametrize("whole", [False, True])
def test_file_holds_everything_and_its_type(tmp_path, split, whole):
    more = {
        "anomalous": np.array([True, False, False, True]),
        "groups": np.array(list("aabb")),
        "run_digest": "x",
    }
    scores = example(split=split, **(more if whole else {}))
    scores.save(tmp_path / "scores" / "part.npz")
    again = AnomalyScores.load(tmp_path / "scores" / "part.npz")
    assert type(again) is type(scores) is scores_type(split)
    for field in dataclasses.fields(scores):
        before, after = getattr(scores, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(before, after)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
    assert [f.name for f in (tmp_path / "scores").iterdir()] == ["part.npz"]


def test_loading_as_calibration_is_a_promise_that_test_cannot_give(tmp_path):
    example(split="elsewhere").save(tmp_path / "elsewhere.npz")
    assert type(CalibrationScores.load(tmp_path / "elsewhere.npz")) is CalibrationScores
    for split in ("test", "train"):
        example(split=split).save(tmp_path / "part.npz")
        with pytest.raises(EvaluationError, match="cannot serve for calibration"):
            CalibrationScores.load(tmp_path / "part.npz")
        with pytest.raises(EvaluationError, match="cannot serve for calibration"):
            dataclasses.replace(example(), split=split)


def test_damaged_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"cannot read scores .*nowhere\.npz"):
        AnomalyScores.load(tmp_path / "nowhere.npz")
    example().save(tmp_path / "s.npz")
    whole = (tmp_path / "s.npz").read_bytes()
    np.save(tmp_path / "single.npy", np.zeros(3))
    foreign = (tmp_path / "single.npy").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a zip file", foreign):
        (tmp_path / "d.npz").write_bytes(damaged)
        with pytest.raises(EvaluationError, match="cannot read scores"):
            AnomalyScores.load(tmp_path / "d.npz")
    with pytest.raises(EvaluationError, match="cannot read predictions"):
        Predictions.load(tmp_path / "s.npz")
    Predictions("test", np.array(["a"]), np.zeros(1, int), np.zeros((1, 2)), ("x", "y")).save(
        tmp_path / "p.npz"
    )
    with pytest.raises(EvaluationError, match=r"p\.npz.* kind 'class', not scores"):
        AnomalyScores.load(tmp_path / "p.npz")


def test_take_keeps_what_belongs_together():
    scores = example(anomalous=np.array([True, False, False, True]), groups=np.array(list("aabb")))
    for some in (scores.take(np.array([1, 2])), scores.normal()):
        assert type(some) is CalibrationScores
        assert some.ids.tolist() == ["id1", "id2"] and some.groups.tolist() == ["a", "b"]
        np.testing.assert_array_equal(some.scores, scores.scores[1:3])
        assert not some.anomalous.any()
    with pytest.raises(EvaluationError, match="not known which images"):
        example().normal()
