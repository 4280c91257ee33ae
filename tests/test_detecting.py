"""`cnn-jax detect`: from images to an alarm with a promise."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from small import small_set

from cnn_jax import data, detecting, tables, train
from cnn_jax.cli import main
from cnn_jax.detecting import Detector, auroc_gain, detect
from cnn_jax.errors import DataError, EvaluationError, RecipeError, RunError
from cnn_jax.evaluation import AnomalyScores, au_pimo
from cnn_jax.recipe import Recipe
from cnn_jax.training.progress import Silent

LEARN = Recipe().override(
    {
        "train.epochs": 2,
        "train.batch_size": 16,
        "model.options": {"widths": [4, 8], "units": 1},
        "augment.translate": 1,
    }
)


def stripes(n=300, size=12, odd=60, seed=0):
    """Bright vertical stripes, noise on them; the odd ones lie."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(n, int)
    labels[rng.permutation(n)[:odd]] = 1
    wave = 100 + 60 * np.sin(np.arange(size) * 2 * np.pi / 4 + rng.uniform(0, 1, n)[:, None])
    upright = np.repeat(wave[:, None, :], size, axis=1)
    images = np.where(labels[:, None, None] == 1, upright.transpose(0, 2, 1), upright)
    noisy = np.clip(images + rng.normal(0, 12, images.shape), 0, 255).astype(np.uint8)
    return noisy, labels


def striped(**more):
    images, labels = stripes()
    test = stripes(120, odd=40, seed=1)
    held = stripes(140, odd=20, seed=2)
    return data.from_arrays(
        images, labels, classes=("upright", "lying"), test=test, validation=held, **more
    )


@pytest.fixture(scope="module")
def found():
    return detect(striped(), "upright")


def test_it_sees_normal_images_only_and_the_alarm_those_of_validation(found):
    assert found.figures["auroc"].value > 0.95
    assert found.alarm.n == 120 and not found.calibration.anomalous.any()
    assert found.promise.kept and "Nothing speaks against" in found.promise_text
    assert found.test.anomalous.sum() == 40
    # Other anomalies, other labels of them: what was learned is the same bit for bit.
    dataset = striped()
    splits = {}
    for part, split in dataset.splits.items():
        images = split.images.copy()
        images[split.targets["label"] == 1] = 255
        splits[part] = split.__class__(images, split.targets, split.ids)
    other = detect(dataset.replace(splits=splits), "upright")
    assert other.alarm.threshold == found.alarm.threshold
    normal = ~found.test.anomalous
    np.testing.assert_array_equal(other.test.scores[normal], found.test.scores[normal])


def test_new_images_are_scored_alike(found):
    images = found.dataset.splits["test"].images
    np.testing.assert_allclose(found.score(images[3:9]), found.test.scores[3:9], rtol=1e-6)


def check_kept(found, folder):
    """What was loaded says the same of the test images, bit for bit, and of the alarm."""
    kept = Detector.load(found.save(folder).parent)
    scored = kept.predict(found.dataset.splits["test"].images)
    np.testing.assert_array_equal(scored.scores, found.test.scores, strict=True)
    np.testing.assert_array_equal(scored.alarms, found.alarm.alarms(found.test))
    assert kept.alarm == found.alarm and kept.verdict == found.promise_text
    assert repr(kept) == repr(found.detector)
    assert repr(kept.scorer.network) == repr(found.detector.scorer.network)


def test_the_promise_is_withdrawn_where_test_comes_from_elsewhere():
    images, labels = stripes(120, odd=40, seed=1)
    shifted = np.clip(images.astype(int) + np.random.default_rng(3).integers(-60, 60, images.shape), 0, 255)  # fmt: skip # noqa: E501
    trained, held = stripes(), stripes(140, odd=20, seed=2)
    dataset = data.from_arrays(
        *trained, classes=("upright", "lying"), validation=held,
        test=(shifted.astype(np.uint8), labels),
    )  # fmt: skip
    promise = detect(dataset, "upright").promise
    assert not promise.kept and "is withdrawn" in promise.text


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("method", "features"),
    [
        *(("mahalanobis", "pixels"), ("pca", "pixels"), ("autoencoder", "pixels")),
        *(("padim", "rotation"), ("patchcore", "cutpaste"), ("neighbours", "contrastive")),
    ],
)
def test_every_method_finds_what_is_plain_and_can_be_kept(method, features, tmp_path):
    found = detect(
        striped(), "upright", method=method, features=features, recipe=LEARN, reporter=Silent()
    )
    # After two epochs on 240 images a network knows little; a detector knows the rest.
    assert found.figures["auroc"].value > (0.6 if method == "autoencoder" else 0.75)
    assert set(found.baselines) == {"PCA of pixels", "nearest neighbour on pixels"}
    check_kept(found, tmp_path / "kept")


def test_the_network_of_a_run_gives_features(tmp_path):
    run = train(
        data=striped(), out=tmp_path / "run", epochs=1, reporter=Silent(),
        **{"model.options": {"widths": [4, 8], "units": 1}},
    )  # fmt: skip
    with pytest.raises(
        RecipeError, match="learned from, or was chosen by, 300 of the 420 images that"
    ):
        detect(other_parts(), "upright", method="padim", features=str(run.path))
    found = detect(striped(), "upright", method="padim", features=str(run.path))
    assert found.figures["auroc"].value > 0.9
    run.classifier.save(tmp_path / "exported")
    again = detect(striped(), "upright", method="padim", features=str(tmp_path / "exported"))
    np.testing.assert_array_equal(again.test.scores, found.test.scores)
    check_kept(again, tmp_path / "of exported")
    (tmp_path / "exported" / "model.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read a model from .*exported"):
        detect(striped(), "upright", method="padim", features=str(tmp_path / "exported"))
    run.path.rename(tmp_path / "gone")
    check_kept(found, tmp_path / "kept")
    (tmp_path / "gone").rename(run.path)
    with pytest.raises(RecipeError, match=r"takes images of \[12, 12, 1\], and these are"):
        other = small_set(n=400, size=6).replace(
            splits={
                part: data.from_arrays(*squares(150)).splits["train"]
                for part in ("train", "validation", "test")
            }
        )
        detect(other, "0", features=str(run.path))


def other_parts():
    """The same images, of which train and test have changed places."""
    dataset = striped()
    train, test = dataset.splits["train"], dataset.splits["test"]
    return dataset.replace(splits={**dataset.splits, "train": test, "test": train})


def squares(n):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, 6, 6), np.uint8), np.r_[
        np.zeros(n - 20, int), np.arange(20) % 3
    ]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"normal": "sitting"}, DataError, "has no class 'sitting'; it has upright, lying"),
        ({"method": "magic"}, RecipeError, "no method 'magic'"),
        ({"method": "padim"}, RecipeError, "compares what a network sees"),
        ({"method": "autoencoder", "features": "rotation"}, RecipeError, "features of its own"),
        ({"features": "nowhere"}, RecipeError, "neither pixels, rotation"),
        ({"normal": "lying"}, EvaluationError, "59 are needed"),
    ],
)
def test_what_does_not_fit_is_told_before_any_work(changes, error, words):
    with pytest.raises(error, match=words):
        detect(striped(), **{"normal": "upright", **changes})


def test_a_test_part_of_normal_images_and_one_in_groups_are_judged_as_far_as_can_be(found):
    dataset = striped()
    test = dataset.splits["test"]
    normal = test.take(np.flatnonzero(test.targets["label"] == 0))
    alone = detect(dataset.replace(splits={**dataset.splits, "test": normal}), "upright")
    assert set(alone.figures) == {"false_alarm_rate"} and alone.gains() == {}
    pairs = np.array([f"patient {i // 2}" for i in range(len(test))])
    grouped = dataclasses.replace(test, groups=pairs)
    together = detect(dataset.replace(splits={**dataset.splits, "test": grouped}), "upright")
    assert together.promise is None and "cannot be checked" in together.promise_text
    assert together.figures["auroc"].value == found.figures["auroc"].value


def test_a_gain_is_the_difference_of_the_two_figures():
    rng = np.random.default_rng(0)
    truth = rng.random(80) < 0.4
    ids = np.arange(80).astype(str)
    a, b = (
        AnomalyScores("test", ids, truth * strength + rng.normal(size=80), truth)
        for strength in (2.0, 0.5)
    )
    from sklearn.metrics import roc_auc_score

    gain = auroc_gain(a, b)
    expected = roc_auc_score(truth, a.scores) - roc_auc_score(truth, b.scores)
    assert gain.value == pytest.approx(expected, abs=1e-12) and gain.low > 0


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    for part, (images, labels) in {
        "train": stripes(90, odd=20),
        "val": stripes(100, odd=20, seed=2),
        "test": stripes(60, odd=20, seed=1),
    }.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = tmp_path / "set" / part / ("lying" if label else "upright")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.heavy
def test_the_command_prints_and_writes(folder, capsys):
    asked = ["detect", "--data", str(folder), "--normal", "upright"]
    assert main([*asked, "--out", "found", "--false-alarm", "0.06"]) == 0
    printed = capsys.readouterr().out
    assert "auroc above PCA of pixels" in printed and "at most 6 % raise" in printed
    assert printed.endswith("\ndetector, scores and figures in found\n")
    saved = json.loads(Path("found/detection.json").read_text())
    assert saved["alarm"]["false_alarm"] == 0.06 and saved["figures"]["auroc"]["value"] > 0.9
    assert len(AnomalyScores.load("found/scores-test.npz")) == 60
    assert main([*asked, "--out", "found"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*asked, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["promise"]["kept"] is True
    learned = ["--features", "rotation", "--train.epochs", "1", "--train.select", "best"]
    small = ["--model.options.widths", "[4, 8]", "--model.options.units", "1", "--out", "again"]
    assert main([*asked, "--format", "json", *learned, *small]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == "rotation"
    [use] = json.loads(Path("again/detection.json").read_text())["test_uses"]
    assert use["n"] == 60 and use["command"].startswith(f"cnn-jax detect --data {folder} --normal")
    assert detecting.uses_beside("again") == {"found": 1}
    assert main([*asked, "--confidence", "0.999"]) == 2
    assert "are needed" in capsys.readouterr().err
    assert main(["detect", "--normal", "upright"]) == 2


def scratched(n=240, size=16, odd=40, seed=0):
    """Grey noise; the odd ones have a bright square somewhere, which their mask marks."""
    rng = np.random.default_rng(seed)
    images = rng.normal(100, 8, (n, size, size))
    labels, masks = np.zeros(n, int), np.zeros((n, size, size), int)
    for i in rng.permutation(n)[:odd]:
        row, column = rng.integers(0, size - 6, 2)
        masks[i, row : row + 6, column : column + 6] = 1
        labels[i] = 1
    images += 90 * masks
    return np.clip(images, 0, 255).astype(np.uint8), labels, masks


@pytest.mark.heavy
@pytest.mark.parametrize(("method", "features"), [("padim", "rotation"), ("autoencoder", "pixels")])
def test_maps_tell_where(method, features, tmp_path):
    images, labels, masks = scratched()
    dataset = data.from_arrays(
        images, labels, masks=masks, classes=("good", "scratched"),
        test=scratched(60, odd=20, seed=1), validation=scratched(120, odd=2, seed=2),
    )  # fmt: skip
    learn = LEARN
    if method == "synthetic":
        learn = LEARN.override(
            {"train.epochs": 8, "model.name": "unet", "model.options": {"widths": [4, 8]}}
        )
    found = detect(
        dataset, "good", method=method, features=features, recipe=learn, reporter=Silent()
    )
    check_kept(found, tmp_path / "kept")
    maps = found.detector.scorer.maps(found.dataset.splits["test"])
    assert maps.shape == (60, 16, 16) and maps.dtype == np.float32
    assert {"pixel_auroc", "au_pro", "au_pimo"} <= set(found.figures)
    assert found.figures["pixel_auroc"].value > 0.8
    assert found.figures["au_pro"].value > 0.4 and found.figures["au_pimo"].n == 20
    assert "au pimo" in tables.detection(found, "table")
    # Without masks, and of whole images, there is nothing to compare.
    bare = dataset.replace(
        splits={part: dataclasses.replace(s, masks=None) for part, s in dataset.splits.items()},
        regions=(),
    )
    assert (
        detecting.judge(
            dataclasses.replace(found.detector, data_digest=bare.digest), bare
        ).map_figures
        == {}
    )
    of_pixels = detect(dataset, "good")
    assert of_pixels.map_figures == {}
    assert of_pixels.detector.scorer.maps(found.dataset.splits["test"]) is None


@pytest.mark.heavy
def test_an_anomalous_image_without_a_mark_is_no_normal_one():
    """Its pixels are let through by no one: AU-PIMO looks at normal images."""
    images, labels, masks = scratched(60, odd=20, seed=1)
    unmarked = np.flatnonzero(labels)[0]
    masks[unmarked] = 0
    dataset = data.from_arrays(
        *scratched()[:2], masks=scratched()[2], classes=("good", "scratched"),
        test=(images, labels, masks),
        validation=scratched(120, odd=2, seed=2),
    )  # fmt: skip
    found = detect(dataset, "good", method="autoencoder", recipe=LEARN, reporter=Silent())
    assert found.figures["au_pimo"].n == 19
    maps = found.detector.scorer.maps(dataset.splits["test"])
    wanted = au_pimo(maps, masks, normal=labels == 0).mean.value
    assert found.figures["au_pimo"].value == wanted
