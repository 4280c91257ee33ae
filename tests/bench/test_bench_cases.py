"""The operations that are timed: which they are, how they are called, what they cost."""

import json
import math

import jax
import numpy as np
import pytest
from jax import lax

from cnn_jax.bench import cases, operations, programs, roofline, zoo
from cnn_jax.bench.cases import Convolution, Pool

SMALL = [
    cases.square(3, 4, 6, at=8, batch=2),
    cases.square(3, 4, 4, at=9, batch=2, stride=2, groups=4),
    Pool("max", 2, (8, 8), 4, (3, 3), (2, 2), ((1, 1), (1, 1))),
    Pool("avg", 2, (8, 8), 4, (2, 2), (2, 2), ((0, 0), (0, 0))),
]


@pytest.fixture(autouse=True)
def _promotion():
    """Flax's own layers are not written for strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.heavy
def test_names_tell_all_cases_apart():
    listed = [*cases.standard(), *zoo.operations(), *cases.drawn()]
    names = {operation.name: operation for operation in listed}
    assert len(names) == len(set(listed))
    assert max(map(len, names)) <= 60
    assert "3x3 64-128 /2 @32x32 n128" in names
    assert "depthwise 7x7 96-96 @56x56 n16" in names


def test_random_cases_are_those_of_their_seed_and_lax_accepts_them():
    drawn = cases.drawn()
    assert drawn == cases.drawn() and len(set(drawn)) == 200
    assert not set(drawn) & set(cases.drawn(20, seed=1))
    for one in drawn:
        layout = operations._channels_last(len(one.spatial))
        output = jax.eval_shape(
            lambda x, w, one=one, layout=layout: lax.conv_general_dilated(
                *(x, w, one.strides, one.padding),
                rhs_dilation=one.dilation,
                dimension_numbers=layout,
                feature_group_count=one.groups,
            ),
            jax.ShapeDtypeStruct(one.input_shape, np.float32),
            jax.ShapeDtypeStruct(one.kernel_shape, np.float32),
        )
        assert output.shape == one.output_shape
        assert max(map(math.prod, (one.input_shape, one.output_shape))) <= 2**21
    kinds = {(len(one.spatial), one.groups == one.channels, max(one.strides) > 1) for one in drawn}
    assert len(kinds) == 12


def test_every_convolution_of_resnet18_is_found_once():
    found = [one for one in zoo.operations_of("resnet18", 32, 4) if isinstance(one, Convolution)]
    assert len(found) == 20  # 17 of 3x3 and three projections
    names = {one.name.removesuffix(" n4") for one in found}
    blocks = {f"3x3 {c}-{c} @{s}x{s}" for c, s in [(64, 32), (128, 16), (256, 8), (512, 4)]}
    halving = [(64, 128, 32), (128, 256, 16), (256, 512, 8)]
    down = {f"{k}x{k} {a}-{b} /2 @{s}x{s}" for k in (1, 3) for a, b, s in halving}
    assert names == {"3x3 3-64 @32x32", *blocks, *down}


@pytest.mark.heavy
def test_the_zoo_has_each_batch_size_and_the_large_stem():
    names = [one.name for one in zoo.operations()]
    assert len(names) == len(set(names))
    for batch in zoo.BATCHES:
        assert f"3x3 64-64 @32x32 n{batch}" in names
    assert "7x7 3-64 /2 @224x224 n32" in names
    assert "max pool 3x3 /2 pad1 64 @112x112 n32" in names


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(zoo.DEEPER))
def test_deeper_networks_have_no_operation_of_their_own(name):
    for size in zoo.IMAGE_SIZES:
        own = set(zoo.operations_of(name, size, 1))
        assert own <= set(zoo.operations(batches=(1,), image_sizes=(size,)))


@pytest.mark.parametrize("operation", [*SMALL, *cases.standard()[:1], cases.drawn()[0]])
def test_operations_survive_json(operation):
    assert cases.from_plain(json.loads(json.dumps(cases.as_plain(operation)))) == operation


@pytest.mark.parametrize("operation", SMALL, ids=lambda one: one.name)
def test_ours_and_stock_compute_the_same(operation):
    arguments = operations.arguments_of(operation, np.float32)
    for part in operation.parts:
        ours, stock = (
            jax.tree.leaves(operations.function_of(operation, part, name)(*arguments))
            for name in operations.IMPLEMENTATIONS
        )
        assert len(ours) == (1 if part != "gradients" else 2)
        for one, other in zip(ours, stock, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_flops_are_those_that_xla_counts():
    # Without padding, whose products XLA leaves out.
    convolution = cases.from_plain(
        {**cases.as_plain(cases.square(3, 8, 16, at=10, batch=2)), "padding": ((0, 0),) * 2}
    )
    arguments = operations.arguments_of(convolution, np.float32)
    for part in ("forward", "weight gradient"):
        function = operations.function_of(convolution, part, "stock")
        counted = programs.Program(function, arguments).flops()
        assert counted == pytest.approx(convolution.flops(part), rel=0.02)
    assert convolution.flops("forward") == 2 * (2 * 8 * 8 * 16) * (3 * 3 * 8)
    assert convolution.elements_moved("forward") == 2 * 100 * 8 + 9 * 8 * 16 + 2 * 64 * 16


def test_memory_of_a_program_holds_its_arrays():
    x = np.ones((256, 256), np.float32)
    program = programs.Program(lambda a, b: a @ b, (x, x))
    assert program.memory_bytes >= 3 * x.nbytes
    assert program.compile_seconds > 0


def test_the_bound_is_the_higher_roof():
    roof = roofline.Roof(flops_per_second=100.0, bytes_per_second=10.0)
    assert roof.seconds(200, 10) == 2
    assert roof.seconds(200, 40) == 4
    assert roofline.Bound(0.5).time(6) == 3
