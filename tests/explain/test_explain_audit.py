"""Audits of explanations: they pass what is right by construction and fail what is not."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from cnn_jax import explain
from cnn_jax.errors import EvaluationError
from cnn_jax.explain.faithfulness import imputed
from cnn_jax.explain.randomisation import redrawn

RNG = np.random.default_rng(0)


class Linear(linen.Module):
    @linen.compact
    def __call__(self, image, *, train=False):
        return linen.Dense(3, use_bias=False, name="head")(image.reshape(len(image), -1))


class Net(linen.Module):
    @linen.compact
    def __call__(self, image, *, train=False):
        x = linen.relu(linen.Conv(6, (3, 3), name="first")(image))
        x = linen.relu(linen.Conv(6, (3, 3), name="second")(x))
        return linen.Dense(3, name="head")(x.mean(axis=(1, 2)))


def _made(model, count=24, side=8, seeds=(0, 1)):
    images = RNG.normal(size=(count, side, side, 1)).astype(np.float32)
    images[:, 2:5, 3:6] += 2  # all have something at one place, as photographs have
    trained, fresh = (model.init(jax.random.key(seed), images[:1]) for seed in seeds)
    return trained, fresh, images, RNG.integers(0, 3, count)


def _gradients(model):
    def of(variables, images, target):
        logits = lambda x: model.apply(variables, x)  # noqa: E731
        return explain.gradient(logits, jnp.asarray(images), jnp.asarray(target)).sum(axis=-1)

    return of


def test_gradients_of_a_linear_model_pass_and_an_edge_detector_and_a_constant_fail():
    model = Linear()
    trained, fresh, images, target = _made(model)
    check = lambda maps: explain.randomisation_check(  # noqa: E731
        maps, trained, fresh, images, target, ("head",)
    )
    right = check(_gradients(model))
    assert right.verdict == "passes" and abs(right.similarity[-1]) < 0.2 and right.flat == 0
    of_image = check(lambda variables, images, target: explain.edges(images))
    assert of_image.verdict == "fails" and of_image.similarity[-1] == pytest.approx(1)
    assert of_image.retained.value == pytest.approx(1)
    constant = check(lambda variables, images, target: np.ones(images.shape[:3]))
    assert constant.verdict == "fails" and constant.flat == constant.images == 24
    alike = check(lambda v, x, c: np.tile(np.arange(64.0).reshape(8, 8), (len(x), 1, 1)))
    assert alike.verdict == "cannot be told"  # the same map for all: unrelated ones are equal
    noise = check(lambda variables, images, target: RNG.random(images.shape[:3]))
    assert noise.verdict == "passes"  # it depends on nothing: deletion has to find it out


def test_similarity_is_spearmans_layer_by_layer_and_the_null_is_of_other_images():
    model = Net()
    trained, fresh, images, target = _made(model, count=10)
    maps = _gradients(model)
    layers = ("head", "second", "first")
    found = explain.randomisation_check(maps, trained, fresh, images, target, layers)
    before = np.abs(np.asarray(maps(trained, images, target))).reshape(10, -1)
    for k in range(3):
        mixed = {"params": {n: (fresh if n in layers[: k + 1] else trained)["params"][n]
                            for n in layers}}  # fmt: skip
        after = np.abs(np.asarray(maps(mixed, images, target))).reshape(10, -1)
        wanted = np.mean([spearmanr(a, b).statistic for a, b in zip(before, after, strict=True)])
        assert found.similarity[k] == pytest.approx(wanted, abs=1e-6)
    others = [
        spearmanr(before[i], after[j]).statistic for i in range(10) for j in range(10) if i != j
    ]
    assert found.null.mean() == pytest.approx(np.mean(others), abs=0.02)
    wanted = (found.similarity[-1] - np.mean(others)) / (1 - np.mean(others))
    assert found.retained.value == pytest.approx(wanted, abs=1e-6)
    assert found.retained.low <= found.retained.value <= found.retained.high


def test_scopes_are_drawn_anew_with_all_that_is_in_them():
    one = {"params": {"a": {"b": {"k": 1}, "bb": {"k": 2}}}, "batch_stats": {"a": {"b": {"m": 3}}}}
    other = {
        "params": {"a": {"b": {"k": 9}, "bb": {"k": 8}}},
        "batch_stats": {"a": {"b": {"m": 7}}},
    }
    mixed = redrawn(one, other, ["a/b"])
    assert mixed["params"]["a"] == {"b": {"k": 9}, "bb": {"k": 2}}
    assert mixed["batch_stats"]["a"]["b"]["m"] == 7
    with pytest.raises(EvaluationError, match="no parameters in 'c'"):
        redrawn(one, other, ["c"])
    with pytest.raises(EvaluationError, match="another network"):
        redrawn(one, {"params": {}}, ["a"])


def _of_weights(weights):
    return lambda images: 1 / (1 + np.exp(-(images * weights).sum(axis=(1, 2, 3))))


def test_the_right_order_falls_fastest_and_comes_back_first():
    weights = RNG.normal(size=(6, 6, 1)) * 0.4
    images = np.abs(RNG.normal(size=(30, 6, 6, 1)))
    answer = _of_weights(weights)
    right = (images * weights)[..., 0]  # exact for deletion to 0
    areas = {
        name: explain.deletion(answer, images, maps).area
        for name, maps in {
            "right": right, "wrong": -right, "random": explain.random_maps(images),
        }.items()
    }  # fmt: skip
    assert areas["right"].mean() < areas["random"].mean() < areas["wrong"].mean()
    gain = explain.paired_gain(areas["random"], areas["right"])
    assert gain.low > 0 and gain.n == 30
    blurred = gaussian_filter(images, (0, 0.5, 0.5, 0))
    exact = ((images - blurred) * weights)[..., 0]  # what each pixel brings back
    back, late = (
        explain.insertion(answer, images, maps, sigma=0.5).area for maps in (exact, -exact)
    )
    assert (back >= late - 1e-9).all() and back.mean() > late.mean()
    roads = explain.road(answer, images, right)
    assert roads.mean() > 0.05
    turned = explain.road(answer, images, -right, noise=0)
    np.testing.assert_allclose(turned, -explain.road(answer, images, right, noise=0), atol=1e-3)


def test_the_curve_is_that_of_a_loop():
    images = RNG.normal(size=(3, 4, 5, 2))
    maps = RNG.normal(size=(3, 4, 5))
    answer = _of_weights(RNG.normal(size=(4, 5, 2)))
    found = explain.deletion(answer, images, maps, fill=np.array([0.5, -1]), steps=5)
    for i in range(3):
        order = np.argsort(-maps[i].ravel())
        for step in range(6):
            changed = images[i].reshape(20, 2).copy()
            changed[order[: 4 * step]] = [0.5, -1]
            wanted = answer(changed.reshape(1, 4, 5, 2))[0]
            assert found.probability[i, step] == pytest.approx(wanted)
    np.testing.assert_allclose(found.fractions, np.linspace(0, 1, 6))
    by_hand = (found.probability[:, :-1] + found.probability[:, 1:]).mean(axis=1) / 2
    np.testing.assert_allclose(found.area, by_hand)


def test_equal_pixels_go_in_a_random_order_that_is_the_same_for_all():
    images = RNG.normal(size=(40, 6, 6, 1))
    answer = _of_weights(np.ones((6, 6, 1)))
    flat = explain.deletion(answer, images, np.zeros((40, 6, 6)))
    again = explain.deletion(answer, images, np.ones((40, 6, 6)))
    np.testing.assert_array_equal(flat.probability, again.probability)
    other = explain.deletion(answer, images, np.zeros((40, 6, 6)), seed=1)
    assert not np.array_equal(flat.probability, other.probability)


def test_imputation_solves_for_all_that_is_gone():
    y, x = np.mgrid[:7, :8]
    plane = np.stack([2.0 * y - x, 3.0 + 0 * x], axis=-1)
    gone = np.zeros((7, 8), bool)
    gone[2:5, 2:6] = True  # away from the border a plane is its own mean of neighbours
    np.testing.assert_allclose(imputed(plane, gone), plane, atol=1e-9)
    gone = RNG.random((7, 8)) < 0.6
    image = RNG.normal(size=(7, 8, 1))
    filled = imputed(image, gone)
    np.testing.assert_array_equal(filled[~gone], image[~gone])
    weights = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12}
    for row, column in zip(*np.nonzero(gone), strict=True):
        near = [
            (weights[(abs(i), abs(j))], filled[row + i, column + j, 0])
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if (i, j) != (0, 0) and 0 <= row + i < 7 and 0 <= column + j < 8
        ]
        mean = sum(w * v for w, v in near) / sum(w for w, _ in near)
        assert filled[row, column, 0] == pytest.approx(mean)


def test_pointing():
    maps = np.zeros((4, 5, 5))
    maps[0, 1, 1] = maps[1, 4, 4] = maps[2, 0, 3] = 1  # the last is the same everywhere
    evidence = np.zeros((4, 5, 5), bool)
    evidence[:, 1, 1:3] = True
    found = explain.pointing_game(maps, evidence)
    assert found.value == pytest.approx((1 + 0 + 0 + 2 / 25) / 4) and found.percent
    near = explain.pointing_game(maps, evidence, tolerance=1)
    assert near.value == pytest.approx((1 + 0 + 1 + 12 / 25) / 4)


def test_edges_are_where_the_image_is_steep():
    image = np.zeros((1, 6, 6, 3))
    image[:, :, 3:] = 1
    found = explain.edges(image)
    assert set(np.nonzero(found[0])[1].tolist()) == {2, 3}


def test_what_has_no_answer():
    model = Linear()
    trained, fresh, images, target = _made(model, count=9)
    maps = _gradients(model)
    with pytest.raises(EvaluationError, match="8 images"):
        explain.randomisation_check(maps, trained, fresh, images[:4], target[:4], ("head",))
    with pytest.raises(EvaluationError, match="8 images, a layer"):
        explain.randomisation_check(maps, trained, fresh, images, target, ())
    with pytest.raises(EvaluationError, match=r"gives maps \[9, H, W\]"):
        explain.randomisation_check(
            lambda *_: np.ones((9, 3)), trained, fresh, images, target, ("head",)
        )
    answer = _of_weights(np.ones((8, 8, 1)))
    flat = np.zeros((9, 8, 8))
    for call, message in [
        (lambda: explain.deletion(answer, images, flat[:, :4]), "must be finite"),
        (lambda: explain.deletion(answer, images, flat * np.nan), "must be finite"),
        (lambda: explain.deletion(answer, images, flat, steps=0), "one step"),
        (lambda: explain.road(answer, images, flat, fractions=(0.5, 1)), "between 0 and 1"),
        (lambda: explain.paired_gain(np.ones(3), np.ones(4)), "not of the same images"),
        (lambda: explain.pointing_game(flat, flat), "an image without evidence"),
        (lambda: explain.pointing_game(flat, flat[:4]), r"must be \[N, H, W\]"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            call()
