"""The U-Net: PyTorch's with the same weights, in two and three dimensions, and its laws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick
from torch_weights import copy_to_torch, torch_layout

from cnn_jax import models, nn
from cnn_jax.errors import ModelError

NORMS = ("batch", "group")
SHAPES = [(13, 10, 2), (5, 7, 6, 1)]  # odd and even sides, of an image and of a volume


def small(**options):
    return models.UNet(num_classes=3, **{"widths": (2, 3), "units": 1, **options})


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(model, image_shape, seed=0):
    """Variables as after training: scales near one, biases and means near zero."""
    rng = np.random.default_rng(seed)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            fan_in = math.prod(leaf.shape[:-1]) if name == "kernel" else 9
            value = rng.normal(0, fan_in**-0.5, leaf.shape)
        return jnp.asarray(value, jnp.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def gradients(model, variables, image, cotangent, train):
    """Logits, and the gradient of their product with `cotangent`, in one program."""

    @quick
    def step(variables, image, cotangent):
        def product(params):
            logits, _ = model.apply(
                {**variables, "params": params},
                image,
                train=train,
                rngs={"dropout": jax.random.key(0)},
                mutable=["batch_stats"],
            )
            return (logits * cotangent).sum(), logits

        return jax.grad(product, has_aux=True)(variables["params"])

    grads, logits = step(variables, image, cotangent)
    return logits, grads


def torch_unet(widths, units, channels, num_classes, norm, rank):
    """A U-Net in PyTorch, with the names of our tree."""
    import torch
    from torch import nn as tnn

    def of_rank(name):
        return getattr(tnn, f"{name}{rank}d")

    def stage(inputs, features):
        blocks = tnn.ModuleDict()
        for unit in range(units):
            conv = of_rank("Conv")(inputs, features, 3, padding=1, bias=False)
            if norm == "batch":
                layer = of_rank("BatchNorm")(features)
            else:
                layer = tnn.GroupNorm(math.gcd(8, features), features)
            blocks[f"block{unit + 1}"] = tnn.ModuleDict({"conv": conv, "norm": layer})
            inputs = features
        return blocks

    def through(blocks, x):
        for block in blocks.values():
            x = torch.relu(block["norm"](block["conv"](x)))
        return x

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            for level, width in enumerate(widths, start=1):
                inputs = channels if level == 1 else widths[level - 2]
                setattr(self, f"encoder{level}", stage(inputs, width))
                if level < len(widths):
                    up = of_rank("ConvTranspose")(widths[level], width, 2, 2, bias=False)
                    setattr(self, f"up{level}", up)
                    setattr(self, f"decoder{level}", stage(2 * width, width))
            self.head = tnn.ModuleDict({"logits": of_rank("Conv")(widths[0], num_classes, 1)})

        def forward(self, x):
            skips = []
            for level in range(1, len(widths) + 1):
                if level > 1:
                    skips.append(x)
                    x = of_rank("MaxPool")(2, ceil_mode=True)(x)
                x = through(getattr(self, f"encoder{level}"), x)
            for level in range(len(skips), 0, -1):
                skip = skips.pop()
                x = getattr(self, f"up{level}")(x)
                x = x[(slice(None), slice(None), *(slice(n) for n in skip.shape[2:]))]
                x = through(getattr(self, f"decoder{level}"), torch.cat([skip, x], 1))
            return self.head["logits"](x)

    return Net()


@pytest.mark.parity
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=["image", "volume"])
def test_it_is_that_of_pytorch(shape, norm):
    torch = pytest.importorskip("torch")
    widths = (4, 6, 10)
    model = models.UNet(num_classes=3, widths=widths, norm=norm)
    variables = drawn(model, shape)
    rank = len(shape) - 1
    network = torch_unet(widths, model.units, shape[-1], 3, norm, rank)
    copy_to_torch(variables, network)
    image = images(2, *shape)
    cotangent = images(2, *shape[:-1], 3, seed=1)

    def channels_first(x):
        return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())

    for train in (False, True):
        network.train(train)
        network.zero_grad()
        theirs = network(channels_first(image))
        (theirs * channels_first(cotangent)).sum().backward()
        logits, grads = gradients(model, variables, image, cotangent, train)
        expected = np.moveaxis(theirs.detach().numpy(), 1, -1)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        ours = torch_layout(grads)
        for name, parameter in network.named_parameters():
            wanted = parameter.grad.numpy()
            np.testing.assert_allclose(
                ours[name], wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max(), err_msg=name
            )


@pytest.mark.parametrize(("shape", "norm"), list(zip(SHAPES, NORMS, strict=True)))
def test_every_parameter_learns(shape, norm):
    model = small(norm=norm, dropout=0.3)
    variables = models.initialize(model, jax.random.key(0), shape)
    cotangent = images(3, *shape[:-1], 3, seed=1)
    logits, grads = gradients(model, variables, images(3, *shape), cotangent, train=True)
    assert logits.shape == cotangent.shape and np.isfinite(logits).all()
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    assert set(variables) == ({"params", "batch_stats"} if norm == "batch" else {"params"})


@pytest.mark.parametrize("sides", [(33, 47), (1, 1), (2, 3), (16, 16), (5, 18, 9)])
def test_any_size_is_answered_for_with_the_same_parameters(sides):
    model = models.create("unet", num_classes=2, image_size=128)
    shapes = {}
    for of_image in (sides, (64,) * len(sides)):
        image = jax.ShapeDtypeStruct((1, *of_image, 3), jnp.float32)
        logits, shapes[of_image] = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        assert logits == jax.ShapeDtypeStruct((1, *of_image, 2), jnp.float32)
    assert len(set(map(str, shapes.values()))) == 1


def test_paths_name_levels_from_the_full_image_down():
    model = models.create("unet", num_classes=2, image_size=128)
    image = jax.ShapeDtypeStruct((1, 33, 47, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    found = nn.tap_paths(model, variables, image)
    levels = [(33, 47, 16), (17, 24, 32), (9, 12, 64), (5, 6, 128)]
    for level, shape in enumerate(levels, start=1):
        assert found[f"encoder{level}"].shape == (1, *shape)
        if level < 4:
            assert found[f"decoder{level}"].shape == (1, *shape)
            assert found[f"up{level}"].shape >= (1, *shape)
    assert found["head/logits"].shape == (1, 33, 47, 2)
    assert variables["params"]["encoder1"]["block1"]["conv"]["kernel"].shape == (3, 3, 1, 16)
    assert variables["params"]["decoder3"]["block1"]["conv"]["kernel"].shape == (3, 3, 128, 64)


def test_the_answer_moves_with_the_image():
    """Where no border is near, by steps of the lowest level's pixels, and by no smaller ones."""
    model = small(widths=(2, 3, 4))
    variables = drawn(model, (72, 72, 1))
    image = images(1, 72, 72, 1)
    apply = quick(lambda x: model.apply(variables, x))
    step, size, border = 4, 64, 24
    still = apply(image[:, :size, :size])

    def difference(shift):
        moved = apply(image[:, shift : size + shift, shift : size + shift])
        end = size - border
        inside = moved[:, border - shift : end - shift, border - shift : end - shift]
        return np.abs(inside - still[:, border:end, border:end]).max()

    assert difference(step) < 1e-5 and difference(2 * step) < 1e-5
    assert all(difference(shift) > 0.01 for shift in (1, 2, 3))


def test_copies_under_vmap_are_those_one_by_one():
    model = small()
    members = [drawn(model, (6, 5, 1), seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    image = images(2, 6, 5, 1)

    def apply(variables):
        return model.apply(variables, image)

    together, one = quick(jax.vmap(apply))(stacked), quick(apply)
    for variables, logits in zip(members, together, strict=True):
        np.testing.assert_allclose(one(variables), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_bfloat16_computes_in_bfloat16_and_answers_in_float32(norm):
    half, whole = small(norm=norm, dtype=jnp.bfloat16), small(norm=norm)
    variables = drawn(whole, (8, 7, 1))
    image = images(2, 8, 7, 1)
    logits, expected = quick(lambda v, x: (half.apply(v, x), whole.apply(v, x)))(variables, image)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()
    _, taps = jax.eval_shape(
        lambda v, x: nn.tap(half, v, x, at=("up1", "decoder1")), variables, image
    )
    assert {tap.dtype for tap in taps.values()} == {jnp.dtype("bfloat16")}


def test_padded_rows_change_nothing():
    model = small()
    variables = drawn(model, (6, 5, 1))
    image = images(3, 6, 5, 1)

    @quick
    def apply(image, valid):
        with nn.mask_padding(valid):
            return model.apply(variables, image, train=True, mutable=["batch_stats"])

    logits, updates = apply(image, jnp.ones(3, bool))
    padded = jnp.concatenate([image, jnp.full_like(image, 100)])
    masked, masked_updates = apply(padded, jnp.arange(6) < 3)
    np.testing.assert_allclose(masked[:3], logits, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(masked_updates), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_whole_channels_of_the_lowest_level_are_dropped():
    model = small(widths=(2, 32), dropout=0.25, norm="group")
    variables = drawn(model, (4, 6, 1))
    image = images(2, 4, 6, 1)

    @quick
    def apply(key):
        at = ("Dropout_0", "encoder2")
        _, taps = nn.tap(model, variables, image, at=at, train=True, rngs={"dropout": key})
        with nn.keep_dropping():
            kept = model.apply(variables, image, train=False, rngs={"dropout": key})
        return taps, kept

    taps, first = apply(jax.random.key(0))
    seen, given = (np.asarray(taps[name]) for name in ("encoder2", "Dropout_0"))
    kept = (given != 0).any(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(given, np.where(kept, seen / 0.75, 0), rtol=1e-6)
    dropped = ~kept & (seen != 0).any(axis=(1, 2), keepdims=True)
    assert 0.1 < dropped.mean() < 0.4
    _, second = apply(jax.random.key(1))
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("shape", SHAPES, ids=["image", "volume"])
def test_a_step_is_lowered_for_all_platforms(shape):
    model = small()
    image = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)

    def loss(variables, image):
        logits, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
        return (logits**2).mean()

    platforms = ("cpu", "cuda", "tpu")
    exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=platforms)(variables, image)
    assert exported.platforms == platforms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4,)}, r"widths=\(4,\) must name two levels or more"),
        ({"widths": ()}, "two levels or more"),
        ({"widths": (4, 0)}, "must be positive"),
        ({"units": 0}, "units=0 and stride=1 must be positive"),
        ({"stride": 0}, "stride=0 must be positive"),
        ({"norm": "layer"}, "norm 'layer' must be one of batch, group"),
        ({"dropout": 1.0}, "rate 1.0"),
    ],
)
def test_fields_that_make_no_network_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        jax.eval_shape(small(**options).init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((8, 8, 1), jnp.float32, r"\[B, H, W, C\] or \[B, D, H, W, C\], not \[8, 8, 1\]"),
        ((1, 2, 3, 4, 5, 6), jnp.float32, "or .* not"),
        ((1, 8, 8, 1), jnp.uint8, "floating-point, not uint8"),
    ],
)
def test_what_is_no_image_is_refused(shape, dtype, message):
    with pytest.raises(ModelError, match=message):
        jax.eval_shape(small().init, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))


@pytest.mark.heavy
@pytest.mark.parametrize("shape", [(15, 18, 2), (9, 8, 10, 1)], ids=["image", "volume"])
def test_with_a_strided_stem_the_answer_is_as_large_as_the_image(shape):
    """The network of a coarser image, enlarged linearly; without it nothing changes."""
    model = small(stride=2)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, *shape)), jnp.float32)
    variables = model.init(jax.random.key(0), image)
    answer = model.apply(variables, image)
    assert answer.shape == (2, *shape[:-1], model.num_classes) and answer.dtype == jnp.float32
    stem = variables["params"]["stem"]
    coarse = jax.lax.conv_general_dilated(
        image,
        stem["kernel"],
        (2,) * (len(shape) - 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC")
        if len(shape) == 3
        else ("NDHWC", "DHWIO", "NDHWC"),
    ) + stem["bias"].reshape((1,) * (len(shape)) + (-1,))
    inner = {
        kind: {name: value for name, value in values.items() if name != "stem"}
        for kind, values in variables.items()
    }
    logits = small().apply(inner, coarse)
    expected = jax.image.resize(logits, answer.shape, "linear")
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
