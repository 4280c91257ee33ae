"""Margin losses against float64 written out, whatever the input, and in the step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import PLAIN, QUICK

from cnn_jax import data, nn
from cnn_jax.assembly import assemble_run
from cnn_jax.classifier import build_model
from cnn_jax.errors import ModelError, RecipeError
from cnn_jax.programs import hyper_of, program_of
from cnn_jax.recipe import Recipe
from cnn_jax.tasks import make_task
from cnn_jax.training.margin_softmax import MarginSoftmax
from cnn_jax.training.metric_learning import SupervisedContrastive, Triplet
from cnn_jax.training.task import Classification

KEY = jax.random.key(0)
LARGEST = 3.38e38  # that bfloat16 holds
NAMES = ["sphereface", "cosface", "arcface", "combined", "adaface", "magface"]
FIXED = {
    "sphereface": (1.35, 0, 0),
    "cosface": (1, 0, 0.35),
    "arcface": (1, 0.5, 0),
    "combined": (1, 0.3, 0.2),
}
CLASSES, SUB_CENTRES, SIZE, N = 7, 2, 6, 10_000


def recipe_of(name, **changes):
    return Recipe().override({"loss.margin": name, **changes})


def scalars_of(recipe):
    return {name: jnp.float32(value) for name, value in hyper_of(recipe).items()}


@functools.partial(jax.jit, compiler_options=QUICK)
def fixed_losses(x, centres, label, hyper):
    """Of the margins of one number; with MagFace's regulariser none."""
    outputs = {"embedding": x, "centres": centres, "logits": x}
    return {
        name: MarginSoftmax(Classification(CLASSES), name).loss(
            outputs, {"label": label}, scalars, key=KEY
        )[0]
        for name, scalars in hyper.items()
    }


def judge(x, centres, label, valid, hyper):
    """Of each margin the losses, and the gradient of the sum of those that are valid."""

    def judged(name):
        task = MarginSoftmax(Classification(CLASSES), name)

        def total(x, centres):
            batch = {"label": label, "valid": valid}
            outputs = {"embedding": x, "centres": centres, "logits": x}
            loss, _ = task.loss(outputs, batch, hyper[name], key=KEY)
            return (loss * valid.astype(jnp.float32)).sum(), loss

        gradient, loss = jax.grad(total, (0, 1), has_aux=True)(x, centres)
        return loss, *gradient

    return {name: judged(name) for name in ("combined", "adaface", "magface")}


judged = jax.jit(judge, compiler_options=QUICK)


def adversarial(dtype):
    """Half of the rows at random, half of what has made losses infinite."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(CLASSES, SUB_CENTRES, SIZE)).astype(np.float32)
    centres[1] = centres[2]
    centres[3, 0] = -centres[3, 1]
    centres[4], centres[5, 0], centres[6] = 0, 1e30 * centres[5, 0], 1e-30 * centres[6]
    centres = centres.astype(dtype).astype(np.float32)
    label = rng.integers(0, CLASSES, N).astype(np.int32)
    x = rng.normal(size=(N, SIZE)).astype(np.float32) * 10 ** rng.uniform(-2, 3, (N, 1))
    own = centres[label, rng.integers(0, SUB_CENTRES, N)]
    strange = [
        np.zeros_like(own),
        own,
        -own,
        np.nextafter(own, np.float32(np.inf)),
        own * np.float32(1 + 1e-3),
        -own + np.float32(1e-7) * x,
        x * np.float32(1e30) / np.abs(x).max(axis=1, keepdims=True),
        x * np.float32(1e-30) / np.abs(x).max(axis=1, keepdims=True),
        np.full_like(own, np.finfo(np.float32).max) * np.sign(x),
        np.full_like(own, 1e-38) * np.sign(x),
        np.eye(SIZE)[rng.integers(0, SIZE, N)] * 1e20,
        np.where(rng.random(own.shape) < 0.5, x, 0),
    ]
    half = N // 2
    kind = rng.integers(0, len(strange), N - half)
    x[half:] = np.stack(strange)[kind, np.arange(half, N)]
    return np.clip(x, -3.3e38, 3.3e38).astype(dtype), centres.astype(dtype), label


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_ten_thousand_inputs_are_finite_and_the_usual_ones_exact(dtype):
    x, centres, label = adversarial(dtype)
    valid = np.arange(N) % 10 != 3
    hyper = {name: scalars_of(recipe_of(name)) for name in NAMES}
    for found in jax.tree.leaves(jax.eval_shape(judge, x, centres, label, valid, hyper)):
        assert found.dtype == (jnp.float32 if found.ndim == 1 else dtype)
    # All is computed in float32: the program is compiled once, for what bfloat16 holds, too.
    x, centres = x.astype(np.float32), centres.astype(np.float32)
    for name, of_combined in FIXED.items():
        scalars = (f"margin_m{n}" for n in (1, 2, 3))
        of_combined = dict(zip(scalars, map(jnp.float32, of_combined), strict=True))
        hyper["combined"] = {**hyper["combined"], **of_combined}
        found = judged(x, centres, label, valid, hyper)
        for leaf in jax.tree.leaves(found):
            assert (np.abs(leaf) < LARGEST).all()
        for kind in ("combined", "adaface", "magface"):
            of = name if kind == "combined" else kind
            expected = written_out(of, x, centres, label, valid)
            np.testing.assert_allclose(found[kind][0][:40], expected[:40], rtol=2e-5, atol=2e-4)


def test_each_name_is_its_formula():
    x, centres, label = adversarial(jnp.float32)
    hyper = {name: scalars_of(recipe_of(name)) for name in FIXED}
    found = fixed_losses(x[:40], centres, label[:40], hyper)
    for name, losses in found.items():
        expected = written_out(name, x[:40], centres, label[:40], np.ones(40, bool))
        np.testing.assert_allclose(losses, expected, rtol=2e-5, atol=2e-4)


def written_out(name, x, centres, label, valid):
    """The loss in float64, of the formulas in the papers."""
    x, centres = np.asarray(x, np.float64), np.asarray(centres, np.float64)
    largest = np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-300)
    norm = largest[:, 0] * np.linalg.norm(x / largest, axis=1)
    unit = x / np.maximum(norm, 1e-300)[:, None]
    length = np.linalg.norm(centres, axis=2, keepdims=True)
    cosine = np.einsum("bd,ksd->bks", unit, centres / np.where(length > 0, length, 1)).max(axis=2)
    rows = np.arange(len(x))
    theta = np.arccos(np.clip(cosine[rows, label], -1, 1))
    m1, m2, m3 = FIXED.get(name, (1, 0, 0))
    extra = 0.0
    if name == "adaface":
        safe = np.clip(norm, 1e-3, 100)
        z = (safe - safe[valid].mean()) / (safe[valid].std(ddof=1) + 1e-3)
        z = np.clip(0.333 * z, -1, 1)
        m2, m3 = -0.4 * z, 0.4 + 0.4 * z
    if name == "magface":
        a = np.clip(norm, 10, 110)
        m2, extra = (0.8 - 0.45) / 100 * (a - 10) + 0.45, 35 * (a / 110**2 + 1 / a)
    phi = m1 * theta + m2
    k = np.floor(phi / np.pi)
    logits = 64 * cosine
    logits[rows, label] = 64 * ((-1.0) ** k * np.cos(phi) - 2 * k - m3)
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[rows, label] + extra


def test_the_softmax_around_a_margin_keeps_its_weights_and_smoothing():
    softmax = Classification(3, (1.0, 2.0, 3.0))
    task = MarginSoftmax(softmax, "cosface", 10.0)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both():
        outputs = {"embedding": jnp.eye(3), "centres": jnp.eye(3)[:, None], "logits": jnp.eye(3)}
        batch = {"label": jnp.arange(3)}
        hyper = {"margin_size": jnp.float32(0.35), "label_smoothing": jnp.float32(0.1)}
        plain = softmax.loss(6.5 * jnp.eye(3), batch, hyper, key=KEY)
        return task.loss(outputs, batch, hyper, key=KEY), plain

    (loss, weight), (expected, expected_weight) = both()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(weight, expected_weight)


def test_what_a_margin_needs():
    task, label = MarginSoftmax(Classification(3), "arcface"), jnp.zeros(2, jnp.int32)
    hyper = scalars_of(recipe_of("arcface"))
    with pytest.raises(ModelError, match=r"end it in nn\.CentreHead"):
        task.loss(jnp.ones((2, 3)), {"label": label}, hyper, key=KEY)
    mixed = {"label": label, "mix_label": label, "mix_share": jnp.ones(2)}
    with pytest.raises(RecipeError, match=r"augment\.mixup and augment\.cutmix"):
        task.loss({}, mixed, hyper, key=KEY)
    images = np.arange(192, dtype=np.uint8).reshape(12, 4, 4, 1)
    several = data.from_arrays(images, 1 - np.eye(3, dtype=np.float32)[np.arange(12) % 3])
    loss = recipe_of("arcface").loss
    with pytest.raises(RecipeError, match="several labels: set it to none"):
        make_task(loss, several, several.splits["train"])
    with pytest.raises(RecipeError, match=r"set loss\.magface_margins"):
        recipe_of("magface", **{"loss.margin_size": 0.3})
    with pytest.raises(RecipeError, match=r"set loss\.margins instead"):
        recipe_of("combined", **{"loss.margin_size": 0.3})
    for name in ("augment.mixup", "augment.cutmix"):
        with pytest.raises(RecipeError, match=r"augment\.mixup and augment\.cutmix"):
            recipe_of("arcface", **{name: 0.2})
    with pytest.raises(ModelError, match="unet makes no embedding"):
        build_model(recipe_of("arcface", **{"model.name": "unet"}), 3, (16, 16, 1))
    with pytest.raises(ModelError, match=r"set loss\.scale"):
        build_model(recipe_of("arcface", **{"model.options.scale": 3}), 3, (16, 16, 1))


def test_a_recipe_makes_the_model_and_one_program_serves_all_sizes_of_a_margin():
    changes = {"model.options.embedding_size": 5, "loss.scale": 16}
    recipe = recipe_of("arcface", **changes)
    model = build_model(recipe, 3, (8, 8, 1))
    assert (model.embedding_size, model.scale) == (5, 16.0)
    assert build_model(recipe_of("arcface"), 3, (8, 8, 1)).embedding_size == 128
    other = recipe_of("arcface", **changes, **{"loss.margin_size": 0.3})
    assert program_of(other) == program_of(recipe) != program_of(recipe_of("cosface", **changes))
    assert hyper_of(other)["margin_size"] == 0.3 and hyper_of(recipe)["margin_size"] == 0.5
    assert not [name for name in hyper_of(Recipe()) if name.startswith("margin")]
    for wrong in ({"loss.margins": (1, 2)}, {"loss.magface_norms": (9, 3)}, {"loss.scale": 0}):
        with pytest.raises(RecipeError, match="must be"):
            recipe_of("combined", **wrong)


class OnCircle(nn.Module):
    """Two pixels are turned and stretched, and are the embedding."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Dense(2, use_bias=False, name="turn")(image.reshape(image.shape[0], -1))
        return nn.CentreHead(self.num_classes, scale=8.0, name="head")(x)


def circle(n=24):
    """Three arcs of a circle, as images of 1 x 2 pixels, and a batch of all of them."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    angle = 2 * np.pi / 3 * label + rng.uniform(-0.3, 0.3, n)
    pixels = 127.5 + 127 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return pixels.round().astype(np.uint8).reshape(n, 1, 2, 1), label


def test_losses_of_each_kind_fall_in_the_step_on_a_circle():
    images, label = circle()
    dataset = data.from_arrays(
        images, label, test=(images[:6], label[:6]), validation=(images[6:12], label[6:12])
    )
    changes = {**PLAIN, "train.batch_size": 24, "optimizer.learning_rate": 0.02}
    assembly = assemble_run(recipe_of("magface", **changes), dataset, OnCircle())
    batch = {
        "image": jnp.asarray(images),
        "label": jnp.asarray(label, jnp.int32),
        "valid": jnp.arange(24) < 21,
        "index": jnp.arange(24, dtype=jnp.int32),
    }
    tasks = [MarginSoftmax(Classification(3), "magface", 8.0), Triplet()]
    tasks += [SupervisedContrastive()]
    steps = [dataclasses.replace(assembly.step, task=task) for task in tasks]
    state = assembly.initial_state()
    scalars = {"pair_margin": jnp.float32(1), "pair_temperature": jnp.float32(0.1)}
    states = [state.replace(hyper={**state.hyper, **scalars})] * 3

    @functools.partial(jax.jit, compiler_options=QUICK)
    def all_step(states):
        return [step(state, batch) for step, state in zip(steps, states, strict=True)]

    losses = []
    for _ in range(4):
        states, metrics = zip(*all_step(states), strict=True)
        losses.append([float(m["loss"][0] / m["loss"][1]) for m in metrics])
    assert np.isfinite(losses).all()
    for task, of_task in zip(tasks, np.array(losses).T, strict=True):
        assert (np.diff(of_task) < 0).all(), (task, of_task)
