"""Views of images at test time, worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_set

from cnn_jax.assembly import assemble_run
from cnn_jax.recipe import Recipe
from cnn_jax.training.views import views_of

IMAGE = np.arange(2 * 4 * 5 * 1, dtype=np.float32).reshape(2, 4, 5, 1)


def test_one_is_the_image_itself():
    ((view, weight),) = views_of(jnp.asarray(IMAGE), "one")
    assert weight == 1 and (np.asarray(view) == IMAGE).all()


def test_mirror_and_shift_are_numpys():
    views = list(views_of(jnp.asarray(IMAGE), "mirror-shift"))
    padded = np.pad(IMAGE, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    plain = [IMAGE, padded[:, 2:, 2:], padded[:, :-2, :-2]]
    expected = [v for image in plain for v in (image, image[:, :, ::-1])]
    assert [weight for _, weight in views] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    for (view, _), wanted in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view, wanted)
    assert len(list(views_of(jnp.asarray(IMAGE), "mirror"))) == 2


def test_volumes_are_mirrored_and_moved_in_the_plane():
    volume = np.random.default_rng(0).random((2, 3, 4, 5, 1)).astype(np.float32)
    views = list(views_of(jnp.asarray(volume), "mirror-shift"))
    assert all(view.shape == volume.shape for view, _ in views)
    np.testing.assert_array_equal(views[1][0], volume[:, :, :, ::-1])


@pytest.mark.parametrize("views", ["mirror", "mirror-shift"])
def test_final_predictions_average_the_logits_of_the_views(views):
    recipe = Recipe().override(
        {
            "train.views": views,
            "model.options.widths": [4, 8],
            "model.options.units": 1,
            "augment.translate": 1,
        }
    )
    assembly = assemble_run(recipe, small_set())
    variables = assembly.initial_state().variables
    image = assembly.preprocess(jnp.asarray(assembly.dataset.splits["test"].images))
    apply = jax.jit(functools.partial(assembly.model.apply, train=False))
    expected = sum(weight * apply(variables, view) for view, weight in views_of(image, views))
    got = assembly.predict("test", variables).logits
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    single = assembly.predict("test", variables, final=False).logits
    plain = apply(variables, image)
    np.testing.assert_allclose(single, plain, rtol=1e-4, atol=1e-5)
    assert np.abs(got - single).max() > 1e-4
