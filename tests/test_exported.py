"""Variables by their paths, and back; what a file says of the pixels."""

import dataclasses
import json

import numpy as np
import pytest

from cnn_jax import exported
from cnn_jax.errors import RunError
from cnn_jax.recipe import Recipe
from cnn_jax.training.preprocess import Preprocess

VARIABLES = {
    "params": {
        "head": {"kernel": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))},
        "temperature": np.float32(2.5),
    },
    "batch_stats": {"mean": np.ones(3, np.float16)},
}


def test_variables_come_back_in_shape_and_type(tmp_path):
    preprocess = Preprocess((0.5, 0.1), (0.25, 1.0))
    exported.write(
        tmp_path / "e",
        recipe=Recipe(),
        variables=VARIABLES,
        preprocess=preprocess,
        image_shape=(4, 4, 2),
        described={"kind": "class"},
    )
    read = exported.read(tmp_path / "e")
    assert read.preprocess == preprocess
    expected = exported.flattened(VARIABLES)
    assert set(expected) == {"params/head/kernel", "params/temperature", "batch_stats/mean"}
    found = exported.flattened(read.variables)
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        assert found[name].shape == leaf.shape and found[name].dtype == leaf.dtype
        assert leaf.flags.c_contiguous
        np.testing.assert_array_equal(found[name], leaf)
    assert found["params/temperature"].shape == ()


def test_a_description_without_its_pixels_is_named(tmp_path):
    values = json.loads(json.dumps(dataclasses.asdict(Preprocess((0.5,), (0.2,)))))
    assert Preprocess.from_dict(values) == Preprocess((0.5,), (0.2,))
    with pytest.raises(RunError, match="std"), exported.reading(tmp_path):
        Preprocess.from_dict({"mean": [0.5]})
