"""HiResCAM: what each pixel of the maps adds, whatever linear layer follows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.explain import grad_cam, hires_cam

TARGET = np.array([2, 0], np.int32)


class Headed(nn.Module):
    """Maps as large as the image, and a linear layer of their mean, or of every pixel of them."""

    pooled: bool

    @nn.compact
    def __call__(self, image):
        x = nn.relu(nn.Conv(5, (3, 3), name="maps", dtype=image.dtype)(image))
        x = Same(name="last")(x)
        x = nn.global_avg_pool(x) if self.pooled else x.reshape(len(x), -1)
        return {"logits": nn.Dense(3, name="head", dtype=image.dtype)(x)}


class Same(nn.Module):
    def __call__(self, x):
        return x


def drawn(pooled, dtype):
    rng = np.random.default_rng(0)
    model, x = Headed(pooled), rng.normal(size=(2, 6, 7, 2))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(x.shape, jnp.float32))
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), dtype)  # noqa: E731
    return model, jax.tree.map(draw, shapes), jnp.asarray(x, dtype)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize("pooled", [True, False])
def test_over_the_maps_it_sums_to_the_logit_less_its_bias(pooled, dtype, atol):
    with jax.enable_x64(dtype == np.float64):
        model, variables, x = drawn(pooled, dtype)
        heat, cam = quick(
            lambda v, x: (
                hires_cam(model, v, x, TARGET, at="last"),
                grad_cam(model, v, x, TARGET, at="last", positive=False),
            )
        )(variables, x)
        assert heat.dtype == cam.dtype == dtype and heat.shape == (2, 6, 7)
        logits, found = nn.tap(model, variables, x, at=("last",))
        head = jax.tree.map(np.asarray, variables["params"]["head"])
        without = np.asarray(logits["logits"])[[0, 1], TARGET] - head["bias"][TARGET]
        size = max(1, float(abs(heat).sum(axis=(1, 2)).max()))
        np.testing.assert_allclose(heat.sum(axis=(1, 2)), without, atol=atol * size)
        if pooled:
            np.testing.assert_allclose(heat, cam, atol=atol)
        else:
            weights = np.moveaxis(head["kernel"], -1, 0)[TARGET].reshape(2, 6, 7, 5)
            expected = (weights * np.asarray(found["last"])).sum(axis=-1)
            np.testing.assert_allclose(heat, expected, atol=atol * 10)
            assert (abs(np.asarray(cam).sum(axis=(1, 2)) - without) > 0.1).all()


def test_where_nothing_speaks_for_the_class_grad_cam_is_zero():
    model, variables, x = drawn(True, np.float32)
    head = variables["params"]["head"]
    head["kernel"] = -abs(head["kernel"])
    assert (np.asarray(grad_cam(model, variables, x, TARGET, at="last")) == 0).all()
    assert (np.asarray(hires_cam(model, variables, x, TARGET, at="last")) <= 0).all()


def test_what_gives_no_maps_is_refused():
    model, variables, x = drawn(True, np.float32)
    with pytest.raises(ModelError, match="'head' gives no maps"):
        hires_cam(model, variables, x, TARGET, at="head")
    with pytest.raises(ModelError, match="target 3 is no class"):
        hires_cam(model, variables, x, TARGET + 1, at="last")


class Sampled(nn.Module):
    """Each position of its maps sees one pixel, every fourth from the first on."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Conv(2, (1, 1), strides=4, padding="VALID", use_bias=False, name="maps")(image)
        return nn.Dense(2, use_bias=False, name="head")(x.mean(axis=(1, 2)))


def test_maps_lie_where_their_positions_look():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 12, 1)), jnp.float32)
    model = Sampled()
    variables = model.init(jax.random.key(0), image)
    found = hires_cam(model, variables, image, jnp.array([0, 1, 0], jnp.int32))
    kernel = variables["params"]["maps"]["kernel"][0, 0, 0]
    weights = (kernel[None] @ variables["params"]["head"]["kernel"])[0]  # of a pixel, by class
    wanted = image[:, ::4, ::4, 0] * weights[jnp.array([0, 1, 0])][:, None, None] / 12
    np.testing.assert_allclose(found[:, ::4, ::4], wanted, rtol=1e-5, atol=1e-7)
    between = (found[:, 0, 0] + found[:, 0, 4]) / 2
    np.testing.assert_allclose(found[:, 0, 2], between, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[:, 15], found[:, 12], rtol=1e-5)  # beyond the last
