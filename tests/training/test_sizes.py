"""Progressive resizing: which epoch has which size, and that only the images differ."""

import jax
import numpy as np
import pytest
from PIL import Image
from small import Interrupting, Linear, Tiny, batch_of, parts, small_set

import cnn_jax
from cnn_jax.errors import RecipeError
from cnn_jax.training.checkpoints import to_host
from cnn_jax.training.progress import Silent
from cnn_jax.training.sizes import resize, shape_of, side_of

SIZES = {"train.sizes": (4, 6), "epochs": 4, "batch_size": 8}


def test_each_side_has_its_share_of_the_epochs_and_the_last_one_the_last():
    assert [side_of((16, 24, 32), epoch, 6) for epoch in range(6)] == [16, 16, 24, 24, 32, 32]
    assert [side_of((16, 24, 32), epoch, 7) for epoch in range(7)] == [16, 16, 24, 24, 32, 32, 32]
    assert [side_of((16, 24, 32), epoch, 2) for epoch in range(2)] == [24, 32]
    assert side_of((16, 24), 0, 1) == 24 and side_of((), 3, 6) is None


@pytest.mark.parametrize(("shape", "side"), [((32, 32), 16), ((30, 40), 20), ((28, 28), 11)])
def test_reduction_is_that_of_pillow(shape, side):
    images = np.random.default_rng(0).random((2, *shape, 3), np.float32)
    found = np.asarray(resize(jax.numpy.asarray(images), side))
    height, width, _ = shape_of((*shape, 3), side)
    assert found.shape == (2, height, width, 3) and min(height, width) == side
    for image, small in zip(images, found, strict=True):
        for c in range(3):
            plane = Image.fromarray(image[:, :, c], "F")
            wanted = plane.resize((width, height), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(small[:, :, c], np.asarray(wanted), atol=2e-6)
    assert resize(images, min(shape)) is images


@pytest.mark.heavy
def test_a_step_is_one_on_smaller_images():
    assembly, run_chunk, _ = parts(Tiny(), {"train.sizes": (4, 6)})
    batch = batch_of(assembly.dataset, np.arange(8))
    small = resize(batch["image"].astype(np.float32) / 255, 4)
    assert small.shape == (8, 4, 4, 1)
    wanted, _ = assembly.step(assembly.initial_state(), {**batch, "image": small})
    found, _ = assembly.step(assembly.initial_state(), batch, 4)
    whole, _ = assembly.step(assembly.initial_state(), batch)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(wanted.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert (found.params["conv"]["kernel"] != whole.params["conv"]["kernel"]).any()
    # and so is the compiled one, whose size is static
    items = {"index": batch["index"][None], "valid": batch["valid"][None]}
    resident = {name: batch[name] for name in ("image", "label")}
    compiled, _ = run_chunk(assembly.initial_state(), resident, items, side=4)
    for a, b in zip(jax.tree.leaves(compiled.params), jax.tree.leaves(found.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def train(out, model=None, **changes):
    given = {"reporter": Silent(), **SIZES, **changes}
    return cnn_jax.train(data=small_set(), model=model or Tiny(), out=out, **given)


def leaves(run):
    return jax.tree.leaves(to_host(run.variables))


@pytest.mark.heavy
def test_a_run_that_was_stopped_goes_on_with_the_size_of_its_epoch(tmp_path):
    run = train(tmp_path / "run")
    for after in (1, 2):  # the next epoch has the same size, or the other
        stopped = train(tmp_path / str(after), reporter=Interrupting(after))
        assert stopped.status == "interrupted"
        stopped.resume()
        assert all((a == b).all() for a, b in zip(leaves(stopped), leaves(run), strict=True))
    whole = train(tmp_path / "whole", **{"train.sizes": ()})
    assert any((a != b).any() for a, b in zip(leaves(whole), leaves(run), strict=True))


@pytest.mark.heavy
def test_members_of_a_population_change_size_together(tmp_path):
    found = {}
    for strategy in ("loop", "vmap", "map"):
        population = cnn_jax.train_population(
            data=small_set(),
            model=Tiny(),
            out=tmp_path / strategy,
            seeds=2,
            strategy=strategy,
            reporter=Silent(),
            **SIZES,
        )
        found[strategy] = [leaves(run) for run in population.members.values()]
    for strategy in ("vmap", "map"):
        for alone, member in zip(found["loop"], found[strategy], strict=True):
            for a, b in zip(alone, member, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.sizes": (4, 7)}, r"train.sizes has 7, but the images are \[6, 6, 1\]"),
        ({"train.sizes": (3, 6)}, "train.sizes must be sides of at least 4 pixels"),
        ({"train.until": "converged"}, "for a classification of fixed length, not for train.until"),
        ({"train.patience": 2}, "for a classification of fixed length, not for train.patience"),
        ({"data.masks": True}, "for a classification of fixed length, not for data.masks"),
        ({"model": Linear()}, "Linear has other parameters for images of another size"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
