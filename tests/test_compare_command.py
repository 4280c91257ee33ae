"""`cnn-jax compare`: runs whose predictions are known, and what it says of them."""

import csv
import json
import shutil

import numpy as np
import pytest

import cnn_jax
from cnn_jax import Run
from cnn_jax.cli import main
from cnn_jax.errors import RunError
from cnn_jax.evaluation import Predictions

SMALL = {"model.options.widths": [4], "model.options.units": 1, "epochs": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    cnn_jax.train(data="digits", out=out, **SMALL)
    return out


@pytest.fixture
def runs(trained, tmp_path):
    """Make a copy of the run that is right as often as told, on the same examples."""

    def make(name, accuracy, seed):
        folder = tmp_path / name
        shutil.copytree(trained, folder)
        path = folder / "predictions" / "test.npz"
        known = Predictions.load(path)
        right = np.random.default_rng(seed).random(len(known)) < accuracy
        said = np.where(right, known.targets, (known.targets + 1) % 10)
        logits = 4 * np.eye(10, dtype=np.float32)[said]
        Predictions(**{**vars(known), "logits": logits}).save(path)
        return folder

    return make


def run(capsys, *arguments):
    status = main([str(word) for word in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_two_runs(capsys, runs):
    a, b = runs("a", 0.95, 0), runs("b", 0.80, 1)
    uses = len(Run.load(a).test_uses)
    status, out, _ = run(capsys, "compare", a, b)
    lines = out.splitlines()
    assert status == 0 and lines[0].startswith("A  ") and "accuracy 9" in lines[0]
    assert "A - B  +1" in out and "over test sets: Tango; paired" in out
    assert "McNemar, exact: difference 0.1" in out
    assert "A is better than B. One run each: another seed" in out
    assert "A is worse than B." in run(capsys, "compare", b, a)[1]
    with open(a / "test_use.csv", newline="") as file:
        used = list(csv.DictReader(file))
    assert len(used) == uses + 2 and used[-1]["command"].startswith("cnn-jax compare ")
    status, out, _ = run(capsys, "compare", a, b, "--format", "json", "--metric", "nll")
    found = json.loads(out)
    assert (found["answer"], found["metric"]) == ("better", "nll")
    assert found["of_a"] < found["of_b"] and found["difference"]["covers"] == "test-set"


def test_it_says_what_would_settle_it(capsys, runs):
    a, b = runs("a", 0.90, 0), runs("b", 0.89, 1)
    status, out, _ = run(capsys, "compare", a, b)
    assert status == 0
    assert "Cannot tell with 360 examples: if the difference is" in " ".join(out.split())
    assert max(map(len, out.splitlines()[2:])) <= 80  # below the paths


def test_several_seeds_by_pattern_and_by_commas(capsys, runs, tmp_path):
    for k in range(3):
        runs(f"a-{k}", 0.95, k)
        runs(f"b-{k}", 0.85, 10 + k)
    status, out, _ = run(capsys, "compare", f"{tmp_path}/a-*", f"{tmp_path}/b-*")
    assert status == 0 and "A is better than B." in out
    assert "over test sets and seeds: " in out and "over seeds: Welch's t" in out
    words = [",".join(str(tmp_path / f"{name}-{k}") for k in range(3)) for name in "ab"]
    again = run(capsys, "compare", *words)[1]
    assert again.splitlines()[2:] == out.splitlines()[2:]


def test_what_makes_no_sense_is_one_line(capsys, runs, tmp_path):
    a, b = runs("a", 0.9, 0), runs("b", 0.9, 1)
    for words, message in (
        (("compare", a), "the following arguments are required: b"),
        (("compare", a, a), "is on both sides"),
        (("compare", f"{a},{a}", b), "names a run twice"),
        (("compare", a, f"{tmp_path}/nothing-*"), "no run folder matches"),
        (("compare", a, tmp_path / "nothing"), "nothing"),
        (("compare", a, b, "--metric", "speed"), "no metric 'speed': choose one of accuracy"),
        (("compare", a, b, "--split", "train"), "cannot read predictions"),
        (("compare", a, b, "--level", "95"), "--level must be between 0 and 1"),
        (("compare", f"{a},{b}", runs("c", 0.9, 2)), "2 against 1 runs"),
    ):
        status, out, err = run(capsys, *words)
        assert (status, out) == (2, ""), words
        assert message in err and err.count("\n") == 1


def test_a_folder_may_have_a_comma_in_its_name(capsys, runs):
    a, b = runs("a,1", 0.95, 0), runs("b", 0.8, 1)
    assert run(capsys, "compare", a, b)[0] == 0


def test_in_python(runs):
    a, b = (Run.load(runs(name, accuracy, 0)) for name, accuracy in (("a", 0.95), ("b", 0.8)))
    assert cnn_jax.compare([a], [b]).answer == "better"
    with pytest.raises(RunError, match="both sides"):
        cnn_jax.compare([a], [a])
