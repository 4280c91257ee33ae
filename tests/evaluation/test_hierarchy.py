"""Figures of classes in a tree, by hand and against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from cnn_jax import train
from cnn_jax.cli import main
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    Hierarchy,
    Predictions,
    classification_metrics,
    hierarchy_metrics,
)
from cnn_jax.training.progress import Silent

CLASSES = ("cat", "dog", "frog", "ship", "lorry")
LINES = (
    ("mammal", "animal"),
    ("mammal", "animal"),
    ("amphibian", "animal"),
    ("vessel", "vehicle"),
    ("car", "vehicle"),
)
TREE = Hierarchy(CLASSES, ("order", "realm"), LINES)


def predictions_of(p, labels, groups=None):
    return Predictions(
        "test",
        np.array([f"{n}" for n in range(len(labels))]),
        np.asarray(labels, np.int32),
        np.log(np.asarray(p)).astype(np.float32),
        CLASSES,
        groups=groups,
    )


def test_heights_by_hand():
    expected = [
        [0, 1, 2, 3, 3],
        [1, 0, 2, 3, 3],
        [2, 2, 0, 3, 3],
        [3, 3, 3, 0, 2],
        [3, 3, 3, 2, 0],
    ]
    np.testing.assert_array_equal(TREE.heights, expected)
    of, names = TREE.at(1)
    assert of.tolist() == [0, 0, 0, 1, 1] and names == ("animal", "vehicle")


def test_figures_by_hand():
    """A cat that is right, a dog taken for a cat, and a frog whose animals outweigh a lorry."""
    p = [
        [0.9, 0.025, 0.025, 0.025, 0.025],
        [0.5, 0.2, 0.1, 0.1, 0.1],
        [0.2, 0.2, 0.15, 0.05, 0.4],
    ]
    found = hierarchy_metrics(predictions_of(p, [0, 1, 2]), TREE, resamples=10)
    values = {name: figure.value for name, figure in found.items()}
    assert values == pytest.approx(
        {
            "accuracy": 1 / 3,
            "accuracy_order": 2 / 3,  # the frog's mammals, 0.4, and cars, 0.4: not amphibians
            "accuracy_realm": 1,  # 0.55 for animals, though the likeliest class is a lorry
            "mean_height": (0 + 1 + 3) / 3,
            "mistake_height": 2,
        }
    )
    assert found["accuracy_realm"].percent and not found["mean_height"].percent


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_figures_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    p, labels = rng.dirichlet(np.ones(5), 30), rng.integers(0, 5, 30)
    found = hierarchy_metrics(predictions_of(p, labels), TREE, resamples=2)
    heights = []
    for row, label in zip(p, labels, strict=True):
        answer = int(row.argmax())
        mine, other = ((CLASSES[k], *LINES[k]) for k in (label, answer))
        heights.append(next((n for n in range(3) if mine[n] == other[n]), 3))
    assert found["mean_height"].value == pytest.approx(np.mean(heights))
    wrong = [height for height in heights if height]
    assert found["mistake_height"].value == pytest.approx(np.mean(wrong))
    for level, name in enumerate(("order", "realm")):
        right = 0
        for row, label in zip(p, labels, strict=True):
            sums = {}
            for k, line in enumerate(LINES):
                sums[line[level]] = sums.get(line[level], 0) + row[k]
            right += max(sums, key=sums.get) == LINES[label][level]
        assert found[f"accuracy_{name}"].value == pytest.approx(right / 30)


def test_a_table_as_spreadsheets_write_it(tmp_path):
    path = tmp_path / "tree.csv"
    lines = "".join(
        f" {name} ,{', '.join(line)}\n" for name, line in zip(CLASSES, LINES, strict=True)
    )
    path.write_text(f"\ufeffclass,order,realm\n{lines},,\n,,\n", encoding="utf-8")
    assert Hierarchy.read(path, CLASSES).ancestors == LINES
    assert Hierarchy.read(path, ("dog ", "cat")).ancestors == LINES[:2]


def test_intervals_resample_groups():
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(5), 60), rng.integers(0, 5, 60)
    groups = np.array([f"shot {n // 10}" for n in range(60)])
    found = hierarchy_metrics(predictions_of(p, labels, groups), TREE)
    assert all(figure.unit == "group" for figure in found.values())
    none_wrong = hierarchy_metrics(predictions_of(np.eye(5)[labels] + 1e-6, labels), TREE)
    assert np.isnan(none_wrong["mistake_height"].value) and none_wrong["mean_height"].value == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,order\ncat,mammal\n", "says nothing of 4 of 5 classes, such as 'dog'"),
        ("class,order\ncat,mammal\n,,\ncat,mammal\n,,\n", "has 'cat' twice"),
        ("class\n" + "\n".join(CLASSES), "a first line that names the levels"),
        ("", "a first line that names the levels"),
        ("class,a,a\n" + "".join(f"{c},x,y\n" for c in CLASSES), "'a', 'a' of a hierarchy need"),
        ("class,a,\n" + "".join(f"{c},x,\n" for c in CLASSES), "'a', '' of a hierarchy need"),
        ("class,a\n" + "".join(f"{c},\n" for c in CLASSES), "'cat' has no a: name one"),
        (
            "class,order,realm\ncat,mammal,animal\ndog,mammal,plant\nfrog,a,b\nship,a,b\nlorry,a,b",
            "'mammal' is in animal by 'cat', and in plant by 'dog'",
        ),
        (
            "class,order,realm\ncat,m,a\ndog,m,a\nfrog,m\nship,a,b\nlorry,a,b",
            "'frog' has 1 ancestors, and there are 2 levels",
        ),
    ],
)
def test_tables_that_make_no_tree(tmp_path, text, message):
    path = tmp_path / "tree.csv"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        Hierarchy.read(path, CLASSES)
    with pytest.raises(EvaluationError, match="cannot be read"):
        Hierarchy.read(tmp_path / "gone.csv", CLASSES)


def test_other_classes_are_refused():
    found = predictions_of(np.full((2, 5), 0.2), [0, 1])
    with pytest.raises(EvaluationError, match="others, or in another order"):
        hierarchy_metrics(replace(found, classes=CLASSES[::-1]), TREE)


def test_the_command(tmp_path, capsys):
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 1}
    run = train(data="digits", out=tmp_path / "run", reporter=Silent(), **options)
    lines = [f"{n},{'even' if n % 2 == 0 else 'odd'}" for n in range(10)]
    table = tmp_path / "tree.csv"
    table.write_text("\n".join(["class,parity", *lines, "10,even"]))
    arguments = ["evaluate", str(run.path), "--hierarchy", str(table)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "accuracy parity" in out and "mistake height" in out
    assert main([*arguments, "--figures", "ordinal"]) == 2
    assert "figures of its own" in capsys.readouterr().err
    used = (run.path / "test_use.csv").read_text()
    table.write_text("class,parity\n1,odd")
    assert main(arguments) == 2
    assert "says nothing of 9 of 10 classes" in capsys.readouterr().err
    (tmp_path / "parity").mkdir()
    assert main([*arguments[:3], str(tmp_path / "parity")]) == 2
    assert "no further target" in capsys.readouterr().err
    # The test part was not used for what was refused.
    assert (run.path / "test_use.csv").read_text() == used


def test_a_share_has_one_interval_wherever_it_is_asked_for():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 24)
    p = 0.6 * np.eye(5)[labels] + 0.4 * rng.dirichlet(np.ones(5), 24)
    p[0] = np.roll(p[0], 1)
    predictions = predictions_of(p, labels)
    found, usual = hierarchy_metrics(predictions, TREE), classification_metrics(predictions)
    assert found["accuracy"] == usual["accuracy"]
    for figure in (found["accuracy"], found["accuracy_realm"]):
        exact = binomtest(round(24 * figure.value), 24).proportion_ci(method="exact")
        assert (figure.low, figure.high) == pytest.approx((exact.low, exact.high))
