import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax import ops

X = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
K = jax.ShapeDtypeStruct((3, 3, 4, 6), jnp.float32)


def convolve(x, k):
    return ops.conv_general_dilated(
        x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_a_forward_pass_in_words():
    text = str(ops.explain(convolve, X, K, platform="cuda"))
    first, second = text.splitlines()
    # 2 examples of 4 x 4 outputs of 6 channels, each of 9 positions of 4 channels.
    assert 2 * 16 * 6 * 9 * 4 == 6_912
    assert first == "3x3, 4 to 6 channels, images 2 x 8x8, stride 2x2, float32: 0.01382 MFLOP"
    assert second == "    stock: on cuda convolution is left to the vendor's library"


def test_gradients_in_words():
    def loss(x, k):
        return convolve(x, k).sum()

    forward, of_kernel, of_images = ops.explain(jax.grad(loss, (0, 1)), X, K).convolutions
    assert forward.convolution == "3x3, 4 to 6 channels, images 2 x 8x8, stride 2x2, float32"
    assert of_kernel.convolution == f"weight gradient of {forward.convolution}"
    assert of_images.convolution == "3x3, 6 to 4 channels, images 2 x 4x4, spread by 2x2, float32"


def test_counts_inside_loops_branches_and_checkpoints():
    def loss(k, x):
        def step(carry, image):
            inner = jax.checkpoint(lambda k: lax.cond(carry > 0, convolve, convolve, image, k))
            return carry + inner(k).sum(), None

        return lax.scan(step, jnp.float32(0), x)[0]

    many = jax.ShapeDtypeStruct((5, *X.shape), X.dtype)
    (forward,) = ops.explain(loss, K, many).convolutions
    assert forward.count == 2  # one in each branch, written once in the loop
    found = ops.explain(jax.jit(jax.grad(loss)), K, many)
    assert len(found.convolutions) == 2  # the weight gradient too
    assert str(found).startswith("2 x 3x3")


def test_members_and_examples():
    members = [jax.ShapeDtypeStruct((4, *one.shape), one.dtype) for one in (X, K)]
    (found,) = ops.explain(jax.vmap(convolve), *members, platform="cpu").convolutions
    assert found.members == 4
    assert found.multiply_adds == 6_912  # of one of them
    assert ", 4 members" in str(ops.explain(jax.vmap(convolve), *members))
    (shared,) = ops.explain(jax.vmap(convolve, (0, None)), members[0], K).convolutions
    assert (shared.members, shared.multiply_adds) == (1, 4 * 6_912)


def test_no_convolution():
    found = ops.explain(lambda x: x + 1, X)
    assert found.convolutions == ()
    assert str(found) == "no convolution of cnn_jax.ops"
    assert found.platform == "cpu"
