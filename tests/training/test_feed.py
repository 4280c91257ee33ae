"""Every example exactly once an epoch, at any batch size and device count."""

import gc
import weakref

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import PLAIN, Linear, small_set

from cnn_jax.assembly import assemble_run
from cnn_jax.data import Split
from cnn_jax.errors import DataError, EvaluationError, RecipeError
from cnn_jax.recipe import Recipe
from cnn_jax.training.devices import place
from cnn_jax.training.evaluate import begin_predicting, predict_examples
from cnn_jax.training.feed import Feed
from cnn_jax.training.step import gather_batch, over_batches


def split_of(n):
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    ids = np.array([f"example {i}" for i in range(n)])
    return Split(images, {"label": np.arange(n, dtype=np.int32) % 7}, ids)


class Lazy:
    """An image source that counts what was read."""

    shape = (2, 2, 1)

    def __init__(self, images):
        self._images = images
        self.read = []

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        self.read.append(index)
        return self._images[index]


def lazy(split):
    return Split(Lazy(split.images), split.targets, split.ids)


def batches(feed, **kwargs):
    for chunk in feed.train_chunks(**kwargs):
        for k in range(len(chunk["index"])):
            yield gather_batch(feed.resident, {name: rows[k] for name, rows in chunk.items()})


@pytest.mark.heavy
@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    devices=st.sampled_from([1, 2]),
    streamed=st.booleans(),
)
def test_each_example_once_and_with_its_own_label(n, batch_size, devices, streamed):
    split = lazy(split_of(n)) if streamed else split_of(n)
    feed = Feed(split, batch_size, place(devices), memory_limit=2**30)
    seen, shapes = [], set()
    for batch in batches(feed, seed=3, epoch=1, first_step=0, chunk_steps=feed.chunk_steps(None)):
        valid = np.asarray(batch["valid"])
        index = np.asarray(batch["index"])[valid]
        np.testing.assert_array_equal(np.asarray(batch["image"])[valid][:, 0, 0, 0], index)
        np.testing.assert_array_equal(np.asarray(batch["label"])[valid], index % 7)
        assert feed.padded or valid.all()
        seen += index.tolist()
        shapes.add(batch["image"].shape)
    assert sorted(seen) == list(range(n))
    assert len(shapes) == 1


def test_the_order_is_a_function_of_seed_and_epoch_and_of_nothing_else():
    def order(feed, **kwargs):
        parts = [np.asarray(b["index"])[np.asarray(b["valid"])] for b in batches(feed, **kwargs)]
        return np.concatenate(parts).tolist()

    start = {"first_step": 0, "chunk_steps": 1}
    small = Feed(split_of(20), 3, place(1), memory_limit=2**30)
    large = Feed(lazy(split_of(20)), 8, place(2), memory_limit=2**30)
    first = order(small, seed=1, epoch=0, **start)
    assert order(large, seed=1, epoch=0, **start) == first
    assert order(small, seed=1, epoch=1, **start) != first
    assert order(small, seed=2, epoch=0, **start) != first
    # A resumed epoch goes on in the middle.
    assert order(small, seed=1, epoch=0, first_step=4, chunk_steps=1) == first[12:]


@pytest.mark.parametrize("make", [split_of, lambda n: lazy(split_of(n))])
def test_batches_of_identities_are_whole(make):
    options = {"sampling": "identities", "images_per_identity": 3, "memory_limit": 2**30}
    feed = Feed(make(40), 12, place(2), **options)
    start = {"seed": 1, "epoch": 0, "first_step": 0, "chunk_steps": 2}
    found = list(batches(feed, **start))
    assert not feed.padded and len(found) == feed.steps == 4
    for batch in found:
        assert np.asarray(batch["valid"]).all()
        labels = np.asarray(batch["label"]).reshape(4, 3)
        assert (labels == labels[:, :1]).all() and len(set(labels[:, 0].tolist())) == 4
        np.testing.assert_array_equal(np.asarray(batch["image"])[:, 0, 0, 0], batch["index"])
    order = feed.order(seed=1, epoch=0)
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in found]), order)
    # A resumed epoch goes on in the middle.
    rest = batches(feed, seed=1, epoch=0, first_step=2, chunk_steps=1)
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in rest]), order[24:])


@pytest.mark.parametrize(
    ("size", "images", "message"),
    [
        (12, 5, "12 examples does not hold 5 images"),
        (12, 0, "12 examples does not hold 0 images"),
        (24, 3, "8 identities .* of 7 identities"),
    ],
)
def test_batches_of_identities_that_cannot_be_made(size, images, message):
    options = {"sampling": "identities", "images_per_identity": images, "memory_limit": 2**30}
    with pytest.raises(DataError, match=message):
        Feed(split_of(40), size, place(1), **options)


def test_chunks_divide_an_epoch():
    feed = Feed(split_of(36), 3, place(1), memory_limit=2**30)
    assert feed.steps == 12
    assert [feed.chunk_steps(k) for k in (1, 5, 6, 7, 100)] == [1, 4, 6, 6, 12]
    chunks = list(feed.train_chunks(seed=0, epoch=0, first_step=6, chunk_steps=3))
    assert [c["index"].shape for c in chunks] == [(3, 3)] * 2


def test_a_resumed_epoch_has_whole_chunks_only():
    feed = Feed(split_of(60), 3, place(1), memory_limit=2**30)
    assert feed.steps == 20
    assert [feed.chunk_steps(20, first) for first in (0, 5, 3, 20)] == [20, 5, 1, 20]


def test_a_batch_larger_than_the_set_is_padded():
    feed = Feed(split_of(5), 64, place(1), memory_limit=2**30)
    assert (feed.steps, feed.padded) == (1, True)


def test_more_devices_than_there_are():
    with pytest.raises(RecipeError, match=r"train\.devices is 99"):
        place(99)


def echo(variables, resident, item):
    batch = gather_batch(resident, item)
    return {"logits": batch["image"][:, 0, 0].astype(np.float32)}


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 20])
@pytest.mark.parametrize("make", [split_of, lambda n: lazy(split_of(n))])
@pytest.mark.parametrize("together", [1, 3, None])
def test_evaluation_is_exact_and_in_the_order_of_the_split(make, batch_size, devices, together):
    feed = Feed(make(10), batch_size, place(devices), memory_limit=2**30, together=together)
    np.testing.assert_array_equal(
        predict_examples(jax.jit(over_batches(echo)), {}, feed)[:, 0], np.arange(10)
    )


@pytest.mark.parametrize("fault", ["dropped", "twice"])
def test_evaluation_that_drops_or_repeats_an_example_fails(monkeypatch, fault):
    feed = Feed(split_of(10), 4, place(1), memory_limit=2**30)
    items = list(feed.eval_items())
    items = items[:-1] if fault == "dropped" else [*items, items[0]]
    monkeypatch.setattr(feed, "eval_items", lambda: iter(items))
    with pytest.raises(EvaluationError, match="not exact"):
        predict_examples(jax.jit(over_batches(echo)), {}, feed)


def test_images_read_for_a_batch_are_let_go_once_it_is_on_its_way(monkeypatch):
    feed = Feed(lazy(split_of(10)), 2, place(1), memory_limit=2**30)
    original, read = feed._item, []

    def item(*given):
        found = original(*given)
        read.append(weakref.ref(found["image"]))
        return found

    monkeypatch.setattr(feed, "_item", item)

    def answer(variables, resident, on_device):
        return {"logits": np.array(on_device["index"])}

    collect = begin_predicting(answer, {}, feed)
    gc.collect()
    assert len(read) == 5 and all(image() is None for image in read)
    np.testing.assert_array_equal(collect(), np.arange(10))


def test_no_more_than_a_batch_of_what_is_read_waits_on_the_device():
    recipe = Recipe().override({**PLAIN, "data.source": "custom:squares"})
    for limit, ahead in ((0, 1), (2**30, None)):
        streamed = recipe.override({"train.memory_limit": limit})
        assert assemble_run(streamed, small_set(), Linear()).predicted_ahead == ahead


def test_the_callers_arrays_are_copied():
    """On a CPU, device_put may alias them (ecosystem trap): changing one must not show."""
    split = split_of(64)
    feed = Feed(split, 64, place(1), memory_limit=2**30)
    before = np.array(feed.resident["image"])
    split.images[:] = 99
    np.testing.assert_array_equal(feed.resident["image"], before)
