"""The page of an audit, and the command that writes it."""

import numpy as np
import pytest
from PIL import Image

from cnn_jax import audit, data
from cnn_jax.cli import main
from cnn_jax.report.audit import AuditPage, Pair, Shown, render


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture
def folder(tmp_path):
    """Two classes; a test image equal to a train image of another class, one a near-copy."""
    rng = np.random.default_rng(0)

    def save(path, image):
        path = tmp_path / "my set" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    images = rng.integers(0, 200, (30, 8, 8), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    for i, image in enumerate(images[:20]):
        save(f"train/{'ab'[i % 2]}/{i}.png", image)
    for i, image in enumerate(images[20:]):
        save(f"test/{'ab'[i % 2]}/{i}.png", image)
    save("test/b/equal.png", images[0])
    save("test/a/near.png", images[2] + 5)
    return tmp_path / "my set"


def test_the_command_counts_shows_and_never_stops(folder, capsys, tmp_path):
    assert main(["data", str(folder), "--audit"]) == 0
    out, _ = capsys.readouterr()
    (line,) = (line for line in out.splitlines() if line.startswith("equal images:"))
    assert line.startswith("equal images: 2 in 1 group; 1 test image is also in train or valid")
    assert "--audit" not in line
    rows = {tuple(line.rsplit(maxsplit=2)) for line in out.splitlines()}
    assert ("copies", "equal", "near") in rows
    # Which of train and validation holds an image depends on the seed of the split.
    from_train = {row[0]: row[1:] for row in rows if len(row) == 3}
    other = ("test also in train", "test also in validation")
    assert sum(int(from_train[name][0]) for name in other) == 1
    assert sum(int(from_train[name][1]) for name in other) == 1
    assert ("groups with different labels", "1", "0") in rows
    page = (tmp_path / "my set-audit.html").read_text("utf-8")
    assert page.count("<figure>") == 4 and "labels differ" in page
    assert page.index("labels differ") < page.index("correlation 1.000")


def test_without_audit_one_line_says_it(folder, capsys):
    assert main(["data", str(folder)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("equal images: 2 in 1 group;") and line.endswith("(pictures: --audit)")
    assert main(["data", "digits"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "equal images: none"
    assert main(["data", "digits", "--out", "x.html"]) == 2
    assert capsys.readouterr().err == "cnn-jax: --out names the page of --audit: give both\n"
    assert main(["data", "digits", "--audit", "--out", str(folder)]) == 2  # before the search
    assert capsys.readouterr().err.startswith(f"cnn-jax: --out '{folder}' is a folder")


def test_everything_from_outside_is_escaped_and_nothing_is_fine():
    nasty = '<script>"&'
    shown = Shown(np.zeros((4, 4, 1), np.uint8), "train", nasty, nasty)
    page = AuditPage(nasty, [("where", "1", "2")], [Pair(shown, shown, 0.98)], 1, [nasty])
    html = render(page)
    assert "<script>" not in html and "correlation 0.980" in html and "labels differ" not in html
    assert "There are none." in render(AuditPage("d", [], [], 0, []))


def test_volumes_floats_and_many_labels_are_shown(tmp_path):
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 255, (12, 3, 6, 6, 1)).astype(np.uint8)
    volumes[11] = volumes[10]
    labels = {"label": np.tile(np.array([[1, 0], [0, 0]], np.float32), (6, 1))}
    split = data.Split(volumes, labels, np.arange(12).astype(str))
    dataset = data.Dataset(
        "v", {"train": split}, {"label": ("a", "b")}, "", kinds={"label": "multilabel"}
    )
    rows = audit.audit(dataset, tmp_path / "v.html")
    assert ("groups with different labels", "1", "0") in rows
    assert "labels differ" in (tmp_path / "v.html").read_text()
    floats = data.from_arrays(np.ones((12, 5, 5), np.float32).cumsum(0) / 12, np.arange(12) % 2)
    assert audit.summary(floats) == "equal images: none"
    audit.audit(floats, tmp_path / "f.html")
