"""The autoencoder: it learns what it sees, through the embedding alone, at any size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import quick

from cnn_jax import models, nn
from cnn_jax.errors import ModelError
from cnn_jax.models.autoencoder import Autoencoder


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def small(**options):
    return Autoencoder(**{"widths": (8, 16), "latent": 16, **options})


@pytest.mark.heavy
def test_it_learns_sixteen_images_by_heart():
    model, batch = small(), images(16, 9, 11, 1)
    variables = models.initialize(model, jax.random.key(0), batch.shape[1:])
    optimizer = optax.adam(1e-2)

    def loss(params, stats):
        outputs, updated = model.apply(
            {"params": params, "batch_stats": stats}, batch, train=True, mutable=["batch_stats"]
        )
        return ((outputs["reconstruction"] - batch) ** 2).mean(), updated["batch_stats"]

    @jax.jit
    def step(params, stats, state):
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats)
        with jax.numpy_dtype_promotion("standard"):  # optax's counts are integers
            updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state, value

    params, stats = variables["params"], variables["batch_stats"]
    state = optimizer.init(params)
    losses = []
    for _ in range(250):
        params, stats, state, value = step(params, stats, state)
        losses.append(float(value))
    # White noise: nothing to guess, so what is explained was learned.
    assert losses[0] > 0.9 and losses[-1] < 0.1
    trained = {"params": params, "batch_stats": stats}
    found = jax.jit(lambda v, x: model.apply(v, x))(trained, batch)["reconstruction"]
    assert float(((found - batch) ** 2).mean()) < 0.2


@pytest.mark.parametrize("sides", [(33, 47), (1, 1), (2, 3), (16, 16)])
def test_any_size_is_reconstructed_with_the_same_parameters(sides):
    shapes = {}
    for of_image in (sides, (28, 28)):
        image = jax.ShapeDtypeStruct((2, *of_image, 3), jnp.bfloat16)
        model = Autoencoder(dtype=jnp.bfloat16)
        outputs, shapes[of_image] = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        assert outputs == {
            "reconstruction": jax.ShapeDtypeStruct((2, *of_image, 3), jnp.float32),
            "embedding": jax.ShapeDtypeStruct((2, 32), jnp.float32),
        }
    assert len(set(map(str, shapes.values()))) == 1


def test_every_parameter_learns_and_an_example_knows_no_other():
    model, batch = small(), images(3, 7, 10, 2)
    variables = models.initialize(model, jax.random.key(0), batch.shape[1:])
    cotangent = images(*batch.shape, seed=1)

    def product(params, batch, train):
        outputs, _ = model.apply(
            {**variables, "params": params}, batch, train=train, mutable=["batch_stats"]
        )
        return (outputs["reconstruction"] * cotangent[: len(batch)]).sum(), outputs

    grads, _ = quick(lambda p, x: jax.grad(product, has_aux=True)(p, x, True))(
        variables["params"], batch
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    apply = quick(lambda x: model.apply(variables, x))
    whole, alone = apply(batch), apply(batch[1:2])
    for name, value in whole.items():
        np.testing.assert_allclose(alone[name], value[1:2], rtol=1e-5, atol=1e-6)


def test_the_reconstruction_hangs_on_the_embedding_alone():
    model, batch = small(), images(2, 8, 8, 1)
    variables = models.initialize(model, jax.random.key(0), batch.shape[1:])
    apply = quick(lambda x, add: nn.tap(model, variables, x, add={"embedding": add})[0])
    embedding = apply(batch, jnp.zeros((2, 16)))["embedding"]
    # The first image with the embedding of the second is the second's reconstruction.
    swapped = apply(batch, embedding[::-1] - embedding)
    kept = apply(batch, jnp.zeros((2, 16)))
    np.testing.assert_allclose(
        swapped["reconstruction"], kept["reconstruction"][::-1], rtol=1e-4, atol=1e-5
    )


def test_parameters_and_flops_are_counted():
    model = Autoencoder(widths=(2, 4), latent=3, grid=2)
    image = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    kernels = 9 * 1 * 2 + 9 * 2 * 4 + 16 * 3 + 3 * 16 + 9 * 4 * 4 + 4 * 4 * 2 + 9 * 2 * 2 + 2
    others = 2 * (2 + 4 + 4 + 2) + 3 + 16 + 1  # norms and biases
    assert models.count_parameters(variables) == kernels + others
    # What is doubled is counted with the zeros between its pixels.
    by_hand = 16 * (18 + 32 + 36 + 2) + 4 * (72 + 144) + 16 * 3 + 3 * 16
    assert models.count_flops(model, (4, 4, 1)) == 2 * by_hand


@pytest.mark.parametrize(
    "options", [{"widths": ()}, {"widths": (4, 0)}, {"latent": 0}, {"grid": 0}, {"units": 0}]
)
def test_fields_that_make_no_network(options):
    with pytest.raises(ModelError, match="must name a level or more"):
        jax.eval_shape(
            small(**options).init,
            jax.random.key(0),
            jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32),
        )


def test_volumes_and_integers_are_refused():
    for shape, dtype in (((1, 4, 4, 4, 1), jnp.float32), ((1, 4, 4, 1), jnp.uint8)):
        image = jax.ShapeDtypeStruct(shape, dtype)
        with pytest.raises(ModelError, match="images must be"):
            jax.eval_shape(small().init, jax.random.key(0), image)
