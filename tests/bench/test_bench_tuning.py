"""`cnn-jax bench tune`: what is surely faster is kept, and chosen from then on."""

import json

import pytest

from cnn_jax.bench import tuning
from cnn_jax.cli import main
from cnn_jax.ops import measured
from cnn_jax.ops.algorithms import onednn
from cnn_jax.ops.choice import choose
from cnn_jax.ops.geometry import words as in_words
from cnn_jax.ops.native import library


@pytest.fixture(autouse=True)
def without_compiled_kernels(monkeypatch):
    """As where the extra is not installed."""
    monkeypatch.setattr(library, "_load", lambda: "hidden")
    onednn._has_kernel.cache_clear()
    yield
    onednn._has_kernel.cache_clear()


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cnn_jax" / "convolutions.json"


def made_times(monkeypatch, seconds):
    """Every measurement gives the same times for an algorithm."""

    def measure(rivals, *, pairs, measurement_seconds=0.0):
        return {name: [seconds.get(name, 10.0)] * pairs for name in rivals}

    monkeypatch.setattr(tuning, "measure", measure)


def first_layer(channels=3):
    found = tuning._of_model("lenet5", (2, 32, 32, channels), train=False)
    return next(iter(found))


def test_what_is_faster_is_kept_and_chosen(table, monkeypatch, capsys):
    conv = first_layer()
    before = choose(conv, platform="cpu").algorithm
    other = "taps" if before != "taps" else "stock"
    made_times(monkeypatch, {other: 1.0, before: 2.0})
    assert main(["bench", "tune", "lenet5", "--batch-size", "2", "--inference"]) == 0
    found = choose(conv, platform="cpu")
    assert found.algorithm == other
    assert found.reason.startswith("measured")
    (entries,) = json.loads(table.read_text()).values()
    assert entries[measured.key(conv)] == other
    told = capsys.readouterr().out
    assert f"{other} / {before}: 0.50 [0.50, 0.50], kept" in told
    assert max(map(len, told.splitlines()[:-1])) <= 80


def test_what_is_not_surely_faster_is_not_kept(table, monkeypatch):
    conv = first_layer()
    before = choose(conv, platform="cpu").algorithm
    made_times(monkeypatch, {before: 1.0, "taps": 0.97, "stock": 0.97})
    assert main(["bench", "tune", "lenet5", "--batch-size", "2", "--inference"]) == 0
    assert not table.exists()
    assert choose(conv, platform="cpu").algorithm == before


def test_far_slower_ones_are_not_raced(monkeypatch):
    conv = first_layer()
    rule = choose(conv, platform="cpu").algorithm
    made_times(monkeypatch, {rule: 1.0})
    assert tuning.compare(conv, pairs=6).ratio is None


def test_gradients_and_channels_are_measured_too():
    def distinct(train, channels):
        found = tuning._of_model("lenet5", (2, 32, 32, channels), train=train)
        return {in_words(conv) for conv in found}

    assert len(distinct(True, 1)) == 5  # two layers, their weight gradients, one input gradient
    assert distinct(False, 1) < distinct(True, 1)
    assert any("1 to 6 channels" in text for text in distinct(False, 1))


def test_a_rival_computes_the_convolution():
    conv = first_layer()
    assert tuning._rival(conv, "taps").time(1) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "no model 'nope'"),
        (["lenet5", "--pairs", "5"], "at least 6"),
        (["lenet5", "--channels", "0"], "--channels must be at least 1"),
        (["lenet5", "--batch-size", "x"], "invalid int"),
        ([], "required: model"),
    ],
)
def test_bad_words(words, message, capsys):
    assert main(["bench", "tune", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_a_cache(monkeypatch, capsys):
    monkeypatch.setattr(tuning, "user_table", lambda: None)
    assert main(["bench", "tune", "lenet5"]) == 2
    assert "set XDG_CACHE_HOME" in capsys.readouterr().err
