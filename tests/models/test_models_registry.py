import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, nn
from cnn_jax.errors import ModelError

# Number of parameters as published, for images of this size, channels and classes.
PUBLISHED = {
    "lenet5": (32, 1, 10, 61_706),
    "alexnet": (224, 3, 1000, 61_100_840),
    "vgg16": (224, 3, 1000, 138_357_544),
    "resnet18": (224, 3, 1000, 11_689_512),
    "resnet34": (224, 3, 1000, 21_797_672),
    "resnet50": (224, 3, 1000, 25_557_032),
    "resnet101": (224, 3, 1000, 44_549_160),
    "resnet152": (224, 3, 1000, 60_192_808),
    "wide_resnet28_10": (32, 3, 10, 36_479_194),
    # Without the bias and the scale of the embedding, and with one centre: see test_models_faces.
    "iresnet18": (112, 3, 1, 24_025_600 - 2 * 512 + 512),
}


def shapes_of(model, image_shape, **options):
    """Logits and variables of a model, as shapes; `options` go to the call."""
    init = functools.partial(model.init_with_output, **options)
    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return jax.eval_shape(init, keys, image)


# Deeper ones of a family repeat its blocks; they are counted in test_models_faces.
DEEPER = ("iresnet34", "iresnet50", "iresnet100")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in DEEPER else name
    for name in models.names()
]


def logits_of(outputs):
    return outputs["logits"] if isinstance(outputs, dict) else outputs


@pytest.mark.parametrize("name", NAMES)
def test_every_model_keeps_the_contract(name):
    size, channels, classes, published = PUBLISHED.get(name, (32, 3, 10, None))
    model = models.create(name, num_classes=classes, image_size=size, dtype=jnp.bfloat16)
    outputs, variables = shapes_of(model, (size, size, channels))
    other_size = (size - 3, size + 9)
    outputs_in_training, others = shapes_of(model, (*other_size, channels), train=True)
    for found, sides in ((outputs, (size, size)), (outputs_in_training, other_size)):
        places = sides if models.segments(name) else ()
        assert logits_of(found) == jax.ShapeDtypeStruct((2, *places, classes), jnp.float32)
    assert variables == others, "parameters depend on the size of the image"
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    if published is not None:
        assert models.count_parameters(variables) == published


@pytest.mark.parametrize("name", models.names())
def test_every_model_refuses_what_is_no_image(name):
    model = models.create(name, num_classes=7, image_size=32)
    for image, message in [
        (jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8), "uint8"),
        (jax.ShapeDtypeStruct((32, 32, 3), jnp.float32), "must be"),
    ]:
        with pytest.raises(ModelError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), image)


def test_image_size_chooses_the_stem_and_an_option_overrules_it():
    assert models.create("resnet18", num_classes=10, image_size=64).small_stem
    assert not models.create("resnet18", num_classes=10, image_size=65).small_stem
    assert models.create("resnet18", num_classes=10, image_size=(96, 48)).small_stem
    overruled = models.create("resnet18", num_classes=10, image_size=224, small_stem=True)
    assert overruled.small_stem


def test_one_model_answers_for_every_pixel():
    assert [name for name in models.names() if models.segments(name)] == ["unet"]
    with pytest.raises(ModelError, match="no model 'u-net'; did you mean 'unet'"):
        models.segments("u-net")


def test_unknown_names_options_and_sizes_are_refused():
    create = functools.partial(models.create, image_size=32)
    with pytest.raises(ModelError, match="did you mean 'resnet18'"):
        create("resnet_18", num_classes=10)
    with pytest.raises(ModelError, match="no option 'widths'; it has param_dtype, width, "):
        create("resnet18", num_classes=10, widths=(1, 2))
    with pytest.raises(ModelError, match="no option 'depths'"):
        create("resnet18", num_classes=10, depths=(1, 1))
    with pytest.raises(ModelError, match="num_classes=0"):
        create("resnet18", num_classes=0)
    with pytest.raises(ModelError, match="must be positive"):
        shapes_of(create("compact", num_classes=10, widths=()), (8, 8, 3))
    with pytest.raises(ModelError, match="must be positive"):
        shapes_of(create("resnet18", num_classes=10, width=0), (8, 8, 3))


def test_the_compact_network_may_see_where_a_feature_lies():
    """With one position the mean of the map; with all of them the map itself, row by row."""
    model = functools.partial(
        models.create, "compact", num_classes=3, image_size=8, widths=(4, 6), units=1
    )
    image = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    whole = model(pooled_size=4)
    variables = jax.jit(whole.init)(jax.random.key(1), image)
    kernel = variables["params"]["head"]["logits"]["kernel"]
    assert kernel.shape == (4 * 4 * 6, 3)
    answer = functools.partial(jax.jit, static_argnums=0)(lambda m, v: m.apply(v, image))
    last = np.asarray(nn.tap(whole, variables, image, ("stage2",))[1]["stage2"])
    np.testing.assert_allclose(
        answer(whole, variables),
        last.reshape(2, -1) @ np.asarray(kernel),  # the bias is 0
        rtol=1e-4,
        atol=1e-5,
    )
    # A kernel that is the same at every position, divided among them, sees the mean alone.
    alike = np.asarray(kernel[:6])
    single = jax.tree.map(lambda leaf: leaf, variables)
    single["params"]["head"]["logits"]["kernel"] = alike
    variables["params"]["head"]["logits"]["kernel"] = np.tile(alike, (16, 1)) / 16
    np.testing.assert_allclose(
        answer(whole, variables), answer(model(), single), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ModelError, match="output_shape"):
        shapes_of(model(pooled_size=0), (8, 8, 3))


def test_initialize_is_init_bit_for_bit():
    model = models.create("compact", num_classes=3, image_size=8, widths=(64,), units=1)
    variables = models.initialize(model, jax.random.key(3), (8, 8, 3), batch_size=2)
    expected = jax.jit(model.init)(jax.random.key(3), jnp.zeros((2, 8, 8, 3)))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_tap_finds_stages_and_blocks_by_name():
    model = models.create("resnet18", num_classes=3, image_size=32)
    _, variables = shapes_of(model, (32, 32, 3))
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    paths = nn.tap_paths(model, variables, image)
    assert paths["stem"].shape == (2, 32, 32, 64)
    assert paths["stage3/block1"].shape == (2, 8, 8, 256)
    assert paths["head"].shape == (2, 3)
