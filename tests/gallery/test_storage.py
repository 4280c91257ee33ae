"""The file: removed bytes are gone, processes do not hinder each other, nothing is half-done."""

import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from cnn_jax.errors import DataError, ModelError
from cnn_jax.gallery import EmbeddingModel, Gallery
from cnn_jax.gallery.templates import unit_and_quality

MODEL = EmbeddingModel("d" * 64, 64, "as it is")
DRAW = np.random.default_rng(0)
VECTORS = DRAW.standard_normal((300, 64)).astype(np.float32)


def enrol(gallery, name, n=1, start=0):
    sources = [f"{name}/{i}.png" for i in range(start, start + n)]
    return gallery.enrol([name] * n, VECTORS[start : start + n], sources=sources)


def on_disk(path):
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def parts_of(vector):
    unit = unit_and_quality(vector[np.newaxis], 64)[0].astype("<f4").tobytes()
    return [unit[i : i + 16] for i in range(0, len(unit), 16)]


@pytest.mark.parametrize("how", ["identity", "image"])
def test_what_is_removed_is_in_no_file(tmp_path, how):
    path = tmp_path / "g"
    with Gallery.create(path, MODEL) as gallery, Gallery.open(path) as other:
        for k in range(40):
            enrol(gallery, f"keeps-{k}", 2, 2 * k)
        enrol(gallery, "Leaving", 60, 100)
        assert other.counts()["Leaving"] == 60  # an open reader keeps the log from being deleted
        gone = parts_of(VECTORS[101])
        if how == "identity":
            gone += [*parts_of(VECTORS[100]), *parts_of(VECTORS[102]), b"Leaving"]
        before = on_disk(path)
        assert all(part in before for part in gone)
        gallery.remove("Leaving", None if how == "identity" else ["Leaving/101.png"])
        after = on_disk(path)
        assert not [part for part in gone if part in after]
        assert b"Leaving/101.png" not in after
        assert (tmp_path / "g-wal").stat().st_size == 0
        # Either of these overwrites by itself; both are to be on.
        assert gallery._storage._one("PRAGMA secure_delete") == (1,)
        assert gallery._storage._one("PRAGMA freelist_count") == (0,)
        assert all(part in after for part in parts_of(VECTORS[7]))
        assert len(other.counts()) == (40 if how == "identity" else 41)


def test_a_reader_in_the_way_of_erasing_is_said_and_erasing_can_be_done_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("cnn_jax.gallery.storage._WAIT", 0.05)
    path = tmp_path / "g"
    with Gallery.create(path, MODEL) as gallery:
        enrol(gallery, "a", 2)
        enrol(gallery, "b", 1, 5)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM images").fetchone()
        with pytest.raises(DataError, match="out of the gallery, but its bytes may still"):
            gallery.remove("a")
        assert list(gallery.counts()) == ["b"]
        reader.execute("COMMIT")
        reader.close()
        assert parts_of(VECTORS[0])[0] in on_disk(path)
        gallery.erase()
        assert parts_of(VECTORS[0])[0] not in on_disk(path)


def test_a_writer_that_keeps_others_waiting_too_long_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("cnn_jax.gallery.storage._WAIT", 0.05)
    with (
        Gallery.create(tmp_path / "g", MODEL) as one,
        Gallery.open(tmp_path / "g", "d" * 64) as two,
    ):
        with one._storage._transaction(), pytest.raises(DataError, match="another process has"):
            enrol(two, "a")
        assert enrol(two, "a") == 1


CHILD = """
import os, signal, sys
import numpy as np
from cnn_jax.gallery import EmbeddingModel, Gallery
model = EmbeddingModel("d" * 64, 64, "as it is")
vectors = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)

def killed(moment):
    gallery = Gallery.open(f"killed-{moment}", "d" * 64)
    connection = gallery._storage._connection
    connection.execute("PRAGMA cache_size = 4")  # so that pages are on disk before the commit
    steps = iter(range(10**9))
    if moment:
        connection.set_progress_handler(
            lambda: next(steps) == moment and os.kill(os.getpid(), signal.SIGKILL), 100
        )
    gallery.enrol(["new"] * 290, vectors[10:], sources=[str(i) for i in range(290)])
    connection.set_progress_handler(None, 0)
    os.kill(os.getpid(), signal.SIGKILL)  # committed, and never closed

def crowd(number):
    for k in range(4):
        with Gallery.create("crowd", model) as gallery:
            name = f"{number}-{k}"
            gallery.enrol([name, "all"], vectors[:2], sources=[name, name])
            if k % 3 == 0:
                gallery.remove(name)
    os._exit(0)

children = []
for job, argument in [(killed, m) for m in (0, 1, 60, 150)] + [(crowd, n) for n in range(3)]:
    if not (pid := os.fork()):
        try:
            job(argument)
        finally:
            os._exit(1)
    children.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if job is killed else pid)
print([c if c < 0 else os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children])
"""


@pytest.mark.faults
def test_killed_processes_leave_all_or_nothing_and_a_crowd_loses_nothing(tmp_path):
    for moment in (0, 1, 60, 150):
        with Gallery.create(tmp_path / f"killed-{moment}", MODEL) as gallery:
            enrol(gallery, "first", 10)
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "[-9, -9, -9, -9, 0, 0, 0]", done.stderr
    written = []
    for moment in (0, 1, 60, 150):
        path = tmp_path / f"killed-{moment}"
        written.append((tmp_path / f"killed-{moment}-wal").stat().st_size)
        expected = {"first": 10, "new": 290} if moment == 0 else {"first": 10}
        with Gallery.open(path, "d" * 64) as gallery:
            assert gallery.counts() == expected
            assert gallery._storage._one("PRAGMA integrity_check") == ("ok",)
            if moment:  # the same call again
                new = [str(i) for i in range(290)]
                assert gallery.enrol(["new"] * 290, VECTORS[10:], sources=new) == 290
    assert min(written[0], written[3]) > 10_000  # half of it was on disk when the last was killed
    with Gallery.open(tmp_path / "crowd") as gallery:
        counts = gallery.counts()
        assert counts.pop("all") == 12
        assert counts == {f"{n}-{k}": 1 for n in range(3) for k in (1, 2)}
        assert gallery._storage._one("PRAGMA integrity_check") == ("ok",)


def _other(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def _flip_exponent(path):
    content = bytearray(path.read_bytes())
    unit = parts_of(VECTORS[4])[0]
    content[content.index(unit) + 3] = 0x7F
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "no gallery"),
        (lambda p: p.write_bytes(b""), "not a gallery"),
        (lambda p: p.write_bytes(b"a letter" * 100), "not a gallery"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:50]), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:200] + b"\xaa" * 5000), "damaged"),
        (lambda p: _other(p, "PRAGMA application_id = 5"), "data base of something else"),
        (lambda p: _other(p, "PRAGMA user_version = 2"), "has schema 2"),
        (lambda p: (p.unlink(), p.mkdir()), "Is a directory"),
        (_flip_exponent, "damaged"),
        (lambda p: _other(p, "UPDATE images SET embedding = x'00'"), "damaged"),
        (lambda p: _other(p, "DELETE FROM images"), "damaged"),
    ],
)
def test_what_is_no_gallery_is_one_line_and_left_as_it_is(tmp_path, damage, said):
    path = tmp_path / "g"
    with Gallery.create(path, MODEL) as gallery:
        enrol(gallery, "a", 30)
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(DataError, match=said) as found, Gallery.open(path, "d" * 64) as gallery:
        gallery.identify(VECTORS[:1], threshold=0.5)
    assert "\n" not in str(found.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_creating_takes_the_place_of_nothing_but_an_empty_file(tmp_path):
    (tmp_path / "empty").touch()
    with Gallery.create(tmp_path / "empty", MODEL) as gallery:
        assert enrol(gallery, "a") == 1
    with Gallery.create(tmp_path / "empty", MODEL) as gallery:
        assert gallery.counts() == {"a": 1}
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(DataError, match="not a gallery"):
        Gallery.create(tmp_path / "letter", MODEL)
    assert (tmp_path / "letter").read_text() == "dear"
    with pytest.raises(DataError, match="cannot make"):
        Gallery.create(tmp_path / "letter" / "g", MODEL)
    with pytest.raises(ModelError, match=r"of the model ddd.*they do not compare"):
        Gallery.create(tmp_path / "empty", EmbeddingModel("e" * 64, 64))
    with pytest.raises(ModelError, match="they do not compare"):
        Gallery.open(tmp_path / "empty", "e" * 64)
