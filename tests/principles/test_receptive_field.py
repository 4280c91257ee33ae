"""Receptive fields by formula: against autodiff, a published table, and hand counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import models, nn
from cnn_jax.errors import ModelError
from cnn_jax.principles import receptive_field, receptive_fields


def positive(tree, seed=0):
    """Positive weights, of sums near one, so that nothing cancels and nothing overflows."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        fan = max(1, int(np.prod(shape.shape[:-1])))
        low = 0.5 / fan if path[-1].key == "kernel" else 0.5
        return jnp.asarray(rng.uniform(low, 2 * low, shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def shapes_of(model, image_shape):
    image = jnp.zeros((1, *image_shape))
    return jax.eval_shape(lambda: dict(model.init(jax.random.key(0), image)))


def support(model, variables, image_shape, path, position, draws=1):
    """bool [H, W]: pixels on which one position of a layer depends, by its gradient.

    A maximum passes the gradient of its winner alone, so that several images are drawn.
    """

    def at(image):
        output = nn.tap(model, variables, image, at=(path,), train=False)[1][path]
        return output[0, *position].sum()

    # Compiled to be run once or a few times.
    options = {"xla_backend_optimization_level": 0}
    gradient = jax.jit(jax.grad(at), compiler_options=options)
    seen = np.zeros(image_shape[:2], bool)
    for draw in range(draws):
        image = jax.random.uniform(jax.random.key(draw), (1, *image_shape), minval=0.5)
        seen |= np.asarray(gradient(image)[0] != 0).any(axis=-1)
    return seen


def middle(model, variables, image_shape, path):
    """The position in the middle of a layer."""
    shape = nn.tap_paths(model, variables, jnp.zeros((1, *image_shape)), train=False)[path].shape
    return tuple(side // 2 for side in shape[1:3])


class Branched(nn.Module):
    """Two paths of layers that meet, by a sum or side by side, and a convolution of both."""

    first: tuple
    second: tuple
    joined: str

    @nn.compact
    def __call__(self, image, *, train=False):
        def path(layers, name):
            x = image
            for n, (kind, size, stride, dilation) in enumerate(layers):
                if kind == "pool":
                    x = nn.avg_pool(x, size, (stride, stride), "SAME")
                elif kind == "blur":
                    x = nn.blur_pool(x, stride)
                else:
                    conv = nn.Conv(
                        3, size, strides=stride, kernel_dilation=dilation, name=f"{name}{n}"
                    )
                    x = nn.relu(conv(x))
            return x

        one, other = path(self.first, "a"), path(self.second, "b")
        both = one + other if self.joined == "sum" else jnp.concatenate([one, other], axis=-1)
        return nn.Conv(2, (3, 2), name="last")(both)


LAYER = st.tuples(
    st.sampled_from(["conv", "conv", "pool", "blur"]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.just(1),
    st.integers(1, 3),
)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(LAYER, min_size=1, max_size=2),
    st.lists(LAYER, min_size=0, max_size=2),
    st.integers(1, 3),
    st.sampled_from(["sum", "channels"]),
)
def test_the_formula_is_the_support_of_the_gradient(first, second, stride, joined):
    head = (("conv", (3, 2), stride, 1),)
    model = Branched((*head, *first), (*head, *second), joined)
    shape = (53, 50, 1)
    shapes = shapes_of(model, shape)
    field = receptive_field(model, shapes, shape, "last")
    assert field.stride == (stride, stride)
    position = middle(model, shapes, shape, "last")
    corner = [a + b * p for a, b, p in zip(field.start, field.stride, position, strict=True)]
    assert min(corner) >= 0  # else the image were too small to show it
    found = support(model, positive(shapes), shape, "last", position)
    np.testing.assert_array_equal(field.pixels(position, shape), found)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "path", "side", "options"),
    [
        ("compact", "stage2/block2", 96, {}),
        ("resnet18", "stage2/block2", 160, {"small_stem": False, "width": 8}),
        ("preact_resnet18", "stage2/block1", 64, {"small_stem": True, "width": 8}),
    ],
)
def test_registered_networks_see_what_their_gradient_sees(name, path, side, options):
    model = models.create(name, num_classes=3, image_size=side, **options)
    shape = (side, side, 3)
    shapes = shapes_of(model, shape)
    path = next(p for p in receptive_fields(model, shapes, shape) if p.startswith(path))
    field = receptive_field(model, shapes, shape, path)
    position = middle(model, shapes, shape, path)
    found = support(model, positive(shapes), shape, path, position, draws=40)
    wanted = field.pixels(position, shape)
    assert not (found & ~wanted).any()
    assert (found == wanted).mean() > 0.995  # where maxima are taken some pixel may never win
    if name != "resnet18":  # the only one with maximum pooling
        np.testing.assert_array_equal(found, wanted)


# Google's table (Araujo et al. 2019): side of the field, stride.
PUBLISHED = {"alexnet": (195, 32), "vgg16": (212, 32)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_fields_of_the_published_table(name):
    model = models.create(name, num_classes=3, image_size=224, width=4)
    shape = (224, 224, 3)
    fields = receptive_fields(model, shapes_of(model, shape), shape)
    last = {"alexnet": "conv5", "vgg16": "stage5_conv3"}[name]
    side, stride = PUBLISHED[name]
    # the pooling after it: 3 by 2, or 2 by 2
    window = {"alexnet": 3, "vgg16": 2}[name]
    before = fields[last]
    assert before.stride == (stride // 2, stride // 2)
    assert before.size == (side - (window - 1) * stride // 2,) * 2
    assert before.support.all()
    # of the dense layers: whatever the maps together see
    assert fields["head/dense1"].stride == (0, 0)
    assert fields["head/dense1"].pixels((0, 0), shape).mean() > 0.9


def by_hand(depths):
    """Side of the field of a ResNet of ImageNet, whose stride is in the first 3x3 of a stage."""
    side, stride = 1 + 6 * 1 + 2 * 2, 4  # 7x7 by 2, 3x3 pooling by 2
    for stage, (depth, threes) in enumerate(depths):
        for block in range(depth):
            for n in range(threes):
                side += 2 * stride
                if stage and not block and not n:
                    stride *= 2
    return side, stride


@pytest.mark.parametrize(
    ("name", "depths", "known"),
    [("resnet18", (2, 2, 2, 2), 435), ("resnet50", (3, 4, 6, 3), 427)],
)
def test_fields_of_residual_networks(name, depths, known):
    threes = 2 if name == "resnet18" else 1
    side, stride = by_hand([(depth, threes) for depth in depths])
    assert (side, stride) == (known, 32)
    model = models.create(name, num_classes=3, image_size=224)
    shapes = shapes_of(model, (224, 224, 3))
    field = receptive_field(model, shapes, (224, 224, 3), f"stage4/block{depths[-1]}")
    assert (field.size, field.stride) == ((side, side), (stride, stride))


class Strange(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Conv(2, (3, 3), name="conv")(image)
        if self.kind == "up":
            x = nn.ConvTranspose(2, (2, 2), strides=(2, 2), name="up")(x)
        elif self.kind == "different":
            x = nn.max_pool(x, (2, 2), (2, 2)) + x[:, :12, :12]
        elif self.kind == "sorted":
            x = jnp.sort(x, axis=1)
        elif self.kind == "turned":
            x = x + x.transpose(0, 2, 1, 3)
        elif self.kind == "excited":
            x = x * nn.sigmoid(nn.Dense(2, name="gate")(nn.global_avg_pool(x)))[:, None, None]
        return nn.Conv(2, (3, 3), name="last")(x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("up", "'last' has no receptive field: a transposed convolution"),
        ("different", "branches meet whose positions are"),
        ("sorted", "positions that are sorted"),
        ("turned", "branches meet whose height and width are other axes"),
    ],
)
def test_layers_without_a_field_are_named_and_others_have_theirs(kind, message):
    model, shape = Strange(kind), (24, 24, 3)
    shapes = shapes_of(model, shape)
    with pytest.raises(ModelError, match=message):
        receptive_fields(model, shapes, shape, ("conv", "last"))
    fields = receptive_fields(model, shapes, shape)
    assert "last" not in fields and fields["conv"].size == (3, 3)


class Local(nn.Module):
    """A 3x3 convolution, something done to its maps, and another 3x3."""

    change: object

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Conv(4, (3, 3), padding="VALID", name="before")(image)
        return nn.Conv(2, (3, 3), padding="VALID", name="last")(self.change(x))


KEPT = {
    "norm over channels": lambda x: x / jnp.sqrt((x**2).sum(axis=-1, keepdims=True) + 1),
    "gate at each position": lambda x: x * nn.sigmoid(x.mean(axis=-1, keepdims=True)),
    "half of the channels": lambda x: jnp.split(x, 2, axis=-1)[0],
    "shuffled channels": lambda x: x[..., jnp.array([2, 0, 3, 1])],
    "dense layer": lambda x: x @ jnp.ones((4, 5)),
    "mean of stacked maps": lambda x: jnp.stack([x, 2 * x], axis=-1).mean(axis=-1),
    "stacked before the others": lambda x: jnp.stack([x, 2 * x], axis=0).mean(axis=0),
    "sorted channels": lambda x: jnp.sort(x, axis=-1),
    "edges repeated": lambda x: jnp.pad(x, ((0, 0), (1, 2), (2, 1), (0, 0)), mode="edge"),
    "channels in pairs": lambda x: x.reshape(*x.shape[:3], 2, 2).sum(axis=-1),
}


@pytest.mark.parametrize("change", KEPT)
def test_what_is_done_at_each_position_keeps_the_field(change):
    model, shape = Local(KEPT[change]), (23, 22, 2)
    shapes = shapes_of(model, shape)
    field = receptive_field(model, shapes, shape, "last")
    position = middle(model, shapes, shape, "last")
    found = support(model, positive(shapes), shape, "last", position)
    np.testing.assert_array_equal(field.pixels(position, shape), found)


def test_maps_of_one_position_keep_their_axes():
    """Height and width of one position each are not one axis when channels are split."""

    def change(x):
        pooled = nn.max_pool(x, x.shape[1:3])
        return pooled.reshape(*pooled.shape[:3], 2, 2).sum(axis=-1) + pooled[..., :2]

    class Whole(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            return nn.Conv(2, (1, 1), name="last")(change(nn.Conv(4, (3, 3), name="first")(image)))

    shape = (9, 8, 2)
    field = receptive_field(Whole(), shapes_of(Whole(), shape), shape, "last")
    assert field.pixels((0, 0), shape).all()


def test_a_window_that_is_reduced_by_a_function_of_its_own():
    """Which has no gradient: 3 + 2 rows by 2, and 3 + 1 columns, before the last 3x3."""
    windows = (1, 3, 2, 1), (1, 2, 1, 1), "VALID"
    model = Local(lambda x: jax.lax.reduce_window(x, 0.0, lambda a, b: a + 0.5 * b, *windows))
    shape = (23, 22, 2)
    field = receptive_field(model, shapes_of(model, shape), shape, "last")
    assert (field.size, field.stride) == ((3 + 2 + 2 * 2, 3 + 1 + 2), (2, 1))
    assert field.support.all()


LOST = {
    "rows twice": lambda x: jnp.repeat(x, 2, axis=1),
    "space to depth": lambda x: (
        x.reshape(1, 10, 2, 10, 2, 4).transpose(0, 1, 3, 2, 4, 5).reshape(1, 10, 10, 16)
    ),
    "depth to space": lambda x: (
        x.reshape(1, 20, 20, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(1, 40, 40, 1)
    ),
    "rows in another order": lambda x: x[:, jnp.arange(20)[::-1]],
    "rows in reverse": lambda x: x[:, ::-1],
    "bins of a fixed number": lambda x: nn.adaptive_avg_pool(x, 5),
    "halves on each other": lambda x: sum(jnp.split(x, 2, axis=1)),
    "positions in one axis": lambda x: jnp.cumsum(x.reshape(1, 400, 4), axis=1).reshape(x.shape),
}


@pytest.mark.parametrize("change", LOST)
def test_where_positions_are_mixed_there_is_no_field_rather_than_a_wrong_one(change):
    model, shape = Local(LOST[change]), (22, 22, 2)
    shapes = shapes_of(model, shape)
    with pytest.raises(ModelError, match="'last' has no receptive field"):
        receptive_field(model, shapes, shape, "last")
    assert set(receptive_fields(model, shapes, shape)) == {"before"}


def test_a_gate_of_the_whole_image_sees_the_whole_image():
    model, shape = Strange("excited"), (24, 20, 3)
    fields = receptive_fields(model, shapes_of(model, shape), shape)
    assert fields["gate"].pixels((0, 0), shape).all() and fields["last"].pixels((3, 4), shape).all()
    found = support(model, positive(shapes_of(model, shape)), shape, "last", (3, 4))
    assert found.all()


def test_holes_borders_and_bad_questions():
    class Dilated(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            return nn.Conv(1, (3, 1), kernel_dilation=(4, 1), name="conv")(image)

    shape = (20, 8, 1)
    shapes = shapes_of(Dilated(), shape)
    field = receptive_field(Dilated(), shapes, shape, "conv")
    assert field.size == (9, 1) and field.support[:, 0].tolist() == [True, *[False] * 3] * 2 + [
        True
    ]
    assert np.argwhere(field.pixels((1, 2), shape)).tolist() == [[1, 2], [5, 2]]  # -3 is padding
    assert not field.pixels((40, 2), shape).any()
    with pytest.raises(ModelError, match="no submodule 'head'; did you mean 'conv'"):
        receptive_field(Dilated(), shapes, shape, "head")
    with pytest.raises(ModelError, match=r"of images \(H, W, C\), not of \[20, 8\]"):
        receptive_fields(Dilated(), shapes, (20, 8))
