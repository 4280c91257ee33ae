"""`cnn-jax inspect`: pictures pass or fail, whole or in windows."""

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.cli import main
from cnn_jax.detecting import Detector, detect, judge
from cnn_jax.detecting import tiles as tiles_module
from cnn_jax.detecting.looking import LONGEST_SHOWN, look_at
from cnn_jax.detecting.tiles import Tiles, files_of, windows_of
from cnn_jax.errors import DataError, RecipeError
from cnn_jax.inspecting import Report, inspect, page_of, warm
from cnn_jax.report.inspection import render


@dataclasses.dataclass
class Bright:
    """A detector's scorer in place of one: the brightest pixel, and the picture as its map."""

    of_whole: bool = False
    most: int = 0

    def look(self, images):
        self.most = max(self.most, len(images))
        maps = images[..., 0].astype(np.float64)
        return maps.max(axis=(1, 2)), None if self.of_whole else maps

    def drawn(self, maps, size):
        assert maps.shape[1:] == size
        return maps.astype(np.float32)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def dotted(path, shape, dot, value=250):
    pixels = np.random.default_rng(0).integers(0, 90, shape).astype(np.uint8)
    pixels[dot] = value
    return save(path, pixels)


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (33, 17), (100, 90)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_windows_cover_a_picture_and_overlap(size, overlap):
    tiles = Tiles(16, overlap)
    places = tiles.places(*size)
    seen = np.zeros(size, int)
    for top, left in places:
        assert top + 16 <= max(16, size[0]) and left + 16 <= max(16, size[1])
        seen[top : top + 16, left : left + 16] += 1
    assert seen.all() and len(set(places)) == len(places)
    for axis, length in enumerate(size):
        starts = sorted({place[axis] for place in places})
        if length > 16:
            assert max(np.diff(starts)) <= 16 * (1 - overlap) + 1e-9


def test_windows_that_make_no_sense_are_refused():
    for size, overlap in ((7, 0.25), (16, -0.1), (16, 0.95)):
        with pytest.raises(RecipeError, match="tiles of"):
            Tiles(size, overlap)


@pytest.mark.parametrize("shape", [(70, 90), (1200, 700), (300, 1900)])
def test_the_highest_window_counts_and_heat_lies_where_it_was(tmp_path, shape):
    dot = (shape[0] - 9, shape[1] // 3)
    file = dotted(tmp_path / "a.png", shape, dot)
    scorer = Bright()
    (look,) = look_at(scorer, [file], (32, 32, 1), "crop", Tiles(32))
    assert look.score == 250 and scorer.most <= 64
    assert max(look.picture.shape[:2]) == min(LONGEST_SHOWN, max(shape))
    assert look.heat.shape == look.picture.shape[:2] and np.isfinite(look.heat).all()
    scale = look.heat.shape[0] / shape[0]
    where = np.argwhere(look.heat == 250)
    np.testing.assert_allclose(where.mean(axis=0), np.multiply(dot, scale), atol=1)
    # Each pixel of the whole has the highest value of those that it stands for.
    if scale == 1:
        np.testing.assert_array_equal(look.heat, np.asarray(Image.open(file)))
    (whole,) = look_at(Bright(of_whole=True), [file], (32, 32, 1), "crop", Tiles(32))
    assert whole.heat is None and whole.score == 250


def test_pictures_as_a_whole_are_looked_at_in_their_order(tmp_path):
    files = [dotted(tmp_path / f"{i}.png", (20, 20), (3, i % 20), 100 + i) for i in range(70)]
    looks = list(look_at(Bright(), files, (20, 20, 1), "stretch", None))
    assert [look.score for look in looks] == [100 + i for i in range(70)]
    assert all(look.heat[3, i % 20] == 100 + i for i, look in enumerate(looks))


def test_windows_are_examples_whose_groups_are_their_pictures(tmp_path, monkeypatch):
    files = [dotted(tmp_path / f"{i}.png", (40 + 8 * i, 24), (0, 0)) for i in range(3)]
    labels, ids = np.arange(3, dtype=np.int32), np.array(["a", "b", "c"])
    split = data.Split(np.zeros((3, 8, 8, 1), np.uint8), {"label": labels}, ids)
    found = windows_of(files, split, 1, Tiles(24, 0.0))
    assert found.ids.tolist() == [
        *("a@0,0", "a@16,0", "b@0,0", "b@24,0"),
        *("c@0,0", "c@16,0", "c@32,0"),
    ]
    assert found.groups.tolist() == list("aabbccc") and found.targets["label"].tolist() == [
        *(0, 0, 1, 1),
        *(2, 2, 2),
    ]
    pixels = np.asarray(Image.open(files[2]))
    np.testing.assert_array_equal(found.images[5, ..., 0], pixels[16:40])
    grouped = dataclasses.replace(split, groups=np.array(["x", "x", "y"]))
    assert windows_of(files, grouped, 1, Tiles(24, 0.0)).groups.tolist() == list("xxxxyyy")
    monkeypatch.setattr(tiles_module, "MOST_LEARNED", 4)
    few = windows_of(files, split, 1, Tiles(24, 0.0))
    assert len(few) == 4 and set(few.ids.tolist()) < set(found.ids.tolist())
    with pytest.raises(DataError, match="1 of 3 images are no files of their own, such as 'b'"):
        files_of(split, {"a": files[0], "c": files[2]})


def plate(rng, defect=False, size=(48, 64)):
    """Grey stripes; a defect is a bright piece."""
    wave = 90 + 30 * np.sin(np.arange(size[1]) / 3 + rng.uniform(0, 6))
    pixels = np.repeat(wave[np.newaxis], size[0], axis=0) + rng.normal(0, 4, size)
    if defect:
        row, column = rng.integers(0, size[0] - 16), rng.integers(0, size[1] - 16)
        pixels[row : row + 16, column : column + 16] += 110
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """A folder as MVTec AD's are."""
    root, rng = tmp_path_factory.mktemp("plates") / "plate", np.random.default_rng(0)
    for part, name, count in (
        ("train", "good", 210),
        ("test", "good", 10),
        ("test", "hole", 12),
    ):
        for i in range(count):
            save(root / part / name / f"{i:03}.png", plate(rng, name == "hole"))
    return root


@pytest.fixture(scope="module")
def in_windows(plates):
    """Learned from windows of the plates."""
    dataset = data.load(str(plates), validation=0.3)
    ids = [str(name) for split in dataset.splits.values() for name in split.ids]
    files = data.original_files(str(plates), ids)
    found = detect(dataset, "good", tiles=Tiles(32, 0.5), files=files)
    return found, files


def test_windows_find_and_their_alarm_is_of_pictures(in_windows, plates, tmp_path):
    found, files = in_windows
    detector = found.detector
    assert found.figures["auroc"].value > 0.95 and detector.image_shape == (32, 32, 1)
    assert detector.alarm.n == 63 and not found.calibration.anomalous.any()
    tested = files_of(found.dataset.splits["test"], files)
    looks = list(detector.look(tested))
    np.testing.assert_array_equal([look.score for look in looks], found.test.scores)
    # Each as anomalous as its most anomalous window.
    pixels = np.asarray(Image.open(tested[3]))[..., np.newaxis]
    windows = [pixels[t : t + 32, x : x + 32] for t, x in Tiles(32, 0.5).places(48, 64)]
    assert found.test.scores[3] == pytest.approx(
        detector.scorer.look(np.stack(windows))[0].max(), rel=1e-6
    )
    kept = Detector.load(found.save(tmp_path / "kept").parent)
    assert kept.tiles == Tiles(32, 0.5)
    scored = kept.predict(tested)
    np.testing.assert_array_equal(scored.scores, found.test.scores)
    assert scored.ids == tuple(map(str, tested))
    again = judge(kept, found.dataset, files=files)
    np.testing.assert_array_equal(again.test.scores, found.test.scores)
    for images in (pixels[np.newaxis], [pixels], str(tested[0])):
        with pytest.raises(DataError, match="in windows, at their own resolution"):
            kept.predict(images)
    with pytest.raises(DataError, match="no images"):
        kept.predict([])
    with pytest.raises(DataError, match="named twice"):
        kept.predict([tested[0], tested[0]])
    with pytest.raises(DataError, match="no files of their own"):
        judge(kept, found.dataset)


def bad_files(folder):
    """A picture cut short, text, an animation, and an empty file, among others."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    save(folder / "good.png", plate(rng))
    save(folder / "<b>hole.png", plate(rng, defect=True))
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    frames = [Image.fromarray(plate(rng)) for _ in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return folder


@pytest.mark.parametrize("windows", [True, False])
def test_what_cannot_be_read_is_told_and_the_rest_goes_on(in_windows, plates, tmp_path, windows):
    detector = in_windows[0].detector
    if not windows:
        detector = detect(data.load(str(plates), validation=0.3), "good").detector
    folder = bad_files(tmp_path / "new")
    found = {one.file.name: one for one in inspect(detector, sorted(folder.iterdir()))}
    assert {name: one.verdict for name, one in found.items()} == {
        "<b>hole.png": "fail",
        "cut.png": "unread",
        "empty.png": "unread",
        "good.png": "pass",
        "moving.gif": "unread",
        "text.png": "unread",
    }
    for name, one in found.items():
        assert (name in one.reason) == (one.verdict == "unread")
    assert "several pictures" in found["moving.gif"].reason
    report = Report(tmp_path / "out", detector.alarm.threshold)
    report.write(found.values())
    page = render(page_of(report, detector, "cnn-jax inspect <new>"))
    assert "<b>hole" not in page and "&lt;b&gt;hole.png" in page and "&lt;new&gt;" in page
    assert "4 cannot be read" in page and "several pictures" in page


def test_the_page_shows_those_that_fail_by_the_most(in_windows, tmp_path, monkeypatch):
    found, files = in_windows
    monkeypatch.setattr("cnn_jax.inspecting.SHOWN_FAILED", 3)
    report = Report(tmp_path / "out", found.alarm.threshold)
    tested = files_of(found.dataset.splits["test"], files)
    report.write(inspect(found.detector, tested))
    failed, passed = report.shown()
    highest = sorted(found.test.scores.tolist(), reverse=True)
    assert [shown.score for shown in failed] == highest[:3]
    below = [score for score in highest if score <= found.alarm.threshold]
    assert [shown.score for shown in passed] == below[:6]
    with open(tmp_path / "out" / "inspection.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == list(map(str, tested))
    assert [float(row["score"]) for row in rows] == found.test.scores.tolist()
    for row in rows:
        over = float(row["score"]) > float(row["threshold"])
        assert row["verdict"] == ("fail" if over else "pass")


def test_warmth_is_above_the_middle():
    assert warm(None) is None and warm(np.zeros((3, 3), np.float32)) is None
    heat = np.array([[1.0, 2.0, 5.0]], np.float32)
    np.testing.assert_array_equal(warm(heat), [[0, 0, 3]])


LEARN = [
    *("--method", "autoencoder", "--train.epochs", "1", "--false-alarm", "0.1"),
    *("--data.image_size", "32"),
]


@pytest.mark.heavy
def test_the_command_learns_inspects_and_inspects_others(plates, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["inspect", str(plates), "--out", str(out), *LEARN]) == 0
    said = capsys.readouterr().out
    assert "auroc" in said and " pass, " in said and str(out / "page.html") in said
    with open(out / "inspection.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 22
    failed = [row for row in rows if row["verdict"] == "fail"]
    assert failed and all((out / row["map"]).exists() for row in failed)
    assert not any(row["map"] for row in rows if row["verdict"] == "pass")
    assert "heat map of" in (out / "page.html").read_text()
    new = bad_files(tmp_path / "new")
    (new / "good_mask.png").write_bytes((new / "good.png").read_bytes())  # no picture of its own
    again = ["inspect", "--load", str(out / "detector"), "--out", str(tmp_path / "b"), str(new)]
    assert main(again) == 1
    said = capsys.readouterr()
    assert "4 cannot be read" in said.out and "moving.gif" in said.err and "cut.png" in said.err
    assert main(again) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*again[:4], str(tmp_path / "c"), *again[5:], "--tile", "9"]) == 2
    assert "--tile is for learning a detector" in capsys.readouterr().err


@pytest.mark.heavy
def test_the_command_learns_beside_files_that_cannot_be_read(plates, tmp_path, capsys):
    """Those to learn from and those to look at are told, and all others are used."""
    out, whole = tmp_path / "out", tmp_path / "plates"
    shutil.copytree(plates, whole)
    bad = bad_files(tmp_path / "bad")
    for name in ("cut.png", "text.png", "empty.png", "moving.gif"):
        (bad / name).rename(whole / ("train/good" if "e" in name else "test/hole") / name)
    assert main(["inspect", str(whole), "--out", str(out), *LEARN]) == 1
    said = capsys.readouterr()
    assert "4 cannot be read" in said.out
    for name in ("cut.png", "text.png", "empty.png", "moving.gif"):
        assert name in said.err
    with open(out / "inspection.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 22 + 4
    unread = {Path(row["image"]).name: row["reason"] for row in rows if row["verdict"] == "unread"}
    assert set(unread) == {"cut.png", "text.png", "empty.png", "moving.gif"}
    assert "several pictures" in unread["moving.gif"] and "no known format" in unread["text.png"]
    stop = ["--data.unreadable", "stop"]
    assert main(["inspect", str(whole), "--out", str(tmp_path / "b"), *LEARN, *stop]) == 2
    said = capsys.readouterr().err
    assert "3 damaged image files must be replaced or removed" in said  # of animations the first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["FOLDER"], "give --out"),
        (["--out", "x"], "name one folder to learn from"),
        (["FOLDER", "b", "--out", "x"], "name one folder to learn from"),
        (["FOLDER", "--out", "x", "--overlap", "0.5"], "give --tile, too"),
        (["--load", "d", "--out", "x"], "name the images"),
        (["FOLDER", "--out", "x", "--normal", "fine"], "no class 'fine'"),
        (["FOLDER", "--out", "x", "--false-alarm", "0.01"], "299 are needed"),
        (["FOLDER", "--out", "x", "--tile", "3"], "tiles of 3 pixels"),
        (["no_folder", "--out", "x"], "no_folder"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(plates, arguments, words, capsys):
    given = [str(plates) if one == "FOLDER" else one for one in arguments]
    assert main(["inspect", *given]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_pictures_beyond_pillows_limit_are_looked_at_in_windows_alone(
    in_windows, plates, monkeypatch
):
    tested = [plates / "test" / "good" / "000.png"]
    whole = detect(data.load(str(plates), validation=0.3), "good").detector
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    (large,) = inspect(in_windows[0].detector, tested)
    assert large.verdict == "pass"
    (refused,) = inspect(whole, tested)
    assert refused.verdict == "unread" and "000.png' exceeds Pillow's limit" in refused.reason
