"""Nothing is fitted on the part that figures are reported on."""

import inspect
from dataclasses import replace
from typing import get_type_hints

import numpy as np
import pytest
from small import Tiny, small_set

import cnn_jax
from cnn_jax import decision, evaluation
from cnn_jax.data.digest import dataset_digest
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import CalibrationPredictions, Predictions, predictions_type
from cnn_jax.training import fit_preprocess
from cnn_jax.training.progress import Silent
from cnn_jax.training.task import Classification

FITTING = [f for name in decision.__all__ if inspect.isfunction(f := getattr(decision, name))]
# Scores and pairs have types of their own: see test_alarm.py and test_verification.py.
OF_OTHERS = (decision.fit_alarm, decision.fit_threshold_far)
FITTING = [f for f in FITTING if f.__name__.startswith("fit_") and f not in OF_OTHERS]


def made(split, n=20, kind=None):
    generator = np.random.default_rng(0)
    return (kind or predictions_type(split))(
        split=split,
        ids=np.arange(n).astype(str),
        targets=np.arange(n, dtype=np.int32) % 2,
        logits=generator.normal(size=(n, 2)).astype(np.float32),
        classes=("well", "ill"),
    )


@pytest.mark.parametrize("fit", FITTING, ids=lambda f: f.__name__)
@pytest.mark.parametrize("split", ["test", "train", "another hospital"])
def test_what_fits_takes_calibration_data_by_type(fit, split):
    hints = get_type_hints(fit)
    first = next(iter(inspect.signature(fit).parameters))
    assert hints[first] is CalibrationPredictions
    needed = {"positive": "ill", "error": 0.9}
    needed = {name: value for name, value in needed.items() if name in hints}
    with pytest.raises(EvaluationError, match="is fitted on CalibrationPredictions"):
        fit(made(split), **needed)
    with pytest.raises(EvaluationError, match="is fitted on CalibrationPredictions"):
        fit(replace(made(split), split="validation"), **needed)  # a name makes no type
    fit(made("validation"), **needed)


def test_the_choice_of_a_state_takes_them_too():
    with pytest.raises(EvaluationError, match="a choice of state is fitted on Calibration"):
        Classification(2).score(made("test"))


@pytest.mark.parametrize("split", ["test", "train"])
def test_test_and_train_predictions_cannot_be_made_such(split):
    with pytest.raises(EvaluationError, match="cannot serve for calibration"):
        made(split, kind=CalibrationPredictions)
    with pytest.raises(EvaluationError, match="cannot serve for calibration"):
        replace(made("validation"), split=split)


def test_the_type_survives_what_is_done_with_predictions(tmp_path):
    for split, kind in (("validation", CalibrationPredictions), ("test", Predictions)):
        p = made(split)
        p.save(tmp_path / f"{split}.npz")
        other = replace(p, logits=p.logits + 1)
        for found in (
            Predictions.load(tmp_path / f"{split}.npz"),
            p.take(np.arange(3)),
            p.aligned(p.take(np.arange(20)[::-1])),
            evaluation.ensemble([p, other]),
        ):
            assert type(found) is kind
    assert type(CalibrationPredictions.load(tmp_path / "validation.npz")) is CalibrationPredictions
    with pytest.raises(EvaluationError, match="cannot serve for calibration"):
        CalibrationPredictions.load(tmp_path / "test.npz")


@pytest.mark.heavy
def test_another_test_part_changes_nothing_that_was_fitted(tmp_path):
    """What a run learns, stops at, selects and calibrates is a function of the other parts."""
    given = small_set(40)
    test = given.splits["test"]
    other = replace(
        test,
        images=255 - test.images,
        targets={"label": np.roll(test.targets["label"], 1)},
    )
    splits = {**given.splits, "test": other}
    changed = given.replace(splits=splits, digest=dataset_digest(splits))
    assert fit_preprocess(given) == fit_preprocess(changed)
    options = {"epochs": 3, "batch_size": 8, "reporter": Silent(), "train.select": "best"}
    runs = [
        cnn_jax.train(model=Tiny(), data=data, out=tmp_path / name, **options)
        for name, data in (("given", given), ("changed", changed))
    ]
    a, b = (run.info for run in runs)
    for fitted in ("preprocess", "selected", "temperature", "reason"):
        assert a[fitted] == b[fitted]
    assert runs[0].history == runs[1].history
    one, two = (run.predictions("validation") for run in runs)
    np.testing.assert_array_equal(one.logits, two.logits)
    assert not np.array_equal(
        runs[0].predictions("test").logits, runs[1].predictions("test").logits
    )
