"""`cnn-jax bench`: what it prints and writes, what it refuses, and what an interrupt leaves."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax.bench import results, session
from cnn_jax.cli import main
from cnn_jax.cli.bench import _BENCHMARKS

TINY = ["bench", "ops", "--quick", "--no-torch", "--filter", "max pool 2x2"]


def run(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def test_a_tiny_benchmark_prints_and_writes(capsys, tmp_path):
    out = tmp_path / "results" / "here"
    status, printed, _ = run(capsys, *TINY, "--out", str(out))
    assert status == 0
    lines = printed.splitlines()
    assert lines[0].startswith("ops, float32, 6 pairs: ")
    assert "max pool 2x2 /2 64 @32x32 n4" in lines
    assert max(map(len, lines)) <= 80
    rows = results.read(out / "results.csv")
    assert [row.part for row in rows] == ["forward", "gradient"]
    assert all(row.bytes > 0 and row.memory_mib > 0 and row.torch == "" for row in rows)
    assert rows[0].command.startswith("cnn-jax bench ops --quick")
    written = json.loads((out / "ops.json").read_text())
    assert [row["case"] for row in written] == [row.case for row in rows]
    assert (out / "ops.svg").read_text().startswith("<svg")

    status, _, err = run(capsys, *TINY, "--out", str(out))
    assert status == 2 and "--overwrite replaces it" in err and err.count("\n") == 1
    baseline = tmp_path / "old.csv"
    results.write(baseline, [fast(row) for row in rows])
    status, printed, _ = run(
        capsys, *TINY, "--out", str(out), "--overwrite", "--baseline", str(baseline)
    )
    assert status == 1
    assert "2 slower" in printed and "then and now differ: jax 0.1 -> " in printed
    assert len(results.read(out / "results.csv")) == 2


def fast(row):
    return dataclasses.replace(row, ratio=0.001, low=0.001, high=0.002, jax="0.1")


def test_the_command_knows_the_benchmarks():
    from cnn_jax.bench.benchmarks import BENCHMARKS, WITH_TORCH

    assert _BENCHMARKS == BENCHMARKS
    assert set(WITH_TORCH) < set(BENCHMARKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench"], "the following arguments are required: benchmark"),
        (["bench", "opps"], "no benchmark 'opps'; did you mean 'ops'?"),
        (["bench", "ops", "--pairs", "5"], "--pairs must be at least 6"),
        (["bench", "ops", "--pairs", "many"], "invalid int value"),
        (["bench", "ops", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["bench", "ops", "--resume"], "--resume goes on with what --out DIR holds"),
        (["bench", "ops", "--fast"], "unrecognized arguments: --fast"),
        (["bench", "ops", "--no-torch", "--filter", "9x9"], "no case of 'ops' has all words of"),
        (["bench", "ops", "--baseline", "nothing.csv"], "nothing.csv: cannot be read"),
    ],
)
def test_what_makes_no_sense_is_one_line(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_an_interrupt_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    calls = []

    def interrupted(trial, **options):
        calls.append(trial)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(trial, **options)

    original = session.run_trial
    monkeypatch.setattr(session, "run_trial", interrupted)
    status, _, err = run(capsys, *TINY, "--out", str(tmp_path / "out"))
    assert status == 130 and "interrupted" in err
    assert [row.part for row in results.read(tmp_path / "out" / "results.csv")] == ["forward"]
    assert len(json.loads((tmp_path / "out" / "ops.json").read_text())) == 1

    monkeypatch.setattr(session, "run_trial", original)
    assert run(capsys, *TINY, "--out", str(tmp_path / "out"), "--resume")[0] == 0
    for rows in (
        [row.part for row in results.read(tmp_path / "out" / "results.csv")],
        [row["part"] for row in json.loads((tmp_path / "out" / "ops.json").read_text())],
    ):
        assert rows == ["forward", "gradient"]
    status, printed, _ = run(capsys, *TINY, "--out", str(tmp_path / "out"), "--resume")
    assert status == 0 and "holds all of it" in printed


def test_resume_measures_what_lacks_a_rival(monkeypatch, tmp_path, capsys):
    """A trial that was measured without PyTorch is measured again where there is PyTorch."""
    words = [*TINY, "--out", str(tmp_path / "out")]
    assert run(capsys, *words)[0] == 0
    original = session._chosen

    def with_another(options, setting):
        more = [("stock", "ours")]
        return [
            dataclasses.replace(trial, comparisons=[*trial.comparisons, *more])
            if trial.part == "gradient"
            else trial
            for trial in original(options, setting)
        ]

    monkeypatch.setattr(session, "_chosen", with_another)
    status, printed, _ = run(capsys, *words, "--resume")
    assert status == 0 and "forward" not in printed
    rows = results.read(tmp_path / "out" / "results.csv")
    assert [(row.part, row.rival) for row in rows] == [
        ("forward", "ours"),
        ("gradient", "ours"),
        ("gradient", "stock"),
    ]


def test_the_help_needs_no_jax():
    script = (
        "import sys; from cnn_jax.cli import main\n"
        "try: main(['bench', '--help'])\n"
        "except SystemExit: pass\n"
        "main(['bench', 'opps']); main(['bench', 'ops', '--pairs', '3'])\n"
        "assert not {'jax', 'numpy', 'flax', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80


@pytest.mark.parity
def test_pytorch_is_timed_in_its_own_process(capsys, tmp_path):
    pytest.importorskip("torch")
    words = [word for word in TINY if word != "--no-torch"]
    status, printed, _ = run(capsys, *words, "--out", str(tmp_path / "out"))
    assert status == 0 and "PyTorch 2" in printed
    rows = results.read(tmp_path / "out" / "results.csv")
    assert [row.reference for row in rows] == ["stock", "torch"] * 2
