"""Heads of centres: cosines in float64, whatever the lengths, and the shapes they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, nn
from cnn_jax.errors import ModelError
from cnn_jax.nn.centres import rescaled, unit

RNG = np.random.default_rng(0)


def test_logits_are_the_scaled_cosine_of_the_nearest_sub_centre():
    head = nn.CentreHead(3, sub_centres=2, scale=10.0)
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    shapes = jax.eval_shape(head.init, jax.random.key(0), x)
    assert shapes["params"]["centres"].shape == (3, 2, 5)
    centres = RNG.normal(size=(3, 2, 5)).astype(np.float32)
    apply = jax.jit(lambda c, x: head.apply({"params": {"centres": c}}, x))
    found = apply(centres, x)
    x64, c64 = (v.astype(np.float64) for v in (x, centres))
    x64 /= np.linalg.norm(x64, axis=1, keepdims=True)
    c64 /= np.linalg.norm(c64, axis=2, keepdims=True)
    cosine = (x64[:, None, None] * c64).sum(axis=-1)
    np.testing.assert_allclose(found["logits"], 10 * cosine.max(axis=2), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["embedding"], x)
    np.testing.assert_array_equal(found["centres"], centres)
    lengths = np.float32([[1e30], [1e-28], [1e3], [0]])
    again = apply(centres * np.float32(1e25), x * lengths)["logits"]
    np.testing.assert_allclose(again[:3], found["logits"][:3], rtol=1e-5, atol=1e-5)
    assert not again[3].any()


def test_rescaling_is_exact_and_units_have_length_1_or_0():
    x = np.float32([[3, -1, 0], [3.4e38, 1e38, 0], [1e-29, 2e-38, 2e-29], [1e-31, 0, 0], [0, 0, 0]])
    y, scale, z = map(np.asarray, jax.jit(lambda x: (*rescaled(x), unit(x)))(x))
    np.testing.assert_array_equal(y[:3] * scale[:3], x[:3])
    assert (np.abs(y[:3]).max(axis=1) >= 0.75).all() and (np.abs(y) <= 4).all()
    assert not y[3:].any() and (np.frexp(scale)[0] == 0.5).all()
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), [1, 1, 1, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["compact", "lenet5", "resnet18", "preact_resnet18"])
def test_every_small_network_can_end_in_an_embedding(name):
    options = {"embedding_size": 6, "sub_centres": 2, "scale": 16.0}
    model = models.create(name, num_classes=3, image_size=32, dtype=jnp.bfloat16, **options)
    image = jax.ShapeDtypeStruct((2, 32, 32, 1), jnp.float32)
    found, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    shapes = {key: (value.shape, value.dtype.name) for key, value in found.items()}
    assert shapes == {
        "embedding": ((2, 6), "float32"),
        "centres": ((3, 2, 6), "float32"),
        "logits": ((2, 3), "float32"),
    }
    assert variables["params"]["head"]["centre"]["centres"].shape == (3, 2, 6)
    plain = models.create(name, num_classes=3, image_size=32)
    assert jax.eval_shape(plain.init_with_output, jax.random.key(0), image)[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("head", "shape", "words"),
    [
        (nn.CentreHead(0), (2, 3), "num_classes=0"),
        (nn.CentreHead(3, sub_centres=0), (2, 3), "must be positive"),
        (nn.CentreHead(3, scale=0.0), (2, 3), "scale=0.0"),
        (nn.CentreHead(3), (2, 4, 4, 3), "pool the features first"),
        (nn.EmbeddingHead(3, -1), (2, 3), "embedding_size=-1 must be at least 1"),
        (nn.EmbeddingHead(3, 4, dropout=1.0), (2, 3), r"rate 1.0 must be at least 0"),
    ],
)
def test_fields_and_shapes_that_make_no_head(head, shape, words):
    with pytest.raises(ModelError, match=words):
        jax.eval_shape(head.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
