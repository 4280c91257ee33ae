"""From a set of TensorFlow Datasets to a trained network, by the command line alone."""

import os

import pytest

from cnn_jax import Run, data, recipe
from cnn_jax.cli import main

FAST = [
    *("--model.options.widths", "[4]", "--model.options.units", "1"),
    *("--epochs", "1", "--batch-size", "128", "--data.image_size", "8"),
]


@pytest.mark.heavy
def test_a_prepared_set_is_trained_on_and_found_again(tmp_path, monkeypatch, capsys):
    assert main(["data", "digits", "--to-tfds", "sets"]) == 0
    assert "read it with --data tfds:digits" in capsys.readouterr().out.splitlines()[-1]
    words = ["--data", "tfds:digits", "--data-dir", "sets"]
    assert main(["train", *words, *FAST, "--out", "run"]) == 0
    run = Run.load("run")
    assert run.recipe.data.root == str(tmp_path / "sets")
    assert run.info["data"]["digest"] == data.load("digits").digest
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert main(["evaluate", "../run"]) == 0
    # The set has moved: it is named again, and its folder is TFDS's own.
    (tmp_path / "sets").rename(tmp_path / "moved")
    assert main(["evaluate", "../run"]) == 2
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "moved"))
    assert main(["evaluate", "../run", "--data", "tfds:digits"]) == 0


def test_a_set_gets_the_recipe_of_its_name():
    own = recipe.for_data("mnist")
    for source in ("tfds:mnist", "tfds:mnist/3.0.1", "tfds:mnist:3.0.1:train[:10%]"):
        assert recipe.for_data(source) == own.override({"data.source": source})


@pytest.mark.realdata
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("source", "groups"), [("pneumoniamnist", False), ("busi", True), ("grocery_store", False)]
)
def test_real_sets_survive_the_way_there_and_back(tmp_path, source, groups):
    folder = os.environ.get("CNN_JAX_DATA")
    if not folder:
        pytest.skip("CNN_JAX_DATA names no folder of real image sets")
    written = data.load(source, data_dir=folder)
    assert main(["data", source, "--data-dir", folder, "--to-tfds", "sets"]) == 0
    read = data.load(f"tfds:{source}", data_dir="sets")
    assert read.digest == written.digest and read.classes == written.classes
    assert (read.licence, read.citation) == (written.licence, written.citation)
    if groups:
        for part, split in written.splits.items():
            assert read.splits[part].groups.tolist() == split.groups.tolist()
    words = ["train", "--data", f"tfds:{source}", "--data-dir", "sets", "--duplicates", "keep"]
    assert main([*words, *FAST, "--out", str(tmp_path / "run")]) == 0
    assert Run.load("run").status == "finished"
