"""Every model's step, in training and in evaluation, lowered for machines that are not here."""

import jax
import numpy as np
import pytest
from small import PLAIN, batch_of, one, small_set

from cnn_jax import models
from cnn_jax.assembly import assemble_run
from cnn_jax.ops.explanation import convolutions_of
from cnn_jax.recipe import Recipe

PLATFORMS = ("cpu", "cuda", "tpu")


def steps(name):
    """The assembly of a model, and what its training and evaluation steps are called with."""
    dataset = small_set(n=24, size=32)
    recipe = Recipe().override({**PLAIN, "model.name": name, "model.options": {}})
    assembly = assemble_run(recipe, dataset)
    batch = batch_of(dataset, np.arange(8))
    chunk = one(batch)
    evaluated = {**chunk, "count": np.int32(1)}
    return assembly, (assembly.template, {}, chunk), (assembly.template.variables, {}, evaluated)


# Deeper ones of a family repeat its blocks, at ten seconds each; networks for faces add only PReLU
# and a depthwise convolution; the wide one has the blocks of the smaller pre-activation network.
DEEPER = ("resnet34", "resnet101", "resnet152", "wide_resnet28_10")
FACES = ("iresnet18", "iresnet34", "iresnet50", "iresnet100", "mobilefacenet")


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in (*DEEPER, *FACES) else name
        for name in models.names()
        if not models.segments(name)
    ],
)
def test_steps_are_lowered_for_all_platforms(name):
    assembly, training, evaluation = steps(name)
    for step, arguments in ((assembly.run_chunk, training), (assembly.eval_step, evaluation)):
        exported = jax.export.export(step, platforms=PLATFORMS)(*arguments)
        assert exported.platforms == PLATFORMS
        assert exported.mlir_module().count("stablehlo.convolution") > 0


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_the_vendors_convolutions_and_no_loop(platform):
    assembly, training, _ = steps("resnet18")
    convolutions = sum(1 for _ in convolutions_of(assembly.run_chunk, *training))
    traced = assembly.run_chunk.trace(*training)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == convolutions
    assert "stablehlo.while" not in text
