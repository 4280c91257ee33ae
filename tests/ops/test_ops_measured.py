import json
import os
import threading
import warnings

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import ops
from cnn_jax.ops import measured
from cnn_jax.ops.explanation import convolutions_of
from cnn_jax.ops.geometry import describe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test; the user's real one is never read or written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "_SHIPPED", tmp_path / "shipped.json")
    return measured.user_table()


def convolve(x, k):
    return ops.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


SHAPES = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 8, 8, 4), (1, 1, 4, 6))]


def convolution():
    (equation,) = jax.make_jaxpr(convolve)(*SHAPES).eqns
    params = dict(equation.params)
    del params["members"], params["wanted"]
    return describe(*SHAPES, params)


def test_the_users_table_goes_before_the_shipped_one(cache):
    conv = convolution()
    assert measured.measured(conv) is None
    measured.add(measured._SHIPPED, {measured.key(conv): "stock"})
    assert measured.measured(conv) == "stock"
    measured.add(cache, {measured.key(conv): "another"})
    assert measured.measured(conv) == "another"
    cache.unlink()
    assert measured.measured(conv) == "stock"


def test_what_is_measured_is_chosen(cache):
    measured.add(cache, {measured.key(convolution()): "stock"})
    (found,) = ops.explain(convolve, *SHAPES, platform="cpu").convolutions
    assert found.algorithm == "stock"
    assert found.reason == "measured to be the fastest on such a machine"


def test_an_algorithm_that_is_gone_is_not_chosen(cache):
    """As a table written by a later or an earlier version of the library."""
    measured.add(cache, {measured.key(convolution()): "abacus"})
    (found,) = ops.explain(convolve, *SHAPES, platform="cpu").convolutions
    assert found.algorithm in ops.ALGORITHMS


def test_a_table_of_another_machine_says_nothing(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({"another machine": {measured.key(convolution()): "stock"}}))
    assert measured.measured(convolution()) is None
    measured.add(cache, {"some convolution": "stock"})
    assert set(json.loads(cache.read_text())) == {"another machine", measured.machine()}


DAMAGED = ["", "{", "[]", '{"machine": []}', '{"machine": {"convolution": 1}}', "\x00\x01", '"a"']


@pytest.mark.parametrize("text", [*DAMAGED, b"\xff\xfe\x00", "[" * 100_000], ids=range(9))
def test_a_damaged_table_warns_and_is_not_used(cache, text):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.warns(UserWarning, match=r"convolutions.json' is not a table .* delete it"):
        assert measured.read(cache) == {}
    # Once is enough: it is asked for at each convolution.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured.measured(convolution()) is None


def test_a_folder_in_its_place_is_damage_too(cache):
    cache.mkdir(parents=True)
    with pytest.warns(UserWarning, match="is not a table"):
        assert measured.measured(convolution()) is None


def test_a_table_that_changes_is_read_again(cache):
    measured.add(cache, {"a": "stock"})
    assert measured.read(cache)[measured.machine()] == {"a": "stock"}
    measured.add(cache, {"b": "stock"})
    assert set(measured.read(cache)[measured.machine()]) == {"a", "b"}


def test_two_writers_leave_a_sound_table(cache):
    """Neither loses what the other measured."""
    writers = [
        threading.Thread(target=measured.add, args=(cache, {f"{i}": "stock"})) for i in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(json.loads(cache.read_text())[measured.machine()]) == {f"{i}" for i in range(8)}


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_cache_that_may_not_be_written(cache):
    cache.parent.mkdir(parents=True)
    cache.parent.chmod(0o500)
    with pytest.raises(PermissionError):
        measured.add(cache, {"a": "stock"})
    assert measured.measured(convolution()) is None


def test_without_a_home_there_is_no_table(monkeypatch):
    monkeypatch.setattr(measured.environment, "user_cache", lambda: None)
    assert measured.user_table() is None
    assert measured.measured(convolution()) is None


def test_the_key_tells_convolutions_apart():
    """Two convolutions of equal shapes that differ in one parameter have two keys."""
    x, k = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 4, 4, 4), (3, 3, 4, 4)))
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    variants = [
        layout,
        {"dimension_numbers": ("NHWC", "HWOI", "NHWC")},
        {"dimension_numbers": ("NHWC", "HWIO", "NWHC")},
        layout | {"window_strides": (2, 1)},
        layout | {"padding": "VALID"},
        layout | {"padding": [(1, 1), (0, 2)]},
        layout | {"rhs_dilation": (1, 2)},
        layout | {"padding": [(1, 1), (1, 1)], "lhs_dilation": (1, 2)},
        layout | {"preferred_element_type": "float64"},
    ]
    keys = set()
    for options in variants:
        options = {"window_strides": (1, 1), "padding": "SAME"} | options

        def function(x, k, options=options):
            return ops.conv_general_dilated(x, k, **options)

        with jax.enable_x64(True):
            keys |= {measured.key(one) for one, _, _ in convolutions_of(function, x, k)}
    assert len(keys) == len(variants)
