"""A run that learns masks, from files to files: the whole way of `data.masks`."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.special import expit
from small import Interrupting

from cnn_jax import (
    Classifier,
    Run,
    Segmenter,
    clinic,
    data,
    deciding,
    train,
    train_population,
)
from cnn_jax.cli import main
from cnn_jax.errors import DataError, EvaluationError, ModelError, RecipeError, RunError
from cnn_jax.evaluation import segmentation_metrics
from cnn_jax.population import Population
from cnn_jax.population.folder import PopulationFolder
from cnn_jax.run_folder import begun
from cnn_jax.training.progress import Silent

pytestmark = pytest.mark.heavy  # of one run, trained at first

SMALL = {
    "model": "unet",
    "batch_size": 8,
    "model.options": {"widths": [4, 8], "units": 1},
    "augment.translate": 2,
    "train.ema": 0.0,
    "learning_rate": 0.1,
}


def discs(n=48, size=16, seed=0):
    """Bright discs with holes of the noise of their ground; a third of the images have none."""
    rng = np.random.default_rng(seed)
    row, column = np.ogrid[:size, :size]
    images = rng.integers(0, 90, (n, size, size)).astype(np.uint8)
    masks = np.zeros((n, size, size), np.uint8)
    for i in range(n):
        if i % 3:
            at = rng.integers(5, size - 5, 2)
            masks[i] = (row - at[0]) ** 2 + (column - at[1]) ** 2 < 12
            images[i] += (90 * masks[i]).astype(np.uint8)
    return images, masks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "discs"
    for i, (image, mask) in enumerate(zip(*discs(), strict=True)):
        for kind, values in (("images", image), ("masks", mask * np.uint8(255))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / kind / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    return train(
        data=str(folder),
        out=tmp_path_factory.mktemp("runs") / "run",
        baselines=True,
        epochs=12,
        reporter=Silent(),
        **{"data.masks": True, **SMALL},
    )


def test_it_learns_and_what_is_saved_is_what_was_evaluated(run):
    figures = run.metrics["test"]
    assert next(iter(figures)) == "dice" and figures["dice_present"].value > 0.7
    again = Run.load(run.path)
    assert segmentation_metrics(again.masks("test")) == figures
    assert again.evaluate("test") == figures
    last = run.history[-1]["validation_accuracy"]
    assert last == pytest.approx(run.metrics["validation"]["dice"].value, abs=1e-12)
    assert run.regions == ("background", "lesion")
    np.testing.assert_array_equal(run.masks("test").masks, run.dataset.splits["test"].masks)


def test_the_page_shows_the_worst_cases_the_policy_and_the_baseline(run):
    page = (run.path / "report.html").read_text()
    for words in ("Worst cases", "Every case counts", "Otsu threshold on pixels", "Dice, %"):
        assert words in page
    assert page.count("given and predicted outline") == len(run.masks("test"))


def test_new_images_of_any_size_get_masks_of_their_size(run, folder, tmp_path, capsys):
    names = [str(folder / "images" / f"{i:02d}.png") for i in (0, 1)]
    large = tmp_path / "large.png"
    Image.open(names[1]).resize((48, 32), Image.Resampling.NEAREST).save(large)
    assert main(["predict", str(run.path), *names, str(large), "--masks", "m"]) == 0
    printed = capsys.readouterr().out
    assert "lesion: share, highest p" in printed and "m/large_mask.png" in printed
    # What was written can be learned from again.
    for name in (*names, str(large)):
        Image.open(name).save(tmp_path / "m" / name.rsplit("/", 1)[1])
    read = data.load(str(make_class(tmp_path / "m")), masks=True, image_size=16)
    assert read.regions == ("background", "lesion")
    assert np.asarray(Image.open(tmp_path / "classes/x/large_mask.png")).shape == (32, 48)
    true = np.asarray(Image.open(folder / "masks" / "01.png")) > 0
    found = run.segment(names).masks[1] > 0
    assert 2 * (true & found).sum() / (true.sum() + found.sum()) > 0.5
    assert main(["predict", str(run.path), names[0], "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["mask"] == "" and 0 <= record["share(lesion)"] <= 1


def make_class(masks):
    """The folder's files as the one class `x` of a data set."""
    masks.rename(masks.parent / "classes_x")
    (masks.parent / "classes").mkdir()
    return (masks.parent / "classes_x").rename(masks.parent / "classes" / "x").parent


def test_masks_are_never_overwritten(run, folder, capsys):
    command = ["predict", str(run.path), str(folder / "images" / "00.png"), "--masks", "m"]
    assert main(command) == 0
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err


def test_masks_beside_images_are_not_marked_themselves(run, folder, capsys):
    assert main(["predict", str(run.path), str(folder), "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 48
    assert "48 files left out as masks of others" in printed.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["errors", "RUN"], "segments: it has masks, no"),
        (["evaluate", "RUN", "--figures", "medmnist"], "segments: it has masks, no"),
        (["predict", "RUN", "IMAGE", "--coverage", "0.9"], "this network segments"),
    ],
)
def test_commands_on_classes_say_what_this_run_is(run, folder, command, words, capsys):
    places = {"RUN": str(run.path), "IMAGE": str(folder / "images" / "00.png")}
    assert main([places.get(word, word) for word in command]) == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def known(run, tmp_path):
    """Make a copy of the run that finds each marked pixel as often as told."""

    def make(name, share, seed):
        copy = shutil.copytree(run.path, tmp_path / name)
        given = run.masks("test")
        found = given.masks * (np.random.default_rng(seed).random(given.masks.shape) < share)
        p = found[..., None].astype(np.float16)
        dataclasses.replace(given, probabilities=p).save(copy / "predictions" / "test.npz")
        return str(copy)

    return make


def test_runs_that_segment_are_compared(known, capsys):
    a, b = known("a", 0.9, 0), known("b", 0.5, 1)
    uses = len(Run.load(a).test_uses)
    assert main(["compare", a, b]) == 0
    out = capsys.readouterr().out
    dice = [segmentation_metrics(Run.load(x).masks("test"))["dice"].value for x in (a, b)]
    assert [f"dice {value:.4f}" in out for value in dice] == [True, True]
    assert f"A - B  {dice[0] - dice[1]:+.4f} [" in out and "(BCa); paired" in out
    assert "A is better than B. One run each: another seed" in out
    last = Run.load(a).test_uses[-1]
    assert len(Run.load(a).test_uses) == uses + 1 and last["command"].startswith("cnn-jax compare")
    assert int(last["n"]) == len(Run.load(a).masks("test"))
    # Of distances the lower is the better.
    assert main(["compare", b, a, "--metric", "hausdorff95", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == "worse" and found["difference"]["value"] > 0
    assert found["difference"]["method"].endswith("in pixels; paired")


def test_seeds_that_segment_are_compared_for_seeds_and_test_sets(known, capsys):
    for k in range(3):
        known(f"a-{k}", 0.9 - 0.01 * k, k)
        known(f"b-{k}", 0.5 + 0.01 * k, 10 + k)
    assert main(["compare", "a-*", "b-*"]) == 0
    out = capsys.readouterr().out
    assert "A is better than B." in out and "over test sets and seeds: " in out


def test_what_does_not_compare_is_one_line(known, capsys):
    a, other = known("a", 0.9, 0), known("other", 0.9, 1)
    masks = Run.load(other).masks("test")
    renamed = dataclasses.replace(masks, regions=("background", "organ"))
    renamed.save(f"{other}/predictions/test.npz")
    classifying = known("classifying", 0.9, 2)
    file = Path(classifying) / "run.json"
    info = json.loads(file.read_text())
    del info["data"]["regions"]
    file.write_text(json.dumps(info))
    for words, message in (
        ((a, other), "not over the same regions: background, organ, and background, lesion"),
        ((a, classifying), "compare runs of one task"),
        ((classifying, a), "classifies: masks and classes have no figure in common"),
        ((a, known("b", 0.8, 3), "--metric", "auroc"), "no metric 'auroc': choose one of dice,"),
    ):
        assert main(["compare", *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1


def test_several_seeds_have_intervals_over_seeds_and_over_both(run, known, capsys):
    """As `train --seeds 3` leaves them; each member is a run whose masks are known."""
    folder = PopulationFolder.create("seeds", "seeds", overwrite=False)
    folder.write_recipe(run.recipe)
    members = [{"name": f"seed-{k}", "overrides": {"seed": k}} for k in range(3)]
    folder.write_info(
        {
            **begun(run.recipe, "cnn-jax train --seeds 3"),
            "members": members,
            "status": "finished",
            "wanted": "loop",
            "wants_baselines": False,
            "data": {"name": "discs", "digests": []},
        }
    )
    for k in range(3):
        known(f"seeds/seed-{k}", 0.8 - 0.1 * k, k)
    population = Population.load(folder.path)
    dice = [segmentation_metrics(m)["dice"].value for m in population.masks()]
    figures = population.figures()
    assert list(figures) == ["seed", "both"]
    for covers, estimate in figures.items():
        assert estimate.value == pytest.approx(np.mean(dice))
        assert (estimate.covers, estimate.n_seeds) == (covers, 3)
    assert main(["train", "--resume", str(folder.path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].startswith("test dice 0.") and printed[-2].endswith("(over seeds)")
    assert printed[-1] == f"test dice {figures['both']} (over test sets and seeds)"
    assert main(["evaluate", str(folder.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 8 and all(line.endswith(", 3 seeds") for line in lines)
    with pytest.raises(EvaluationError, match="no metric 'auroc'"):
        population.figures("auroc")


def test_an_exported_network_answers_as_the_run(run, folder, tmp_path, capsys):
    assert main(["export", str(run.path), "out"]) == 0
    assert capsys.readouterr().out.split() == ["out/model.safetensors", "and", "out/model.json"]
    names = [str(folder / "images" / f"{i:02d}.png") for i in range(4)]
    printed = []
    for source in (str(run.path), "out"):
        assert main(["predict", source, *names, "--format", "json"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    loaded = Segmenter.load("out")
    assert (loaded.regions, loaded.image_shape) == (run.regions, (16, 16, 1))
    images = run.dataset.splits["test"].images
    for ours, theirs in zip(
        loaded.probabilities(images), run.segmenter.probabilities(images), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert main(["export", str(run.path), "out"]) == 2
    assert "already: choose another folder" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"segments: read it with cnn_jax\.Segmenter\.load"):
        Classifier.load("out")
    with pytest.raises(RunError, match="is a run folder"):
        Segmenter.load(run.path)
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    for changes, message in (
        ({"kind": "class"}, r"classifies: read it with cnn_jax\.Classifier\.load"),
        ({"regions": ["background"]}, "cannot read a model from 'out': 1 regions"),
        ({"sha256": "0"}, "is not what was exported: damaged"),
    ):
        (tmp_path / "out" / "model.json").write_text(json.dumps({**described, **changes}))
        with pytest.raises(RunError, match=message):
            Segmenter.load("out")


def test_an_interrupted_run_goes_on_bit_for_bit(folder, tmp_path):
    def trained(name, reporter):
        return train(
            data=str(folder), out=tmp_path / name, epochs=3, reporter=reporter,
            **{"data.masks": True, **SMALL},
        )  # fmt: skip

    whole = trained("whole", Silent())
    cut = trained("cut", Interrupting(1))
    assert cut.status == "interrupted"
    resumed = Run.load(cut.path).resume(reporter=Silent())
    for a, b in zip(
        jax.tree.leaves(whole.variables), jax.tree.leaves(resumed.variables), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert whole.metrics == resumed.metrics


def test_folds_are_put_together(folder, tmp_path, capsys):
    population = train_population(
        data=str(folder), out=tmp_path / "folds", folds=3, epochs=1, strategy="vmap",
        reporter=Silent(), **{"data.masks": True, **SMALL},
    )  # fmt: skip
    (pooled,) = population.masks()
    assert len(pooled) == 48
    figures = population.cross_validated()
    assert figures == segmentation_metrics(pooled)
    assert population.summary().startswith("out-of-fold dice 0.")
    assert Population.load(population.path).regions == ("background", "lesion")
    with pytest.raises(RunError, match="segments"):
        population.predictions()
    assert main(["predict", str(population.path), str(folder)]) == 2
    assert "segment: name one, such as" in capsys.readouterr().err


def test_patches_are_trained_on_and_whole_images_answered(tmp_path):
    images, masks = discs(24, size=24)
    dataset = data.from_arrays(images, np.zeros(24, int), masks=masks, name="large")
    run = train(
        data=dataset, out=tmp_path / "run", epochs=1, reporter=Silent(),
        **{**SMALL, "augment.patch": 16},
    )  # fmt: skip
    saved = run.masks("test").probabilities
    assert saved.shape[1:] == (24, 24, 1)
    # The windows are part of what is exported.
    run.export(tmp_path / "out")
    _, again = Segmenter.load(tmp_path / "out").probabilities(run.dataset.splits["test"].images)
    np.testing.assert_allclose(again.astype(float), saved.astype(float), rtol=0, atol=1e-3)
    with pytest.raises(RecipeError, match=r"augment\.patch is 24"):
        train(data=dataset, reporter=Silent(), **{**SMALL, "augment.patch": 24})


def test_volumes_are_segmented(tmp_path):
    images, masks = discs(16, size=16)
    volumes, marked = (np.stack([x, x[:, ::-1], x], axis=1) for x in (images, masks))
    dataset = data.from_arrays(volumes[..., None], np.zeros(16, int), masks=marked, name="volumes")
    run = train(data=dataset, out=tmp_path / "run", epochs=1, reporter=Silent(), **SMALL)
    assert run.masks("test").masks.shape[1:] == (3, 16, 16)
    assert (run.path / "report.html").read_text().count("given and predicted outline") > 0
    found = run.segment(volumes[:2, ..., None])
    assert found.masks[0].shape == (3, 16, 16) and found.shares.shape == (2, 1)
    with pytest.raises(DataError, match="masks of volumes are no pictures"):
        found.save(tmp_path / "masks")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "compact", "model.options": {}}, ModelError, "to learn masks take model unet"),
        ({"augment.mixup": 0.2}, RecipeError, r"augment\.mixup is for classification"),
        ({"train.views": "mirror"}, RecipeError, r"train\.views is for classification"),
        ({"loss.class_weights": "balanced"}, RecipeError, "class_weights is for classification"),
        ({"data.masks": False}, ModelError, r"learn masks with --data\.masks true"),
    ],
)
def test_what_does_not_fit_is_told_before_any_work(folder, changes, error, words):
    with pytest.raises(error, match=words):
        train(data=str(folder), **{"data.masks": True, **SMALL, **changes})


def test_of_each_image_it_is_decided_whether_it_is_in_it(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    command = ["decide", str(run.path), "--sensitivity", "0.9", "--page", str(page)]
    assert main(command) == 0
    assert "lesion, sensitivity of 90 %" in capsys.readouterr().out
    words = page.read_text("utf-8")
    assert "Is it" in words and "outline by the network" in words and "heat map of" not in words
    assert "the highest probability of lesion at any of them" in words
    decision = deciding.decide(run, sensitivity=0.9)
    test, line = run.masks("test"), decision.threshold
    highest = np.array([float(p.max()) for p in test.probabilities])
    flagged = highest >= expit(line.log_odds * line.temperature)
    sick = np.array([mask.any() for mask in test.masks])
    counts = [flagged & sick, flagged & ~sick, ~flagged & sick, ~flagged & ~sick]
    assert decision.on_test.counts == tuple(int(part.sum()) for part in counts)
    shown = clinic.make_clinic_page(run, decision)
    rows = {name: i for i, name in enumerate(test.ids.tolist())}
    for case in (*shown.highest, *shown.missed, *shown.alarms):
        i = rows[case.id]
        np.testing.assert_array_equal(case.given, test.masks[i])
        np.testing.assert_array_equal(case.marked, test.probabilities[i, ..., 0] > 0.5)
        assert case.heat is None and case.positive == sick[i] and case.flagged == flagged[i]
    unfinished = shutil.copytree(run.path, tmp_path / "unfinished")
    described = json.loads((unfinished / "run.json").read_text())
    del described["selected"], described["metrics"]  # which are written together
    (unfinished / "run.json").write_text(json.dumps(described))
    with pytest.raises(RunError, match="cnn-jax train --resume"):
        deciding.decide(Run.load(unfinished))


def test_made_defects_teach_what_no_mask_shows(tmp_path):
    """Nothing is marked in training, and the discs of the test part are found all the same."""
    _, masks = discs(180)
    noise = np.random.default_rng(1).normal(110, 6, masks.shape)
    images = np.clip(noise + 40 * masks, 0, 255).astype(np.uint8)
    labels = masks.any(axis=(1, 2)).astype(np.int32)
    normal, bad = np.flatnonzero(labels == 0), np.flatnonzero(labels)
    rows = normal[:36], normal[36:42], np.concatenate([normal[42:], bad[:24]])
    first, validation, test = ((images[r], labels[r], masks[r]) for r in rows)
    dataset = data.from_arrays(*first[:2], masks=first[2], validation=validation, test=test)
    options = {"optimizer.name": "adamw", "learning_rate": 0.01, "epochs": 80}
    taught = {**SMALL, **options, "train.select": "last"}  # validation has nothing to find
    rates = {}
    for name, share in (("taught", 0.7), ("not taught", 1e-9)):
        run = train(data=dataset, out=tmp_path / name, **taught, **{"augment.defects": share})
        highest = run.masks("test").probabilities.max(axis=(1, 2, 3))
        bad = run.masks("test").masks.any(axis=(1, 2))
        rates[name] = np.mean(highest[bad][:, None] > highest[~bad][None])
    assert rates["taught"] > 0.95 > rates["not taught"]


def test_made_defects_are_of_one_region(tmp_path):
    images, masks = discs(30)
    labels = np.arange(30) % 2
    several = data.from_arrays(images, labels, masks=masks * (1 + labels[:, None, None]))
    with pytest.raises(RecipeError, match=r"augment\.defects are of one kind, and 'arrays' has 2"):
        train(data=several, out=tmp_path / "a", **SMALL, **{"augment.defects": 0.5})
    unmarked = data.from_arrays(images, labels, masks=0 * masks)
    with pytest.raises(RecipeError, match=r"nothing is marked in the \d+ training images"):
        train(data=unmarked, out=tmp_path / "c", **SMALL)
    plain = data.from_arrays(images, labels)
    with pytest.raises(RecipeError, match=r"augment\.defects is for segmentation"):
        train(data=plain, out=tmp_path / "b", **{"augment.defects": 0.5, "epochs": 1})
