"""Real image sets, each trained from one command; smoke trainings, not results."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from cnn_jax import Run
from cnn_jax.cli import main

pytestmark = [pytest.mark.realdata, pytest.mark.timeout(600)]

FAST = [
    *("--model.options.widths", "[8, 16]", "--model.options.units", "1"),
    *("--epochs", "1", "--data.image_size", "16", "--batch-size", "256"),
]


@pytest.fixture
def sets():
    folder = os.environ.get("CNN_JAX_DATA")
    if not folder:
        pytest.skip("CNN_JAX_DATA names no folder of real image sets")
    return Path(folder)


@pytest.mark.parametrize(
    ("source", "parts", "classes"),
    [
        ("mnist", (55_000, 5_000, 10_000), 10),
        ("cifar10", (45_000, 5_000, 10_000), 10),
        ("pneumoniamnist", (4_698, 524, 624), 2),  # 10 of 4,708 are copies of validation images
        ("brain_tumor_mri", (None, None, 394), 4),
        ("grocery_store", (2_640, 296, 2_485), 81),
    ],
)
def test_one_command_trains(sets, capsys, tmp_path, source, parts, classes):
    out = tmp_path / "run"
    where = ["--data", source, "--data-dir", str(sets), "--duplicates", "drop-train"]
    status = main(["train", *where, *FAST, "--out", str(out)])
    printed = capsys.readouterr().out
    assert status == 0
    assert printed.splitlines()[-2].startswith("test accuracy")
    data = Run.load(out).info["data"]
    counts = tuple(data["parts"].values())
    assert all(n in (None, m) for n, m in zip(parts, counts, strict=True)), counts
    assert len(data["classes"]) == classes
    assert (out / "report.html").exists()


def test_a_path_finds_the_same_set_and_predict_reads_its_files(sets, capsys, tmp_path):
    out = tmp_path / "run"
    folder = sets / "brain_tumor_mri"
    leaky = ["train", "--data", str(folder), *FAST, "--out", str(out)]
    assert main(leaky) == 2
    assert capsys.readouterr().err.startswith("cnn-jax: 251 of 394 test images")
    assert main([*leaky, "--duplicates", "regroup"]) == 0
    capsys.readouterr()
    images = sorted((folder / "Testing").glob("*/*.png"))[:5]
    assert main(["predict", str(out), *map(str, images), "--format", "json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [a["image"] for a in answers] == [str(i) for i in images]
    assert main(["predict", str(out), str(images[0]), "--format", "csv"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 1
