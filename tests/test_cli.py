"""The command line: one-line errors, plain output, and the same run as the Python API."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import Classifier, Run
from cnn_jax.cli import main
from cnn_jax.decision import fit_prediction_sets
from cnn_jax.errors import DataError, EvaluationError, RunError

SMALL = [
    *("--model.options.widths", "[4]", "--model.options.units", "1"),
    *("--epochs", "2", "--batch-size", "100"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "my run"
    assert main(["train", *SMALL, "--seed", "3", "--baselines", "--out", str(out)]) == 0
    return out


def run(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    "command",
    ["", "train", "evaluate", "compare", "decide", "predict", "report", "data", "doctor"],
)
def test_help_fits_a_screen(capsys, command):
    arguments = [command, "--help"] if command else ["--help"]
    try:
        status, out, _ = run(capsys, *arguments)
    except SystemExit as ended:
        status, out = ended.code, capsys.readouterr().out
    assert status == 0
    assert len(out.splitlines()) <= 24
    assert max(len(line) for line in out.splitlines()) <= 80
    if command in ("", "train"):
        assert "examples:" in out


def test_help_needs_no_jax_and_answers_at_once():
    script = (
        "import sys; from cnn_jax.cli import main\n"
        "main(['--help']); main(['train', 'x', '--nope'])\n"
        "heavy = {'jax', 'numpy', 'flax', 'orbax', 'PIL', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = str(Path(__file__).parents[1])
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 10  # 0.1 s on an idle machine; this one may be busy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["train", "--epoch", "3"], "no option '--epoch'; did you mean '--epochs'?"),
        (["train", "--optimizer.lr", "3"], "no option '--optimizer.lr'"),
        (["train", "--train.epoch=3"], "did you mean '--train.epochs'?"),
        (["train", "--epochs", "many"], "train.epochs must be a whole number, not 'many'"),
        (["train", "--epochs", "-1"], "train.epochs must be at least 1"),
        (["train", "--epochs"], "argument --epochs: expected one argument"),
        (["train", "--augment.flip"], "--augment.flip needs a value"),
        (["train", "--until", "convergd"], "did you mean 'converged'?"),
        (["train", "--data", "digit"], "did you mean 'digits'?"),
        (["train", "--model", "resnet19"], "did you mean 'resnet18'?"),
        (["train", "--model.options.width", "3"], "width"),
        (["train", "nothing.toml"], "cannot read recipe 'nothing.toml'"),
        (["train", "mnst"], "did you mean 'mnist'?"),
        (["train", "--resume", "nowhere"], "no run folder 'nowhere'"),
        (["train", "--resume", "x", "--epochs", "3"], "--resume goes on with the run's own recipe"),
        (["train", "--augment.translate", "8"], "augment.translate is 8 pixels"),
        (["train", "--train.devices", "99"], "train.devices is 99"),
        (["train", "--train.compiler_options.xla_no_such", "1"], "option: 'xla_no_such'"),
        (["train", "--optimizer.decay_exclude", "['krnel']"], "'krnel' matches no parameter"),
        (["evaluate", "nowhere"], "no run folder 'nowhere'"),
        (["predict", "nowhere", "x.png"], "x.png"),
        (["report", "nowhere"], "no run folder"),
        (["data", "nowhere"], "nowhere"),
        (["data", "--data-dr", "x"], "did you mean '--data-dir'?"),
        (["models", "--image-size", "x"], "--image-size"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(capsys, arguments, message):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert err.startswith("cnn-jax: ") and len(err.splitlines()) == 1
    assert not list(Path().glob("runs/*"))  # a refused run leaves no folder behind


def test_train_says_what_it_did(capsys):
    status, out, _ = run(capsys, "train", *SMALL)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "digits: 1,257 train, 180 validation, 360 test images of 8×8×1, 10 classes"
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert "training ended: all 2 epochs are done" in lines
    pattern = r"test accuracy \d+\.\d\d % \[\d+\.\d, \d+\.\d\], n = 360"
    assert re.fullmatch(pattern, lines[-2])
    assert lines[-1].startswith("run folder runs/digits-compact-001")
    assert "\r" not in out and "\x1b" not in out
    status, out, _ = run(capsys, "train", *SMALL)
    assert "digits-compact-002" in out


def test_the_run_folder_is_complete(trained):
    files = {p.relative_to(trained).as_posix() for p in trained.rglob("*") if p.is_file()}
    expected = {"recipe.toml", "run.json", "splits.json", "metrics.csv", "timings.csv"}
    expected |= {"test_use.csv", "report.html"}
    expected |= {
        f"predictions/{name}{part}.npz"
        for part in ("validation", "test")
        for name in ("", "nearest neighbour-", "logistic regression-")
    }
    assert expected <= files
    info = json.loads((trained / "run.json").read_text())
    assert info["status"] == "finished" and info["seed"] == 3
    assert info["environment"]["versions"]["jax"]
    assert set(info["baselines"]) == {"nearest neighbour", "logistic regression"}
    with open(trained / "test_use.csv", newline="") as file:
        uses = list(csv.DictReader(file))
    assert [(use["split"], use["n"]) for use in uses] == [("test", "360")] * 3
    assert [" (" in use["command"] for use in uses] == [False, True, True]  # the baselines
    splits = json.loads((trained / "splits.json").read_text())
    assert [len(splits[part]) for part in ("train", "validation", "test")] == [1257, 180, 360]


def test_other_figures_than_the_usual(capsys, trained):
    given = Run.load(trained).predictions("test")
    _, out, _ = run(capsys, "evaluate", str(trained), "--figures", "medmnist", "--format", "json")
    expected = (given.predicted() == given.labels()).mean()
    assert json.loads(out)["acc"]["value"] == pytest.approx(expected)
    _, out, _ = run(capsys, "evaluate", str(trained), "--figures", "ordinal", "--format", "csv")
    assert [row["metric"] for row in csv.DictReader(io.StringIO(out))] == [
        "quadratic_kappa",
        "linear_kappa",
        "mean_absolute_error",
    ]


def test_predict_gives_sets_and_says_what_is_for_a_human(capsys, trained, tmp_path):
    one = Run.load(trained)
    images = one.dataset.splits["test"].read_images(np.arange(40))
    for number, image in enumerate(images):
        Image.fromarray(image[:, :, 0]).save(tmp_path / f"{number:02d}.png")
    status, out, _ = run(
        capsys, "predict", str(trained), str(tmp_path), "--coverage", "0.9", "--format", "json"
    )
    found = json.loads(out)
    test = one.predictions("test").take(np.arange(40))
    expected = fit_prediction_sets(one.predictions("validation"), coverage=0.9).sets(test)
    for row, inside in zip(found, expected, strict=True):
        assert row["set"] == [str(k) for k in np.flatnonzero(inside)]
        assert row["refer"] == (inside.sum() != 1)
    _, out, _ = run(capsys, "predict", str(trained), str(tmp_path), "--coverage", "0.9")
    lines = out.splitlines()[1:]
    assert [line.endswith("refer to a human") for line in lines] == [r["refer"] for r in found]
    _, out, _ = run(
        capsys, "predict", str(trained), str(tmp_path), "--coverage", "0.9", "--format", "csv"
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["set"].split("|") for row in rows] == [row["set"] or [""] for row in found]
    assert main(["export", str(trained), str(tmp_path / "out")]) == 0
    status, _, err = run(
        capsys, "predict", str(tmp_path / "out"), str(tmp_path / "00.png"), "--coverage", "0.9"
    )
    assert status == 2 and "--coverage needs the validation predictions" in err
    status, _, err = run(
        capsys, "predict", str(trained), str(tmp_path / "00.png"), "--coverage", "90"
    )
    assert status == 2 and "a coverage lies between 0 and 1" in err
    both = ("--labels", "--coverage", "0.9")
    status, _, err = run(capsys, "predict", str(trained), str(tmp_path / "00.png"), *both)
    assert status == 2 and "leave out --coverage, or --labels" in err
    plain = one.predict([tmp_path / "00.png"])
    with pytest.raises(EvaluationError, match="there are no prediction sets"):
        plain.for_a_human  # noqa: B018


def test_decide_draws_the_line_on_validation_and_judges_it_on_test(capsys, trained):
    options = ("--positive", "3", "--sensitivity", "0.9", "--prevalence", "0.02")
    status, out, _ = run(capsys, "decide", str(trained), *options, "--format", "json")
    found = json.loads(out)
    assert status == 0 and found["fitted_on"] == {"split": "validation", "n": 180}
    assert "cnn-jax decide" in (trained / "test_use.csv").read_text().splitlines()[-1]
    one = Run.load(trained)
    line = np.log(found["probability"]) - np.log1p(-found["probability"])
    for part in ("validation", "test"):
        p = one.predictions(part)
        flagged = p.log_odds(one.temperature)[:, 3] >= line
        sick = p.labels() == 3
        for name, share in (
            ("sensitivity", flagged[sick].mean()),
            ("specificity", (~flagged[~sick]).mean()),
        ):
            assert found[part][name]["value"] == pytest.approx(share)
    assert found["validation"]["sensitivity"]["value"] >= 0.9
    assert found["elsewhere"]["prevalence"] == 0.02
    assert found["all_negative"]["value"] == pytest.approx((~sick).mean())
    _, out, _ = run(capsys, "decide", str(trained), *options)
    assert "3, sensitivity of 90 %: flagged from a probability of" in out
    assert "where 2 % have it" in out and max(map(len, out.splitlines())) <= 90
    status, _, err = run(capsys, "decide", str(trained))
    assert status == 2 and "Name it with --positive: one of 0, 1, 2," in err


def test_evaluate_repeats_the_figures_and_is_logged(capsys, trained):
    expected = Run.load(trained).metrics["test"]
    status, out, _ = run(capsys, "evaluate", str(trained), "--format", "json")
    assert status == 0
    figures = json.loads(out)
    assert figures == {name: e.to_dict() for name, e in expected.items()}
    assert (trained / "test_use.csv").read_text().splitlines()[-1].startswith("20")
    assert "cnn-jax evaluate" in (trained / "test_use.csv").read_text().splitlines()[-1]
    _, out, _ = run(capsys, "evaluate", str(trained), "--split", "validation")
    assert out.startswith("accuracy")
    _, out, _ = run(capsys, "evaluate", str(trained), "--split", "train", "--format", "csv")
    assert {row["n"] for row in csv.DictReader(io.StringIO(out))} == {"1257"}
    status, _, err = run(capsys, "evaluate", str(trained), "--split", "tset")
    assert status == 2 and "train, validation, test" in err


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "new images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in {
        "a b.png": (8, 8),
        "<script>.png": (20, 12, 3),
        "line\nbreak.png": (9, 9, 4),
        "'quoted'.jpg": (8, 16, 3),
    }.items():
        Image.fromarray(rng.integers(0, 255, shape).astype(np.uint8)).save(folder / name)
    return folder


def test_predict_in_every_form(capsys, trained, pictures):
    status, out, _ = run(capsys, "predict", str(trained), str(pictures))
    assert status == 0
    assert len(out.splitlines()) == 5 and "line\\nbreak.png" in out
    _, out, _ = run(capsys, "predict", str(trained), str(pictures), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 4
    for row in rows:
        probabilities = [float(row[f"p({k})"]) for k in range(10)]
        assert sum(probabilities) == pytest.approx(1)
        assert max(probabilities) == float(row["probability"])
        assert probabilities[int(row["class"])] == max(probabilities)
    _, out, _ = run(capsys, "predict", str(trained), str(pictures), "--format", "json")
    assert [r["class"] for r in json.loads(out)] == [r["class"] for r in rows]
    one = str(pictures / "a b.png")
    _, out, _ = run(capsys, "predict", str(trained), one, "--format", "json")
    assert len(json.loads(out)) == 1


def test_predict_names_what_it_cannot_read(capsys, trained, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (bad, empty, tmp_path / "missing.png"):
        status, _, err = run(capsys, "predict", str(trained), str(path))
        assert status == 2 and path.name in err and len(err.splitlines()) == 1


def test_predict_keeps_the_order_and_goes_on_after_a_bad_file(capsys, trained, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    given = [str(p) for p in (pictures / "a b.png", bad, next(pictures.glob("line*")))]
    ordered = sorted((given[0], given[2]), reverse=True)
    arguments = [ordered[0], str(bad), ordered[1], ordered[0]]
    status, out, err = run(capsys, "predict", str(trained), *arguments, "--format", "json")
    assert [answer["image"] for answer in json.loads(out)] == ordered
    assert status == 1 and "bad.png" in err and len(err.splitlines()) == 1
    with pytest.raises(DataError, match="bad"):
        Run.load(trained).predict(given)


def test_export_predicts_alike(capsys, trained, pictures, tmp_path):
    folder = tmp_path / "exported"
    status, out, _ = run(capsys, "export", str(trained), str(folder))
    written = [folder / "model.safetensors", folder / "model.json"]
    assert status == 0 and out.split() == [str(written[0]), "and", str(written[1])]
    outputs = [
        run(capsys, "predict", str(source), str(pictures), "--format", "csv")[1]
        for source in (trained, folder)
    ]
    assert outputs[0] == outputs[1]
    described = json.loads((folder / "model.json").read_text())
    assert described["classes"] == [str(k) for k in range(10)]
    status, _, err = run(capsys, "export", str(trained), str(folder))
    assert status == 2 and "already: choose another folder" in err
    with pytest.raises(RunError, match=r"is a run folder: use cnn_jax.Run.load, or export it"):
        Classifier.load(trained)
    described["recipe"]["model"] = {**described["recipe"]["model"], "name": "custom:TwoLayers"}
    described["recipe"]["model"]["options"] = {}
    (folder / "model.json").write_text(json.dumps(described))
    status, _, err = run(capsys, "predict", str(folder), str(pictures))
    assert status == 2
    assert f"in Python: cnn_jax.Classifier.load('{folder}', model=TwoLayers(...))\n" in err
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(Exception, match="is not what was exported"):
        Classifier.load(folder)


def test_what_lies_in_the_way_is_never_overwritten(capsys, trained, tmp_path):
    before = (trained / "run.json").read_bytes()
    status, _, err = run(capsys, "train", *SMALL, "--out", str(trained))
    assert status == 2 and "--overwrite" in err
    assert (trained / "run.json").read_bytes() == before
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    assert run(capsys, "train", *SMALL, "--out", str(out), "--overwrite")[0] == 0
    assert (tmp_path / "out.old-1" / "precious.txt").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("")
    assert run(capsys, "train", *SMALL, "--out", str(file / "below"))[0] == 2


def test_report_data_models_and_doctor(capsys, trained, monkeypatch):
    # All of them take ten seconds to be traced; their figures are tested in tests/models.
    monkeypatch.setattr("cnn_jax.models.names", lambda: ("compact", "resnet18", "unet"))
    page = trained / "report.html"
    page.unlink()
    status, out, _ = run(capsys, "report", str(trained))
    assert status == 0 and page.exists() and out.strip() == str(page)
    text = page.read_text("utf-8")
    assert "nearest neighbour on pixels" in text and "http-equiv" in text
    status, out, _ = run(capsys, "data", "digits")
    assert status == 0 and "CC BY 4.0" in out and "1,257" in out
    status, out, _ = run(capsys, "models")
    assert status == 0 and "resnet18" in out and "compact" in out
    assert [line.split()[-1] for line in out.splitlines()[1:4]] == ["image", "image", "pixel"]
    status, out, _ = run(capsys, "doctor")
    assert status == 0 and "float32" in out and "compile cache" in out


def test_an_unfinished_run_folder_is_explained(capsys, trained, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    status, _, err = run(capsys, "evaluate", str(broken))
    assert status == 2 and "is not a run folder" in err
    (broken / "recipe.toml").write_text("")
    (broken / "run.json").write_text("{")
    status, _, err = run(capsys, "evaluate", str(broken))
    assert status == 2 and "cannot read" in err
    (broken / "run.json").write_text('{"schema": 99}')
    status, _, err = run(capsys, "evaluate", str(broken))
    assert status == 2 and "schema 99" in err


def test_an_interrupt_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("cnn_jax.execution.fit_temperature", stop)
    out = tmp_path / "my run"
    status, _, err = run(capsys, "train", *SMALL, "--out", str(out))
    assert status == 130
    assert err == f"cnn-jax: interrupted; go on with: cnn-jax train --resume '{out.name}'\n"
    monkeypatch.setattr("cnn_jax.data.list_images", stop)
    assert run(capsys, "predict", str(out), "x.png")[::2] == (130, "cnn-jax: interrupted\n")


def test_memory_that_is_not_there_is_said_in_one_line(capsys, monkeypatch):
    import jax.numpy as jnp

    from cnn_jax.cli import machine

    monkeypatch.setattr(machine, "models", lambda words: jnp.zeros(1 << 45).block_until_ready())
    status, said, error = run(capsys, "models")
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert error.startswith("cnn-jax: RESOURCE_EXHAUSTED: Out of memory allocating 1407")
    assert "Take smaller batches" in error
    monkeypatch.setattr(machine, "models", lambda words: [][0])
    with pytest.raises(IndexError):
        main(["models"])


@pytest.mark.heavy
def test_a_reader_that_has_enough_is_no_traceback():
    done = subprocess.run(
        f"{sys.executable} -m cnn_jax.cli data | head -1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert "Traceback" not in done.stderr and done.stdout.startswith("digits")


@pytest.mark.heavy
def test_a_closed_pipe_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)  # gone before anything is said, as `| head` goes when it has enough
    done = subprocess.run(
        [sys.executable, "-m", "cnn_jax.cli", "data"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141 and done.stderr == ""
