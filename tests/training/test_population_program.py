"""A population's members are what runs of their own would be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import QUICK, Tiny, quick, small_set

from cnn_jax.assembly import assemble_run
from cnn_jax.augment import Augment
from cnn_jax.errors import RecipeError
from cnn_jax.programs import program_of
from cnn_jax.recipe import Recipe
from cnn_jax.training import population
from cnn_jax.training.devices import place
from cnn_jax.training.population import PopulationFeed, make_population_chunk
from cnn_jax.training.state import purpose_key
from cnn_jax.training.step import gather_batch
from cnn_jax.training.strategy import Candidate, check_memory, choose

BASE = Recipe().override({"train.batch_size": 8, "train.epochs": 3})
# Members that differ in the seed and in every scalar that plain SGD reads.
OWN = (
    {"seed": 5},
    {"seed": 6, "optimizer.learning_rate": 0.02, "schedule.warmup_epochs": 0.0},
    {"seed": 7, "optimizer.weight_decay": 0.1, "loss.label_smoothing": 0.2},
)
STRATEGIES = ("vmap", "map")


def assembled(changes=None, devices=1):
    recipe = BASE.override({"train.devices": devices, **(changes or {})})
    return assemble_run(recipe, small_set(22), Tiny())


def stacked(assembly, strategy, recipes, steps=1):
    """The state of all members after so many steps from the start, and the metrics."""
    feed = assembly.feeds["train"]
    states = assembly.initial_states(recipes)
    count = assembly.placement.count
    state = assembly.placement.split(population.stack(states, count))
    every = PopulationFeed([feed] * len(recipes), feed.resident, assembly.placement)
    run = make_population_chunk(assembly.step, strategy, assembly.placement, None, QUICK)
    seeds = [recipe.seed for recipe in recipes]
    chunks = every.train_chunks(seed=seeds, epoch=0, first_step=0, chunk_steps=steps)
    return run(state, feed.resident, next(chunks))


def alone(assembly, recipe, steps=1):
    own = assembly.of(recipe)
    feed = own.feeds["train"]
    chunks = feed.train_chunks(seed=recipe.seed, epoch=0, first_step=0, chunk_steps=steps)
    return own.run_chunk(own.initial_state(), feed.resident, next(chunks))


def near(found, expected, atol=1e-5):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=1e-5, err_msg=name)


@pytest.mark.heavy
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_of_each_member_is_that_of_its_own_run(strategy, devices):
    """Parameters, momentum (the gradient), batch statistics, metrics and keys."""
    recipes = [BASE.override({**own, "train.devices": devices}) for own in OWN]
    state, metrics = stacked(assembled(devices=devices), strategy, recipes)
    single = assembled()
    for number, recipe in enumerate(recipes):
        own_state, own_metrics = alone(single, recipe)
        near(population.member(state, number), own_state)
        near(population.member(metrics, number), own_metrics)


STEPS = {
    "adamw": {"optimizer.name": "adamw", "optimizer.learning_rate": 0.01},
    "muon": {"optimizer.name": "muon", "optimizer.clip_norm": 1.0},
    "lars": {"optimizer.name": "lars", "optimizer.learning_rate": 1.0},
    "sam": {
        "optimizer.sam": 0.05,
        "train.ema": 0.9,
        "loss.focal": 2.0,
        "loss.logit_adjustment": 1.0,
    },
    "mixed": {"augment.mixup": 0.4, "augment.cutmix": 1.0, "augment.policy": "trivial"},
    "accumulated": {"train.accumulate": 2, "loss.class_weights": "balanced"},
}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        *(pytest.param("vmap", changes, id=f"vmap-{name}") for name, changes in STEPS.items()),
        *(
            pytest.param(
                "map", changes, id=f"map-{name}", marks=[pytest.mark.slow] * (name != "sam")
            )
            for name, changes in STEPS.items()
        ),
    ],
)
def test_every_kind_of_step_can_be_stacked(strategy, changes):
    recipes = [BASE.override({**changes, **own}) for own in OWN[:2]]
    assembly = assembled(changes)
    state, _ = stacked(assembly, strategy, recipes)
    # Adam divides by the root of a tiny square: its first step is the sign of the gradient.
    atol = 1e-4 if changes.get("optimizer.name") == "adamw" else 2e-5
    for number, recipe in enumerate(recipes):
        near(population.member(state, number), alone(assembly, recipe)[0], atol)


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_chunk_is_its_steps(strategy):
    recipes = [BASE.override(own) for own in OWN]
    assembly = assembled()
    state, metrics = stacked(assembly, strategy, recipes, steps=3)
    assert metrics["loss"][1].tolist() == [22, 22, 22]
    near(population.member(state, 1), alone(assembly, recipes[1], steps=3)[0], 1e-4)


def test_batches_are_those_of_the_single_runs_bit_for_bit():
    feed = assembled().feeds["train"]
    seeds = [3, 1, 4]
    every = PopulationFeed([feed] * 3, feed.resident, place(2))
    for epoch in (0, 1):
        chunks = every.train_chunks(seed=seeds, epoch=epoch, first_step=1, chunk_steps=1)
        own = [
            list(feed.train_chunks(seed=s, epoch=epoch, first_step=1, chunk_steps=1)) for s in seeds
        ]
        for step, chunk in enumerate(chunks):
            assert chunk["index"].shape == (1, 4, 8)  # a fourth, so that two devices have two each
            for number in range(3):
                for name in ("index", "valid"):
                    np.testing.assert_array_equal(chunk[name][:, number], own[number][step][name])


@pytest.mark.heavy
def test_augmentation_draws_are_those_of_the_single_runs_bit_for_bit():
    """What moves whole pixels, so that the drawn numbers can be read from the images."""
    augment = Augment(translate=2, flip=True, cutout=3, erase=0.5)
    feed = assembled().feeds["train"]
    item = {
        name: rows[0]
        for name, rows in next(
            feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=1)
        ).items()
    }
    batch = gather_batch(feed.resident, item)
    batch["image"] = batch["image"].astype(jnp.float32) / 255
    roots = [jax.random.key(seed) for seed in range(5)]

    def augmented(root):
        key = purpose_key(root, "augment", 3)
        return augment(key, batch, root=purpose_key(root, "flip"), epoch=1)["image"]

    together = quick(jax.vmap(augmented))(jnp.stack(roots))
    in_turns = quick(lambda roots: jax.lax.map(augmented, roots))(jnp.stack(roots))
    for number, root in enumerate(roots):
        own = np.asarray(quick(augmented)(root))
        np.testing.assert_array_equal(together[number], own)
        np.testing.assert_array_equal(in_turns[number], own)


def test_recipes_that_one_program_serves():
    free = ({"seed": 9}, {"data.folds": 5, "data.fold": 2}, {"optimizer.learning_rate": 0.3})
    assert program_of(BASE.override(free[0])) == program_of(BASE)
    assert program_of(BASE.override(free[2])) == program_of(BASE)
    folds = [BASE.override({"data.folds": 5, "data.fold": k}) for k in (1, 2)]
    assert program_of(folds[0]) == program_of(folds[1]) != program_of(BASE)
    for other in ({"optimizer.momentum": 0.0}, {"augment.translate": 1}, {"train.epochs": 4}):
        assert program_of(BASE.override(other)) != program_of(BASE)
    assert program_of(BASE.override({"optimizer.momentum": 0.5})) == program_of(BASE)


class Sleepy:
    """A strategy whose chunks take as long as is told."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds
        self.resident, self.batch_size, self.steps = {}, 1, 4

    def __len__(self):
        return 4

    def chunk_steps(self, wanted, first_step=0):
        return 1

    def train_chunks(self, *, seed, epoch, first_step, chunk_steps):
        yield from range(self.steps)

    def run(self, state, resident, items):
        self.clock.now += self.seconds
        return state, {}


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("cnn_jax.training.strategy.time", clock)
    return clock


def candidate(clock, strategy, seconds, members=1, memory=0):
    sleepy = Sleepy(clock, seconds)
    return Candidate(strategy, sleepy.run, lambda: (), sleepy, None, members, memory)


def test_the_fastest_per_member_is_taken(clock):
    candidates = [
        candidate(clock, "loop", 0.010),
        candidate(clock, "vmap", 0.056, members=8),
        candidate(clock, "map", 0.072, members=8),
    ]
    choice = choose(candidates, None)
    assert choice.strategy == "vmap"
    assert choice.reason == "ms for a step of a member: vmap 7, loop 10, map 9"


def test_the_loop_is_taken_where_nothing_is_gained(clock):
    candidates = [candidate(clock, "loop", 0.010), candidate(clock, "vmap", 0.0392, members=4)]
    assert choose(candidates, None).strategy == "loop"


def test_what_does_not_fit_into_memory_is_not_tried(clock):
    candidates = [
        candidate(clock, "loop", 0.010),
        candidate(clock, "vmap", 0.001, 8, memory=3 * 2**30),
    ]
    choice = choose(candidates, 2**30)
    assert choice.strategy == "loop"
    assert choice.reason == "vmap would need 3.0 GiB of 1.0 GiB that are free"
    with pytest.raises(RecipeError, match=r"8 members at once \(vmap\) need 3.0 GiB .* 1.0 GiB"):
        check_memory(candidates[1], 2**30)
    check_memory(candidates[1], None)
