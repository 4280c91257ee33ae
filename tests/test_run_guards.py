"""Guards of a run: what is refused, recorded and resumed, each in one line."""

import json
import os
import shutil
import signal
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from small import Tiny, small_set

import cnn_jax
from cnn_jax import Classifier, Run, data, nn, run_folder
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.splits import shared_groups
from cnn_jax.errors import (
    CnnJaxError,
    DataError,
    ModelError,
    NonFiniteLossError,
    RecipeError,
    RunError,
)
from cnn_jax.recipe import digest_of, read_toml
from cnn_jax.training.progress import Silent

FAST = {"epochs": 2, "batch_size": 8, "reporter": Silent()}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "run"
    return cnn_jax.train(model=Tiny(), data=small_set(40), out=out, **FAST)


@pytest.mark.faults
def test_run_folders_have_plain_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, folder in (
        ("photos \N{CAMERA}-compact", "photos-compact-001"),
        ("photos--compact", "photos-compact-002"),
        ("a_b.c", "a_b.c-001"),
        ("../<b>", "b-001"),
        ("\N{CAMERA}", "run-001"),
    ):
        assert run_folder.RunFolder.create(None, name, overwrite=False).path.name == folder


def test_a_run_in_training_is_not_moved_aside(tmp_path):
    out = tmp_path / "run"
    said = []

    class Competing(Silent):
        def epoch(self, row, images_per_second):
            with pytest.raises(RunError, match="another process is training"):
                thread_train(out)
            said.append(row)

    def thread_train(out):
        cnn_jax.train(model=Tiny(), data=small_set(20), out=out, overwrite=True, **FAST)

    run = cnn_jax.train(model=Tiny(), data=small_set(20), out=out, epochs=2, reporter=Competing())
    assert run.status == "finished" and len(said) == 2
    with pytest.raises(RunError, match="holds the working folder"):
        cnn_jax.train(model=Tiny(), data=small_set(20), out=tmp_path, overwrite=True, **FAST)


@pytest.mark.faults
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_ends_a_run_after_training_is_recorded_and_resumed(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    own = {"model": Tiny(), "data": small_set(20)}
    monkeypatch.setattr("cnn_jax.execution.fit_temperature", fail)
    with pytest.raises((KeyboardInterrupt, OSError)) as ended:
        cnn_jax.train(**own, out=tmp_path / "run", **FAST)
    if error is KeyboardInterrupt:
        assert ended.value.__notes__ == ["go on with: cnn-jax train --resume run"]
    monkeypatch.undo()
    run = Run.load(tmp_path / "run", **own)
    assert run.status == ("interrupted" if error is KeyboardInterrupt else "failed")
    assert run.resume(reporter=Silent()).status == "finished"


@pytest.mark.faults
@pytest.mark.parametrize("text", ["", "[1]", "null", '{"schema": 1}', '{"schema": 1, "status": 3}'])
def test_a_damaged_description_is_one_line(own, tmp_path, text):
    shutil.copytree(own.path, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(text)
    with pytest.raises(RunError) as caught:
        Run.load(tmp_path / "run").metrics  # noqa: B018
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.faults
def test_damaged_tables_and_a_changed_recipe_are_named(own, tmp_path):
    shutil.copytree(own.path, tmp_path / "run")
    run = Run.load(tmp_path / "run")
    for name, text in (("metrics.csv", "epoch,train_loss\n1,x\n"), ("timings.csv", "a,b\n1\n")):
        (tmp_path / "run" / name).write_text(text)
        with pytest.raises(RunError, match=name):
            run.history if name == "metrics.csv" else run.images_per_second  # noqa: B018
    recipe = tmp_path / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("batch_size = 8", "batch_size = 9"))
    with pytest.raises(RunError, match="was changed after the run began"):
        Run.load(tmp_path / "run")


@pytest.mark.faults
def test_an_exported_file_with_a_flipped_bit_is_refused(tmp_path):
    run = cnn_jax.train(data="digits", epochs=1, out="run", reporter=Silent(), batch_size=400)
    weights = run.export(tmp_path / "exported")
    data = bytearray(weights.read_bytes())
    data[-9] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(RunError, match="is not what was exported"):
        Classifier.load(tmp_path / "exported")


def test_a_diverging_run_stops_with_advice_and_keeps_its_checkpoints(tmp_path):
    with pytest.raises(NonFiniteLossError) as caught:
        cnn_jax.train(
            model=Tiny(),
            data=small_set(40),
            out=tmp_path / "run",
            reporter=Silent(),
            batch_size=8,
            **{"optimizer.learning_rate": 1e30, "schedule.warmup_epochs": 0.0},
        )
    message = str(caught.value)
    assert "step" in message and "a lower optimizer.learning_rate" in message
    run = Run.load(tmp_path / "run", model=Tiny(), data=small_set(40))
    assert run.status == "failed" and run.info["reason"] == message
    assert run.report().exists()  # a page without figures


class NoTrain(nn.Module):
    """Lacks the train argument."""

    def __call__(self, image):
        return image


class WrongShape(nn.Module):
    """Returns images."""

    def __call__(self, image, *, train=False):
        return image


class WantsSeven(nn.Module):
    """Takes seven numbers only."""

    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Dense(3)(image.reshape(image.shape[0], 7))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NoTrain(), "must take `train`"),
        (WrongShape(), r"must return logits \[B, 3\] for 3 classes"),
        (Tiny(num_classes=5), r"for a batch of 2 it returns \[2, 5\]"),
        (WantsSeven(), "WantsSeven does not take images of"),
    ],
)
def test_a_module_that_breaks_the_contract_is_explained(model, message):
    with pytest.raises(ModelError, match=message):
        cnn_jax.train(model=model, data=small_set(), **FAST)
    assert not Path("runs").exists()


def test_one_class_in_validation_has_an_answer(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (30, 6, 6, 1)).astype(np.uint8)
    labels = np.arange(30) % 3
    only = (images[labels == 1], labels[labels == 1])
    dataset = data.from_arrays(images, labels, validation=only, test=(images, labels))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = cnn_jax.train(
            model=Tiny(), data=dataset, out=tmp_path / "run", duplicates="keep", **FAST
        )
    assert run.status == "finished"
    assert np.isnan(run.metrics["validation"]["auroc"].value)
    assert json.loads((run.path / "run.json").read_text())  # NaN is null, so any reader reads it


def test_a_batch_larger_than_the_set_is_said(tmp_path, capsys):
    cnn_jax.train(model=Tiny(), data=small_set(20), out=tmp_path / "r", epochs=1, batch_size=999)
    assert "the batch size is 20, all there is, not 999" in capsys.readouterr().out


def test_names_with_anything_in_them(tmp_path):
    classes = ["<script>alert(1)</script>", 'a "quoted"\nname', "größe & co"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (30, 6, 6, 1)).astype(np.uint8)
    dataset = data.from_arrays(images, np.arange(30) % 3, classes=classes, name="../<b> 'x'\n")
    out = tmp_path / "a run with 'quotes' & <tags>"
    run = cnn_jax.train(model=Tiny(), data=dataset, out=out, **FAST)
    page = (run.path / "report.html").read_text("utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert tuple(run.info["data"]["classes"]) == tuple(classes)
    unnamed = cnn_jax.train(model=Tiny(), data=dataset, **FAST)
    assert unnamed.path.parent == tmp_path / "runs"
    assert unnamed.path.is_dir()


@pytest.mark.faults
def test_an_unwritable_folder_is_one_line(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match="cannot make a run folder in 'x': Permission denied"):
        cnn_jax.train(model=Tiny(), data=small_set(20), out="x", **FAST)


@pytest.mark.faults
def test_a_full_disk_stops_in_one_line_and_can_be_resumed(tmp_path, monkeypatch):
    real, calls = run_folder.write_whole, []

    def full(path, text):
        if path.name == "metrics.csv":
            calls.append(path)
            if len(calls) > 1:
                raise OSError(28, "No space left on device")
        real(path, text)

    monkeypatch.setattr(run_folder, "write_whole", full)
    own = {"model": Tiny(), "data": small_set(20)}
    with pytest.raises(CnnJaxError, match="No space left on device"):
        cnn_jax.train(**own, out=tmp_path / "run", epochs=3, reporter=Silent())
    monkeypatch.undo()
    os.chdir(tmp_path)
    run = Run.load(tmp_path / "run", **own)
    assert run.status == "failed"
    run.resume(reporter=Silent())
    assert run.status == "finished" and len(run.history) == 3


@pytest.fixture
def leaky():
    """The first five test images are train images too."""
    clean = small_set(40)
    train, test = clean.splits["train"], clean.splits["test"]
    copied = np.concatenate([train.images[:5], test.images[5:]])
    labels = np.concatenate([train.targets["label"][:5], test.targets["label"][5:]])
    validation = clean.splits["validation"]
    return data.from_arrays(
        train.images,
        train.targets["label"],
        validation=(validation.images, validation.targets["label"]),
        test=(copied, labels),
        name="leaky",
    )


def test_training_stops_where_test_images_are_in_train(leaky, tmp_path):
    with pytest.raises(DataError, match="5 of 9 test images of 'leaky' are also in train"):
        cnn_jax.train(model=Tiny(), data=leaky, out=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("policy", "train"), [("drop-train", 35), ("keep", 40), ("regroup", None)])
def test_a_run_finds_the_data_it_was_trained_on_again(leaky, tmp_path, policy, train):
    own = {"model": Tiny(), "data": leaky}
    run = cnn_jax.train(**own, out=tmp_path / "run", duplicates=policy, **FAST)
    parts = run.info["data"]["parts"]
    assert train in (None, parts["train"]) and (sum(parts.values()) == 58 - 5 * (train == 35))
    assert any("est images" in note for note in run.info["data"]["notes"])
    sentence = "On 9 images the network had not seen."
    if policy == "keep":
        sentence = (
            "On 9 images, 5 of which are also in train or validation (kept on demand): the figure "
            "is optimistic."
        )
    assert sentence in (run.path / "report.html").read_text("utf-8")
    again = Run.load(run.path, **own)
    assert again.dataset.digest == run.info["data"]["digest"]
    assert again.evaluate("test") == run.metrics["test"]
    with pytest.raises(RunError, match="has changed since this run"):
        Run.load(run.path, model=Tiny(), data=small_set(40)).dataset  # noqa: B018


def test_groups_in_two_parts_are_not_called_unseen(tmp_path):
    clean = small_set(40)
    images = np.concatenate([split.images for split in clean.splits.values()])
    labels = np.concatenate([split.targets["label"] for split in clean.splits.values()])
    groups = np.arange(len(images))
    groups[-2:] = 0  # two test images are of the first train image's group
    pooled = data.Split(images, {"label": labels}, np.arange(len(images)).astype(str), groups)
    parts = np.split(
        np.arange(len(images)), np.cumsum([len(s) for s in clean.splits.values()])[:-1]
    )
    splits = {name: pooled.take(part) for name, part in zip(clean.splits, parts, strict=True)}
    dataset = clean.replace(
        splits=splits, digest=dataset_digest(splits), notes=tuple(shared_groups(splits))
    )
    with pytest.raises(DataError, match="2 of 9 test images share a group with a train image"):
        cnn_jax.train(model=Tiny(), data=dataset, out=tmp_path / "run", **FAST)
    keep = {"data.duplicates": "keep"}
    run = cnn_jax.train(model=Tiny(), data=dataset, out=tmp_path / "run", **FAST, **keep)
    page = (run.path / "report.html").read_text("utf-8")
    assert "2 of which share a group with a train image: the figure is optimistic." in page


def test_resume_repeats_the_notes_of_the_run(leaky, tmp_path):
    class Stopping(Silent):
        said: ClassVar[list[str]] = []

        def say(self, sentence):
            self.said.append(sentence)

        def epoch(self, row, images_per_second):
            os.kill(os.getpid(), signal.SIGINT)

    own, out = {"model": Tiny(), "data": leaky}, tmp_path / "run"
    run = cnn_jax.train(
        **own, out=out, duplicates="keep", epochs=2, batch_size=8, reporter=Stopping()
    )
    note = "5 of 9 test images equal a train or validation image and were kept: "
    assert run.status == "interrupted" and sum(s.startswith(note) for s in Stopping.said) == 1
    Stopping.said.clear()
    Run.load(out, **own).resume(reporter=Stopping())
    assert sum(s.startswith(note) for s in Stopping.said) == 1


def test_a_run_from_before_the_field_existed_is_loaded(leaky, tmp_path):
    run = cnn_jax.train(model=Tiny(), data=leaky, out=tmp_path / "run", duplicates="keep", **FAST)
    recipe, info = run.path / "recipe.toml", run.path / "run.json"
    recipe.write_text(recipe.read_text().replace('duplicates = "keep"\n', ""))
    old = {**json.loads(info.read_text()), "recipe_digest": digest_of(read_toml(recipe))}
    info.write_text(json.dumps(old))
    again = Run.load(run.path, model=Tiny(), data=leaky)
    assert again.recipe.data.duplicates == "stop"
    assert again.evaluate("test") == run.metrics["test"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("blok", "train.remat: 'blok' matches no submodule; the paths are conv, norm"),
        ("(", r"train.remat: '\(' is no regular expression"),
    ],
)
def test_a_path_to_recompute_that_is_none_is_named(pattern, message):
    with pytest.raises(RecipeError, match=message):
        cnn_jax.train(model=Tiny(), data=small_set(), **{"train.remat": [pattern]}, **FAST)


def test_balanced_sampling_of_several_labels_is_refused():
    images, labels = np.zeros((30, 6, 6, 1), np.uint8), np.eye(3, dtype=np.float32)[[0, 1, 2] * 10]
    images[:] = np.arange(30, dtype=np.uint8)[:, None, None, None]
    labels[0] = 1
    dataset = data.from_arrays(images, labels, name="many")
    with pytest.raises(RecipeError, match=r"train.sampling is balanced, .* one class"):
        cnn_jax.train(data=dataset, out="run", **{"train.sampling": "balanced"})


def test_near_copies_are_one_group_wherever_the_run_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    clean = small_set(40, size=12)
    test = clean.splits["test"]
    images = np.concatenate([test.images, test.images // 2 + 60])  # the same with less contrast
    labels = np.concatenate([test.targets["label"]] * 2)
    train = clean.splits["train"]
    dataset = data.from_arrays(train.images, train.targets["label"], test=(images, labels))
    out = tmp_path / "run"
    near = {"group_near_duplicates": True}
    run = cnn_jax.train(model=Tiny(), data=dataset, out=out, **near, **FAST)
    assert len(np.unique(run.predictions("test").groups)) == len(test)
    again = Run.load(out, model=Tiny(), data=dataset)
    assert again.evaluate("test") == run.metrics["test"]
    assert len(np.unique(again.predictions("test").groups)) == len(test)
