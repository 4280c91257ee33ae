"""When training ends, from histories worked by hand."""

import pytest

from cnn_jax.recipe import TrainRecipe
from cnn_jax.training.stopping import judge


def history(losses=None, accuracies=None):
    n = len(losses or accuracies)
    losses, accuracies = losses or [1.0] * n, accuracies or [0.5] * n
    return [
        {"train_loss": x, "validation_accuracy": a, "validation_loss": x}
        for x, a in zip(losses, accuracies, strict=True)
    ]


def test_nothing_yet():
    verdict = judge([], TrainRecipe())
    assert (verdict.best_epoch, verdict.learning_rate_scale, verdict.reason) == (0, 1.0, None)


def test_the_best_epoch_is_the_first_of_equals_and_loss_breaks_ties():
    assert judge(history([1, 1, 1], [0.5, 0.7, 0.7]), TrainRecipe()).best_epoch == 2
    assert judge(history([1, 1, 0.9], [0.5, 0.7, 0.7]), TrainRecipe()).best_epoch == 3


def test_all_epochs():
    assert judge(history([1.0] * 2), TrainRecipe(epochs=3)).reason is None
    assert judge(history([1.0] * 3), TrainRecipe(epochs=3)).reason == "all 3 epochs are done"


def test_patience_counts_epochs_since_the_best():
    recipe = TrainRecipe(epochs=99, patience=2)
    assert judge(history(accuracies=[0.5, 0.9, 0.8]), recipe).reason is None
    reason = judge(history(accuracies=[0.5, 0.9, 0.8, 0.9]), recipe).reason
    assert reason == "validation has not improved for 2 epochs (best was epoch 2)"


def test_convergence_drops_the_learning_rate_twice_and_then_ends():
    recipe = TrainRecipe(epochs=99, until="converged", patience=2)
    falling = [1.0, 0.5, 0.25]
    assert judge(history(falling), recipe).learning_rate_scale == 1.0
    assert judge(history([*falling, 0.25, 0.25]), recipe).learning_rate_scale == pytest.approx(0.1)
    twice = judge(history([*falling, *[0.25] * 4]), recipe)
    assert twice.learning_rate_scale == pytest.approx(0.01) and twice.reason is None
    end = judge(history([*falling, *[0.25] * 6]), recipe)
    assert end.reason and end.reason.startswith("converged")
    # A fall between two drops starts the count again.
    again = judge(history([*falling, 0.25, 0.25, 0.1, 0.1, 0.1]), recipe)
    assert again.learning_rate_scale == pytest.approx(0.01) and again.reason is None


def test_running_out_of_epochs_is_not_called_convergence():
    recipe = TrainRecipe(epochs=3, until="converged")
    assert "before training converged" in judge(history([3.0, 2.0, 1.0]), recipe).reason
