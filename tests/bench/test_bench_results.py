"""Saved rows, what changed since, their lines, picture and tables."""

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from cnn_jax.bench import picture, results, text
from cnn_jax.bench.baseline import changes, differences
from cnn_jax.errors import BenchmarkError
from experiments import tables

ROW = results.Row(
    *("ops", "3x3 64-64 @32x32 n128", "weight gradient", "float32", "ours", "stock"),
    *(0.351, 0.338, 0.361, 58.1, 166.0, 10, 9663676416, 67256320, 166.3),
    *(96.0, 97.0, 0.1, 0.2, "2 CPU cores (x)", 2, "0.10.2", "0.10.2", "3.11.7", "2.13.0"),
    *("abc", "2026-01-02", "cnn-jax bench ops"),
)


def changed(**values):
    return dataclasses.replace(ROW, **values)


def test_rows_come_back_as_they_were(tmp_path):
    rows = [ROW, changed(case='with "quotes", and a comma', torch="")]
    results.write(tmp_path / "results.csv", rows)
    assert results.read(tmp_path / "results.csv") == rows


def test_measuring_again_replaces_in_place():
    other = changed(part="forward")
    new = changed(ratio=0.34)
    assert results.replaced([ROW, other], [new]) == [new, other]
    assert results.replaced([ROW], [other]) == [ROW, other]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nops,", "\nops,ops,", "does not have 28 values"),
        (",0.351,", ",fast,", "ratio 'fast' is not a number"),
        (",0.351,", ",nan,", "no interval"),
        (",0.351,", ",0.2,", "no interval"),
        ("benchmark,", "bench,", "the columns must be"),
        ("0.1,0.2,2 CPU", '0.1,0.2,"2 CPU', "line 2"),
    ],
)
def test_damaged_results_are_refused(tmp_path, old, new, message):
    path = tmp_path / "results.csv"
    results.write(path, [ROW])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BenchmarkError, match=message) as caught:
        results.read(path)
    assert str(path) in str(caught.value)


def test_a_comparison_that_occurs_twice_is_refused(tmp_path):
    results.write(tmp_path / "results.csv", [ROW, ROW])
    with pytest.raises(BenchmarkError, match="occurs twice"):
        results.read(tmp_path / "results.csv")
    with pytest.raises(BenchmarkError, match="cannot be read"):
        results.read(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict"),
    [
        (0.5, 0.45, 0.55, "slower"),
        (0.37, 0.355, 0.4, "same"),
        (0.351, 0.361, 0.37, "same"),
        (0.3, 0.2, 0.337, "faster"),
    ],
)
def test_only_intervals_that_do_not_touch_are_a_change(ratio, low, high, verdict):
    (change,) = changes([ROW], [changed(ratio=ratio, low=low, high=high, ms=116.2)])
    assert change.verdict == verdict
    assert change.ratio_of_ratios == pytest.approx(ratio / 0.351)
    assert change.ratio_of_times == pytest.approx(2)


def test_other_hardware_and_versions_are_told():
    new = changed(hardware="8 CPU cores (y)", jax="0.12.0", torch="", commit="def")
    told = differences(changes([ROW, changed(part="forward")], [new]))
    assert told == [
        "hardware 2 CPU cores (x) -> 8 CPU cores (y)",
        "jax 0.10.2 -> 0.12.0",
        "torch 2.13.0 -> none",
    ]
    with pytest.raises(BenchmarkError, match="none of these"):
        changes([ROW], [changed(dtype="bfloat16")])


@pytest.mark.parametrize("ms", [0.00123, 0.0999, 0.99999, 9.999, 99.99, 123456.0])
def test_lines_fit_80_columns(ms):
    row = changed(ms=ms, reference_ms=ms, reference="torch compiled", low=0.0338, ratio=0.0351)
    assert len(text.line(row)) <= 80
    assert len(text.HEAD) <= 80


def test_digits():
    values = [0.00123, 0.0999, 0.3514, 0.99999, 9.999, 58.13, 99.99, 123.4, 12345.6]
    expected = ["0.0012", "0.0999", "0.351", "1.00", "10.0", "58.1", "100", "123", "12346"]
    assert [text.digits(value) for value in values] == expected


def test_the_picture_is_an_svg_with_a_dot_for_each_comparison():
    rows = [changed(case=f"case <{k}>", low=0.001 + k / 1e4) for k in range(picture.MOST_ROWS + 9)]
    for drawn, said in ((rows[:5], ""), (rows, "the 60 highest of 69")):
        tree = ET.fromstring(picture.ratios(drawn))
        dots = [e for e in tree.iter() if e.tag.endswith("circle")]
        assert len(dots) == min(len(drawn), picture.MOST_ROWS) + 1  # and one in the legend
        assert said in "".join(tree.itertext())


def test_tables_of_the_readme_are_written_and_checked(tmp_path):
    folder = tmp_path / "experiments" / "benchmarks" / "small"
    against_torch = changed(reference="torch", ratio=1.2, low=1.1, high=1.3)
    results.write(folder / "results.csv", [ROW, against_torch])
    readme = folder.parent / "README.md"
    names = ("benchmarks/small/ops", "benchmarks/small/ops/summary")
    readme.write_text("".join(f"<!-- table: {n} -->\n<!-- /table -->\n" for n in names))
    assert tables.main(["--check"], tmp_path) == 1
    assert tables.main([], tmp_path) == 0
    assert tables.main(["--check"], tmp_path) == 0
    written = readme.read_text()
    assert "| ours | 58.1 | 166 | 0.351 [0.338, 0.361] | 1.20 [1.10, 1.30] |" in written
    assert "| ours | torch | 1 | 0 | 1 | 1.20 |" in written
    (folder / "results.csv").write_text("broken")
    assert tables.main(["--check"], tmp_path) == 2
