"""Networks for faces: their published sizes, their heads, and PyTorch's answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_weights import copy_to_torch, torch_layout

from cnn_jax import models
from cnn_jax.errors import ModelError

IRESNET = models.IResNet(num_classes=3, depths=(1, 1), width=4, embedding_size=6, map_size=4)
MOBILEFACENET = models.MobileFaceNet(
    num_classes=3, depths=(1, 1, 1, 1, 2), width=4, embedding_size=6, map_size=2
)


def shapes_of(model, size=112):
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


# Of images of 112 x 112, without the centres of the classes: parameters as published, and
# multiply-adds in millions. insightface counts a bias and a scale of the embedding that we do not
# have; the paper of MobileFaceNet counts a batch norm as the bias that it is when deployed.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "millions"), [("iresnet50", 43.59), ("iresnet100", 65.16)])
def test_iresnets_are_as_large_as_published(name, millions):
    model = models.create(name, num_classes=1, image_size=112)
    count = models.count_parameters(shapes_of(model)) - 512 + 2 * 512
    assert round(count / 1e6, 2) == millions


def of_the_paper():
    return models.create("mobilefacenet", num_classes=1, image_size=112, embedding_size=128)


def test_mobilefacenet_is_as_large_as_published():
    model = of_the_paper()
    params = shapes_of(model)["params"]
    scales = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "scale"
    )
    assert round((models.count_parameters({"params": params}) - scales) / 1e6, 2) == 0.99


@pytest.mark.slow
def test_mobilefacenet_costs_what_is_published():
    assert round(models.count_flops(of_the_paper(), (112, 112, 3)) / 2e6) == 221


@pytest.mark.parametrize(
    ("size", "first_stride", "map_size"),
    [(8, 1, 1), (32, 1, 4), ((112, 64), 1, 7), (65, 2, 5), (92, 2, 6), (112, 2, 7), (224, 2, 7)],
)
def test_image_size_chooses_stride_and_map(size, first_stride, map_size):
    for name in ("iresnet18", "mobilefacenet"):
        model = models.create(name, num_classes=3, image_size=size)
        assert (model.first_stride, model.map_size) == (first_stride, map_size)
    model = models.create("iresnet18", num_classes=3, image_size=32, first_stride=2)
    assert (model.first_stride, model.map_size) == (2, 2)


@pytest.mark.parametrize("option", ["embedding_size", "first_stride", "map_size", "width"])
def test_options_that_make_no_network(option):
    with pytest.raises(ModelError, match=f"{option}=0"):
        shapes_of(IRESNET.clone(**{option: 0}), 8)
    if option != "embedding_size":  # which is refused by the head of both
        with pytest.raises(ModelError, match=f"{option}=0"):
            shapes_of(MOBILEFACENET.clone(**{option: 0}), 8)


def test_rows_of_the_table_are_five():
    with pytest.raises(ModelError, match=r"depths=\(1, 1\) must be 5 numbers"):
        shapes_of(MOBILEFACENET.clone(depths=(1, 1)), 8)


def torch_conv(inputs, outputs, size, stride=1, groups=1, padding=None):
    from torch import nn as tnn

    padding = size // 2 if padding is None else padding
    return tnn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)


def torch_head(inputs, embedding_size, num_classes):
    """insightface's last layers, whose norm has a scale of 1, and its centres."""
    import torch
    from torch import nn as tnn

    norm = tnn.BatchNorm1d(embedding_size)
    norm.weight = None
    centres = torch.zeros(num_classes, 1, embedding_size)
    return tnn.ModuleDict(
        {
            "embedding": tnn.Linear(inputs, embedding_size, bias=False),
            "norm": norm,
            "centre": tnn.ParameterDict({"centres": centres}),
        }
    )


def answers_of(head, x):
    """Embedding and logits."""
    from torch.nn import functional

    x = head["norm"](head["embedding"](x))
    centres = functional.normalize(head["centre"]["centres"][:, 0])
    return x, 64.0 * functional.linear(functional.normalize(x), centres)


def torch_iresnet(depths, width, size, embedding_size, num_classes):
    """insightface's backbones/iresnet.py, with the names of our tree; and the centres."""
    from torch import nn as tnn

    class Block(tnn.Module):
        def __init__(self, inputs, features, stride):
            super().__init__()
            self.norm1 = tnn.BatchNorm2d(inputs)
            self.conv1 = torch_conv(inputs, features, 3)
            self.norm2 = tnn.BatchNorm2d(features)
            self.prelu = tnn.PReLU(features)
            self.conv2 = torch_conv(features, features, 3, stride)
            self.norm3 = tnn.BatchNorm2d(features)
            if stride != 1 or inputs != features:
                self.projection = torch_conv(inputs, features, 1, stride)
                self.projection_norm = tnn.BatchNorm2d(features)

        def forward(self, x):
            y = self.prelu(self.norm2(self.conv1(self.norm1(x))))
            y = self.norm3(self.conv2(y))
            if hasattr(self, "projection"):
                x = self.projection_norm(self.projection(x))
            return x + y

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch_conv(3, width, 3)
            self.stem_norm = tnn.BatchNorm2d(width)
            self.stem_prelu = tnn.PReLU(width)
            inputs = width
            for s, depth in enumerate(depths):
                stage = tnn.ModuleDict()
                for b in range(depth):
                    stage[f"block{b + 1}"] = Block(inputs, width * 2**s, 1 if b else 2)
                    inputs = width * 2**s
                setattr(self, f"stage{s + 1}", stage)
            self.norm = tnn.BatchNorm2d(inputs)
            self.head = torch_head(inputs * size**2, embedding_size, num_classes)

        def forward(self, x):
            x = self.stem_prelu(self.stem_norm(self.stem(x)))
            for s in range(len(depths)):
                for block in getattr(self, f"stage{s + 1}").values():
                    x = block(x)
            # Our rows of the dense layer go by position, then by channel.
            x = self.norm(x).permute(0, 2, 3, 1).flatten(1)
            return answers_of(self.head, x)

    return Net()


def torch_mobilefacenet(depths, width, size, embedding_size, num_classes):
    """Table 1 of the paper in PyTorch, with the names of our tree; and the centres."""
    from torch import nn as tnn

    def unit(inputs, outputs, size, stride=1, groups=1, linear=False):
        layers = {
            "conv": torch_conv(inputs, outputs, size, stride, groups),
            "norm": tnn.BatchNorm2d(outputs),
        }
        return tnn.ModuleDict(layers if linear else {**layers, "prelu": tnn.PReLU(outputs)})

    def run(layers, x):
        for layer in layers.values():
            x = layer(x)
        return x

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            self.stem = unit(3, width, 3, 2)
            self.stem_depthwise = unit(width, width, 3, 1, width)
            inputs = width
            table = [(2, 64, 2), (4, 128, 2), (2, 128, 1), (4, 128, 2), (2, 128, 1)]
            for row, (t, c, stride) in enumerate(table):
                outputs = c * width // 64
                stage = tnn.ModuleDict()
                for b in range(depths[row]):
                    wide = t * inputs
                    stage[f"block{b + 1}"] = tnn.ModuleDict(
                        {
                            "expand": unit(inputs, wide, 1),
                            "depthwise": unit(wide, wide, 3, 1 if b else stride, wide),
                            "project": unit(wide, outputs, 1, linear=True),
                        }
                    )
                    inputs = outputs
                setattr(self, f"stage{row + 1}", stage)
            last = 512 * width // 64
            self.last = unit(inputs, last, 1)
            self.global_conv = torch_conv(last, last, size, groups=last, padding=0)
            self.global_norm = tnn.BatchNorm2d(last)
            self.head = torch_head(last, embedding_size, num_classes)

        def forward(self, x):
            x = run(self.stem_depthwise, run(self.stem, x))
            for row in range(len(depths)):
                for index, block in enumerate(getattr(self, f"stage{row + 1}").values()):
                    y = x
                    for part in block.values():
                        y = run(part, y)
                    # As in MobileNet v2: added where the stride is 1 and the channels stay.
                    x = x + y if x.shape == y.shape and (index or row in (2, 4)) else y
            x = self.global_norm(self.global_conv(run(self.last, x))).flatten(1)
            return answers_of(self.head, x)

    return Net()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("model", "build", "size"),
    [(IRESNET, torch_iresnet, 16), (MOBILEFACENET, torch_mobilefacenet, 32)],
    ids=["iresnet", "mobilefacenet"],
)
def test_networks_for_faces_are_those_of_pytorch(model, build, size):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(8, size, size, 3)), jnp.float32)
    # Values as after training, so that norms and slopes do something.
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(
            rng.normal(0, 0.3, leaf.shape)
            if len(leaf.shape) > 1
            else rng.uniform(0.5, 1.5, leaf.shape),
            jnp.float32,
        ),
        shapes_of(model, size),
    )
    network = build(
        model.depths, model.width, model.map_size, model.embedding_size, model.num_classes
    )
    copy_to_torch(variables, network)
    network.double()
    labels = np.arange(8) % 3
    theirs_in = torch.from_numpy(np.array(image, np.float64)).permute(0, 3, 1, 2)

    network.train(False)
    with torch.no_grad():
        embedding, logits = (x.numpy() for x in network(theirs_in))
    outputs = jax.jit(model.apply)(variables, image)
    for ours, theirs in ((outputs["embedding"], embedding), (outputs["logits"], logits)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())

    def loss(params):
        outputs, _ = model.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        log_p = jax.nn.log_softmax(outputs["logits"])
        return -jnp.take_along_axis(log_p, labels[:, None], 1).mean()

    network.train(True)
    expected = torch.nn.functional.cross_entropy(network(theirs_in)[1], torch.from_numpy(labels))
    expected.backward()
    value, gradient = jax.jit(jax.value_and_grad(loss))(variables["params"])
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    theirs = {name: leaf.grad.numpy() for name, leaf in network.named_parameters()}
    # The biases before the last linear layers have no gradient but by rounding: norms follow.
    largest = max(np.abs(leaf).max() for leaf in theirs.values())
    errors = {
        name: np.abs(ours - theirs[name]).max() / max(np.abs(theirs[name]).max(), 0.01 * largest)
        for name, ours in torch_layout(gradient).items()
    }
    assert max(errors.values()) <= 1e-5, errors
