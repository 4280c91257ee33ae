"""`cnn-jax inventory count`: from a run and a folder of pictures to numbers with intervals."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from cnn_jax import Run, data, train
from cnn_jax.cli import main
from cnn_jax.counting import page_of, take_inventory, write
from cnn_jax.errors import DataError, EvaluationError, RunError
from cnn_jax.report.stock import render
from cnn_jax.training.progress import Silent

NAMES = ("<b>juice", "milk", "tea")


def packets(labels, rng):
    """Pictures of one colour each, and some noise: each class is a hue."""
    pixels = rng.integers(0, 70, (len(labels), 12, 12, 3)).astype(np.uint8)
    for picture, label in zip(pixels, labels, strict=True):
        picture[..., label] += 150
    return pixels


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    folder = tmp_path_factory.mktemp("data") / "packets"
    for n, (picture, label) in enumerate(zip(packets(labels, rng), labels, strict=True)):
        place = folder / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{n:03}.png")
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 6}
    place = tmp_path_factory.mktemp("runs") / "packets"
    return train(data=str(folder), out=place, reporter=Silent(), **options)


@pytest.fixture
def shelf(tmp_path):
    """Of the three classes 17, 4 and none; one picture of nothing, and files that are none."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "shelf"
    (folder / "left").mkdir(parents=True)
    labels = np.repeat([0, 1], (17, 4))
    for n, picture in enumerate(packets(labels, rng)):
        place = folder / "left" if n % 2 else folder
        Image.fromarray(picture).save(place / f"{n:02}.png")
    whole = (folder / "00.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    frames = [Image.fromarray(picture) for picture in packets(labels[:3], rng)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return folder


def test_a_shelf_is_counted(run, shelf, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["inventory", "count", str(run.path), str(shelf), "--out", str(out)]
    assert main(arguments) == 1  # two files are no pictures, and one is several
    said = capsys.readouterr()
    assert "21 pictures counted" in said.out and "3 not read" in said.out
    assert "cut.png" in said.err and "text.png" in said.err
    assert "moving.gif' has several pictures" in said.err
    with open(out / "counts.csv", newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(NAMES)
    for name, true in zip(NAMES, (17, 4, 0), strict=True):
        assert int(rows[name]["low"]) <= true <= int(rows[name]["high"])
        assert float(rows[name]["mean"]) == pytest.approx(true, abs=1.5)
    assert sum(float(row["mean"]) for row in rows.values()) == pytest.approx(21, abs=0.01)
    with open(out / "images.csv", newline="") as file:
        images = list(csv.DictReader(file))
    assert len(images) == 24
    unread = [row for row in images if row["look"] == "unread"]
    assert {row["image"].rpartition("/")[2] for row in unread} == {
        *("cut.png", "text.png", "moving.gif")
    }
    assert all(row["reason"] for row in unread)
    page = (out / "page.html").read_text()
    assert "<b>juice" not in page and "&lt;b&gt;juice" in page
    assert "3 cannot be read" in page and "no known format" in page
    assert main(arguments) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_the_network_is_unsure_of_is_for_a_person(run, shelf, tmp_path):
    files = sorted(shelf.rglob("[0-9]*.png"))
    sure = take_inventory(run, files, review=0.0)
    assert not len(sure.unsure) and not sure.unread
    line = float(np.sort(sure.probability)[4])
    some = take_inventory(run, files, review=line)
    assert len(some.unsure) == 4
    assert (np.diff(some.probability[some.unsure]) >= 0).all()
    assert some.answers == sure.answers and some.counts == sure.counts
    page = page_of(some, run, "cnn-jax inventory count <run>")
    assert len(page.unsure) == 4 and page.unsure_count == 4
    html = render(page)
    assert html.count("<img") == 4 and "&lt;run&gt;" in html
    write(some, tmp_path / "there", html)
    with open(tmp_path / "there" / "images.csv", newline="") as file:
        looks = [row["look"] for row in csv.DictReader(file)]
    assert [n for n, look in enumerate(looks) if look] == sorted(some.unsure.tolist())
    with pytest.raises(RunError, match="cannot write"):
        (tmp_path / "a file").write_text("")
        write(some, tmp_path / "a file", html)


def test_the_numbers_are_those_of_the_runs_own_validation_part(run, shelf):
    found = take_inventory(run, sorted(shelf.rglob("[0-9]*.png")), review=0.0)
    held = run.predictions("validation")
    counted = np.zeros((3, 3))
    for label, logits in zip(held.targets, held.logits, strict=True):
        counted[label, logits.argmax()] += 1
    np.testing.assert_array_equal(found.confusion.counts, counted)
    assert found.confusion.fitted_on.n == len(held)


def test_what_is_like_none_of_the_classes_is_counted_as_unknown(run, shelf, tmp_path, capsys):
    """Three grey pictures among 21 packets, whose features are like none of theirs."""
    for n in range(3):
        Image.new("RGB", (12, 12), (90, 90, 90)).save(shelf / f"grey{n}.png")
    out = tmp_path / "out"
    arguments = ["inventory", "count", str(run.path), str(shelf), "--out", str(out)]
    assert main([*arguments, "--unknown", "0.05", "--review", "0"]) == 1
    with open(out / "images.csv", newline="") as file:
        images = {row["image"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    for n in range(3):
        row = images[f"grey{n}.png"]
        assert row["class"] == "unknown" and row["likeliest"] in NAMES and row["look"] == "look"
    packets_seen = [row for name, row in images.items() if name[0] in "012"]
    known = [row for row in packets_seen if row["class"] == row["likeliest"]]
    assert len(packets_seen) == 21 and len(known) > 15
    with open(out / "counts.csv", newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == [*NAMES, "unknown"]
    for name, true in zip((*NAMES, "unknown"), (17, 4, 0, 3), strict=True):
        assert int(rows[name]["low"]) <= true <= int(rows[name]["high"])
    page = (out / "page.html").read_text()
    assert "<b>unknown</b>, or " in page and "like none of the classes" in page
    assert "each picture shows one of these classes" not in page
    assert "unknown" in capsys.readouterr().out
    arguments[-1] = str(tmp_path / "other")
    assert main([*arguments, "--unknown", "0.001"]) == 2
    assert "validation images cannot show" in capsys.readouterr().err


def test_what_cannot_be_counted(run, shelf, tmp_path, capsys):
    files = sorted(shelf.rglob("[0-9]*.png"))
    with pytest.raises(EvaluationError, match="drift lies in"):
        take_inventory(run, files, drift=2.0)
    with pytest.raises(EvaluationError, match="review is a probability"):
        take_inventory(run, files, review=1.1)
    with pytest.raises(DataError):
        take_inventory(run, [shelf / "cut.png"])
    for words, said in (
        (["tally"], "inventory has no 'tally'"),
        (["count", str(tmp_path / "none"), str(shelf), "--out", "x"], "none"),
        (["count", str(run.path), str(tmp_path / "gone"), "--out", "x"], "gone"),
        (
            ["count", str(run.path), str(shelf), "--out", str(tmp_path / "x"), "--level", "1"],
            "level",
        ),
    ):
        assert main(["inventory", *words]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert main(["inventory"]) == 0 and "inventory count RUN" in capsys.readouterr().out
    exported = run.export(tmp_path / "exported").parent
    assert (
        main(["inventory", "count", str(exported), str(shelf), "--out", str(tmp_path / "y")]) == 2
    )
    assert "run" in capsys.readouterr().err
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    again = take_inventory(Run.load(copy), files)
    assert again.counts == take_inventory(run, files).counts


def test_a_run_of_several_labels_counts_nothing(shelf, tmp_path):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 255, (60, 12, 12, 3)).astype(np.uint8)
    dataset = data.from_arrays(images, rng.integers(0, 2, (60, 3)).astype(np.float32))
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 1}
    several = train(data=dataset, out=tmp_path / "run", reporter=Silent(), **options)
    for unknown in (0.0, 0.2):
        with pytest.raises(EvaluationError, match="one class for each image"):
            take_inventory(several, sorted(shelf.rglob("[0-9]*.png")), unknown=unknown)


def test_a_run_that_segments_counts_nothing(shelf, tmp_path):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 255, (24, 12, 12, 3)).astype(np.uint8)
    masks = (images[..., 0] > 120).astype(np.uint8)
    dataset = data.from_arrays(images, np.arange(24) % 2, masks=masks)
    options = {"model": "unet", "model.options": {"widths": [4, 8], "units": 1}, "epochs": 1}
    segments = train(data=dataset, out=tmp_path / "run", reporter=Silent(), **options)
    with pytest.raises(RunError, match="does not tell classes of images apart"):
        take_inventory(segments, sorted(shelf.rglob("[0-9]*.png")))
