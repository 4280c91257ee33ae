import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models, nn
from cnn_jax.errors import ModelError


class Layer(nn.Module):
    """Wraps what a case builds as a model with the contract's call."""

    build: object

    @nn.compact
    def __call__(self, image, *, train=False):
        return self.build(image)


def loop(image):
    def turn(carry, _):
        return carry @ jnp.ones((3, 3)), None

    return jax.lax.scan(turn, image.reshape(-1, 3), None, length=5)[0]


def branches(image):
    x = image.reshape(-1, 3)
    return jax.lax.cond(x.sum() > 0, lambda: x @ jnp.ones((3, 4)), lambda: jnp.zeros((80, 4)))


CASES = [
    # 8 x 10 x 3 images; what is built, its multiply-adds by hand
    ("conv", lambda x: nn.Conv(4, (3, 3))(x), 8 * 10 * 4 * 9 * 3),
    ("stride", lambda x: nn.Conv(4, (3, 3), strides=2)(x), 4 * 5 * 4 * 9 * 3),
    ("depthwise", lambda x: nn.DepthwiseConv((3, 3))(x), 8 * 10 * 3 * 9),
    ("dense", lambda x: nn.Dense(5)(x.reshape(1, -1)), 240 * 5),
    ("jit", lambda x: jax.jit(lambda x: x @ jnp.ones((3, 2)))(x.reshape(-1, 3)), 80 * 3 * 2),
    ("remat", lambda x: nn.remat(nn.Conv)(4, (1, 1))(x), 80 * 3 * 4),
    ("scan", loop, 5 * 80 * 9),
    ("cond", branches, 80 * 3 * 4),
]


@pytest.mark.parametrize(("build", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_flops_counted_by_hand(build, expected):
    assert models.count_flops(Layer(build), (8, 10, 3)) == 2 * expected


def test_a_loop_of_unknown_length_has_no_count():
    def build(x):
        x = x.reshape(-1, 3)
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ jnp.eye(3), x)

    with pytest.raises(ModelError, match="unknown number of times"):
        models.count_flops(Layer(build), (8, 10, 3))


@pytest.mark.parametrize(("name", "giga"), [("resnet18", 1.82), ("resnet50", 4.09)])
def test_resnets_cost_what_is_published(name, giga):
    model = models.create(name, num_classes=1000, image_size=224)
    multiply_adds = models.count_flops(model, (224, 224, 3)) / 2e9
    assert abs(multiply_adds - giga) < 0.03


def test_training_costs_the_same_forward_pass():
    model = models.create("compact", num_classes=10, image_size=32, dropout=0.5)
    forward = models.count_flops(model, (32, 32, 3))
    assert models.count_flops(model, (32, 32, 3), train=True) == forward


def test_describe_is_a_row_of_the_table():
    row = models.describe("lenet5", num_classes=10, image_shape=(32, 32, 1))
    by_hand = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    assert row == models.ModelSummary("lenet5", (32, 32, 1), 61_706, 2 * by_hand, "none")
    assert models.describe("resnet18", num_classes=10, image_shape=(32, 32, 3)).stem == "3x3"
    for size, stem in ((32, "5x5"), (128, "11x11 / 4")):
        shape = (size, size, 3)
        assert models.describe("alexnet", num_classes=3, image_shape=shape, width=8).stem == stem


@pytest.mark.parametrize(
    "name", [n for n in models.names() if "small_stem" in models.option_names(n)]
)
def test_a_model_with_two_stems_has_a_name_for_either(name):
    assert set(models.create(name, num_classes=3, image_size=32).STEMS) == {True, False}


def test_a_network_of_volumes_is_described_too():
    options = {"widths": (2, 4), "units": 1}
    row = models.describe("unet", num_classes=3, image_shape=(4, 8, 6, 1), **options)
    pixels = 4 * 8 * 6
    convolutions = pixels * 2 * 27 * 1 + pixels // 8 * 4 * 27 * 2 + pixels * 2 * 27 * 4
    # What is doubled is counted with the zeros between its pixels.
    by_hand = convolutions + pixels * 2 * 8 * 4 + pixels * 3 * 2
    norms = 2 * (2 + 4 + 2)
    parameters = 2 * 27 + 4 * 27 * 2 + 2 * 8 * 4 + 2 * 27 * 4 + 3 * 2 + 3 + norms
    assert row == models.ModelSummary("unet", (4, 8, 6, 1), parameters, 2 * by_hand, "none")
