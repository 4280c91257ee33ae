"""Trainings of experiments are begun once, gone on with, and not repeated."""

import functools
import os
import signal

import numpy as np
import pytest
from small import Tiny

from cnn_jax import Population, Recipe, data
from cnn_jax.training.progress import Silent
from experiments import kept
from experiments.kept import kept_population, kept_run, seeds_from_zero
from experiments.results import ResultsError

RECIPE = Recipe().override(
    {
        "model.name": "compact",
        "model.options": {"widths": (4,), "units": 1},
        "augment.translate": 0,
        "train.epochs": 2,
        "train.batch_size": 8,
    }
)


@pytest.fixture(scope="module")
def made():
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(24) % 2
    parts = {"validation": (images[16:20], labels[16:20]), "test": (images[20:], labels[20:])}
    return data.from_arrays(images[:16], labels[:16], name="made", **parts)


class Pressing(Silent):
    """Presses the stop button once, after the first steps."""

    pressed = False

    def chunk(self, epoch, step, steps, loss):
        if not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


def interrupted(monkeypatch, name):
    """What is trained is stopped by a signal."""
    monkeypatch.setattr(kept, name, functools.partial(getattr(kept, name), reporter=Pressing()))


def test_a_run_that_was_interrupted_is_gone_on_with(made, tmp_path, monkeypatch):
    whole = kept_run(RECIPE, made, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupted(patched, "train")
        with pytest.raises(ResultsError, match="was interrupted: the same command goes on"):
            kept_run(RECIPE, made, tmp_path / "stopped")
    run = kept_run(RECIPE, made, tmp_path / "stopped")
    assert run.status == "finished"
    np.testing.assert_array_equal(run.predictions("test").logits, whole.predictions("test").logits)


def test_a_finished_run_is_not_trained_again(made, tmp_path, monkeypatch):
    first = kept_run(RECIPE, made, tmp_path / "run")
    monkeypatch.setattr(kept, "train", None)
    again = kept_run(RECIPE, made, tmp_path / "run")
    assert again.info["started"] == first.info["started"]
    with pytest.raises(ResultsError, match="another train: give another folder"):
        kept_run(RECIPE.override({"train.epochs": 3}), made, tmp_path / "run")
    with pytest.raises(ResultsError, match="another data: give another folder"):
        kept_run(RECIPE.override({"data.shots": 1}), made, tmp_path / "run")
    with pytest.raises(ResultsError, match="has changed since this run"):
        kept_run(RECIPE, other(made), tmp_path / "run")


def other(dataset):
    """Other test images."""
    parts = {
        part: (split.images if part != "test" else 255 - split.images, split.targets["label"])
        for part, split in dataset.splits.items()
    }
    return data.from_arrays(*parts.pop("train"), name="made", **parts)


def test_a_folder_that_was_begun_and_holds_no_run_is_named(made, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("")
    with pytest.raises(ResultsError, match=r"holds no run\.json: remove it, or give another"):
        kept_run(RECIPE, made, tmp_path / "run")
    with pytest.raises(ResultsError, match=r"holds no population\.json"):
        kept_population(RECIPE, made, tmp_path / "run", seeds_from_zero(2))


def test_a_member_that_failed_is_not_passed_over(made, tmp_path):
    members = {"one": {"seed": 0}, "two": {"seed": 1, "optimizer.learning_rate": 1e30}}
    given = (RECIPE, made, tmp_path / "some", members)
    for _ in range(2):
        with pytest.raises(ResultsError, match="two failed: "):
            kept_population(*given, strategy="loop")
    population = kept_population(*given, may_fail=True, strategy="loop")
    assert list(population.members) == ["one"]


def test_a_population_that_was_interrupted_is_gone_on_with(made, tmp_path, monkeypatch):
    members = seeds_from_zero(2)
    with monkeypatch.context() as patched:
        interrupted(patched, "train_population")
        with pytest.raises(ResultsError, match="was interrupted: the same command goes on"):
            kept_population(RECIPE, made, tmp_path / "some", members, strategy="loop")
    begun = Population.load(tmp_path / "some", data=made).info["started"]
    population = kept_population(RECIPE, made, tmp_path / "some", members, strategy="loop")
    assert population.info["started"] == begun
    assert list(population.members) == ["seed-0", "seed-1"]
    monkeypatch.setattr(kept, "train_population", None)
    kept_population(RECIPE, made, tmp_path / "some", members)
    with pytest.raises(ResultsError, match="keeps 2 members by other seeds or settings than the 3"):
        kept_population(RECIPE, made, tmp_path / "some", seeds_from_zero(3))
    with pytest.raises(ResultsError, match="another optimizer"):
        faster = RECIPE.override({"optimizer.learning_rate": 0.5})
        kept_population(faster, made, tmp_path / "some", members)
    with pytest.raises(ResultsError, match="has changed since this run"):
        kept_population(RECIPE, other(made), tmp_path / "some", members)


def test_another_network_of_ones_own_is_not_taken_for_the_one_that_is_there(made, tmp_path):
    class Other(Tiny):
        pass

    given = (RECIPE, made, tmp_path / "some", seeds_from_zero(1))
    kept_population(*given, model=Tiny(2), strategy="loop")
    with pytest.raises(ResultsError, match="another model"):
        kept_population(*given, model=Other(2), strategy="loop")
