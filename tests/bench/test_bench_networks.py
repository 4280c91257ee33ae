"""Ours, stock and PyTorch's networks are the same networks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.bench import (
    architecture,
    benchmarks,
    cases,
    loops,
    networks,
    operations,
    torch_programs,
)
from cnn_jax.bench.architecture import NETWORKS

RESIDUAL = (
    *(architecture.Conv(4, 3), *architecture._basic_block(8, 2), architecture.Pool("max", 2)),
    *(architecture.GlobalPool(), architecture.Dense(10)),
)
BOTTLENECK = (
    *(architecture.Conv(8, 7, 2), architecture.Pool("max", 3, 2, padding=1)),
    *(*architecture._bottleneck(4, 2, True), architecture.GlobalPool(), architecture.Dense(10)),
)
CONVNEXT = NETWORKS["depthwise (ConvNeXt)"].layers
SMALL = {
    "LeNet-5": replace(NETWORKS["LeNet-5"], batch=3),
    "residual": architecture.Network((8, 8, 3), 3, RESIDUAL),
    "ConvNeXt": architecture.Network((16, 16, 3), 2, (*CONVNEXT[:4], *CONVNEXT[-3:])),
    "bottleneck": architecture.Network((16, 16, 3), 3, BOTTLENECK),
}


@pytest.fixture(autouse=True)
def _promotion():
    """Flax's own layers are not written for strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def loss_and_gradients(network, implementation, params, statistics, batch):
    model = networks.Stack(network.layers, implementation)

    def loss(params):
        variables = {"params": params, "batch_stats": statistics}
        logits, _ = model.apply(variables, batch[0], train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(network.batch), batch[1]])

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.heavy
@pytest.mark.parametrize("name", SMALL)
def test_ours_and_stock_have_the_same_parameters_and_gradients(name):
    network = SMALL[name]
    params, statistics, _ = networks.initial_state(network)
    batch = networks.batch_of(network, jnp.float32)
    ours, stock = (
        loss_and_gradients(network, implementation, params, statistics, batch)
        for implementation in networks.LAYERS
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), ours, stock)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "classes"), [("ResNet-18", 10), ("ResNet-50", 1000)])
def test_resnets_are_those_of_the_registry(name, classes):
    network = NETWORKS[name]
    model = models.create(
        name.lower().replace("-", ""), num_classes=classes, image_size=network.image[:2]
    )
    flops = models.count_flops(model, network.image)
    assert networks.forward_flops(network) == network.batch * flops
    image = jax.ShapeDtypeStruct((1, *network.image), jnp.float32)
    shapes = [
        sorted(leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(m.init, KEY, image)))
        for m in (model, networks.Stack(network.layers, "ours"))
    ]
    assert shapes[0] == shapes[1]


KEY = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)


def test_a_training_step_lowers_the_loss():
    network = SMALL["residual"]
    step = jax.jit(networks.training_step(networks.Stack(network.layers, "ours")))
    state, batch = networks.initial_state(network), networks.batch_of(network, jnp.float32)
    losses = []
    for _ in range(12):
        state, loss = step(state, *batch)
        losses.append(float(loss))
    assert losses[-1] < losses[0]


@pytest.mark.heavy
def test_large_networks_are_for_accelerators(monkeypatch):
    setting = benchmarks.Setting()
    assert not any("ResNet-50" in trial.case for trial in benchmarks.trials("models", setting))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    trials = [t for t in benchmarks.trials("models", setting) if t.case == "ResNet-50 n256"]
    assert [trial.part for trial in trials] == ["training", "inference"]
    # Published: 4.09 G multiply-adds an image, in three passes.
    assert trials[0].flops / (256 * 3 * 2) == pytest.approx(4.09e9, rel=2e-3)


@pytest.mark.parametrize("name", ["scan", "vmap", "models"])
def test_loop_benchmarks_time_what_they_compare(name):
    for trial in benchmarks.trials(name, benchmarks.Setting(most_examples=2)):
        assert trial.case.endswith(" n2")
        rivals = {word.split()[0] for pair in trial.comparisons for word in pair}
        slow = name == "scan" and trial.case.startswith(loops.SLOW_IN_A_SCAN)
        assert rivals >= ({"ours"} if slow else {"ours", "stock"})
    first = next(iter(benchmarks.trials("scan", benchmarks.Setting(most_examples=1))))
    rivals = first.rivals()
    assert {name for pair in first.comparisons for name in pair} == set(rivals)
    finals = {name: rival._call()[1] for name, rival in rivals.items()}
    start = operations.arguments_of(cases.square(3, 64, 64, at=16, batch=1), "float32")[1]
    assert float(jnp.abs(finals["ours loop"] - start).max()) > 1e-5
    for name, kernel in finals.items():
        np.testing.assert_allclose(kernel, finals["stock loop"], rtol=1e-4, atol=1e-6)
        assert rivals[name].time(1) > 0


@pytest.mark.parity
@pytest.mark.parametrize("name", SMALL)
def test_pytorch_has_the_same_outputs_and_gradients(name):
    torch = pytest.importorskip("torch")
    network = SMALL[name]
    params, statistics, _ = networks.initial_state(network)
    images, labels = networks.batch_of(network, jnp.float32)
    loss, gradients = loss_and_gradients(network, "ours", params, statistics, (images, labels))
    tensors = torch_programs.Tensors("cpu")
    for path, leaf in _flat(params):
        tensors[path] = torch.tensor(_to_torch(leaf)).requires_grad_()
    count = len(tensors)
    nchw = torch.tensor(np.moveaxis(np.asarray(images), -1, 1))
    logits = torch_programs.apply(network.layers, tensors, nchw, True)
    value = torch.nn.functional.cross_entropy(logits, torch.tensor(np.array(labels)).long())
    value.backward()
    assert len(tensors.trained) == count  # no parameter was made anew
    assert value.item() == pytest.approx(float(loss), rel=1e-4)
    for path, leaf in _flat(gradients):
        np.testing.assert_allclose(
            tensors[path].grad, _to_torch(leaf), rtol=5e-3, atol=5e-5, err_msg=path
        )


def _flat(tree):
    return [
        ("/".join(key.key for key in path), np.array(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _to_torch(kernel):
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1).copy()
    return kernel.T.copy()


@pytest.mark.parity
@pytest.mark.parametrize(
    "operation",
    [
        cases.square(3, 4, 6, at=8, batch=2, stride=2),
        cases.square(5, 4, 4, at=8, batch=2, groups=4),
        cases.Pool("max", 2, (8, 8), 4, (3, 3), (2, 2), ((1, 1), (1, 1))),
        cases.Pool("avg", 2, (8, 8), 4, (2, 2), (2, 2), ((1, 1), (1, 1))),
        *[one for one in cases.drawn() if torch_programs.can_compute(one)][:6],
    ],
    ids=lambda one: one.name,
)
def test_pytorch_computes_the_same_operations(operation):
    torch = pytest.importorskip("torch")
    arguments = operations.arguments_of(operation, np.float32)

    def channels_second(x):
        return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())

    operands = [channels_second(arguments[0])]
    if isinstance(operation, cases.Convolution):
        kernel = np.asarray(arguments[1])
        operands.append(torch.tensor(np.moveaxis(kernel, (-1, -2), (0, 1)).copy()))
    for part in operation.parts:
        call = torch_programs.part_call(operation, part, operands, channels_second(arguments[-1]))
        found = call() if part != "forward" else [call()]
        expected = jax.tree.leaves(operations.function_of(operation, part, "stock")(*arguments))
        for one, other in zip(found, expected, strict=True):
            is_kernel = other.shape == arguments[1].shape and len(arguments) == 3
            axes = ((-1, -2), (0, 1)) if is_kernel else (-1, 1)
            np.testing.assert_allclose(one, np.moveaxis(other, *axes), rtol=1e-3, atol=1e-3)
