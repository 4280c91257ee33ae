"""From hard examples to corrected labels: list, export, move, relabel, train again."""

import csv
import errno
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnn_jax
from cnn_jax import Run, data, relabelling
from cnn_jax.cli import main
from cnn_jax.errors import DataError, RunError
from cnn_jax.run_data import count_own_images, label_data

pytestmark = pytest.mark.heavy  # of one run, trained at first

SMALL = ["--model.options.widths", "[4]", "--model.options.units", "1", "--epochs", "1"]


def run(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def moved(folder, name, place):
    (file,) = folder.glob(f"*/{name}*")
    shutil.move(file, folder / place / file.name)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits as image files with two tables: true labels, and 10 train labels flipped."""
    folder = tmp_path_factory.mktemp("digits")
    dataset = data.load("digits")
    rng = np.random.default_rng(0)
    flipped = set(rng.choice(dataset.splits["train"].ids, 10, replace=False).tolist())
    clean, noisy = ([["path", "label", "split"]] for _ in range(2))
    wrong = {}
    for part, split in dataset.splits.items():
        for image, label, id_ in zip(split.images, split.targets["label"], split.ids, strict=True):
            file = f"{id_}.png"
            Image.fromarray(image[..., 0]).save(folder / file)
            clean.append([file, f"digit {label}", part])
            if id_ in flipped:
                wrong[file] = (f"digit {label}", f"digit {(label + 1 + int(id_) % 9) % 10}")
            noisy.append([file, wrong[file][1] if file in wrong else f"digit {label}", part])
    for name, rows in (("clean.csv", clean), ("noisy.csv", noisy)):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder, wrong


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "--data", str(digits[0] / "noisy.csv"), "--epochs", "6",
                 "--out", str(out)]) == 0  # fmt: skip
    return out


def test_flipped_labels_are_found_corrected_and_trained_on(capsys, digits, trained, tmp_path):
    folder, wrong = digits
    listed = ["errors", str(trained), "--split", "train"]
    _, out, _ = run(capsys, *listed, "--format", "json")
    top = json.loads(out)
    assert len({r["id"] for r in top} & set(wrong)) >= 7  # of 10: 8, 10, 10 in three draws
    assert not (trained / "test_use.csv").read_text().count("errors")
    to = tmp_path / "to relabel"
    status, out, _ = run(capsys, *listed, "--top", "80", "--to", str(to))
    assert status == 0 and "cnn-jax relabel" in out
    with open(to / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows[:20]] == [r["id"] for r in top]
    assert {r["id"] for r in rows} >= set(wrong)
    for row in rows:
        assert (to / row["file"]).read_bytes() == (folder / row["id"]).read_bytes()
        assert row["file"] == f"{row['given']}/{row['id']}" and row["split"] == "train"
    for id_, (right, _) in wrong.items():
        moved(to, id_, right)
    status, out, _ = run(capsys, "relabel", str(to))
    assert status == 0 and out.startswith("10 relabelled, 0 removed, 70 unchanged")
    corrections = to / "corrections.csv"
    out = tmp_path / "second"
    noisy = ["--data", str(folder / "noisy.csv"), "--data.corrections", str(corrections)]
    assert run(capsys, "train", *noisy, *SMALL, "--out", str(out))[0] == 0
    second = Run.load(out)
    assert second.dataset.digest == data.load(str(folder / "clean.csv")).digest
    assert "10 relabelled, 0 removed" in " ".join(second.info["data"]["notes"])
    again = tmp_path / "again"
    run(capsys, "errors", str(out), "--split", "train", "--top", "3", "--to", str(again))
    hardest = next(iter(csv.DictReader(io.StringIO((again / "labels.csv").read_text()))))
    moved(again, hardest["id"], "_remove")
    assert "after 10 earlier corrections" in run(capsys, "relabel", str(again))[1]
    noisy[-1] = str(again / "corrections.csv")
    status, out, _ = run(capsys, "data", *noisy[1:])
    assert status == 0 and "10 relabelled, 1 removed" in out
    corrections.unlink()
    status, _, err = run(capsys, "evaluate", str(second.path))
    assert status == 2 and "corrections.csv' cannot be read" in err


NAMES = ("a/b", "../..", "A/B", "x" * 300, "café\n", "_remove", "nul")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    images = np.random.default_rng(1).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(70) % 7
    ids = np.array([f"../{'same' if i % 2 else 'SAME'}/{'same' if i < 40 else i}.png\r{i}"
                    for i in range(70)])  # fmt: skip
    dataset = data.from_arrays(images, labels, classes=NAMES, ids=ids)
    out = tmp_path_factory.mktemp("nasty") / "run"
    widths = {"model.options.widths": [4], "model.options.units": 1}
    return cnn_jax.train(data=dataset, epochs=1, out=out, **widths)


@pytest.fixture
def exported(nasty, tmp_path):
    fate = relabelling.fate_of(nasty, "test")
    folder = relabelling.export_examples(nasty, fate, fate.hardest(), tmp_path / "inner" / "to")
    return folder, fate


def labels_of(folder):
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_any_names_become_safe_files_of_the_pixels(nasty, exported):
    folder, fate = exported
    split = nasty.dataset.splits["test"]
    rows = labels_of(folder)
    assert len(rows) == len(split) == len({r["file"].rpartition("/")[2].lower() for r in rows})
    assert sorted(r["id"] for r in rows) == sorted(split.ids.tolist())
    for row in rows:
        index = split.ids.tolist().index(row["id"])
        with Image.open(folder / row["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), split.images[index])
        assert row["given"] == NAMES[split.targets["label"][index]]
        assert float(row["loss"]) == fate.loss[index]
    folders = [path.name for path in folder.iterdir() if path.is_dir()]
    assert len(folders) == 8 and len({name.lower() for name in folders}) == 8
    assert list(folder.parent.iterdir()) == [folder]  # nothing outside, no temporary left


def test_what_was_moved_is_told_from_what_is_missing_and_what_is_strange(capsys, exported):
    folder, _ = exported
    rows = labels_of(folder)
    classes = dict(csv.reader((folder / "classes.csv").read_text().splitlines()))
    shutil.move(folder / rows[0]["file"], folder / "_remove")
    place = next(name for name, c in classes.items() if c in NAMES and c != rows[1]["given"])
    (folder / place / "deeper").mkdir()
    shutil.move(folder / rows[1]["file"], folder / place / "deeper")
    (folder / rows[2]["file"]).unlink()
    (folder / place / "stranger.png").touch()
    (folder / ".DS_Store").touch()
    found = relabelling.find_corrections(folder)
    assert [(c.id, c.given, c.corrected) for c in found.corrections] == [
        (rows[0]["id"], rows[0]["given"], None),
        (rows[1]["id"], rows[1]["given"], classes[place]),
    ]
    assert found.missing == (rows[2]["file"],) and found.unknown == (f"{place}/stranger.png",)
    assert found.unchanged == len(rows) - 3
    status, out, _ = run(capsys, "relabel", str(folder))
    assert status == 0 and "1 relabelled, 1 removed" in out and "stranger.png" in out
    assert data.read_corrections(folder / "corrections.csv") == found.corrections
    before = (folder / "corrections.csv").read_bytes()
    assert run(capsys, "relabel", str(folder))[0] == 0  # the same again changes nothing
    assert (folder / "corrections.csv").read_bytes() == before
    moved(folder, (folder / rows[3]["file"]).name, "_remove")
    assert run(capsys, "relabel", str(folder))[0] == 0  # more corrections take none back
    longer = (folder / "corrections.csv").read_bytes()
    assert len(data.read_corrections(folder / "corrections.csv")) == 3
    shutil.move(folder / "_remove" / Path(rows[0]["file"]).name, folder / rows[0]["file"])
    status, _, err = run(capsys, "relabel", str(folder))
    assert status == 2 and "--overwrite" in err
    assert (folder / "corrections.csv").read_bytes() == longer
    assert run(capsys, "relabel", str(folder), "--overwrite")[0] == 0
    assert len(data.read_corrections(folder / "corrections.csv")) == 2


def test_nothing_moved_is_no_table_of_corrections(capsys, nasty, exported):
    folder, _ = exported
    table = folder / "corrections.csv"
    status, out, _ = run(capsys, "relabel", str(folder))
    assert status == 0 and out.endswith("nothing was moved yet: no corrections written\n")
    assert not table.exists()
    table.write_text(data.corrections_table(()))
    first = labels_of(folder)[0]
    moved(folder, Path(first["file"]).name, "_remove")
    assert run(capsys, "relabel", str(folder))[0] == 0
    assert len(data.read_corrections(table)) == 1
    shutil.move(folder / "_remove" / Path(first["file"]).name, folder / first["file"])
    status, _, err = run(capsys, "relabel", str(folder))
    assert status == 2 and "holds other corrections" in err
    assert run(capsys, "relabel", str(folder), "--overwrite")[0] == 0
    assert data.read_corrections(table) == ()
    recipe = nasty.recipe.override({"data.corrections": str(table)})
    notes = label_data(recipe, nasty.dataset).notes
    assert notes[-1] == f"Corrections: {str(table)!r} holds none."


def test_folders_that_say_nothing_clear_are_refused(exported, tmp_path):
    folder, _ = exported
    file = folder / labels_of(folder)[0]["file"]
    shutil.copy(file, folder / "_remove")
    with pytest.raises(DataError, match=f"{file.name!r} lies in .* and in .*: keep one"):
        relabelling.find_corrections(folder)
    shutil.move(file, folder)
    with pytest.raises(DataError, match="lies in no class folder"):
        relabelling.find_corrections(folder)
    (folder / "new class").mkdir()
    shutil.move(folder / file.name, folder / "new class")
    with pytest.raises(DataError, match=r"new class' is the folder of no class: there are a_b,"):
        relabelling.find_corrections(folder)
    with pytest.raises(DataError, match=r"is no folder of 'cnn-jax errors --to': it has no label"):
        relabelling.find_corrections(tmp_path)
    (folder / "labels.csv").write_text("file,id\n")
    with pytest.raises(DataError, match="must have the columns file,id,split"):
        relabelling.find_corrections(folder)


@pytest.mark.faults
def test_a_full_disk_leaves_nothing_behind(nasty, tmp_path, monkeypatch):
    fate = relabelling.fate_of(nasty, "test")
    (tmp_path / "to").mkdir()
    calls = []

    def full(self, path, **how):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError, match="nothing is left there: No space left on device"):
        relabelling.export_examples(nasty, fate, fate.hardest(), tmp_path / "to")
    assert list(tmp_path.rglob("*")) == [tmp_path / "to"]
    (tmp_path / "to" / "mine").touch()
    with pytest.raises(RunError, match="not empty"):
        relabelling.export_examples(nasty, fate, fate.hardest(), tmp_path / "to")


def test_a_folder_in_use_is_refused_before_any_work(capsys, tmp_path):
    (tmp_path / "mine").touch()
    status, out, err = run(capsys, "errors", "no such run", "--to", str(tmp_path))
    assert (status, out) == (2, "") and "is not empty: choose another folder" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "tset"], "no part 'tset': there are train, validation, test"),
        (["--class", "cat"], "no class 'cat' in 'test'"),
        (["--top", "0"], "at least 1, not 0"),
        (["--to", "x", "--format", "csv"], "leave --format out"),
        (["--to", "../file/x"], "cannot write"),
        (["--to", "."], "holds the working folder"),
    ],
)
def test_wrong_questions_are_one_line(capsys, monkeypatch, trained, arguments, message):
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    Path("../file").touch()
    status, _, err = run(capsys, "errors", str(trained), *arguments)
    assert status == 2 and message in err and len(err.splitlines()) == 1


def test_help_fits_a_screen(capsys):
    for command in ("errors", "relabel"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 24 and max(map(len, lines)) <= 80


def test_predict_compares_with_the_folders(capsys, digits, trained, tmp_path):
    folder, _ = digits
    with open(folder / "clean.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"][:60]
    for row in rows:
        (tmp_path / row["label"]).mkdir(exist_ok=True)
        shutil.copy(folder / row["path"], tmp_path / row["label"])
    asked = ["predict", str(trained), str(tmp_path), "--labels"]
    _, out, _ = run(capsys, *asked, "--format", "json")
    records = json.loads(out)
    fate = relabelling.fate_of(Run.load(trained), "test")
    position = {id_: i for i, id_ in enumerate(fate.ids.tolist())}
    for record in records:
        i = position[record["id"].rpartition("/")[2]]
        assert record["loss"] == pytest.approx(fate.loss[i], abs=1e-4)
        assert record["right"] == (record["given"] == record["predicted"]) != fate.wrong[i]
    losses = [record["loss"] for record in records]
    assert len(losses) == 60 and losses == sorted(losses, reverse=True)
    right = sum(record["right"] for record in records)
    _, out, err = run(capsys, *asked)
    assert out.splitlines()[-1].startswith(f"accuracy {100 * right / 60:.2f} % [") and not err
    shutil.move(tmp_path / rows[0]["label"], tmp_path / "a cat")
    status, _, err = run(capsys, *asked)
    assert status == 2 and "'a cat' among the images' folders is no class" in err


def test_predict_tells_images_that_were_learned_from(capsys, digits, trained, tmp_path):
    folder, _ = digits
    with open(folder / "clean.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for part, n in (("train", 3), ("validation", 1), ("test", 2)):
        for row in [row for row in rows if row["split"] == part][:n]:
            (tmp_path / row["label"]).mkdir(exist_ok=True)
            (tmp_path / row["label"] / row["path"]).symlink_to(folder / row["path"])
    status, out, err = run(capsys, "predict", str(trained), str(tmp_path), "--labels")
    assert status == 0 and "n = 6" in out.splitlines()[-1]
    assert "of the 6 images the run has 3 in train and 1 in validation" in err
    elsewhere = tmp_path / "set"  # whose files are links themselves
    elsewhere.mkdir()
    for file in folder.iterdir():
        (elsewhere / file.name).symlink_to(file)
    moved = Run.load(trained, data=str(elsewhere / "noisy.csv"))
    ids = {"train": moved.ids("train")}
    images = [elsewhere / moved.ids("train")[0], elsewhere / moved.ids("test")[0]]
    assert count_own_images(moved.recipe_here, ids, images) == {"train": 1}
