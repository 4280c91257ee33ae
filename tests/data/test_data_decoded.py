"""Images kept decoded on disk: the same pixels, decoded once, and never trusted blindly."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from cnn_jax import doctor
from cnn_jax.data import decoded, load
from cnn_jax.data.sources import ImageFiles
from cnn_jax.errors import DataError


@pytest.fixture
def folder(tmp_path, rng):
    folder = tmp_path / "set"
    for k in range(60):
        path = folder / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 7, 3)).astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def decodings(monkeypatch):
    """The positions that were decoded, in any order."""
    seen, original = [], ImageFiles.__getitem__

    def counted(self, index):
        seen.append(index)
        return original(self, index)

    monkeypatch.setattr(ImageFiles, "__getitem__", counted)
    return seen


def entries(tmp_path):
    folder = tmp_path / "caches" / "cnn_jax" / "decoded"
    return sorted(path for path in folder.iterdir() if path.suffix != ".lock")


def same_images(found, wanted):
    for part, split in wanted.splits.items():
        everything = np.arange(len(split))[::-1]
        np.testing.assert_array_equal(
            found.splits[part].read_images(everything), split.read_images(everything)
        )


def test_each_image_is_decoded_once_for_all_epochs_and_runs(folder, tmp_path, decodings):
    in_memory = load(str(folder))
    decodings.clear()
    first = load(str(folder), memory_limit=0)
    assert sorted(decodings) == list(range(60))
    assert not any(split.in_memory for split in first.splits.values())
    same_images(first, in_memory)
    second = load(str(folder), memory_limit=0)
    same_images(second, in_memory)
    assert len(decodings) == 60 and second.digest == first.digest
    assert len(entries(tmp_path)) == 1
    assert any(f"kept decoded in '{tmp_path}" in note for note in first.notes)


def test_the_digest_is_that_of_a_set_that_is_not_kept(folder, tmp_path, monkeypatch):
    kept = load(str(folder), memory_limit=0)
    monkeypatch.setattr(decoded, "keep_decoded", lambda splits: (splits, ()))
    monkeypatch.setattr("cnn_jax.data.assemble.keep_decoded", lambda splits: (dict(splits), ()))
    assert load(str(folder), memory_limit=0).digest == kept.digest


@pytest.mark.parametrize("change", ["size", "file", "fit"])
def test_another_size_file_or_fit_is_another_entry(folder, tmp_path, change):
    load(str(folder), memory_limit=0, image_size=8)
    options = {"image_size": 6 if change == "size" else 8}
    if change == "file":
        os.utime(folder / "a" / "0.png", ns=(1, 1))
    if change == "fit":
        options["fit"] = "pad"
    found = load(str(folder), memory_limit=0, **options)
    assert len(entries(tmp_path)) == 2
    same_images(found, load(str(folder), **options))


def test_another_file_of_the_same_size_and_time_is_another_entry(folder, tmp_path, rng):
    """As archives and copies make them, above all of formats without compression."""
    for _ in range(2):
        for path in folder.rglob("*.bmp"):
            path.unlink()
        path = folder / "a" / "z.bmp"
        Image.fromarray(rng.integers(0, 255, (9, 7, 3)).astype(np.uint8)).save(path)
        os.utime(path, ns=(1, 1))
        found = load(str(folder), memory_limit=0)
    same_images(found, load(str(folder)))
    assert len(entries(tmp_path)) == 2


def flip_a_byte(entry):
    with (entry / "pixels.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def truncate(entry):
    os.truncate(entry / "pixels.npy", 1000)


def replace_with(array):
    return lambda entry: np.save(entry / "crc32.npy", array, allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        truncate,
        lambda entry: (entry / "pixels.npy").write_bytes(b""),
        lambda entry: (entry / "crc32.npy").unlink(),
        replace_with(np.zeros(3, np.uint32)),
        replace_with(np.array([{}])),
        lambda entry: np.save(entry / "pixels.npy", np.zeros((60, 9, 7, 1), np.uint8)),
        shutil.rmtree,
    ],
)
def test_a_damaged_entry_is_found_and_made_anew(folder, tmp_path, decodings, damage):
    wanted = load(str(folder))
    load(str(folder), memory_limit=0)
    (entry,) = entries(tmp_path)
    damage(entry)
    same_images(load(str(folder), memory_limit=0), wanted)
    load(str(folder), memory_limit=0)
    decodings.clear()
    same_images(load(str(folder), memory_limit=0), wanted)
    assert decodings == [] and entries(tmp_path) == [entry]


def full_disk(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("place", "name", "problem", "message"),
    [
        (shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0), "1.0 GiB are needed"),
        (os, "posix_fallocate", full_disk, "No space left on device"),
        (decoded.environment, "user_cache", lambda: None, "has no cache folder"),
    ],
)
def test_without_room_images_are_decoded_each_time(
    folder, tmp_path, monkeypatch, place, name, problem, message
):
    monkeypatch.setattr(place, name, problem)
    found = load(str(folder), memory_limit=0)
    assert isinstance(found.splits["train"].images.source, ImageFiles)
    (note,) = (note for note in found.notes if "decoded in each epoch" in note)
    assert message in note
    left = tmp_path.glob("caches/cnn_jax/decoded/*")
    assert all(path.suffix == ".lock" for path in left)
    same_images(found, load(str(folder)))


def test_of_two_that_load_at_once_one_decodes_and_the_other_waits(folder, tmp_path, decodings):
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(lambda _: load(str(folder), memory_limit=0), range(2))
    assert sorted(decodings) == list(range(60)) and len(entries(tmp_path)) == 1
    same_images(first, second)


@pytest.mark.faults
def test_what_a_killed_process_left_is_cleared(folder, tmp_path):
    load(str(folder), memory_limit=0)
    (entry,) = entries(tmp_path)
    entry.rename(f"{entry}.part")
    (entry.with_name(f"{entry.name}.part") / "crc32.npy").unlink()
    load(str(folder), memory_limit=0)
    assert entries(tmp_path) == [entry]


@pytest.mark.faults
def test_damage_that_cannot_be_marked_is_decoded_all_the_same(folder, tmp_path, monkeypatch):
    wanted = load(str(folder))
    load(str(folder), memory_limit=0)
    flip_a_byte(*entries(tmp_path))

    asked = []

    def refused(path, *_, **__):
        asked.append(path.name)
        raise PermissionError(13, "Permission denied")

    found = load(str(folder), memory_limit=0)
    monkeypatch.setattr("pathlib.Path.unlink", refused)
    same_images(found, wanted)
    assert "crc32.npy" in asked


def test_damaged_files_are_named_and_leave_no_entry(folder, tmp_path):
    (folder / "a" / "0.png").write_bytes((folder / "a" / "0.png").read_bytes()[:70])
    with pytest.raises(DataError, match=r"1 damaged image file.*0\.png"):
        load(str(folder), memory_limit=0)
    assert entries(tmp_path) == []


def test_the_doctor_shows_its_place_and_size(folder, tmp_path):
    load(str(folder), memory_limit=0)
    (line,) = (x for x in doctor.examine().splitlines() if x.startswith("decoded images"))
    assert str(tmp_path / "caches" / "cnn_jax" / "decoded") in line and "3 files" in line
