"""A run that learns masks, from files to files: the whole way of `data.masks`."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from small import Interrupting

from cnn_jax import Run, data, train, train_population
from cnn_jax.cli import main
from cnn_jax.errors import DataError, ModelError, RecipeError, RunError
from cnn_jax.evaluation import segmentation_metrics
from cnn_jax.population import Population
from cnn_jax.training.progress import Silent

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
        (["decide", "RUN"], "segments: it has masks, no"),
        (["errors", "RUN"], "segments: it has masks, no"),
        (["export", "RUN", "out"], "segments: it has masks, no"),
        (["compare", "RUN", "OTHER"], "segments: it has masks, no"),
        (["evaluate", "RUN", "--figures", "medmnist"], "segments: it has masks, no"),
        (["predict", "RUN", "IMAGE", "--coverage", "0.9"], "this run segments"),
    ],
)
def test_commands_on_classes_say_what_this_run_is(run, folder, command, words, capsys):
    places = {"RUN": str(run.path), "IMAGE": str(folder / "images" / "00.png")}
    places["OTHER"] = places["RUN"]
    if command[0] == "compare":
        import shutil

        places["OTHER"] = str(shutil.copytree(run.path, "other"))
    assert main([places.get(word, word) for word in command]) == 2
    assert words in capsys.readouterr().err


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
    assert run.masks("test").probabilities.shape[1:] == (24, 24, 1)
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
