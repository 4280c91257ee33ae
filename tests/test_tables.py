"""The tables of the READMEs: what they say, and what they refuse."""

import dataclasses
import math
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from experiments.results import COLUMNS, ResultsError, Row, append, read
from experiments.seeds import over_seeds, t_quantile
from experiments.tables import figure, main

ROW = Row(
    experiment="small_cnn",
    command="cnn-jax train --seed 0",
    data="digits",
    data_digest="abc",
    split="test",
    metric="accuracy",
    value=0.980556,
    low=0.96,
    high=0.9914,
    n=360,
    hardware="CPU, 2 cores",
    versions="jax 0.10.2",
    commit="4be1c3d",
    date="2025-11-22",
    method="Wilson",
)


def changed(**values):
    return dataclasses.replace(ROW, **values)


@pytest.fixture
def root(tmp_path):
    append(tmp_path / "experiments" / "digits" / "results.csv", [ROW])
    (tmp_path / "README.md").write_text("before\n<!-- table: digits -->\n<!-- /table -->\nafter\n")
    return tmp_path


def results(root):
    return root / "experiments" / "digits" / "results.csv"


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 30, 101])
def test_t_quantile_against_scipy(level, degrees):
    expected = scipy.stats.t.ppf((1 + level) / 2, degrees)
    assert t_quantile(level, degrees) == pytest.approx(expected, rel=1e-9)


def test_tables_need_the_standard_library_alone():
    script = (
        "import sys, experiments.tables\n"
        "assert not {'numpy', 'scipy', 'jax', 'flax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_seeds_are_summarised_as_scipy_does():
    values = [0.97, 0.98, 0.985, 0.96, 0.99]
    summary = over_seeds([changed(value=v, seed=str(k)) for k, v in enumerate(values)])
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(values), scipy.stats.sem(values))
    assert (summary.value, summary.low, summary.high) == pytest.approx((0.977, low, high))
    assert (summary.n_seeds, summary.covers, summary.n) == (5, "seed", 360)


@pytest.mark.parametrize("odd", [{"n": 359}, {"level": 0.9}, {"n_seeds": 3}])
def test_seeds_that_do_not_fit_are_not_averaged(odd):
    with pytest.raises(ResultsError, match="differ in n or level, or hold several"):
        over_seeds([changed(seed="0"), changed(seed="1", **odd)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "98.06 % [96.0, 99.1]"),
        ({"metric": "nll", "value": 0.07, "low": 0.06, "high": 0.0824}, "0.0700 [0.0600, 0.0824]"),
        ({"metric": "images_per_second", "value": 53421.4, "low": 1e4, "high": 6e4},
         "53\u202f421 [10\u202f000, 60\u202f000]"),
        ({"low": math.nan, "high": math.nan}, "98.06 % [no interval]"),
        ({"experiment": "a minus b", "value": 0.0417, "low": -0.02, "high": 0.063},
         "+4.17 points [-2.0, 6.3]"),
        ({"experiment": "a minus b", "metric": "nll", "value": 0.07, "low": -0.06, "high": 0.2},
         "+0.0700 [-0.0600, 0.2000]"),
        ({"experiment": "a minus b", "metric": "nll", "value": -0.07, "low": -0.2, "high": 0.1},
         "-0.0700 [-0.2000, 0.1000]"),
        ({"experiment": "a minus b", "metric": "p of no equivalence", "value": 0.07,
          "low": math.nan, "high": math.nan}, "0.0700 [no interval]"),
        ({"metric": "p of no equivalence", "value": 1.36e-5, "low": 0.0, "high": 1e-4},
         "1.4e-05 [0.0000, 0.0001]"),
    ],
)  # fmt: skip
def test_figures(values, expected):
    assert figure(changed(**values)) == expected


def test_a_file_is_read_as_it_was_written(tmp_path):
    rows = (
        changed(command='train "a, b"\\\n  --x', note="ü | é", value=0.1 + 0.2),
        changed(seed="1", low=math.nan, high=math.nan),
    )
    append(tmp_path / "new" / "results.csv", rows)
    back = read(tmp_path / "new" / "results.csv")
    assert [str(row) for row in back] == [str(row) for row in rows]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results.csv"]


def _append_one(path, seed):
    append(path, [changed(seed=str(seed))])


@pytest.mark.heavy
def test_two_processes_append_at_the_same_time(tmp_path):
    path = tmp_path / "results.csv"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_append_one, [path] * 20, range(20)))
    assert sorted(int(row.seed) for row in read(path)) == list(range(20))


def test_the_same_figure_is_not_added_twice(root):
    append(results(root), [changed(seed="1"), changed(hardware="H200")])
    before = results(root).read_bytes()
    with pytest.raises(ResultsError, match="there already"):
        append(results(root), [changed(seed="2"), changed(value=0.5)])
    assert results(root).read_bytes() == before


def test_tables_are_written_between_the_markers_and_then_agree(root, capsys):
    append(results(root), [changed(metric="nll", value=0.07, low=0.06, high=0.08, method="b|c")])
    assert main(["--check"], root) == 1
    assert "README.md: table 'digits' differs" in capsys.readouterr().out
    assert main([], root) == 0
    text = (root / "README.md").read_text("utf-8")
    assert text.startswith("before\n<!-- table: digits -->\n| experiment | data | accuracy | nll |")
    assert text.endswith("```\n<!-- /table -->\nafter\n")
    (line,) = [line for line in text.splitlines() if line.startswith("| small_cnn")]
    assert line == (
        "| small_cnn | digits, test | 98.06 % [96.0, 99.1] | 0.0700 [0.0600, 0.0800] | 360 | 1 "
        "| test sets, 95 %, Wilson; test sets, 95 %, b\\|c | CPU, 2 cores |"
    )
    assert "```sh\ncnn-jax train --seed N\n```" in text
    capsys.readouterr()
    assert main(["--check"], root) == 0
    assert capsys.readouterr().out == ""


def test_check_writes_nothing_and_sees_an_edited_number(root):
    main([], root)
    readme = root / "README.md"
    readme.write_text(readme.read_text("utf-8").replace("98.06", "99.06"), "utf-8")
    before = readme.read_bytes()
    assert main(["--check"], root) == 1
    assert readme.read_bytes() == before


def test_seeds_and_single_experiments_in_a_folder_readme(root):
    rows = [changed(experiment="pixels", value=0.8 + s / 100, seed=str(s)) for s in range(3)]
    append(results(root), rows)
    readme = root / "experiments" / "digits" / "README.md"
    readme.write_text("<!-- table: digits/pixels -->\nold\n<!-- /table -->")
    assert main([], root) == 0
    text = readme.read_text("utf-8")
    assert "small_cnn" not in text
    assert "81.00 % [78.5, 83.5] | 360 | 3 | seeds, 95 %, Student's t" in text


def test_a_table_of_what_was_measured_on_one_split(root):
    rows = [changed(experiment=name, split="folds, 5 of them") for name in ("network", "pixels")]
    append(results(root), rows)
    readme = root / "experiments" / "digits" / "README.md"
    readme.write_text("<!-- table: digits/digits, folds, 5 of them -->\n<!-- /table -->")
    assert main([], root) == 0
    text = readme.read_text("utf-8")
    assert "| network |" in text and "| pixels |" in text and "small_cnn" not in text


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",note", ",remark", "unknown column 'remark'"),
        (",note", "", "column 'note' is missing"),
        (",note", ",note,metric", "column 'metric' occurs twice"),
        ("0.980556", "98,06", "does not have 20 values"),
        ("0.980556", "98.06%", "value '98.06%' is not a number"),
        ("0.980556", "nan", "not finite"),
        (",360,", ",3.5,", "n '3.5' is not a number"),
        ("0.96", "", "one end only"),
        ("test-set", "everything", "covers 'everything'"),
        ("small_cnn", '"small_cnn', "line 2"),
    ],
)
def test_errors_of_the_results_are_one_line_that_says_where(root, capsys, old, new, words):
    edit(results(root), old, new)
    assert main([], root) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "results.csv, line " in message
    assert message.count("\n") == 1


def test_a_repeated_line_is_an_error(root, capsys):
    header, line = results(root).read_text("utf-8").splitlines()
    results(root).write_text(f"{header}\n{line}\n{line}\n", "utf-8")
    assert main(["--check"], root) == 2
    assert "line 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- table: letters -->\n<!-- /table -->", "no results for table 'letters'"),
        ("<!-- table: digits -->\n", "has no <!-- /table -->"),
        ("<!-- table: digits -->\n<!-- table: digits -->\n<!-- /table -->", "has no"),
    ],
)
def test_errors_of_the_markers(root, capsys, text, words):
    (root / "README.md").write_text(text)
    assert main(["--check"], root) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "README.md" in message


def test_columns_are_the_fields():
    assert sorted(COLUMNS) == sorted(field.name for field in dataclasses.fields(Row))
