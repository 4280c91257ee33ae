"""Event files, read back by tensorboardX's own record format."""

import importlib.util
import struct
import sys

import pytest
from small import Tiny, small_set

import cnn_jax
from cnn_jax.errors import RunError
from cnn_jax.training.progress import Silent

FAST = {"epochs": 2, "batch_size": 8, "reporter": Silent(), "train.tensorboard": True}


def scalars(folder):
    """(tag, step) -> value of all event files, by the record format: length, crc, data, crc."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
            at += 16 + size
    return found


def test_every_figure_of_every_epoch_is_there(tmp_path):
    run = cnn_jax.train(model=Tiny(), data=small_set(40), out=tmp_path / "run", **FAST)
    found = scalars(run.path / "tensorboard")
    for row in run.history:
        epoch = int(row["epoch"])
        assert found["loss/train", epoch] == pytest.approx(row["train_loss"], rel=1e-6)
        accuracy = row["validation_accuracy"]
        assert found["accuracy/validation", epoch] == pytest.approx(accuracy, rel=1e-6)
        assert found["learning_rate", epoch] == pytest.approx(row["learning_rate"], rel=1e-6)
        assert ("images_per_second", epoch) in found
    assert {step for _, step in found} == {1, 2}


def test_without_the_package_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"pip install 'cnn_jax\[tensorboard\]'"):
        cnn_jax.train(model=Tiny(), data=small_set(40), out=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()
