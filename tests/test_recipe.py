"""Recipes: overrides by dotted name, TOML there and back, errors that teach."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax import fields
from cnn_jax import recipe as recipes
from cnn_jax.errors import RecipeError
from cnn_jax.recipe import Recipe


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**32 - 1),
            "optimizer.learning_rate": st.floats(1e-9, 1e3),
            "augment.flip": st.booleans(),
            "data.source": st.text(min_size=1),
            "data.image_size": st.none() | st.integers(4, 4096),
            "optimizer.decay_exclude": st.lists(st.text()),
            "loss.class_weights": st.sampled_from(["none", "balanced"])
            | st.lists(st.floats(0.1, 10), min_size=1),
            "model.options.widths": st.lists(st.integers(1, 99), min_size=1),
        },
    )
)
def test_toml_there_and_back(tmp_path_factory, values):
    recipe = Recipe().override(values)
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.from_toml(path) == recipe
    assert Recipe.from_toml(path).digest() == recipe.digest()


def test_text_is_read_as_the_type_of_the_field():
    recipe = Recipe().override(
        {
            "train.epochs": "7",
            "optimizer.learning_rate": "1e-3",
            "augment.flip": "true",
            "schedule.milestones": "[0.1, 0.9]",
            "data.image_size": "none",
            "data.source": "123",
            "model.options.widths": "[4, 8]",
            "model.options.act": "relu",
        }
    )
    assert recipe.train.epochs == 7
    assert recipe.optimizer.learning_rate == 1e-3
    assert recipe.augment.flip is True
    assert recipe.schedule.milestones == (0.1, 0.9)
    assert recipe.data.image_size is None
    assert recipe.data.source == "123"
    assert recipe.model.options == {"widths": (4, 8), "act": "relu"}


def test_nested_and_dotted_names_are_merged():
    recipe = Recipe().override({"train": {"epochs": 3}, "train.batch_size": 5})
    assert (recipe.train.epochs, recipe.train.batch_size) == (3, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.learning_rat": 1}, "did you mean 'optimizer.learning_rate'"),
        ({"train.until": "converge"}, "did you mean 'converged'"),
        ({"train.epochs": "many"}, "train.epochs must be a whole number, not 'many'"),
        ({"train.epochs": 1.5}, "train.epochs must be a whole number"),
        ({"train.epochs": True}, "train.epochs must be a whole number"),
        ({"train.epochs": 0}, "train.epochs must be at least 1, not 0"),
        ({"optimizer.learning_rate": "nan"}, "optimizer.learning_rate must be a number"),
        ({"optimizer.momentum": 1.0}, "optimizer.momentum must be"),
        ({"augment.flip": 1}, "augment.flip must be 'alternating' or true or false"),
        ({"schedule.milestones": [0.9, 0.1]}, "increasing"),
        ({"train": 3}, "train is a group of fields"),
        ({"model.options": 3}, "model.options is a table"),
        ({"loss.class_weights": [-1.0]}, "loss.class_weights"),
        ({"loss.class_weights": [0.0, 0.0]}, "one at least above 0"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(RecipeError, match=message):
        Recipe().override(values)


def test_every_field_has_a_documented_meaning():
    for part in dataclasses.fields(Recipe):
        group = getattr(Recipe(), part.name)
        if dataclasses.is_dataclass(group) and part.name != "model":
            for item in dataclasses.fields(group):
                assert item.name in type(group).__doc__, f"{part.name}.{item.name}"


def test_every_bundled_recipe_is_a_recipe():
    assert {"digits", "mnist", "cifar10"} <= set(recipes.bundled())
    for name in recipes.bundled():
        assert isinstance(Recipe.from_dict(recipes.load(name)), Recipe)


def test_the_recipe_follows_the_data():
    mnist = recipes.load("mnist")
    assert mnist
    expected = Recipe.from_dict(mnist).override({"data.source": "x"})
    for source in ("mnist", "fashion_mnist", "/sets/mnist"):
        assert recipes.for_data(source).override({"data.source": "x"}) == expected
    assert recipes.for_data("something") == Recipe().override({"data.source": "something"})


@pytest.mark.parametrize("text", ["seed = = 1", "\x00", "[train]\nepoch = 3"])
def test_a_damaged_file_is_one_line(tmp_path, text):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'digits'"):
        recipes.load("digit")
    with pytest.raises(RecipeError, match=r"cannot read recipe 'no\.toml'"):
        recipes.load("no.toml")


def test_names_are_those_of_the_fields():
    assert "train.epochs" in fields.names(Recipe())
    assert fields.get(Recipe(), "train.epochs") == Recipe().train.epochs
