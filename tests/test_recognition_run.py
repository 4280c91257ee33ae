"""A run that is judged by people never seen, from files to files: `data.unseen_identities`."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA
from small import Interrupting

from cnn_jax import Recipe, Run, data, nn, train, train_population
from cnn_jax.assembly import assemble_run
from cnn_jax.cli import main
from cnn_jax.errors import DataError, EvaluationError, ModelError, RecipeError, RunError
from cnn_jax.evaluation import (
    CalibrationEmbeddings,
    add_flipped,
    recognition_metrics,
    recognition_pairs,
    recognition_score,
    retrieval_metrics,
    unit_embeddings,
)
from cnn_jax.population.plan import Plan, read_alike
from cnn_jax.recognising import Embedder
from cnn_jax.run_data import resolve_data
from cnn_jax.training.baselines import pixel_features
from cnn_jax.training.progress import Silent
from cnn_jax.training.recognition import Recognition
from cnn_jax.training.step import LinenApply, eval_of
from cnn_jax.training.task import innermost, reweighted

SMALL = {
    "loss.margin": "arcface",
    "loss.scale": 16.0,
    "data.unseen_identities": 4,
    "batch_size": 10,
    "learning_rate": 0.05,
    "augment.translate": 0,
    "epochs": 3,
}


class Tiny(nn.Module):
    """An embedding of the pixels and centres: little to compile."""

    num_classes: int = 12

    @nn.compact
    def __call__(self, image, *, train=False):
        embedding = nn.Dense(6, name="embedding")(image.reshape(len(image), -1))
        return nn.CentreHead(self.num_classes, scale=16.0, name="head")(embedding)


def faces(people=12, each=5, size=8, seed=0):
    """Patterns with noise, a pattern for each of the people."""
    rng = np.random.default_rng(seed)
    pattern = np.repeat(rng.integers(60, 196, (people, size, size, 1)), each, axis=0)
    images = pattern + rng.integers(-50, 50, pattern.shape)
    return data.from_arrays(images.astype(np.uint8), np.repeat(np.arange(people), each))


def trained(out, **changes):
    return train(data=faces(), model=Tiny(), out=out, reporter=Silent(), **{**SMALL, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "run", baselines=True)


def people_of(dataset):
    return {name: set(s.targets["label"].tolist()) for name, s in dataset.splits.items()}


def test_what_is_saved_is_what_was_evaluated_of_people_never_seen(run):
    people = people_of(run.dataset)
    assert {name: len(who) for name, who in people.items()} == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    assert not people["train"] & people["test"] and not people["train"] & people["validation"]
    figures = run.metrics["test"]
    again = Run.load(run.path)
    assert recognition_metrics(again.embeddings("test")) == figures
    assert run.evaluate("test") == figures and run.summary().startswith("test eer ")
    validation = again.embeddings("validation")
    assert isinstance(validation, CalibrationEmbeddings)
    assert "accuracy" not in {name for part in run.metrics.values() for name in part}
    assert run.info["end"]["gap"] is None and "temperature" not in run.info
    np.testing.assert_array_equal(
        again.embeddings("test").subjects,
        np.array(run.dataset.classes["label"])[run.dataset.splits["test"].targets["label"]],
    )


def test_retrieval_figures_of_a_run(run, monkeypatch, capsys):
    monkeypatch.setattr(Run, "load", lambda *_, **__: run)  # whose data are arrays
    asked = ["evaluate", str(run.path), "--figures", "retrieval", "--format", "json"]
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    expected = retrieval_metrics(run.embeddings("test"))
    assert {"precision_at_1", "r_precision", "map_at_r"} == set(expected)
    for name, figure in expected.items():
        assert told[name]["value"] == pytest.approx(figure.value)


def test_the_mirror_image_is_added_before_normalising(run):
    assembly, images = run.assembly, run.dataset.splits["test"].images[:5]
    network = LinenApply(run.model)
    evaluated = eval_of(network, assembly.task, assembly.preprocess, "mirror")
    found = evaluated(run.variables, {}, {"image": images, "index": np.arange(5)})["embeddings"]
    seen = [
        network(run.variables, assembly.preprocess(view), False, {})[0]["embedding"]
        for view in (images, images[:, :, ::-1])
    ]
    np.testing.assert_allclose(
        unit_embeddings(found), add_flipped(*map(np.asarray, seen)), rtol=1e-5, atol=1e-6
    )


def test_an_epoch_is_scored_on_the_people_held_back(run):
    kept = run.assembly.validating(run.variables)()
    score = recognition_score(kept)
    last = run.history[-1]
    assert last["validation_accuracy"] == pytest.approx(score["accuracy"], abs=1e-12)
    assert last["validation_loss"] == pytest.approx(score["loss"], abs=1e-6)
    with pytest.raises(EvaluationError, match="sees the validation part"):
        run.assembly.task.score(run.embeddings("test"))


def test_baselines_stand_beside_it(run):
    assert list(run.info["baselines"]) == ["pixels", "eigenfaces"]
    found = {name: run.embeddings(f"{name}-test") for name in ("pixels", "eigenfaces")}
    images = run.dataset.splits["test"].images
    np.testing.assert_array_equal(found["pixels"].embeddings, pixel_features(images))
    x, learned = (pixel_features(run.dataset.splits[p].images) for p in ("test", "train"))
    count = int(run.info["baselines"]["eigenfaces"].split()[0])
    expected = PCA(count, whiten=True).fit(learned.astype(float)).transform(x)
    np.testing.assert_allclose(
        recognition_pairs(found["eigenfaces"]).scores,
        recognition_pairs(
            dataclasses.replace(found["pixels"], embeddings=np.float32(expected))
        ).scores,
        atol=1e-5,
    )


def test_the_page_shows_pairs_people_and_what_to_mind(run):
    page = (run.path / "report.html").read_text()
    for words in ("equal error rate on test people", "Careful use", "No bound can be promised"):
        assert words in page
    assert "eigenfaces" in page and "paired by example" in page
    assert "test accuracy" not in page and "above validation" not in page
    # A pair of each of four people, and one of every two of them.
    assert page.count("<figure><img") == 2 * (4 + 6)


def test_interrupted_and_resumed_it_is_the_same_bit_for_bit(run, tmp_path):
    stopped = train(
        data=faces(), model=Tiny(), out=tmp_path / "b", reporter=Interrupting(1), **SMALL
    )
    assert stopped.status == "interrupted"
    resumed = Run.load(stopped.path, model=Tiny(), data=faces()).resume(reporter=Silent())
    assert resumed.history == run.history
    for name in ("validation", "test"):
        np.testing.assert_array_equal(
            resumed.embeddings(name).embeddings, run.embeddings(name).embeddings
        )
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, run.variables)


@pytest.mark.heavy
def test_two_splits_train_as_one_program(run, tmp_path):
    members = {f"split-{k}": {"data.split_seed": k} for k in range(2)}
    population = train_population(
        members=members,
        strategy="map",
        data=faces(),
        model=Tiny(),
        out=tmp_path / "p",
        reporter=Silent(),
        **SMALL,
    )
    first, second = population.members.values()
    assert population.strategy[0] == "map" and not population.failures
    assert people_of(first.dataset)["test"] != people_of(second.dataset)["test"]
    assert first.info["data"]["parts"] == {"train": 30, "validation": 10, "test": 20}
    np.testing.assert_allclose(
        first.embeddings("test").embeddings,
        run.embeddings("test").embeddings,
        rtol=1e-3,
        atol=1e-3,
    )
    assert population.summary().endswith("see each of them")
    assert population.recognises and len(population.answers()) == 2


def test_each_member_finds_its_own_images_among_those_of_all():
    base = Recipe().override({"data.source": "custom:faces", "train.batch_size": 10})
    members = [
        {
            "name": f"m{k}",
            "overrides": {"data.split_seed": k, "data.unseen_identities": 4, "data.shots": 2},
        }
        for k in range(3)
    ]
    plan = Plan.of(base, members, faces(), Tiny())
    resident, rows = plan.resident()
    for assembly, own in zip(plan.assemblies, rows, strict=True):
        split = assembly.dataset.splits["train"]
        np.testing.assert_array_equal(np.asarray(resident["image"])[own], split.images)
        np.testing.assert_array_equal(np.asarray(resident["label"])[own], split.targets["label"])
    assert plan.obstacle() is None


def test_members_have_class_weights_of_their_own_within_a_margin():
    changes = {"loss.margin": "arcface", "loss.class_weights": "balanced", "data.shots": 2}
    base = Recipe().override(
        {"data.source": "custom:faces", "data.unseen_identities": 4, **changes}
    )
    members = [{"name": f"m{k}", "overrides": {"data.split_seed": k}} for k in range(2)]
    plan = Plan.of(base, members, faces(), Tiny())
    weights = plan.own()["class_weights"]
    learned = [people_of(a.dataset)["train"] for a in plan.assemblies]
    for own, people in zip(weights, learned, strict=True):
        # Two images of each of them, none of the others: n / (K n_k), with n_k of 1 for none.
        assert {k for k in range(12) if own[k] == 0.5} == people
    task = reweighted(plan.step().task, {"class_weights": tuple(weights[1].tolist())})
    assert innermost(task) == innermost(plan.assemblies[1].task)
    assert type(task) is Recognition and task.learned.margin == "arcface"


def test_members_with_other_people_read_the_data_once():
    base = Recipe().override({"data.source": "folder", "data.unseen_identities": 4})
    for changes in ({"data.split_seed": 3}, {"data.identities": 3}, {"data.shots": 1}):
        assert read_alike(base.override(changes), base)
    seen = Recipe().override({"data.source": "folder"})
    assert not read_alike(seen.override({"data.split_seed": 3, "data.shots": 1}), seen)
    arrays = Recipe().override({"data.source": "custom:faces"})
    assert read_alike(arrays.override({"data.split_seed": 3, "data.shots": 1}), arrays)
    # The validation part of arrays is cut when they are made, whatever the shots.
    with pytest.raises(RecipeError, match="arrays of your own"):
        read_alike(arrays.override({"data.validation": 0.3, "data.shots": 1}), arrays)
    assert read_alike(arrays.override({"data.validation": 0.3, "data.folds": 3}), arrays)


def test_commands_on_it_say_what_it_is(run, tmp_path, capsys):
    shutil.copytree(run.path, tmp_path / "a")
    shutil.copytree(run.path, tmp_path / "b")
    assert main(["compare", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert "A - B  +0.00 points [no interval], n = 190" in out and "a  eer" in out
    for command in (["errors", "a"], ["decide", "a"], ["predict", "a", "x.png"]):
        if command[0] == "predict":
            (tmp_path / "x.png").write_bytes(b"")
        assert main(command) == 2
        printed = capsys.readouterr()
        assert "recognises people never seen" in printed.err + printed.out
    with pytest.raises(RunError, match="recognises people never seen"):
        run.predictions("test")
    with pytest.raises(ModelError, match="not to name those"):
        run.classifier.predict(run.dataset.splits["test"].images)


def test_its_embeddings_serve_a_gallery(run):
    images = run.dataset.splits["test"].images
    embedded = Embedder(run.classifier)(images)
    with jax.default_matmul_precision("highest"):
        outputs = run.model.apply(run.variables, run.assembly.preprocess(images), train=False)
    np.testing.assert_allclose(embedded, outputs["embedding"], rtol=1e-4, atol=1e-5)


def test_the_parts_that_a_recipe_asks_for():
    recipe = Recipe().override({"data.source": "custom:faces", "data.unseen_identities": 4})
    fewer = recipe.override({"data.identities": 3, "data.shots": 2})
    whole, found = (resolve_data(r, faces()) for r in (recipe, fewer))
    assert people_of(found)["test"] == people_of(whole)["test"]
    assert people_of(found)["validation"] == people_of(whole)["validation"]
    assert len(people_of(found)["train"]) == 3 and len(found.splits["train"]) == 6
    assert found.digest != whole.digest
    assert (
        len(
            people_of(resolve_data(recipe.override({"data.validation": 0.5}), faces()))[
                "validation"
            ]
        )
        == 4
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data.unseen_identities": 4, "data.folds": 3}, RecipeError, "both choose the test part"),
        ({"data.unseen_identities": 1}, RecipeError, "at least 2"),
        ({"data.identities": 3}, RecipeError, "set data.unseen_identities, too"),
        ({"data.unseen_identities": 3, "data.masks": True}, RecipeError, "leave one out"),
        ({"data.unseen_identities": 10}, DataError, "12 people cannot be dealt out as 2 valid"),
        ({"data.unseen_identities": 4, "data.identities": 7}, DataError, "7 people to learn from"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        recipe = Recipe().override({"data.source": "custom:faces", **changes})
        resolve_data(recipe, faces())
    assert "\n" not in str(caught.value)


class Logits(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Dense(12)(image.reshape(len(image), -1))


def test_a_network_must_embed():
    recipe = Recipe().override({"data.source": "custom:faces", "data.unseen_identities": 4})
    dataset = resolve_data(recipe, faces())
    with pytest.raises(ModelError, match="return a dict with an 'embedding'"):
        assemble_run(recipe, dataset, Logits())
    named = assemble_run(recipe.override({"model.name": "lenet5"}), dataset)
    assert named.model.embedding_size == 128  # without a margin, too
    test = dataset.splits["test"]
    one_each = test.take(np.unique(test.targets["label"], return_index=True)[1])
    single = dataset.replace(splits={**dataset.splits, "test": one_each})
    with pytest.raises(EvaluationError, match="hold out more people"):
        assemble_run(recipe, single, Tiny())
