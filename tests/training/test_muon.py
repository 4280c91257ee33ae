"""Muon and LARS against their papers in NumPy float64, and against optax's own iteration."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import RecipeError
from cnn_jax.recipe import OptimizerRecipe
from cnn_jax.training import optimizers
from cnn_jax.training.muon import orthogonalize
from cnn_jax.training.optimizers import make_optimizer

RNG = np.random.default_rng(0)
PARAMS = {
    "conv": {
        "kernel": jnp.asarray(RNG.normal(size=(3, 3, 2, 5)), jnp.float32),
        "bias": jnp.asarray(RNG.normal(size=5), jnp.float32),
    },
    "head": {"kernel": jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)},
}
GRADS = [
    jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), jnp.float32), PARAMS)
    for _ in range(3)
]


def run(recipe, rate):
    optimizer = make_optimizer(recipe, PARAMS)
    hyper = {k: jnp.float32(v) for k, v in optimizers.hyper_of(recipe).items()}
    step = jax.jit(optimizer.update)
    params, opt_state = PARAMS, optimizer.init(PARAMS)
    for g in GRADS:
        params, opt_state = step(g, opt_state, params, hyper, jnp.float32(rate))
    return params


def double(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("shape", [(18, 5), (5, 18), (7, 7)])
def test_the_result_is_nearly_orthogonal_and_points_along_the_polar_factor(shape):
    matrix = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    got = double(orthogonalize(matrix, 5))
    u, _, vt = np.linalg.svd(double(matrix), full_matrices=False)
    values = np.linalg.svd(got, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.25
    # In the matrix's own bases it is diagonal: only the singular values have moved.
    core = u.T @ got @ vt.T
    np.testing.assert_allclose(core, np.diag(np.diag(core)), atol=1e-4)


def test_a_kernel_is_the_matrix_that_optaxs_muon_takes_when_told():
    """Its first step, without momentum, width scaling and bias correction of the mean."""
    kernel, grad = PARAMS["conv"]["kernel"], GRADS[0]["conv"]["kernel"]
    theirs = optax.contrib.scale_by_muon(
        ns_steps=5,
        nesterov=False,
        weight_dimension_numbers=optax.contrib.MuonDimensionNumbers((0, 1, 2), 3),
    )
    with jax.numpy_dtype_promotion("standard"):
        expected, _ = theirs.update(grad, theirs.init(kernel), kernel)
    got = orthogonalize(grad.reshape(-1, 5), 5).reshape(grad.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_nothing_stays_nothing():
    assert not np.asarray(orthogonalize(jnp.zeros((4, 3)), 5)).any()


def newton_schulz(matrix, steps):
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_moves_kernels_of_convolutions_and_sgd_the_rest(project, nesterov):
    recipe = OptimizerRecipe(
        name="muon",
        learning_rate=0.2,
        momentum=0.6,
        nesterov=nesterov,
        weight_decay=0.01,
        other_learning_rate=0.05,
        muon_steps=3,
        muon_project=project,
    )
    got = run(recipe, rate=0.1)  # the schedule is at half of the peak
    w, b = double(PARAMS["conv"]["kernel"]), 0.0
    head, v = double(PARAMS["head"]["kernel"]), 0.0
    for g in GRADS:
        g1, g2 = double(g["conv"]["kernel"]), double(g["head"]["kernel"])
        b = 0.6 * b + g1
        d = newton_schulz((g1 + 0.6 * b if nesterov else b).reshape(-1, 5), 3).reshape(w.shape)
        if project:
            w = w * np.sqrt(5) / np.linalg.norm(w) - 0.1 * d
        else:
            w = w - 0.1 * (d + 0.01 * w)
        g2 = g2 + 0.01 * head
        v = 0.6 * v + g2
        head = head - 0.025 * (g2 + 0.6 * v if nesterov else v)
    np.testing.assert_allclose(got["conv"]["kernel"], w, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got["head"]["kernel"], head, rtol=1e-5, atol=1e-6)


def test_what_is_excluded_from_decay_is_not_decayed_by_muon_either():
    everything = OptimizerRecipe(
        name="muon", muon_project=False, weight_decay=0.5, decay_exclude=("bias$", "kernel$")
    )
    got, expected = (run(r, 0.1) for r in (everything, replace(everything, weight_decay=0.0)))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_members_of_a_population_differ_in_every_rate():
    recipe = OptimizerRecipe(name="muon", clip_norm=1.0, muon_project=False, muon_steps=2)
    optimizer = make_optimizer(recipe, PARAMS)
    hyper = {k: jnp.full(2, v, jnp.float32) for k, v in optimizers.hyper_of(recipe).items()}
    for name in ("learning_rate", "other_learning_rate", "momentum", "weight_decay"):
        hyper[name] = hyper[name] * jnp.array([1.0, 0.5])

    @jax.jit
    def updated(hyper):
        return optimizer.update(
            GRADS[0], optimizer.init(PARAMS), PARAMS, hyper, hyper["learning_rate"]
        )[0]

    both = jax.jit(jax.vmap(updated))(hyper)
    for member in range(2):
        alone = updated({name: values[member] for name, values in hyper.items()})
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[member], b, rtol=1e-5, atol=1e-6)
    assert all((x[0] != x[1]).any() for x in jax.tree.leaves(both))


def test_kernels_can_be_kept_from_muon():
    recipe = OptimizerRecipe(name="muon", muon_exclude=("conv/kernel",))
    with pytest.raises(RecipeError, match="no kernel of a convolution left"):
        make_optimizer(recipe, PARAMS)
    with pytest.raises(RecipeError, match=r"muon_exclude: 'stem' matches no parameter"):
        make_optimizer(OptimizerRecipe(name="muon", muon_exclude=("stem",)), PARAMS)
    with pytest.raises(RecipeError, match="choose sgd or adamw"):
        make_optimizer(OptimizerRecipe(name="muon"), {"head": PARAMS["head"]})


def test_lars_is_the_published_formula():
    recipe = OptimizerRecipe(
        name="lars", momentum=0.9, nesterov=False, weight_decay=0.01, trust_coefficient=0.02
    )
    got = run(recipe, rate=2.0)
    w, v = double(PARAMS["conv"]["kernel"]), 0.0
    bias, u = double(PARAMS["conv"]["bias"]), 0.0
    for g in GRADS:
        d = double(g["conv"]["kernel"]) + 0.01 * w
        v = 0.9 * v + 2.0 * 0.02 * np.linalg.norm(w) / np.linalg.norm(d) * d
        w = w - v
        u = 0.9 * u + 2.0 * double(g["conv"]["bias"])  # neither decay nor ratio for a bias
        bias = bias - u
    np.testing.assert_allclose(got["conv"]["kernel"], w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["conv"]["bias"], bias, rtol=1e-4, atol=1e-5)
