"""The parts of the CIFAR-10 records by their laws, and runs of tiny ones."""

import csv
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from cnn_jax import data
from cnn_jax.errors import RunError
from cnn_jax.ops import conv_general_dilated
from experiments.speedrun import command
from experiments.speedrun.network import identity_first, whitening_kernel
from experiments.speedrun.program import Program, cover
from experiments.speedrun.records import RECORDS
from experiments.speedrun.runs import Images, run

MUON, NESTEROV = (RECORDS["airbench94"][name] for name in ("muon", "nesterov"))
SMALL = {"widths": (4, 4, 4), "batch_size": 16, "epochs": 2.75, "whitening_epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CIFAR-10's files, 72 images in all for training and 10 for the test."""
    place = tmp_path_factory.mktemp("data") / "cifar-10-batches-bin"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name, n in [*((f"data_batch_{i}.bin", 14) for i in range(1, 6)), ("test_batch.bin", 10)]:
        images = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8)[:, None] % 10
        (place / name).write_bytes(np.concatenate([labels, images], axis=1).tobytes())
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    (place / "batches.meta.txt").write_text("\n".join([*names, "truck"]) + "\n")
    return place.parent


@pytest.fixture
def small(monkeypatch):
    """The records, made small."""
    tiny = {name: replace(record, **SMALL) for name, record in RECORDS["airbench94"].items()}
    monkeypatch.setitem(command.RECORDS, "airbench94", tiny)
    return tiny


def test_whitened_patches_do_not_correlate():
    images = np.random.default_rng(0).normal(size=(20, 9, 8, 3)).cumsum(axis=2) * 0.1
    kernel = np.asarray(whitening_kernel(jnp.asarray(images, jnp.float32)), np.float64)
    windows = sliding_window_view(images, (2, 2), axis=(1, 2))  # [N, H, W, C, 2, 2]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)
    covariance = patches.T @ patches / len(patches)
    values = np.linalg.eigvalsh(covariance)
    filters = kernel.reshape(12, 24)
    expected = np.diag(values / (values + 5e-4))
    np.testing.assert_allclose(
        filters[:, :12].T @ covariance @ filters[:, :12], expected, atol=1e-4
    )
    np.testing.assert_array_equal(filters[:, 12:], -filters[:, :12])


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (4, 4)])
def test_the_first_kernels_copy_their_channel(inputs, outputs):
    image = jax.random.normal(jax.random.key(0), (2, 7, 6, inputs))
    kernel = identity_first(jax.random.key(1), (3, 3, inputs, outputs))
    layout = ("NHWC", "HWIO", "NHWC")
    y = conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=layout)
    copied = min(inputs, outputs)
    np.testing.assert_array_equal(y[..., :copied], image[..., :copied])
    others = np.abs(np.asarray(kernel[..., copied:]))
    assert ((others > 0) & (others < 1 / np.sqrt(9 * inputs))).all()


def test_the_published_numbers_of_steps():
    steps = {
        record.name: record.steps(50_000) for kind in RECORDS.values() for record in kind.values()
    }
    assert steps == {
        "airbench94, Muon": 200,
        "airbench94, Nesterov": 476,
        "airbench95, Nesterov": 720,
        "airbench96, Nesterov": 1776,
    }


def test_an_image_is_seen_both_ways_in_turn():
    program = Program(replace(MUON, translate=0, batch_size=8), examples=8)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    batch = {"image": jnp.asarray(images), "index": jnp.arange(8)}
    seen = [program.augmented(jax.random.key(0), jnp.int32(step), batch) for step in range(3)]
    np.testing.assert_array_equal(seen[1], seen[0][:, :, ::-1])
    np.testing.assert_array_equal(seen[2], seen[0])
    mean, deviation = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    plain = (images / 255 - mean) / deviation
    mirrored = [np.abs(a - b).max() > 1e-5 for a, b in zip(seen[0], plain, strict=True)]
    assert 0 < sum(mirrored) < 8


def test_what_is_covered_lies_inside():
    covered = np.asarray(
        cover(jax.random.split(jax.random.key(0), 500), jnp.ones((500, 9, 8, 1)), 3)
    )
    assert (covered.sum(axis=(1, 2, 3)) == 9 * 8 - 9).all()
    corners = {tuple(np.argwhere(one[..., 0] == 0)[0]) for one in covered}
    assert corners == {(i, j) for i in range(7) for j in range(6)}


def test_rates_rise_and_fall_as_published():
    program = Program(NESTEROV, examples=50_000)
    at = np.arange(477)
    rates = [float(program._triangle(NESTEROV.optimizer, jnp.float32(step))) for step in at]
    np.testing.assert_allclose(rates, np.interp(at, [0, 109, 476], [0.2, 1, 0.07]), rtol=1e-6)


@pytest.mark.heavy
def test_a_run_that_stops_goes_on_as_if_it_had_not(tmp_path, folder, small):
    given = Images.of(data.load("cifar10", data_dir=folder), held_out=False)
    assert len(given.images) == 70
    program = Program(small["nesterov"], len(given.images))
    whole = run(program, given, 3)
    said = []

    def stop(line):
        said.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(program, given, 3, folder=tmp_path / "run", say=stop)
    assert said[0].startswith("epoch 1 of 3: loss 2.")
    again = run(program, given, 3, folder=tmp_path / "run", say=said.append)
    assert said[-1].startswith("epoch 3 of 3")
    np.testing.assert_array_equal(again.logits, whole.logits)
    assert again.seconds > 0
    other = Program(replace(small["nesterov"], label_smoothing=0.1), len(given.images))
    with pytest.raises(RunError, match="are of other settings or other images"):
        run(other, given, 3, folder=tmp_path / "run")


@pytest.mark.heavy
def test_the_command_appends_rows_and_never_twice(tmp_path, folder, small, capsys):
    results = tmp_path / "results.csv"
    words = ["--data-dir", str(folder), "--results", str(results), "--held-out"]
    assert command.main("airbench94", ["--runs", "2", *words]) == 0
    said = capsys.readouterr().out
    assert "2 seeds; deviation" in said and "chosen on the test set" in said
    assert command.main("airbench94", words) == 0
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows if row["metric"] == "accuracy"] == ["0", "1", "2"]
    assert {row["split"] for row in rows} == {"validation"}
    assert {row["n"] for row in rows} == {"10"}
    capsys.readouterr()
    assert command.main("airbench94", [*words, "--first-seed", "1"]) == 2
    assert "seed 1 of 'airbench94, Muon' is in" in capsys.readouterr().err


@pytest.mark.slow
def test_baselines_stand_beside_each_optimizer_once(tmp_path, folder, small):
    results = tmp_path / "results.csv"
    words = ["--data-dir", str(folder), "--results", str(results)]
    assert command.main("airbench94", [*words, "--baselines"]) == 0
    assert command.main("airbench94", [*words, "--baselines", "--optimizer", "nesterov"]) == 0
    with results.open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert [row["experiment"] for row in rows if row["metric"] == "accuracy"] == [
        "airbench94, Muon",
        "nearest neighbour on pixels",
        "airbench94, Muon minus nearest neighbour",
        "logistic regression on pixels",
        "airbench94, Muon minus logistic regression",
        "airbench94, Nesterov",
        "airbench94, Nesterov minus nearest neighbour",
        "airbench94, Nesterov minus logistic regression",
    ]


def test_other_images_are_refused(capsys, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 28, 28, 1), np.uint8)
    dataset = data.from_arrays(pixels, np.arange(80) % 10, name="digits")
    with pytest.raises(ValueError, match=r"32 x 32 x 3 pixels of ten classes, and 'digits' has"):
        Images.of(dataset, held_out=False)
    assert command.main("airbench95", ["--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("airbench95: ")
