"""Detectors in folders: loaded again, used on new images, damaged, and how often they judged."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.cli import main
from cnn_jax.data import Split
from cnn_jax.detecting import Detector, detect, detection, judge, scorer, uses_beside
from cnn_jax.errors import DataError, RunError
from cnn_jax.evaluation import CalibrationScores


def images_of(n, seed, odd):
    """Grey that grows to the right, with noise; in the odd ones, which come first, downwards."""
    labels = (np.arange(n) < odd).astype(int)
    ramp = np.broadcast_to(np.linspace(50, 150, 8), (n, 8, 8))
    images = np.where(labels[:, None, None] == 1, ramp.transpose(0, 2, 1), ramp)
    return (images + np.random.default_rng(seed).normal(0, 12, images.shape)).astype(
        np.uint8
    ), labels


def dataset_of(seed=0):
    parts = [images_of(90, seed, 10), images_of(80, 1, 10), images_of(40, 2, 12)]
    return data.from_arrays(
        *parts[0], classes=("good", "bad"), validation=parts[1], test=parts[2], name="noise"
    )


@pytest.fixture(scope="module")
def found():
    return detect(dataset_of(), "good", command="the first")


@pytest.fixture
def kept(found, tmp_path):
    return found.save(tmp_path / "kept").parent


def change(folder, **values):
    path = folder / "detection.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def spoil(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def other_scores(folder):
    """Scores that are whole, but give another alarm."""
    path = folder / "scores-validation.npz"
    scores = CalibrationScores.load(path)
    CalibrationScores("validation", scores.ids, scores.scores + 1, scores.anomalous).save(path)
    digests = json.loads((folder / "detection.json").read_text())["sha256"]
    change(folder, sha256={**digests, path.name: hashlib.sha256(path.read_bytes()).hexdigest()})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: spoil(d / "detector.safetensors"), "safetensors' is not what was written"),
        (lambda d: spoil(d / "scores-validation.npz"), "validation.npz' is not what was written"),
        (lambda d: (d / "detector.safetensors").unlink(), "No such file or directory"),
        (lambda d: (d / "detection.json").write_text('{"schema": 1, "me'), "cannot read '.*json'"),
        (lambda d: (d / "detection.json").write_text("[1]"), "cannot read '.*json'"),
        (lambda d: (d / "detection.json").unlink(), "holds no detector: it has no detection.json"),
        (lambda d: change(d, schema=3), "has schema 3, this version of cnn_jax reads 2"),
        (lambda d: change(d, schema=None), "has figures but no detector"),
        (lambda d: change(d, alarm={"threshold": 1}), "no 'false_alarm'"),
        (lambda d: change(d, method="magic"), "method 'magic'"),
        (lambda d: change(d, method="pca"), "fitted Reconstruction has 'mean', and it is not"),
        (lambda d: change(d, method="autoencoder"), "autoencoder without a network"),
        (lambda d: change(d, image_shape="8x8"), "cannot read a detector from"),
        (other_scores, "its alarm is above .*, but by its scores above"),
        (shutil.rmtree, "no folder '.*kept'"),
    ],
)
def test_what_is_damaged_is_told_in_one_line(kept, damage, words, capsys):
    damage(kept)
    with pytest.raises(RunError, match=words) as caught:
        Detector.load(kept)
    assert "\n" not in str(caught.value) and str(kept) in str(caught.value)
    Image.new("L", (8, 8)).save("image.png")
    assert main(["detect", "--load", str(kept), "image.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_pictures_are_brought_to_size_and_colour_and_arrays_refused_as_by_predict(kept, found):
    detector = Detector.load(kept)
    rng = np.random.default_rng(5)
    pictures = [Image.fromarray(rng.integers(0, 255, (20, 14, 3), np.uint8)) for _ in range(2)]
    expected = np.stack([data.decode_image(one, (8, 8, 1)) for one in pictures])
    scored = detector.predict(pictures)
    np.testing.assert_array_equal(scored.scores, found.score(expected))
    np.testing.assert_array_equal(scored.alarms, scored.scores > found.alarm.threshold)
    assert scored.ids == ("0", "1") and len(scored) == 2
    for images, words in (
        (np.zeros((3, 9, 8, 1), np.uint8), r"images are \[9, 8, 1\], but the model was trained"),
        (np.zeros((3, 8, 8, 3), np.uint8), r"images are \[8, 8, 3\], but the model was trained"),
        (np.zeros((0, 8, 8, 1), np.uint8), "no images"),
        (["nowhere.png"], "nowhere.png"),
    ):
        with pytest.raises(DataError, match=words):
            detector.predict(images)


def test_each_look_at_the_test_part_is_logged_in_the_folder(kept, found, tmp_path):
    assert [use["command"] for use in Detector.load(kept).test_uses] == ["the first"]
    again = judge(Detector.load(kept), dataset_of(), command="the second")
    np.testing.assert_array_equal(again.test.scores, found.test.scores)
    assert again.figures == found.figures and again.promise == found.promise
    uses = Detector.load(kept).test_uses
    assert [(use["command"], use["split"], use["n"]) for use in uses] == [
        ("the first", "test", 40),
        ("the second", "test", 40),
    ]
    assert again.detector.test_uses == uses and uses[0]["date"] <= uses[1]["date"]
    # New images are no use of the test part; other data may have been seen.
    Detector.load(kept).predict(found.dataset.splits["test"].images)
    with pytest.raises(DataError, match=r"fitted for 'noise' .*, not for 'noise'"):
        judge(Detector.load(kept), dataset_of(seed=7))
    assert Detector.load(kept).test_uses == uses
    # A copy carries its log with it; other detectors on the same data see it beside them.
    again.save(tmp_path / "copy")
    assert Detector.load(tmp_path / "copy").test_uses == uses
    for name in ("other data", "damaged", "other"):
        found.save(tmp_path / name)
    change(tmp_path / "other data", data={"name": "noise", "digest": "0"})
    change(tmp_path / "damaged", data=None)
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    assert uses_beside(other) == {str(kept): 2, str(tmp_path / "copy"): 2}


def test_a_folder_appears_whole_or_not_at_all(found, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(detection, "write_description", full)
    with pytest.raises(RunError, match=r"cannot write to .*: No space left"):
        found.save(tmp_path / "half")
    assert not list(tmp_path.iterdir())


def test_images_are_read_some_at_a_time_and_scored_alike(found, monkeypatch):
    images = found.dataset.splits["test"].images
    at_once = []

    class Read(Split):
        def read_images(self, indices):
            at_once.append(len(indices))
            return super().read_images(indices)

    monkeypatch.setattr(scorer, "_VALUES_AT_ONCE", 20 * 64)
    scores = found.detector.scorer.of(Read(images, {}, np.arange(40).astype(str)))
    assert at_once == [16, 16, 8]  # a power of two
    np.testing.assert_allclose(scores, found.test.scores, rtol=1e-6)


def test_the_command_scores_new_images(kept, found, capsys, tmp_path):
    images = found.dataset.splits["test"].images[[0, 20]]
    place = tmp_path / "new"
    place.mkdir()
    for name, image in zip(("odd", "plain"), images, strict=True):
        Image.fromarray(image[..., 0]).save(place / f"{name}.png")
    asked = ["detect", "--load", str(kept), str(place)]
    assert main(asked) == 0
    header, odd, plain, empty, promise, verdict = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "score"] and not empty
    assert odd.endswith("  alarm") and plain.endswith("  -")
    assert f"An alarm is a score above {found.alarm.threshold:.4g}: " in promise
    assert "at most 5 % raise one, with confidence 95 %." in promise
    assert verdict == found.promise_text
    assert main([*asked, "--format", "json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [one["score"] for one in records] == found.score(images).tolist()
    assert [one["alarm"] for one in records] == [True, False]
    assert {one["threshold"] for one in records} == {found.alarm.threshold}
    (place / "broken.png").write_bytes(b"no image")
    assert main([*asked, "--format", "csv"]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "image,score,threshold,alarm"
    assert len(printed.out.splitlines()) == 3 and "broken.png" in printed.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--load", "kept"], "name the images to score"),
        (["--load", "kept", "--data", "digits", "a.png"], "--data is for fitting a detector"),
        (["--load", "kept", "--train.epochs", "2", "a.png"], "--train.epochs is for fitting"),
        (["--load", "kept", "--format", "xml", "a.png"], "--format is table, csv or json"),
        (["--data", "digits", "--normal", "0", "a.png"], "'a.png' is no option"),
        (["--load", str(Path("nowhere")), "a.png"], "no folder 'nowhere'"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(words, said, capsys):
    assert main(["detect", *words]) == 2
    assert said in capsys.readouterr().err
