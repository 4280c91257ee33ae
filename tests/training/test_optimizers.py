"""Optimizers and schedules against formulas worked in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import RecipeError
from cnn_jax.recipe import OptimizerRecipe, ScheduleRecipe
from cnn_jax.training import optimizers, schedules
from cnn_jax.training.optimizers import make_optimizer

PARAMS = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}}
GRADS = [
    {"conv": {"kernel": jnp.array([0.3, 0.1]), "bias": jnp.array([-0.2])}},
    {"conv": {"kernel": jnp.array([-0.4, 0.2]), "bias": jnp.array([0.6])}},
    {"conv": {"kernel": jnp.array([0.05, -0.7]), "bias": jnp.array([0.1])}},
]


def run(recipe, grads=GRADS, rate=0.1):
    optimizer = make_optimizer(recipe, PARAMS)
    hyper = {k: jnp.float32(v) for k, v in optimizers.hyper_of(recipe).items()}
    step = jax.jit(optimizer.update)
    params, opt_state = PARAMS, optimizer.init(PARAMS)
    for g in grads:
        params, opt_state = step(g, opt_state, params, hyper, jnp.float32(rate))
    return params["conv"]


def numpy_sgd(name, decay, momentum, nesterov, rate=0.1):
    p, v = np.array(PARAMS["conv"][name], np.float64), 0.0
    for g in GRADS:
        g = np.array(g["conv"][name], np.float64) + decay * p
        v = momentum * v + g
        p = p - rate * (g + momentum * v if nesterov else v)
    return p


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_pytorchs_formula_and_spares_biases(momentum, nesterov):
    recipe = OptimizerRecipe(momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    got = run(recipe)
    np.testing.assert_allclose(
        got["kernel"], numpy_sgd("kernel", 0.01, momentum, nesterov), rtol=1e-6
    )
    np.testing.assert_allclose(got["bias"], numpy_sgd("bias", 0.0, momentum, nesterov), rtol=1e-6)


def test_adamw_is_the_published_formula():
    recipe = OptimizerRecipe(name="adamw", weight_decay=0.1, beta2=0.99, epsilon=1e-6)
    for name, decay in (("kernel", 0.1), ("bias", 0.0)):
        p, m, v = np.array(PARAMS["conv"][name], np.float64), 0.0, 0.0
        for t, g in enumerate(GRADS, start=1):
            g = np.array(g["conv"][name], np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            update = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-6)
            p = p - 0.05 * (update + decay * p)
        np.testing.assert_allclose(run(recipe, rate=0.05)[name], p, rtol=1e-5)


def test_clipping_scales_the_whole_gradient():
    big = [jax.tree.map(lambda g: 100 * g, GRADS[0])]
    plain = OptimizerRecipe(momentum=0.0, weight_decay=0.0)
    norm = float(np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(big[0]))))
    got = run(OptimizerRecipe(momentum=0.0, weight_decay=0.0, clip_norm=1.0), big)
    expected = run(plain, [jax.tree.map(lambda g: g / norm, big[0])])
    np.testing.assert_allclose(got["kernel"], expected["kernel"], rtol=1e-5)


def test_the_step_reads_hyper_and_not_the_recipe():
    """Members of a population differ in `hyper` alone."""
    recipe = OptimizerRecipe(weight_decay=0.0)
    optimizer = make_optimizer(recipe, PARAMS)
    hyper = {k: jnp.float32(v) for k, v in optimizers.hyper_of(recipe).items()}
    stacked = {**{k: jnp.stack([v, v]) for k, v in hyper.items()}}
    stacked["momentum"] = jnp.array([0.0, 0.9])

    def two_steps(hyper):
        params, opt_state = PARAMS, optimizer.init(PARAMS)
        for g in GRADS[:2]:
            params, opt_state = optimizer.update(g, opt_state, params, hyper, jnp.float32(0.1))
        return params["conv"]["kernel"]

    both = jax.jit(jax.vmap(two_steps))(stacked)
    for i, momentum in enumerate((0.0, 0.9)):
        p, v = np.array(PARAMS["conv"]["kernel"], np.float64), 0.0
        for g in GRADS[:2]:
            g = np.array(g["conv"]["kernel"], np.float64)
            v = momentum * v + g
            p = p - 0.1 * (g + momentum * v)
        np.testing.assert_allclose(both[i], p, rtol=1e-6)


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(RecipeError, match=r"'kernl' matches no parameter; did you mean"):
        make_optimizer(OptimizerRecipe(decay_exclude=("kernl",)), {"kernel": jnp.zeros(1)})
    with pytest.raises(RecipeError, match="no regular expression"):
        make_optimizer(OptimizerRecipe(decay_exclude=("(",)), PARAMS)
    assert make_optimizer(OptimizerRecipe(), {"kernel": jnp.zeros(1)}).decayed == {"kernel"}


def test_biases_scales_and_slopes_of_prelu_are_not_decayed():
    names = ("kernel", "bias", "scale", "negative_slope")
    decayed = make_optimizer(OptimizerRecipe(), {"a": dict.fromkeys(names, jnp.zeros(1))}).decayed
    assert decayed == {"a/kernel"}


def rates(recipe, epochs=10, steps=20, peak=0.5, scale=1.0):
    hyper = {k: jnp.float32(v) for k, v in schedules.hyper_of(recipe).items()}
    hyper |= {"learning_rate": jnp.float32(peak), "learning_rate_scale": jnp.float32(scale)}

    def one(step):
        return schedules.learning_rate(recipe, hyper, step, steps_per_epoch=steps, epochs=epochs)

    return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(epochs * steps)))


def test_cosine_with_warm_up():
    got = rates(ScheduleRecipe("cosine", warmup_epochs=2.0, final_fraction=0.1))
    t = np.arange(200) / 20
    expected = 0.5 * (0.1 + 0.9 * (1 + np.cos(np.pi * np.clip((t - 2) / 8, 0, 1))) / 2)
    expected[:40] = 0.5 * (np.arange(40) + 1) / 40
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_linear_piecewise_and_constant():
    t = np.arange(200) / 200
    linear = rates(ScheduleRecipe("linear", warmup_epochs=0.0, final_fraction=0.2))
    np.testing.assert_allclose(linear, 0.5 * (1 - 0.8 * t), rtol=1e-5)
    drops = rates(ScheduleRecipe("piecewise", 0.0, milestones=(0.5, 0.75), drop=0.1))
    expected = 0.5 * np.where(t < 0.5, 1, np.where(t < 0.75, 0.1, 0.01))
    np.testing.assert_allclose(drops, expected, rtol=1e-5)
    constant = rates(ScheduleRecipe("constant", warmup_epochs=0.0), scale=0.1)
    np.testing.assert_allclose(constant, 0.05, rtol=1e-6)


def test_no_schedule_is_ever_negative_or_above_its_peak():
    for name in ("cosine", "linear", "piecewise", "constant"):
        for warmup in (0.0, 1.0, 10.0, 99.0):
            got = rates(ScheduleRecipe(name, warmup_epochs=warmup))
            assert (got >= 0).all() and (got <= 0.5 + 1e-6).all() and np.isfinite(got).all()
