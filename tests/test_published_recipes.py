"""The bundled recipes of published trainings say what was published."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_jax import train
from cnn_jax.models.summary import describe
from cnn_jax.recipe import Recipe, load
from cnn_jax.training.progress import Silent
from cnn_jax.training.schedules import hyper_of, learning_rate


def recipe_of(name):
    return Recipe.from_dict(load(name))


def rates(recipe, epochs, steps=10):
    hyper = {**hyper_of(recipe.schedule), "learning_rate": 0.1, "learning_rate_scale": 1.0}
    hyper = {name: jnp.float32(value) for name, value in hyper.items()}
    shared = {"steps_per_epoch": steps, "epochs": recipe.train.epochs}
    return [
        float(learning_rate(recipe.schedule, hyper, jnp.int32(epoch * steps), **shared))
        for epoch in epochs
    ]


@pytest.mark.parametrize("name", ["cifar10-resnet18", "cifar10-wrn28-10"])
def test_cutout_on_cifar10(name):
    """DeVries & Taylor 2017: 0.1, divided by 5 at epochs 60, 120 and 160 of 200."""
    recipe = recipe_of(name)
    found = rates(recipe, [0, 59, 60, 119, 120, 159, 160, 199])
    np.testing.assert_allclose(found, [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 8e-4, 8e-4], rtol=1e-5)
    assert recipe.train.batch_size == 128 and recipe.augment.cutout == 16
    assert (recipe.augment.translate, recipe.augment.padding) == (4, "zero")
    assert recipe.optimizer.nesterov and recipe.optimizer.weight_decay == 5e-4
    assert recipe.optimizer.decay_exclude == ()
    assert round(50_000 * recipe.data.validation) == 2_000


def test_resnet50_on_imagenet():
    """He et al. 2016: 0.1 for batches of 256, divided by 10 twice in 90 epochs."""
    recipe = recipe_of("imagenet-resnet50")
    found = rates(recipe, [0, 29, 30, 59, 60, 89])
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3], rtol=1e-5)
    assert recipe.train.batch_size == 256 and recipe.data.image_size == 224
    assert recipe.optimizer.weight_decay == 1e-4 and not recipe.optimizer.nesterov


@pytest.mark.parametrize(
    ("name", "classes", "side", "parameters"),
    [
        ("cifar10-resnet18", 10, 32, 11_173_962),
        ("cifar10-wrn28-10", 10, 32, 36_479_194),
        ("imagenet-resnet50", 1000, 224, 25_557_032),
    ],
)
def test_networks_have_the_published_parameters(name, classes, side, parameters):
    named = recipe_of(name).model
    found = describe(named.name, num_classes=classes, image_shape=(side, side, 3))
    assert found.parameters == parameters


@pytest.mark.slow
def test_a_stand_in_for_imagenet_is_read_and_learned(tmp_path):
    """Its layout, sizes that differ, a grey picture and one of four channels; 1 epoch."""
    rng = np.random.default_rng(0)
    for part, each in (("train", 12), ("test", 4)):
        for k, name in enumerate(("n01440764", "n01443537")):
            folder = tmp_path / "imagenet" / part / name
            folder.mkdir(parents=True)
            for n in range(each):
                height, width = rng.integers(40, 90, 2)
                pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8) + 60 * k
                mode = ["RGB", "L", "CMYK"][n % 3]
                picture = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
                picture.save(folder / f"{name}_{n}.JPEG")
    recipe = recipe_of("imagenet-resnet50").override(
        {
            "data.source": str(tmp_path / "imagenet"),
            "data.image_size": 32,
            "data.validation": 0.2,
            "model.options": {"width": 4},
            "train.epochs": 1,
            "train.batch_size": 8,
        }
    )
    run = train(recipe, out=tmp_path / "run", reporter=Silent())
    assert run.info["data"]["classes"] == ["n01440764", "n01443537"]
    assert len(run.predictions("test")) == 8
    assert np.isfinite(run.predictions("test").logits).all()
