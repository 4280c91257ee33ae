"""The range test on the digits and on noise."""

import numpy as np
import pytest
from small import Linear, small_set

from cnn_jax import data
from cnn_jax.cli import main
from cnn_jax.errors import RecipeError
from cnn_jax.learning_rates import range_test
from cnn_jax.recipe import Recipe, for_data


def test_the_digits_train_between_the_suggested_and_the_highest_rate():
    recipe = for_data("digits").override({"train.batch_size": 64, "model.options.widths": [16, 32]})
    seen = range_test(recipe, data.load("digits"), steps=100)
    assert 1e-3 < seen.suggested < seen.highest <= 10
    np.testing.assert_allclose(np.diff(np.log(seen.rates)), np.log(1e6) / 99)
    assert len(seen.rates) == len(seen.losses) == len(seen.smoothed)
    first, lowest = seen.losses[0], seen.smoothed.min()
    assert first == pytest.approx(np.log(10), abs=0.7) and lowest < 0.8 * first


def test_rates_are_absolute_and_the_test_ends_where_the_loss_explodes():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (200, 6, 6, 1), np.uint8), rng.integers(0, 3, 200)
    noise = data.from_arrays(images, labels)
    plain = {"augment.translate": 0, "train.batch_size": 32}
    low, high = (
        range_test(
            Recipe().override({**plain, "optimizer.learning_rate": rate}),
            noise,
            model=Linear(),
            low=1e-4,
            high=1e4,
            steps=100,
        )
        for rate in (0.02, 2.0)
    )
    assert low.rates[-1] < 1e4
    np.testing.assert_allclose(low.losses, high.losses, rtol=1e-3)
    assert low.suggested == high.suggested


def test_a_range_that_is_none_is_refused():
    for wrong in ({"steps": 5}, {"low": 1.0, "high": 0.1}, {"low": 0.0}, {"high": np.inf}):
        with pytest.raises(RecipeError, match="at least 20 steps and 0 < low < high"):
            range_test(Recipe(), small_set(), **wrong)
    with pytest.raises(RecipeError, match="the loss never fell"):
        range_test(Recipe(), small_set(), model=Linear(), low=50.0, high=1e3, steps=30)


def test_the_command_prints_curve_and_suggestion(capsys):
    options = ["--batch-size", "128", "--model.options.widths", "[8]", "--steps", "40"]
    options += ["--model.options.units", "1"]
    assert main(["lr-range", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("suggested learning rate") and "--learning-rate" in lines[-1]
    assert max(map(len, lines)) <= 80
    assert main(["lr-range", "--steps", "x"]) == 2
    assert "--steps" in capsys.readouterr().err


def test_batches_without_weight_are_left_out():
    recipe = Recipe().override({"train.batch_size": 1, "loss.class_weights": [0.0, 1.0, 1.0]})
    seen = range_test(recipe, small_set(30), model=Linear(), low=1e-4, high=10.0, steps=60)
    assert np.isfinite(seen.losses).all() and len(seen.rates) == len(seen.losses) < 60
