"""Tasks without labels: problems against NumPy, losses in float64 and as PyTorch's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import PLAIN, Tiny, batch_of, fused, one, parts, small_set

from cnn_jax.assembly import assemble_run
from cnn_jax.augment import Augment
from cnn_jax.errors import DataError, EvaluationError, ModelError, RecipeError
from cnn_jax.recipe import Recipe
from cnn_jax.training.selfsupervised import (
    Contrastive,
    CutPaste,
    Preparing,
    Reconstruction,
    Rotation,
)
from cnn_jax.training.step import make_run_chunk
from cnn_jax.training.task import Classification

KEY = jax.random.key(3)
HYPER = {"label_smoothing": jnp.float32(0)}
RNG = np.random.default_rng(0)
TASKS = [Rotation(), CutPaste(), CutPaste(scar=True), Contrastive(Augment()), Reconstruction()]


def numbered(n, height, width, channels=1):
    """Images whose every pixel tells where it is."""
    pixels = np.arange(height * width, dtype=np.float32) / (height * width)
    images = np.broadcast_to(pixels.reshape(1, height, width, 1), (n, height, width, channels))
    return {"image": jnp.asarray(images), "valid": jnp.ones(n, bool)}


@functools.partial(fused, static_argnums=0)
def prepare(task, batch, key):
    return task.prepare(batch, key=key)


def prepared(task, batch, key=KEY):
    return prepare(task, batch, key)


@functools.partial(jax.jit, static_argnums=0)
def judged(task, outputs, batch):
    """Loss, weight and share of what is right."""
    return *task.loss(outputs, batch, HYPER, key=KEY), task.correct(outputs, batch)


@functools.partial(jax.jit, static_argnums=0)
def slope(task, outputs, batch):
    """The sum of all losses that count, and its gradient."""

    def total(outputs):
        loss, weight = task.loss(outputs, batch, HYPER, key=KEY)
        return (loss * weight * batch["valid"].astype(jnp.float32)).sum()

    return jax.value_and_grad(total)(outputs)


@pytest.mark.parametrize("shape", [(5, 5, 2), (3, 4, 4, 1)], ids=["image", "volume"])
def test_rotation_turns_each_image_by_its_label(shape):
    images = RNG.random((40, *shape)).astype(np.float32)
    found = prepared(Rotation(), {"image": jnp.asarray(images)})
    turns = np.asarray(found["label"])
    assert found["label"].dtype == jnp.int32 and set(turns) == {0, 1, 2, 3}
    for before, after, turn in zip(images, found["image"], turns, strict=True):
        np.testing.assert_array_equal(np.rot90(before, turn, (-3, -2)), after)


def test_turns_are_equally_likely():
    turns = prepared(Rotation(), {"image": jnp.zeros((4000, 1, 1, 1))})["label"]
    counts = np.bincount(turns, minlength=4)
    assert (np.abs(counts - 1000) < 4 * np.sqrt(4000 * 3 / 16)).all()


def test_images_that_do_not_fit():
    with pytest.raises(DataError, match="square images, not 4 x 5"):
        Rotation().prepare({"image": jnp.zeros((2, 4, 5, 1))}, key=KEY)
    with pytest.raises(DataError, match="images of 3 x 9 are too small"):
        CutPaste().prepare({"image": jnp.zeros((2, 3, 9, 1))}, key=KEY)


def moved_pixels(before, after):
    """Rows and columns that changed, and the one shift that brought them there."""
    height, width = before.shape
    changed = np.argwhere(before != after)
    source = np.rint(after[before != after].astype(np.float64) * height * width).astype(int)
    shifts = changed - np.stack(np.divmod(source, width), axis=1)
    assert len(changed) and (shifts == shifts[0]).all() and shifts[0].any()
    return changed, shifts[0]


def test_cutpaste_moves_a_rectangle_within_the_image():
    height, width, n = 20, 30, 200
    batch = numbered(n, height, width)
    found = prepared(CutPaste(jitter=0.0), batch)
    label, images = np.asarray(found["label"]), np.asarray(found["image"])[..., 0]
    before = np.asarray(batch["image"])[0, ..., 0]
    assert abs(label.mean() - 0.5) < 4 * 0.5 / np.sqrt(n) and label.dtype == np.int32
    np.testing.assert_array_equal(
        images[label == 0], np.broadcast_to(before, images[label == 0].shape)
    )
    areas, ratios, starts = [], [], set()
    for after in images[label == 1]:
        changed, _ = moved_pixels(before, after)
        first, last = changed.min(axis=0), changed.max(axis=0)
        sides = last - first + 1
        assert len(changed) == sides.prod()  # all of the box, and nothing else
        areas.append(sides.prod() / (height * width))
        ratios.append(sides[0] / sides[1])
        starts.add(tuple(first))
    # Sides are whole pixels, which moves small ones by up to a half.
    assert 0.01 < min(areas) < 0.03 and 0.13 < max(areas) < 0.17
    assert 0.25 <= min(ratios) < 0.5 and 2 < max(ratios) <= 4
    assert abs(np.median(np.log(ratios))) < 0.3 and len(starts) > 60


def test_a_scar_is_thin_leans_and_is_moved():
    side, n = 64, 240
    batch = numbered(n, side, side)
    found = prepared(CutPaste(jitter=0.0, scar=True), batch)
    label, images = np.asarray(found["label"]), np.asarray(found["image"])[..., 0]
    before = np.asarray(batch["image"])[0, ..., 0]
    counts = np.bincount(label, minlength=3)
    assert len(counts) == 3 and (np.abs(counts - n / 3) < 4 * np.sqrt(n * 2 / 9)).all()
    lean = []
    for after in images[label == 2]:
        changed, _ = moved_pixels(before, after)
        # Length 2.5 to 6.25 and width 1 to 4 pixels here.
        assert 1 <= len(changed) < 0.02 * side**2
        assert np.ptp(changed, axis=0).max() <= 7
        centred = changed - changed.mean(axis=0)
        lean.append((centred[:, 0] * centred[:, 1]).mean())
    assert min(lean) < -0.2 and max(lean) > 0.2
    assert all(len(moved_pixels(before, after)[0]) > 40 for after in images[label == 1])


def test_jitter_changes_what_is_pasted_a_little():
    batch = {"image": jnp.asarray(RNG.random((60, 12, 12, 3)), jnp.float32)}
    plain, jittered = (prepared(CutPaste(jitter=x), batch) for x in (0.0, 0.1))
    np.testing.assert_array_equal(plain["label"], jittered["label"])
    before, a, b = (np.asarray(x["image"]) for x in (batch, plain, jittered))
    np.testing.assert_array_equal((a == before).all(axis=-1), (b == before).all(axis=-1))
    assert 0 < np.abs(a - b).max() < 0.6 and b.min() >= 0 and b.max() <= 1
    of_image = np.abs(a - b).max(axis=(1, 2, 3)) > 0
    np.testing.assert_array_equal(of_image, np.asarray(plain["label"]) == 1)


def test_pieces_of_the_smallest_images_and_of_volumes_lie_inside():
    batch = numbered(50, 4, 5)
    volume = {"image": jnp.repeat(batch["image"][:, None], 2, axis=1)}
    task = CutPaste(jitter=0.0, scar=True)
    found = prepared(task, batch)
    before, after = np.asarray(batch["image"])[0, ..., 0], np.asarray(found["image"])[..., 0]
    for image, label in zip(after, found["label"], strict=True):
        if label == 0:
            np.testing.assert_array_equal(image, before)
        else:
            moved_pixels(before, image)
    slices = prepared(task, volume)["image"]
    for depth in (0, 1):
        np.testing.assert_array_equal(slices[:, depth, ..., 0], after)


@pytest.mark.parametrize(
    "task", [task for task in TASKS if task != CutPaste()], ids=lambda task: type(task).__name__
)
def test_an_example_hangs_on_its_position_alone(task):
    if isinstance(task, Contrastive):
        task = Contrastive(Augment(translate=2, brightness=0.3))
    images = jnp.asarray(RNG.random((9, 6, 6, 1)), jnp.float32)
    whole = prepared(task, {"image": images, "valid": jnp.ones(9, bool)})
    fewer = prepared(task, {"image": images[:4], "valid": jnp.ones(4, bool)})
    for name, rows in fewer.items():
        np.testing.assert_array_equal(rows, whole[name][: len(rows)])
    other = prepared(task, {"image": images, "valid": jnp.ones(9, bool)}, jax.random.key(4))
    same = bool((other["image"] == whole["image"]).all())
    assert same == isinstance(task, Reconstruction)


def test_views_lie_side_by_side():
    batch = {
        "image": jnp.asarray(RNG.random((5, 6, 6, 3)), jnp.float32),
        "mask": jnp.ones((5, 6, 6), jnp.uint8),
        "label": jnp.arange(5),
        "valid": jnp.arange(5) < 4,
    }
    found = prepared(Contrastive(Augment()), batch)
    for name, rows in found.items():
        np.testing.assert_array_equal(rows, np.repeat(batch[name], 2, axis=0))
    augment = Augment(translate=2, flip=True, contrast=0.4)
    found = prepared(Contrastive(augment), batch)
    for view in (0, 1):
        expected = fused(augment)(jax.random.fold_in(KEY, view), batch)
        for name, rows in expected.items():
            np.testing.assert_array_equal(found[name][view::2], rows)
    assert (found["image"][0::2] != found["image"][1::2]).any(axis=(1, 2, 3)).all()


def nt_xent(z, valid, temperature):
    """Written out, row by row, in float64."""
    z = z.astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses, correct = [], []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i and (valid[j] or j == i ^ 1)]
        similarity = {j: z[i] @ z[j] / temperature for j in others}
        losses.append(np.log(sum(map(np.exp, similarity.values()))) - similarity[i ^ 1])
        correct.append(max(similarity, key=similarity.get) == i ^ 1)
    return np.array(losses), np.array(correct, np.float64)


def embeddings(n=12, d=8, seed=0):
    """Pairs that are alike, more or less."""
    rng = np.random.default_rng(seed)
    return (np.repeat(rng.normal(size=(n // 2, d)), 2, axis=0) + rng.normal(size=(n, d))).astype(
        np.float32
    )


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("padded", [0, 4])
def test_nt_xent(temperature, padded):
    z, valid = embeddings(), np.arange(12) < 12 - padded
    task, batch = Contrastive(Augment(), temperature), {"valid": jnp.asarray(valid)}
    expected, correct = nt_xent(z, valid, temperature)
    for outputs in (z, {"embedding": z, "logits": z[:, :2]}, {"logits": z}):
        loss, weight, found = judged(task, outputs, batch)
        assert loss.dtype == weight.dtype == jnp.float32
        np.testing.assert_allclose(loss[valid], expected[valid], rtol=1e-5, atol=5e-7)
        np.testing.assert_array_equal(weight, 1)
        np.testing.assert_array_equal(found[valid], correct[valid])
    assert 0 < correct.mean() < 1


@pytest.mark.parity
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_pytorchs_cross_entropy_of_similarities(temperature):
    torch = pytest.importorskip("torch")
    z = embeddings(20)
    theirs = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    unit = torch.nn.functional.normalize(theirs, dim=1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(20) ^ 1
    losses = torch.nn.functional.cross_entropy(similarity, partner, reduction="none")
    losses.sum().backward()
    task, batch = Contrastive(Augment(), temperature), {"valid": jnp.ones(20, bool)}

    _, gradient = slope(task, jnp.asarray(z), batch)
    loss, _, correct = judged(task, z, batch)
    np.testing.assert_allclose(loss, losses.detach(), rtol=1e-5, atol=5e-7)
    np.testing.assert_allclose(gradient, theirs.grad, rtol=1e-4, atol=1e-6)
    nearest = (similarity.argmax(dim=1) == partner).numpy()
    np.testing.assert_array_equal(correct, nearest)


def test_padded_rows_are_no_negatives_and_one_image_alone_counts_nothing():
    task, z = Contrastive(Augment()), jnp.asarray(embeddings(6))
    padded = jnp.concatenate([z, 1e3 * jnp.ones((4, 8), jnp.float32)])
    valid = jnp.arange(10) < 6

    a, gradient = slope(task, z, {"valid": jnp.ones(6, bool)})
    b, padded_gradient = slope(task, padded, {"valid": valid})
    np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(padded_gradient[:6], gradient, rtol=1e-5, atol=1e-7)
    assert not padded_gradient[6:].any()
    loss, weight, _ = judged(task, padded, {"valid": jnp.arange(10) < 2})
    np.testing.assert_allclose(loss[:2], 0, atol=1e-6)
    assert not weight[:2].any()


def test_gradients_are_finite_whatever_the_embeddings():
    same = jnp.ones((6, 3), jnp.float32)
    zero = jnp.zeros((6, 3), jnp.float32)
    far = jnp.asarray(RNG.choice([-1e15, 1e15], (6, 3)), jnp.float32)
    for temperature in (0.01, 0.5):
        task = Contrastive(Augment(), temperature)
        for z in (same, zero, far):
            for valid in (jnp.ones(6, bool), jnp.zeros(6, bool)):
                loss, gradient = slope(task, z, {"valid": valid})
                assert np.isfinite(loss) and np.isfinite(gradient).all()
    blank = {"image": jnp.ones((2, 3, 3, 1)), "valid": jnp.ones(2, bool)}
    _, gradient = slope(Reconstruction(), {"reconstruction": blank["image"]}, blank)
    assert not gradient["reconstruction"].any()


def test_classes_are_learned_with_cross_entropy():
    logits = jnp.asarray(RNG.normal(size=(10, 4)), jnp.float32)
    batch = {"label": jnp.asarray(RNG.integers(0, 4, 10), jnp.int32)}
    hyper = {"label_smoothing": jnp.float32(0.1)}
    for a, b in zip(
        Rotation().loss(logits, batch, hyper, key=KEY),
        Classification(4).loss(logits, batch, hyper, key=KEY),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    expected = (np.asarray(logits).argmax(axis=1) == np.asarray(batch["label"])).astype(np.float32)
    np.testing.assert_array_equal(Rotation().correct(logits, batch), expected)
    for task in (CutPaste(), CutPaste(scar=True)):
        with pytest.raises(ModelError, match=f"CutPaste has {task.num_outputs} classes.*4 logits"):
            task.loss(logits, batch, hyper, key=KEY)


def test_reconstruction_is_mean_squared_error_and_explained_variance():
    image = RNG.normal(size=(6, 5, 4, 2)).astype(np.float32)
    found = (image + RNG.normal(size=image.shape) * RNG.random((6, 1, 1, 1)) * 1.5).astype(
        np.float32
    )
    image[5], found[5] = 0.25, 0.5  # nothing to explain
    x, r = image.astype(np.float64), found.astype(np.float64)
    error = ((r - x) ** 2).mean(axis=(1, 2, 3))
    task, outputs = Reconstruction(), {"reconstruction": jnp.asarray(found)}
    loss, weight, correct = judged(task, outputs, {"image": jnp.asarray(image)})
    np.testing.assert_allclose(loss, error, rtol=1e-5)
    np.testing.assert_array_equal(weight, 1)
    variance = ((x - x.mean(axis=(1, 2), keepdims=True)) ** 2).mean(axis=(1, 2, 3))
    share = np.append(np.clip(1 - error[:5] / variance[:5], 0, 1), 0)
    np.testing.assert_allclose(correct, share, rtol=1e-4, atol=1e-6)
    assert 0 < share[:5].mean() < 1
    blank = jnp.ones((1, 2, 2, 1))
    assert float(judged(task, {"reconstruction": blank}, {"image": blank})[2][0]) == 1
    for outputs, words in (
        (blank, "must return a dict with 'reconstruction'"),
        ({"reconstruction": jnp.ones((1, 2, 3, 1))}, "both must have one shape"),
    ):
        with pytest.raises(ModelError, match=words):
            task.loss(outputs, {"image": blank}, HYPER, key=KEY)


def test_what_is_kept_of_an_image():
    z = embeddings(4)
    kept = Contrastive(Augment()).predictions(jnp.asarray(z))["embedding"]
    np.testing.assert_allclose(kept, z / np.linalg.norm(z, axis=1, keepdims=True), rtol=1e-5)
    assert list(Rotation().predictions(jnp.asarray(z))) == ["logits"]
    r = jnp.ones((1, 2, 2, 1), jnp.bfloat16)
    kept = Reconstruction().predictions({"reconstruction": r})["reconstruction"]
    assert kept.dtype == jnp.float32
    for task in TASKS:
        assert isinstance(task, Preparing) and task.whole_batch == isinstance(task, Contrastive)
        for figures in (task.score, task.metrics):
            with pytest.raises(EvaluationError, match="learns without labels"):
                figures(None)
    assert not isinstance(Classification(3), Preparing)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CutPaste(jitter=0.6), "jitter must be from 0 to 0.5"),
        (lambda: Contrastive(Augment(), temperature=0.0), "temperature must be positive"),
        (lambda: Contrastive(Augment(mixup=0.2)), "augment.mixup makes no views"),
        (lambda: Contrastive(Augment(cutmix=0.2)), "augment.cutmix makes no views"),
        (lambda: Contrastive(Augment(flip="alternating")), "augment.flip alternating makes"),
    ],
)
def test_fields_that_make_no_task(make, words):
    with pytest.raises(RecipeError, match=words):
        make()


class Asks(Classification):
    """Classification that looks at what it is given to prepare."""

    whole_batch = False

    def prepare(self, batch, *, key):
        assert batch["image"].dtype == jnp.float32
        return {**batch, "seen": jnp.stack([batch["image"].min(), batch["image"].max()])}

    def correct(self, outputs, batch):
        low, high = batch["seen"]
        return jnp.where((low >= 0) & (high <= 1), super().correct(outputs, batch), jnp.nan)


def test_a_task_that_prepares_changes_no_other_key_and_sees_images_in_0_to_1():
    changes = {"augment.translate": 1, "augment.brightness": 0.2}
    assembly, run, state = parts(Tiny(), changes)
    batch = one(batch_of(assembly.dataset, np.arange(8)))
    asking = make_run_chunk(dataclasses.replace(assembly.step, task=Asks(3)))
    expected, metrics = run(state, {}, batch)
    found, seen = asking(assembly.initial_state(), {}, batch)
    for x, y in zip(
        jax.tree.leaves((expected.variables, metrics)),
        jax.tree.leaves((found.variables, seen)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


def unlabelled_step(task, devices=1):
    """An assembly of `Tiny` with as many outputs as the task has, and its step for the task."""
    recipe = Recipe().override({**PLAIN, "train.devices": devices, "optimizer.momentum": 0.9})
    dataset = small_set(22, classes=task.num_outputs)
    assembly = assemble_run(recipe, dataset, Tiny(task.num_outputs))
    return assembly, dataclasses.replace(assembly.step, task=task)


VIEWS = Contrastive(Augment(translate=1, brightness=0.3), num_outputs=5)


@pytest.mark.heavy
def test_padded_rows_change_nothing_in_a_step_of_views():
    assembly, step = unlabelled_step(VIEWS)
    run = make_run_chunk(step)
    rows = np.arange(5)
    a, m_a = run(assembly.initial_state(), {}, one(batch_of(assembly.dataset, rows)))
    b, m_b = run(assembly.initial_state(), {}, one(batch_of(assembly.dataset, rows, padding=3)))
    assert float(m_a["loss"][1]) == float(m_b["loss"][1]) == 10  # two views of five images
    for x, y in zip(
        jax.tree.leaves((a.variables, m_a)), jax.tree.leaves((b.variables, m_b)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


def test_two_devices_turn_what_one_turns():
    states = []
    for devices in (1, 2):
        assembly, step = unlabelled_step(Rotation(), devices)
        run, state = make_run_chunk(step), assembly.initial_state()
        for _ in range(2):
            batch = one(batch_of(assembly.dataset, np.arange(8)))
            state, _ = run(state, {}, assembly.placement.split(batch, axis=1))
        states.append(state.variables)
    for x, y in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-6)


def test_views_are_not_compared_in_parts():
    _, step = unlabelled_step(VIEWS)
    with pytest.raises(RecipeError, match=r"train\.accumulate is 2, but Contrastive compares"):
        dataclasses.replace(step, accumulate=2)
    assert dataclasses.replace(step, task=Rotation(), accumulate=2).accumulate == 2
