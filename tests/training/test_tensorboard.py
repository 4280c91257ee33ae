"""Event files, read back by tensorboardX's own record format."""

import importlib.util
import struct
import sys

import pytest
from small import Tiny, small_set

import cnn_jax
from cnn_jax.errors import RunError
from cnn_jax.training.progress import Silent
from cnn_jax.training.tensorboard import TensorBoard

FAST = {"epochs": 2, "batch_size": 8, "reporter": Silent(), "train.tensorboard": True}


def events(folder):
    """All events, file after file, by the record format: length, crc, data, crc."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events*"), key=lambda path: path.suffix):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size


def scalars(folder):
    """(tag, step) -> value; an event that voids later steps takes them away, as in TensorBoard."""
    found = {}
    for event in events(folder):
        if event.session_log.status:
            found = {k: v for k, v in found.items() if k[1] < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = value.simple_value
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


def test_epochs_that_are_done_again_come_once_and_lie_on_disk_at_once(tmp_path):
    """A process ends after epoch 3, whose checkpoint, like that of epoch 2, is not there."""
    row = {"train_loss": 1.0, "learning_rate": 0.1}
    killed = TensorBoard(Silent(), tmp_path)
    for epoch in (1, 2, 3):
        killed.epoch([{"epoch": epoch, **row}], 100.0)
        assert scalars(tmp_path)["loss/train", epoch] == 1
    resumed = TensorBoard(Silent(), tmp_path)
    resumed.epoch([{"epoch": 2, **row, "train_loss": 2.0}], 100.0)
    found = scalars(tmp_path)
    assert [found["loss/train", epoch] for epoch in (1, 2)] == [1, 2]
    assert {step for _, step in found} == {1, 2}
    killed.close()
    resumed.close()
