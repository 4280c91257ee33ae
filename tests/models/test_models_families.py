import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick
from torch_weights import copy_to_torch

from cnn_jax import models, nn
from cnn_jax.errors import ModelError

SMALL = [
    models.LeNet5(num_classes=3),
    models.Compact(num_classes=3, widths=(4, 8), units=1, dropout=0.5),
    models.ResNet(num_classes=3, depths=(1, 1), width=4, small_stem=True, zero_init=False),
    models.ResNet(num_classes=3, depths=(1,), width=2, block="bottleneck", zero_init=False),
    models.PreactResNet(num_classes=3, depths=(1, 1), width=4, small_stem=True, block_dropout=0.5),
    # Their gradients are compared with PyTorch's in test_models_faces.
    pytest.param(
        models.IResNet(
            num_classes=3, depths=(1,), width=4, embedding_size=8, map_size=8, dropout=0.5
        ),
        marks=pytest.mark.slow,
    ),
    pytest.param(
        models.MobileFaceNet(
            num_classes=3,
            depths=(1,) * 5,
            width=4,
            embedding_size=8,
            first_stride=1,
            map_size=2,
            dropout=0.5,
        ),
        marks=pytest.mark.slow,
    ),
]


def images(size=16, channels=3):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(4, size, size, channels)), jnp.float32)


@pytest.mark.parametrize("model", SMALL, ids=lambda model: type(model).__name__)
def test_every_parameter_learns(model):
    variables = models.initialize(model, jax.random.key(0), (16, 16, 3))
    labels = jnp.asarray([0, 1, 2, 0])

    def loss(params):
        outputs, updates = model.apply(
            {**variables, "params": params},
            images(),
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs
        log_probabilities = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_probabilities, labels[:, None], 1).mean(), updates

    # The same bits at the lower level of optimisation, compiled sooner.
    options = {"xla_backend_optimization_level": 1}
    step = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=options)
    (value, updates), gradient = step(variables["params"])
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    for new, old in zip(
        jax.tree.leaves(updates), jax.tree.leaves(variables.get("batch_stats", {})), strict=True
    ):
        assert np.abs(new - old).max() > 0


def test_zero_init_makes_a_block_the_identity_of_its_shortcut():
    model = models.ResNet(num_classes=3, depths=(1,), width=4, small_stem=True)
    variables = models.initialize(model, jax.random.key(0), (8, 8, 3))
    at = ("stem", "stage1/block1")
    _, found = nn.tap(model, variables, images(8), at=at)
    np.testing.assert_array_equal(found["stem"], found["stage1/block1"])


def test_lenet_centres_small_images_in_its_field():
    model = models.LeNet5(num_classes=3)
    image = images(28, 1)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32),
        jax.eval_shape(model.init, jax.random.key(0), image),
    )
    centred = jnp.pad(image, [(0, 0), (2, 2), (2, 2), (0, 0)])
    np.testing.assert_array_equal(model.apply(variables, image), model.apply(variables, centred))


def torch_resnet(block, depths, width, num_classes):
    """A minimal ResNet v1.5 in PyTorch, with the names of our tree."""
    import torch
    from torch import nn as tnn

    def conv(inputs, outputs, size, stride=1):
        return tnn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    class Block(tnn.Module):
        def __init__(self, inputs, features, stride):
            super().__init__()
            bottleneck = block == "bottleneck"
            outputs = features * (4 if bottleneck else 1)
            sizes = (1, 3, 1) if bottleneck else (3, 3)
            channels = (inputs, *[features] * (len(sizes) - 1), outputs)
            self.count = len(sizes)
            for i, size in enumerate(sizes):
                # The stride is on the first 3x3.
                step = stride if i == sizes.index(3) else 1
                setattr(self, f"conv{i + 1}", conv(channels[i], channels[i + 1], size, step))
                setattr(self, f"norm{i + 1}", tnn.BatchNorm2d(channels[i + 1]))
            if stride != 1 or inputs != outputs:
                self.projection = conv(inputs, outputs, 1, stride)
                self.projection_norm = tnn.BatchNorm2d(outputs)

        def forward(self, x):
            y = x
            for i in range(1, self.count + 1):
                y = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(y))
                y = torch.relu(y) if i < self.count else y
            if hasattr(self, "projection"):
                x = self.projection_norm(self.projection(x))
            return torch.relu(x + y)

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            self.stem = tnn.ModuleDict(
                {"conv": conv(3, width, 7, 2), "norm": tnn.BatchNorm2d(width)}
            )
            inputs = width
            for s, depth in enumerate(depths):
                stage = tnn.ModuleDict()
                for b in range(depth):
                    features = width * 2**s
                    stage[f"block{b + 1}"] = Block(inputs, features, 2 if s and not b else 1)
                    inputs = features * (4 if block == "bottleneck" else 1)
                setattr(self, f"stage{s + 1}", stage)
            self.head = tnn.ModuleDict({"logits": tnn.Linear(inputs, num_classes)})

        def forward(self, x):
            x = torch.relu(self.stem["norm"](self.stem["conv"](x)))
            x = tnn.functional.max_pool2d(x, 3, 2, 1)
            for s in range(len(depths)):
                for unit in getattr(self, f"stage{s + 1}").values():
                    x = unit(x)
            return self.head["logits"](x.mean((2, 3)))

    return Net()


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    options = {"width": 8, "zero_init": False}
    model = models.create(name, num_classes=5, image_size=96, **options)
    variables = models.initialize(model, jax.random.key(0), (96, 96, 3))
    # Statistics as after training, so that the norms do something.
    rng = np.random.default_rng(1)
    variables["batch_stats"] = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32),
        variables["batch_stats"],
    )
    network = torch_resnet(model.block, model.depths, 8, 5)
    copy_to_torch(variables, network)
    image = images(75)
    for train in (False, True):
        network.train(train)
        with torch.no_grad():
            theirs = network(torch.from_numpy(np.array(image)).permute(0, 3, 1, 2)).numpy()
        ours = model.apply(variables, image, train=train, mutable=["batch_stats"])[0]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def torch_plain(name, num_classes, width):
    """AlexNet and VGG-16 in PyTorch, with the layout of torchvision and the names of our tree."""
    from torch import nn as tnn

    layers = {}
    if name == "alexnet":
        size, inputs = 6, 3
        for n, (features, side, stride, padding, pooled) in enumerate(
            (
                (64, 11, 4, 2, 1),
                (192, 5, 1, 2, 1),
                (384, 3, 1, 1, 0),
                (256, 3, 1, 1, 0),
                (256, 3, 1, 1, 1),
            ),
            1,
        ):
            layers[f"conv{n}"] = tnn.Conv2d(inputs, features, side, stride, padding)
            layers[f"relu{n}"], inputs = tnn.ReLU(), features
            if pooled:
                layers[f"pool{n}"] = tnn.MaxPool2d(3, 2)
    else:
        size, inputs = 7, 3
        for s, (depth, features) in enumerate(
            zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True), 1
        ):
            for n in range(1, depth + 1):
                layers[f"stage{s}_conv{n}"] = tnn.Conv2d(inputs, features, 3, 1, 1)
                layers[f"relu{s}_{n}"], inputs = tnn.ReLU(), features
            layers[f"pool{s}"] = tnn.MaxPool2d(2, 2)

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            for key, layer in layers.items():
                self.add_module(key, layer)
            self.pool = tnn.AdaptiveAvgPool2d(size)
            dense = {"dense1": (inputs * size * size, width), "dense2": (width, width)}
            heads = {key: tnn.Linear(*shape) for key, shape in dense.items()}
            self.head = tnn.ModuleDict({**heads, "logits": tnn.Linear(width, num_classes)})

        def forward(self, x):
            for key in layers:
                x = getattr(self, key)(x)
            x = self.pool(x).flatten(1)
            for key in ("dense1", "dense2"):
                x = self.head[key](x).relu()
            return self.head["logits"](x)

    return Net()


@pytest.mark.parity
@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_plain_networks_are_those_of_torchvision(name):
    torch = pytest.importorskip("torch")
    model = models.create(name, num_classes=5, image_size=128, width=16)
    variables = models.initialize(model, jax.random.key(0), (128, 128, 3))
    network = torch_plain(name, 5, 16)
    copy_to_torch(variables, network)
    image = images(140)
    with torch.no_grad():
        theirs = network(torch.from_numpy(np.array(image)).permute(0, 3, 1, 2)).numpy()
    ours = model.apply(variables, image)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_plain_networks_take_images_of_any_size(name):
    shapes = []
    for size in (1, 17, 32, 100):
        model = models.create(name, num_classes=3, image_size=32, width=8)
        image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        assert logits.shape == (2, 3)
        shapes.append(jax.tree.map(lambda leaf: leaf.shape, variables))
    assert all(each == shapes[0] for each in shapes)
    with pytest.raises(
        ModelError, match=r"\[6, 9\] pixels are too small .* 11x11: take small_stem"
    ):
        image = jnp.zeros((1, 6, 9, 3))
        jax.eval_shape(models.AlexNet(3).init, jax.random.key(0), image)
    with pytest.raises(ModelError, match="a VGG of 2 depths needs as many widths, not 5"):
        image = jnp.zeros((1, 32, 32, 3))
        jax.eval_shape(models.VGG(3, depths=(1, 1)).init, jax.random.key(0), image)


def test_dropout_of_the_plain_networks_is_in_training_alone():
    model = models.create("vgg16", num_classes=3, image_size=32, width=8, batch_norm=True)
    model = model.clone(widths=(4, 4, 8, 8, 8))
    variables = models.initialize(model, jax.random.key(0), (32, 32, 3))
    assert "batch_stats" in variables
    image = images(32)

    @quick
    def trained(key):
        rngs = {"dropout": key}
        return model.apply(variables, image, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    assert (trained(jax.random.key(1)) != trained(jax.random.key(2))).any()
    answer = quick(model.apply)
    np.testing.assert_array_equal(answer(variables, image), answer(variables, image))
