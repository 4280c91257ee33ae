"""Networks that learn without labels: they learn, go on bit for bit, and give their features."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import Interrupting, Tiny

from cnn_jax import data, models, nn
from cnn_jax.errors import DataError, EvaluationError, ModelError, RecipeError, RunError
from cnn_jax.models.autoencoder import Autoencoder
from cnn_jax.pretraining import Pretrained, pretrain
from cnn_jax.pretraining.plan import assemble
from cnn_jax.pretraining.validation import begin_score
from cnn_jax.recipe import Recipe
from cnn_jax.run_folder import RunFolder
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.progress import Silent
from cnn_jax.training.state import purpose_key

SMALL = {
    "train.batch_size": 20,  # of 49: the last batch is padded
    "train.eval_batch_size": 8,  # of 11
    "train.epochs": 2,
    "model.options": {"widths": [4, 8], "units": 1},
    "augment.translate": 1,
}
VIEWS = {"augment.brightness": 0.4, "augment.contrast": 0.4}


def sevens(n, side=12, seed=0):
    """A bar above, and a leg that leans."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, side, side)).astype(np.uint8)
    for image in images:
        top, left = rng.integers(1, 4, 2)
        image[top, left : left + 6] = 220
        for step in range(6):
            image[top + step, left + 5 - step // 2] = 220
    return images


def labelled(n=70, images=None):
    images = sevens(n) if images is None else images
    return data.from_arrays(images, np.arange(len(images)) % 2, name="sevens")


def unlabelled(dataset):
    """Without targets and without a test part."""
    splits = {
        part: dataclasses.replace(dataset.splits[part], targets={})
        for part in ("train", "validation")
    }
    return dataset.replace(splits=splits, classes={}, kinds={})


LABELLED = labelled()
DATA = unlabelled(LABELLED)
IMAGES = sevens(70, seed=1)


def recipe_of(objective, **changes):
    views = VIEWS if objective == "contrastive" else {}
    return Recipe().override({**SMALL, **views, **changes})


def learn(objective, folder=None, reporter=None, model=None, dataset=DATA, **changes):
    recipe = recipe_of(objective, **changes)
    reporter = reporter or Silent()
    return pretrain(recipe, dataset, objective, model=model, folder=folder, reporter=reporter)


def assert_same(a, b):
    assert a.history == b.history
    for x, y in zip(jax.tree.leaves(a.variables), jax.tree.leaves(b.variables), strict=True):
        np.testing.assert_array_equal(x, y)


MANY = {"train.epochs": 6, "train.select": "best", "train.batch_size": 14}
MORE = unlabelled(labelled(200))


@pytest.fixture(scope="module")
def rotation():
    return learn("rotation", dataset=MORE, **MANY)


@pytest.fixture(scope="module")
def autoencoder():
    return learn("reconstruction", model=Autoencoder((4, 8), latent=4), **{"train.epochs": 3})


def test_turns_are_learned_and_the_best_state_is_taken(rotation):
    rows = rotation.history
    best = max(rows, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert len(rows) == 6 and best["validation_accuracy"] > 0.5
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assembly = assemble(recipe_of("rotation", **MANY), MORE, "rotation", None)
    variables = assembly.placement.replicate(rotation.variables)
    score = begin_score(assembly.eval_step, variables, assembly.feeds["validation"])()
    assert score == {"loss": best["validation_loss"], "accuracy": best["validation_accuracy"]}
    assert repr(rotation) == "Pretrained(Compact, rotation, 6 epochs, images 12×12×1)"


def test_reconstructions_get_better(autoencoder):
    first, last = autoencoder.history[0], autoencoder.history[-1]
    assert last["train_loss"] < 0.9 * first["train_loss"]
    assert last["train_accuracy"] > first["train_accuracy"]


def test_validation_poses_each_image_one_problem(rotation):
    """Whatever the size of the batches; the score is the mean written out."""
    recipe = recipe_of("rotation", **MANY)
    images = MORE.splits["validation"].images
    key = purpose_key(jax.random.key(recipe.seed), "validation")
    scores = []
    for size in (8, 30):
        changed = recipe.override({"train.eval_batch_size": size})
        assembly = assemble(changed, MORE, "rotation", None)
        scores.append(
            begin_score(assembly.eval_step, rotation.variables, assembly.feeds["validation"])()
        )
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(len(images)))
    alone = jax.jit(
        jax.vmap(lambda x, key: assembly.task.prepare({"image": x[None]}, key=key)["label"][0])
    )
    turns = np.asarray(alone(jnp.asarray(images), keys))
    turned = np.stack([np.rot90(x, turn) for x, turn in zip(images, turns, strict=True)])
    apply = jax.jit(lambda x: rotation.model.apply(rotation.variables, rotation.preprocess(x)))
    z = np.asarray(apply(jnp.asarray(turned)), np.float64)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    losses = -log_p[np.arange(len(z)), turns]
    right = z.argmax(axis=1) == turns
    for score in scores:
        assert score["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert score["accuracy"] == right.mean()
    assert len(set(turns)) == 4


@pytest.fixture(scope="module")
def views():
    return learn("contrastive", dataset=LABELLED, model=Tiny(5))


class Pressing(Interrupting):
    """Presses the stop button within the second epoch."""

    def chunk(self, epoch, step, steps, loss):
        if (epoch, step) == (2, 1):
            super().epoch([{"epoch": self.after}], 0)

    def epoch(self, rows, images_per_second):
        pass


@pytest.mark.heavy
def test_stopped_twice_the_same_call_goes_on_bit_for_bit(tmp_path, views):
    """After an epoch and within one; and that the other had labels changed nothing."""
    for reporter, steps in ((Interrupting(1), {3}), (Pressing(1), {4, 5})):
        with pytest.raises(RunError, match="stopped by SIGINT after 1 epochs; the state is saved"):
            learn("contrastive", tmp_path, reporter, Tiny(5))
        step = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
        assert step in steps
    for _ in range(2):  # it is trained to the end, then read
        assert_same(learn("contrastive", tmp_path, model=Tiny(5)), views)


def test_two_devices_do_what_one_does(views):
    """Also where the last batch of an epoch is padded."""
    two = learn("contrastive", model=Tiny(5), **{"train.devices": 2})
    for x, y in zip(jax.tree.leaves(two.variables), jax.tree.leaves(views.variables), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    for row, expected in zip(two.history, views.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_folder_belongs_to_one_pretraining(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"holds 'run\.json' and is no folder of a pretraining"):
        learn("rotation", other)
    folder = tmp_path / "mine"
    folder.mkdir()
    described = {"schema": 1, "objective": "rotation", "model": "Compact"}
    (folder / "pretraining.json").write_text(json.dumps(described))
    with pytest.raises(RunError, match="another objective and recipe and data: choose another"):
        learn("cutpaste", folder)
    (folder / "pretraining.json").write_text("{")
    with pytest.raises(RunError, match="cannot read"):
        learn("cutpaste", folder)
    with RunFolder(folder).lock(), pytest.raises(RunError, match="another process is training"):
        learn("cutpaste", folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write to"):
        learn("cutpaste", tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("objective", "changes", "words"),
    [
        ("jigsaw", {}, "no objective 'jigsaw': there are rotation, cutpaste"),
        ("cutpaste", {"augment.mixup": 0.2}, "augment.mixup is for labels or masks"),
        ("cutpaste", {"augment.patch": 8}, "augment.patch is for labels or masks"),
        ("synthetic", {"augment.defects": 0.5}, "augment.defects is for labels or masks"),
        ("synthetic", {"augment.copy_paste": 0.5}, "augment.copy_paste is for labels or masks"),
        ("cutpaste", {"loss.focal": 1.0}, "loss.focal is for labels or masks"),
        ("cutpaste", {"train.sampling": "balanced"}, "train.sampling is for labels or masks"),
        ("cutpaste", {"train.views": "mirror"}, "train.views is for labels or masks"),
        ("rotation", {"augment.flip": True, "augment.flip_vertical": True}, "are a half turn"),
        ("rotation", {"augment.rotate": 60.0}, "augment.rotate is 60.0, but rotation has to tell"),
        ("contrastive", {"train.accumulate": 2}, "Contrastive compares all examples of a batch"),
        ("contrastive", {"train.batch_size": 1}, "train.batch_size is 1, but contrastive"),
        (
            "contrastive",
            {"augment.translate": 0, "augment.contrast": 0.0, "augment.brightness": 0.0},
            "augment changes nothing",
        ),
    ],
)
def test_recipes_that_do_not_fit(objective, changes, words):
    with pytest.raises(RecipeError, match=words.replace(".", r"\.")):
        learn(objective, **changes)


def test_data_and_models_that_do_not_fit():
    train = DATA.splits["train"]
    with pytest.raises(DataError, match="has no validation part"):
        learn("cutpaste", dataset=DATA.replace(splits={"train": train}))
    one = DATA.replace(splits={**DATA.splits, "validation": train.take([0])})
    with pytest.raises(DataError, match="has one validation image"):
        learn("contrastive", dataset=one)
    wide = unlabelled(labelled(images=sevens(40)[:, :6]))
    with pytest.raises(DataError, match="square images, not 6 x 12"):
        learn("rotation", dataset=wide)
    with pytest.raises(ModelError, match="Rotation has 4 classes, but the model gives 3 logits"):
        learn("rotation", model=Tiny(3))
    with pytest.raises(ModelError, match="take an autoencoder"):
        learn("reconstruction", model=Tiny(3))
    with pytest.raises(ModelError, match=r"UNet does not take images of \[2, 12, 12, 1\]|logits"):
        learn("contrastive", model=models.UNet(num_classes=2, widths=(2, 3)))


def test_scores_that_are_not_finite_are_named():
    assembly = assemble(recipe_of("rotation"), DATA, "rotation", Tiny(4))
    variables = jax.tree.map(lambda x: x * jnp.nan, assembly.initial_state().variables)
    with pytest.raises(EvaluationError, match="the loss of 11 of 11 validation examples"):
        begin_score(assembly.eval_step, variables, assembly.feeds["validation"])()


def test_a_score_begins_before_it_is_asked_for():
    assembly = assemble(recipe_of("rotation"), DATA, "rotation", Tiny(4))
    begun = []

    def eval_step(variables, resident, item):
        begun.append(item["count"])
        return {"figures": jnp.ones((*item["index"].shape, 1, 3))}

    score = begin_score(eval_step, {}, assembly.feeds["validation"])
    assert len(begun) == 1
    assert score() == {"loss": 1.0, "accuracy": 1.0} and len(begun) == 1


def test_models_are_made_for_the_objective():
    changes = {"train.dtype": "bfloat16"}
    assembly = assemble(recipe_of("reconstruction", **changes), DATA, "reconstruction", None)
    assert assembly.model == Autoencoder(dtype=jnp.dtype("bfloat16"))
    assembly = assemble(recipe_of("cutpaste"), DATA, "cutpaste", None)
    assert assembly.model.num_classes == assembly.task.num_outputs == 2


def test_features_are_those_of_each_image(rotation):
    """In batches of one size, of which the last is padded; uint8 or floating alike."""
    paths = ("stage2", "stage1/block1")
    found = rotation.features(IMAGES, paths)
    assert list(found) == list(paths)
    tapped = jax.jit(lambda x: nn.tap(rotation.model, rotation.variables, x, at=paths)[1])
    expected = tapped(rotation.preprocess(jnp.asarray(IMAGES[..., None])))
    for path, value in expected.items():
        assert found[path].dtype == np.float32 and len(found[path]) == 70
        np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=1e-5)
    few = rotation.features(IMAGES[3:6].astype(np.float64) / 255, paths)
    for path, value in few.items():
        np.testing.assert_allclose(value, found[path][3:6], rtol=1e-4, atol=1e-4)
    mean = found["stage2"].mean(axis=(1, 2))
    np.testing.assert_allclose(rotation.embedding(IMAGES), mean, rtol=1e-4, atol=1e-5)


def given(model, side=8):
    variables = models.initialize(model, jax.random.key(0), (side, side, 1))
    return Pretrained.of(model, variables, Preprocess((0.4,), (0.2,)), [side, side, 1])


@pytest.mark.parametrize(
    ("model", "path", "change"),
    [
        (models.Compact(3, widths=(2, 3), units=1), "stage2", lambda x: x.mean(axis=(1, 2))),
        (models.ResNet(num_classes=3, depths=(1, 1), width=2), "stage2", lambda x: x.mean((1, 2))),
        (
            models.PreactResNet(num_classes=3, depths=(1,), stem_width=2, width=2),
            "norm",
            lambda x: np.maximum(x, 0).mean(axis=(1, 2)),
        ),
        (models.LeNet5(3), "dense2", np.tanh),
        (Autoencoder((2, 3), latent=5), "embedding", lambda x: x),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_the_embedding_is_what_the_last_layer_sees(model, path, change):
    images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    pretrained = given(model)
    found = pretrained.embedding(images)
    tapped = pretrained.features(images, (path,))[path]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, change(tapped), rtol=1e-5, atol=1e-6)
    assert f"Pretrained({type(model).__name__}, given, images 8×8×1)" == repr(pretrained)


class Headless(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Dense(2, name="last")(image.reshape(len(image), -1))


def test_what_features_are_not_taken_of(rotation):
    pretrained = given(Headless())
    images = np.zeros((2, 8, 8, 1), np.uint8)
    with pytest.raises(ModelError, match="Headless has no submodule 'head'"):
        pretrained.embedding(images)
    with pytest.raises(ModelError, match="take an autoencoder"):
        pretrained.reconstruction_error(images)
    with pytest.raises(ModelError, match="did you mean 'last'"):
        pretrained.features(images, ("lst",))
    with pytest.raises(ModelError, match="must be a sequence of paths"):
        pretrained.features(images, "last")
    for wrong, words in (
        ([images[0]], "must be one array"),
        (images[:0], "no images"),
        (images[:, :4], r"\[4, 8, 1\]"),
        (images.astype(np.int32), "int32"),
    ):
        with pytest.raises(DataError, match=words):
            pretrained.features(wrong, ("last",))


def test_reconstruction_errors_are_means_of_squares(autoencoder):
    found = autoencoder.reconstruction_error(IMAGES)
    mean, std = autoencoder.preprocess.mean[0], autoencoder.preprocess.std[0]
    image = (IMAGES[..., None] / 255 - mean) / std
    apply = jax.jit(lambda x: autoencoder.model.apply(autoencoder.variables, x)["reconstruction"])
    outputs = np.asarray(apply(jnp.asarray(image, jnp.float32)), np.float64)
    assert found.dtype == np.float64 and found.shape == (70,)
    np.testing.assert_allclose(found, ((outputs - image) ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)
    # What was never seen is reconstructed worse.
    assert autoencoder.reconstruction_error(IMAGES[:, ::-1]).mean() > found.mean()
