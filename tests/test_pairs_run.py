"""Losses of pairs and batches of identities, as a recipe asks for them."""

import jax
import numpy as np
import pytest
from small import PLAIN, QUICK

from cnn_jax import Recipe, data, nn, programs
from cnn_jax.classifier import build_model
from cnn_jax.errors import RecipeError
from cnn_jax.execution import Chosen, conclude, describe
from cnn_jax.population.plan import Plan
from cnn_jax.pretraining.plan import assemble as assemble_pretraining
from cnn_jax.run_data import resolve_data
from cnn_jax.run_folder import RunFolder
from cnn_jax.tasks import check_sampling, make_task
from cnn_jax.training.metric_learning import ContrastivePairs, SupervisedContrastive, Triplet
from cnn_jax.training.population import PopulationFeed, make_population_chunk, stack
from cnn_jax.training.recognition import Recognition
from cnn_jax.training.state import create_state

PAIRS = {
    "data.source": "custom:people",
    "data.unseen_identities": 4,
    "loss.pairs": "triplet-all",
    "train.sampling": "identities",
    "train.batch_size": 12,
}


def people(count=12, each=5, size=6):
    """Patterns with noise, a pattern for each person."""
    rng = np.random.default_rng(0)
    pattern = np.repeat(rng.integers(60, 196, (count, size, size, 1)), each, axis=0)
    images = pattern + rng.integers(-50, 50, pattern.shape)
    return data.from_arrays(images.astype(np.uint8), np.repeat(np.arange(count), each))


def recipe_of(**changes):
    return Recipe().override({**PAIRS, **changes})


class Embedding(nn.Module):
    """Pixels through one dense layer."""

    num_classes: int = 12

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Dense(6, name="embedding")(image.reshape(len(image), -1))
        return nn.CentreHead(self.num_classes, name="head")(x)


def params_of(kernel, bias=1.0):
    """Of `Embedding`, without compiling its `init`."""
    dense = {"kernel": np.float32(kernel), "bias": np.full(6, bias, np.float32)}
    return {"embedding": dense, "head": {"centres": np.ones((12, 1, 6), np.float32)}}


def contrastive_loss(z, label, margin):
    """The mean over all pairs, in float64."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    d = np.linalg.norm(z[:, None] - z[None], axis=2)
    of_pair = np.where(label[:, None] == label, d, np.maximum(margin - d, 0)) ** 2 / 2
    return of_pair[~np.eye(len(z), dtype=bool)].mean()


MARGINS = (0.3, 1.5)


@pytest.fixture(scope="module")
def plan():
    members = [
        {"name": f"m{k}", "overrides": {"loss.pair_margin": margin, "data.split_seed": k}}
        for k, margin in enumerate(MARGINS)
    ]
    changes = {**PLAIN, "train.batch_size": 12, "loss.pairs": "contrastive"}
    return Plan.of(recipe_of(**changes), members, people(), Embedding())


def test_each_member_of_a_population_has_batches_and_a_margin_of_its_own(plan):
    assert plan.obstacle() is None and not plan.same_data
    first = plan.assemblies[0]
    resident, rows = plan.resident()
    feeds = [assembly.feeds["train"] for assembly in plan.assemblies]
    feed = PopulationFeed(feeds, resident, first.placement, rows)
    assert feed.steps == 3  # of 30 images
    items = next(feed.train_chunks(seed=[0, 0], epoch=0, first_step=0, chunk_steps=1))
    index = np.asarray(items["index"])[0]
    labels = np.asarray(resident["label"])[index]
    by_person = labels.reshape(2, 3, 4)
    assert (by_person == by_person[:, :, :1]).all() and np.asarray(items["valid"]).all()
    assert [len(set(of_batch.tolist())) for of_batch in labels] == [3, 3]
    before = params_of(np.random.default_rng(1).normal(size=(36, 6)))
    opt_state, key = first.optimizer.init(before), jax.random.key(0)
    scalars = [programs.hyper_of(recipe) for recipe in plan.recipes]
    state = stack([create_state({"params": before}, opt_state, own, key) for own in scalars], 1)
    chunk = make_population_chunk(plan.step(), "vmap", first.placement, plan.own(), QUICK)
    state, metrics = chunk(state, resident, items)
    for k, (assembly, margin) in enumerate(zip(plan.assemblies, MARGINS, strict=True)):
        mean, std = assembly.preprocess.mean, assembly.preprocess.std
        x = (np.asarray(resident["image"])[index[k]] / 255 - mean) / std
        z = x.reshape(12, -1) @ before["embedding"]["kernel"] + before["embedding"]["bias"]
        loss, weight = (float(value[k]) for value in metrics["loss"])
        assert loss / weight == pytest.approx(contrastive_loss(z, labels[k], margin), rel=1e-4)
    assert (state.params["embedding"]["kernel"] != before["embedding"]["kernel"][None]).any()
    assert (state.params["head"]["centres"] == 1).all()


def test_a_network_that_ends_at_one_point_is_told_once_what_helps(plan, tmp_path):
    assembly = plan.assemblies[0]
    folder = RunFolder.create(tmp_path / "run", "run", overwrite=False)
    folder.write_info(describe(assembly, "test", baselines=False))
    last = {"train_accuracy": 0.5, "validation_accuracy": 0.5, "gradient_norm": 0.0}
    said = []
    variables = {"params": params_of(np.zeros((36, 6)))}
    conclude(folder, assembly, Chosen(variables, 0, 1, "the end", last), "test", said.append)
    assert len(said) == 1 and "collapsed to nearly one point" in said[0]
    assert "semi-hard" in said[0] and "eer" in folder.read_info()["metrics"]["test"]


def test_one_program_serves_all_sizes_of_a_loss_of_pairs():
    triplets, other = recipe_of(), recipe_of(**{"loss.pair_margin": 0.7})
    contrastive = recipe_of(**{"loss.pairs": "contrastive"})
    assert programs.program_of(triplets) == programs.program_of(other)
    assert programs.program_of(triplets) != programs.program_of(contrastive)
    margins = [programs.hyper_of(r)["pair_margin"] for r in (triplets, other, contrastive)]
    assert margins == [0.2, 0.7, 1.0]
    cold = recipe_of(**{"loss.pairs": "supervised-contrastive", "loss.pair_temperature": 0.05})
    scalars = {k: v for k, v in programs.hyper_of(cold).items() if k.startswith("pair")}
    assert scalars == {"pair_temperature": 0.05}
    assert not [name for name in programs.hyper_of(Recipe()) if name.startswith("pair")]
    assert build_model(cold, 12, (8, 8, 1)).embedding_size == 128


def test_each_name_is_that_of_its_loss():
    dataset = resolve_data(recipe_of(), people())
    for name, loss in {
        "contrastive": ContrastivePairs(),
        "triplet-all": Triplet(mining="all"),
        "triplet-hard": Triplet(mining="hard"),
        "triplet-semi-hard": Triplet(mining="semi-hard"),
        "supervised-contrastive": SupervisedContrastive(),
    }.items():
        asked = recipe_of(**{"loss.pairs": name}).loss
        task = make_task(asked, dataset, dataset.splits["train"], unseen=True)
        assert task == Recognition(loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.unseen_identities": 0}, "set data.unseen_identities, too"),
        ({"loss.margin": "arcface"}, "loss.margin is for losses of classes"),
        ({"loss.class_weights": "balanced"}, "loss.class_weights is for"),
        ({"loss.label_smoothing": 0.1}, "loss.label_smoothing is for"),
        ({"loss.focal": 2.0}, "loss.focal is for"),
        ({"loss.logit_adjustment": 1.0}, "loss.logit_adjustment is for"),
        ({"augment.mixup": 0.2}, "augment.mixup is for"),
        ({"augment.cutmix": 1.0}, "augment.cutmix is for"),
        ({"train.accumulate": 2}, "train.accumulate is 2, but loss.pairs compares all"),
        ({"train.images_per_identity": 1}, "take 2 or more"),
        ({"train.images_per_identity": 5}, "no whole number of classes with 5 images"),
        ({"train.images_per_identity": 0}, "at least 1"),
        ({"loss.pair_margin": 2.5}, "at most 2, a diameter"),
        ({"loss.pair_temperature": 0.0}, "above 0"),
        (
            {"loss.pairs": "supervised-contrastive", "loss.pair_margin": 0.2},
            "set loss.pair_temperature instead",
        ),
    ],
)
def test_recipes_of_pairs_that_make_no_sense_are_one_line(changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe_of(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Eight people in all, of whom two are held back, have thirty images to learn from.
        (
            {"train.batch_size": 64},
            r"batches of 30 images, 4 of each class .* multiple of 4, 8 to 24",
        ),
        ({"train.batch_size": 28}, "batches of 28 .* of 30 images of 6 classes: .* 8 to 24"),
        ({"train.batch_size": 4}, "batches of 4 .* 8 to 24"),
        ({"train.images_per_identity": 20, "train.batch_size": 40}, "choose fewer of each class"),
        ({"data.shots": 1, "train.batch_size": 4}, "nobody has two to learn from"),
    ],
)
def test_batches_that_these_data_cannot_fill(changes, message):
    recipe = recipe_of(**changes)
    dataset = resolve_data(recipe, people())
    with pytest.raises(RecipeError, match=message):
        if "data.shots" in changes:
            make_task(recipe.loss, dataset, dataset.splits["train"], unseen=True)
        check_sampling(recipe, dataset)


def test_identities_serve_losses_of_classes_too_where_images_have_one():
    by_class = Recipe().override({"train.sampling": "identities", "train.batch_size": 12})
    check_sampling(by_class, people())
    check_sampling(by_class.override({"train.batch_size": 4 * 9}), people(count=12, each=4))
    adjusted = by_class.override({"loss.logit_adjustment": 1.0})
    with pytest.raises(RecipeError, match=r"identities and loss.logit_adjustment both make up"):
        check_sampling(adjusted, people())
    several = data.from_arrays(
        np.arange(192, dtype=np.uint8).reshape(12, 4, 4, 1),
        1 - np.eye(3, dtype=np.float32)[np.arange(12) % 3],
    )
    with pytest.raises(RecipeError, match=r"sampling is identities, .* has multilabel labels"):
        check_sampling(by_class, several)
    paired = recipe_of(**{"train.sampling": "uniform"})
    with pytest.raises(RecipeError, match=r"loss.pairs is for labels or masks"):
        assemble_pretraining(paired, people(), "rotation", None)
