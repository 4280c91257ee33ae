"""A killed run, resumed, is the run that was never killed: bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cnn_jax import Predictions, Run
from cnn_jax.errors import RunError
from cnn_jax.run_folder import RunFolder
from cnn_jax.training import checkpoints as saved
from cnn_jax.training.progress import Silent

pytestmark = pytest.mark.faults

# Every chunk is saved, so that a kill may hit any moment of a save.
OPTIONS = [
    *("--model.options.widths", "[4]", "--model.options.units", "1", "--epochs", "8"),
    *("--augment.translate", "1", "--augment.mixup", "0.2", "--model.options.dropout", "0.1"),
    *("--train.checkpoint_seconds", "0", "--batch-size", "100"),
]


def start(*arguments):
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "cnn_jax.cli", "train", *arguments],
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(process):
    """SIGKILL; returns whether that is what ended it."""
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def assert_same_run(a, b):
    """Parameters, optimizer state, progress, metrics and predictions."""
    steps = [saved._steps(run / "checkpoints") for run in (a, b)]
    assert steps[0][-1] == steps[1][-1]
    assert saved.best_step(a / "checkpoints") == saved.best_step(b / "checkpoints")
    for step in (steps[0][-1], saved.best_step(a / "checkpoints")):
        leaves, progress = saved._load((a / "checkpoints" / str(step)).absolute())
        other, other_progress = saved._load((b / "checkpoints" / str(step)).absolute())
        assert progress == other_progress
        assert leaves.keys() == other.keys()
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(leaf, other[name], err_msg=name)
    assert (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()
    assert (a / "splits.json").read_text() == (b / "splits.json").read_text()
    for part in ("validation", "test"):
        p, q = (Predictions.load(run / "predictions" / f"{part}.npz") for run in (a, b))
        np.testing.assert_array_equal(p.logits, q.logits)
        np.testing.assert_array_equal(p.ids, q.ids)
    infos = [json.loads((run / "run.json").read_text()) for run in (a, b)]
    for entry in ("metrics", "selected", "temperature", "digest", "reason"):
        assert infos[0][entry] == infos[1][entry]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "run"
    process = start(*OPTIONS, "--out", str(path))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return path


def test_killed_ten_times_at_random_moments(unbroken, tmp_path):
    rng = random.Random(0)
    path, kills, output = tmp_path / "run", 0, ""
    process = start(*OPTIONS, "--out", str(path))
    for _ in range(60):
        lines = iter(process.stdout.readline, "")
        for line in lines:
            output += line
            if line.startswith(("epoch", "resumed")):
                break
        # As soon as it trains, or a little later; after the tenth kill it may finish.
        time.sleep(rng.uniform(0, 0.4) if kills < 10 else 0)
        if kills < 10:
            kills += kill(process)
        else:
            output += process.communicate(timeout=120)[0]
        if process.returncode != -signal.SIGKILL:
            break
        process = start("--resume", str(path))
    assert process.returncode == 0, output
    assert kills >= 10, output
    assert_same_run(path, unbroken)
    assert not list(path.glob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_cleanly(unbroken, tmp_path, number):
    path = tmp_path / "run"
    process = start(*OPTIONS, "--out", str(path))
    for line in iter(process.stdout.readline, ""):
        if line.startswith("epoch"):
            break
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"stopped by {number.name}; the state is saved; go on with: cnn-jax train" in output
    assert "\nstopping after this step\n" in output
    assert "Traceback" not in output
    run = Run.load(path)
    assert run.status == "interrupted"
    with pytest.raises(RunError, match="has not finished training"):
        run.predict(np.zeros((1, 8, 8, 1), np.uint8))
    run.resume(reporter=Silent())
    assert run.status == "finished"
    assert_same_run(path, unbroken)


def test_the_second_process_is_refused(tmp_path):
    path = tmp_path / "run"
    process = start(*OPTIONS, "--out", str(path))
    for line in iter(process.stdout.readline, ""):
        if line.startswith("epoch"):
            break
    second = start("--resume", str(path))
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another process is training" in output and len(output.splitlines()) == 1
    kill(process)
    # The lock went with the process.
    with RunFolder.open(path).lock():
        pass


def test_a_finished_run_is_left_alone(unbroken):
    before = (unbroken / "run.json").read_text()
    process = start("--resume", str(unbroken))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "nothing to resume" in output
    assert (unbroken / "run.json").read_text() == before


def test_a_damaged_checkpoint_is_named_and_the_run_still_ends_alike(unbroken, tmp_path):
    path = tmp_path / "run"
    process = start(*OPTIONS, "--out", str(path))
    for line in iter(process.stdout.readline, ""):
        if line.startswith("epoch 5"):
            break
    kill(process)
    newest = path / "checkpoints" / str(saved._steps(path / "checkpoints")[-1])
    largest = max(newest.rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 4
    largest.write_bytes(bytes(data))
    process = start("--resume", str(path))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert f"checkpoint {newest.name} is damaged" in output
    assert_same_run(path, unbroken)
