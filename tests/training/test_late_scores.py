"""Scores fetched while the next epoch is trained: other order, same run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import Interrupting, Tiny, small_set

import cnn_jax
from cnn_jax.errors import EvaluationError
from cnn_jax.recipe import TrainRecipe
from cnn_jax.training import loop
from cnn_jax.training.checkpoints import to_host
from cnn_jax.training.devices import place
from cnn_jax.training.keepers import NoKeeper
from cnn_jax.training.member import Progress
from cnn_jax.training.progress import Silent
from cnn_jax.training.state import State
from cnn_jax.training.stopping import scores_decide

STEPS = 2  # of an epoch


class Feed:
    batch_size, steps, resident = 1, STEPS, {}

    def __len__(self):
        return STEPS

    def chunk_steps(self, wanted, first_step=0):
        return 1

    def train_chunks(self, *, seed, epoch, first_step, chunk_steps):
        for step in range(first_step, STEPS):
            yield {"step": epoch * STEPS + step}


class Kept(NoKeeper):
    """What was to be saved at the ends of epochs: step of the state, epochs in the history."""

    def __init__(self):
        self.saved = []

    def epoch(self, state, members, changes, *, due):
        self.saved.append((int(state.step), len(members[0].history), changes[0].best))
        return True


@pytest.fixture
def trained(monkeypatch):
    """Trains nothing, three epochs long; returns what happened in which order, and was saved."""
    decided = loop.scored_late

    def go(late, accuracy=(0.5, 0.9, 0.7), **recipe):
        events, keeper = [], Kept()

        def scored_late(recipe):
            with monkeypatch.context() as platform:
                platform.setattr(jax, "default_backend", lambda: "gpu" if late else "cpu")
                return decided(recipe)

        monkeypatch.setattr(loop, "scored_late", scored_late)

        @jax.jit
        def step(state):
            one = (jnp.ones(()), jnp.ones(()))
            names = ("loss", "accuracy", "gradient_norm", "learning_rate")
            return state.replace(step=state.step + 1), dict.fromkeys(names, one)

        def run_chunk(state, resident, items, *, side):
            assert side is None
            events.append(f"step {items['step']}")
            state, metrics = step(state)
            return jax.tree.map(jnp.copy, state), metrics

        def validate(variables):
            epoch = sum(event.startswith("begin") for event in events)
            events.append(f"begin {epoch}")

            def score(member):
                events.append(f"score {epoch}")
                if np.isnan(accuracy[epoch]):
                    raise EvaluationError("not finite")
                return {"loss": 1.0, "accuracy": accuracy[epoch]}

            return score

        key, zero = jax.random.key(0), jnp.zeros((), jnp.int32)
        scale = {"learning_rate_scale": jnp.ones(())}
        members = [Progress()]
        outcome = loop.fit(
            State(zero, {}, {}, {}, None, scale, key),
            members,
            run_chunk,
            validate,
            Feed(),
            recipe=TrainRecipe(epochs=3, **recipe),
            seed=0,
            keeper=keeper,
            record=lambda *_: events.append("written"),
            reporter=Silent(),
            placement=place(),
        )
        return events, keeper.saved, outcome

    return go


def test_the_next_epoch_begins_before_the_score_is_asked_for(trained):
    late, saved, outcome = trained(late=True)
    first, second, third = (["step 0", "step 1"], ["step 2", "step 3"], ["step 4", "step 5"])
    assert late == [
        *(*first, "begin 0", second[0], "score 0", "written"),
        *(second[1], "begin 1", third[0], "score 1", "written"),
        *(third[1], "begin 2", "score 2", "written"),
    ]
    in_time, saved_in_time, outcome_in_time = trained(late=False)
    assert in_time[:4] == [*first, "begin 0", "score 0"]
    # What is saved is the state of the epoch's end, not the one the next step has come to.
    assert saved == saved_in_time == [(2, 1, True), (4, 2, True), (6, 3, False)]
    assert outcome.members[0].history == outcome_in_time.members[0].history
    assert outcome.verdicts == outcome_in_time.verdicts


@pytest.mark.parametrize("recipe", [{"patience": 2}, {"until": "converged"}])
def test_scores_that_decide_are_waited_for(trained, recipe):
    events, _, _ = trained(late=True, **recipe)
    assert events[2:5] == ["begin 0", "score 0", "written"]


def test_predictions_that_are_not_finite_end_it_a_chunk_later(trained):
    with pytest.raises(EvaluationError, match="not finite"):
        trained(late=True, accuracy=(0.5, np.nan, 0.7))


@pytest.mark.heavy
def test_a_run_and_a_population_are_the_same(tmp_path, monkeypatch):
    given = {"model": Tiny(), "data": small_set(40), "epochs": 3, "batch_size": 8}
    given |= {"train.select": "best", "reporter": Silent()}

    def all_of(name):
        run = cnn_jax.train(out=tmp_path / name, **given)
        broken = cnn_jax.train(
            out=tmp_path / f"{name}-broken", **(given | {"reporter": Interrupting(1)})
        )
        assert broken.status == "interrupted"
        broken = cnn_jax.Run.load(broken.path, model=Tiny(), data=small_set(40)).resume()
        seeds = cnn_jax.train_population(
            out=tmp_path / f"{name}-seeds", seeds=2, strategy="vmap", **given
        )
        return [run, broken, *seeds.members.values()]

    in_time = all_of("in-time")
    monkeypatch.setattr(loop, "scored_late", lambda recipe: not scores_decide(recipe))
    for a, b in zip(in_time, all_of("late"), strict=True):
        assert a.history == b.history and a.info["selected"] == b.info["selected"]
        np.testing.assert_array_equal(a.predictions("test").logits, b.predictions("test").logits)
        for mine, own in zip(
            jax.tree.leaves(to_host(a.variables)), jax.tree.leaves(to_host(b.variables)),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(mine, own)
