"""The Python API: any Linen module, any arrays, and guards that answer in one line."""

import os
import re
import shutil
import threading

import jax
import numpy as np
import pytest
from PIL import Image
from small import Interrupting, Tiny, small_set

import cnn_jax
from cnn_jax import Run, data, nn
from cnn_jax.assembly import assemble_run
from cnn_jax.classifier import build_model
from cnn_jax.errors import DataError, RunError
from cnn_jax.recipe import Recipe, resolve
from cnn_jax.training.progress import Console, Silent

FAST = {"epochs": 2, "batch_size": 8, "reporter": Silent()}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "run"
    return cnn_jax.train(model=Tiny(), data=small_set(40), out=out, **FAST)


def test_any_module_and_any_arrays(own):
    assert own.status == "finished"
    assert own.recipe.model.name == "custom:Tiny" and own.recipe.data.source == "custom:squares"
    assert set(own.metrics) == {"validation", "test"}
    assert own.metrics["test"]["accuracy"].n == 9
    assert len(own.history) == 2
    assert set(own.variables) == {"params", "batch_stats"}
    assert isinstance(own.model, Tiny)
    assert own.summary() in repr(own)
    assert "<table>" in own._repr_html_()


def test_a_loaded_run_needs_what_was_the_users_own(own):
    loaded = Run.load(own.path)
    assert loaded.metrics == own.metrics and loaded.history == own.history
    with pytest.raises(
        RunError,
        match=r"Tiny, a module .* model=, in Python: cnn_jax.Run.load\('.*', model=Tiny\(\.\.\.\)",
    ):
        loaded.predict(np.zeros((1, 6, 6, 1), np.uint8))
    with pytest.raises(DataError, match="give them as data="):
        loaded.evaluate("test")
    again = Run.load(own.path, model=Tiny(), data=small_set(40))
    assert again.evaluate("test") == own.metrics["test"]
    other = Run.load(own.path, model=Tiny(), data=small_set(41))
    with pytest.raises(RunError, match="has changed since this run"):
        other.evaluate("test")


def test_predict_is_what_evaluate_saw(own):
    test = own.dataset.splits["test"]
    answers = own.predict(test.images)
    saved = own.predictions("test")
    temperature = own.info["temperature"]["value"]
    np.testing.assert_allclose(
        answers.probabilities, saved.probabilities(temperature), rtol=1e-5, atol=1e-6
    )
    assert answers.labels == [saved.classes[k] for k in saved.predicted()]
    assert len(answers) == 9 and (answers.confidence <= 1).all()
    grey = own.predict(test.images[..., 0])
    np.testing.assert_array_equal(grey.probabilities, answers.probabilities)
    unit = own.predict((test.images / 255).astype(np.float32))
    np.testing.assert_allclose(unit.probabilities, answers.probabilities, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 6, 6, 1), np.uint8), "no images"),
        ([], "no images"),
        ("one.png", "a list of paths"),
        (np.zeros((1, 7, 6, 1), np.uint8), r"images are \[7, 6, 1\].*give paths, or a list"),
        (np.zeros((6, 6, 1), np.uint8), r"one image: give a batch, images\[None\]"),
        (np.zeros((6, 6), np.uint8), r"one image: give a batch, images\[None\]"),
        (np.array(1, np.uint8), "an array .* is one image"),
        (Image.new("L", (6, 6)), "takes an array .* not Image"),
        ([np.zeros((6, 6), np.float32)], r"image 0 is float32 \[6, 6\]: give uint8"),
        ([np.zeros((6, 6, 4), np.uint8)], r"image 0 is uint8 \[6, 6, 4\]: give uint8"),
        ([np.zeros((0, 6), np.uint8)], r"image 0 is uint8 \[0, 6\]: give uint8"),
        ([Image.new("L", (6, 6)), 3], "image 1 is of the type int; predict takes an array"),
        ([Image.new("L", (6, 6)), "one.png"], "partly paths"),
        (np.zeros((1, 6, 6, 1), np.int64), "uint8, or float32"),
        (["missing.png"], "missing.png"),
    ],
)
def test_predict_refuses_other_input(own, images, message):
    with pytest.raises(DataError, match=message):
        own.predict(images)


def test_pictures_of_any_size_are_fitted_as_files_are(own, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels), Image.fromarray(pixels[..., 0])]
    paths = [tmp_path / "colour.png", tmp_path / "grey.png"]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    expected = own.predict(paths).log_probabilities
    for given in (pictures, [pixels, pixels[..., 0]], [pixels, pixels[..., :1]]):
        answers = own.predict(given)
        np.testing.assert_array_equal(answers.log_probabilities, expected)
        assert answers.ids == ("0", "1")
    with Image.open(paths[0]) as opened:
        alone = own.predict([opened]).log_probabilities  # a batch of another size: rounding
        np.testing.assert_allclose(alone, expected[:1], rtol=1e-6)
    paths[0].write_bytes(paths[0].read_bytes()[:80])
    with (
        Image.open(paths[0]) as damaged,
        pytest.raises(DataError, match="Pillow image of 14×9 cannot be read as an image"),
    ):
        own.predict([damaged])


def test_what_is_loaded_describes_itself_in_one_line(own):
    assert re.fullmatch(
        r"Classifier\(Tiny, 3 classes, images 6×6×1, temperature [\d.]+\)", repr(own.classifier)
    )
    answers = own.predict(own.dataset.splits["test"].images)
    assert re.fullmatch(r"Classified\(9 of 3 classes: (\d [\d.]+ %, ){3}\.\.\.\)", repr(answers))


def test_the_same_seed_is_the_same_run(own, tmp_path):
    again = cnn_jax.train(model=Tiny(), data=small_set(40), out=tmp_path / "again", **FAST)
    assert again.history == own.history
    np.testing.assert_array_equal(again.predictions("test").logits, own.predictions("test").logits)
    other = cnn_jax.train(model=Tiny(), data=small_set(40), seed=1, out=tmp_path / "other", **FAST)
    assert other.history != own.history


def test_the_step_compiles_once_in_a_run(tmp_path):
    """Three epochs with a ragged last batch, an interruption, a resume, an evaluation."""
    run = cnn_jax.train(
        model=Tiny(),
        data=small_set(42),
        out=tmp_path / "run",
        epochs=3,
        batch_size=8,
        reporter=Interrupting(after=1),
    )
    assembly = run.assembly
    assert assembly.feeds["train"].padded
    assert run.status == "interrupted" and len(run.history) == 1
    run.resume(reporter=Silent())
    assert run.status == "finished" and len(run.history) == 3
    run.evaluate("test")
    assert assembly.run_chunk._cache_size() == 1
    assert assembly.eval_step._cache_size() == 1


def test_the_loop_would_refuse_data_that_travel_implicitly():
    """What the guard around the step refuses: host memory that was not put on the device."""
    run, state, item = make_step()
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="transfer"):
        run(state, {}, item)
    run(state, {}, item)  # refused, not donated


def make_step():
    assembly = assemble_run(Recipe(), small_set(20), Tiny())
    split = assembly.dataset.splits["train"]
    item = {
        "image": split.images[None, :8],
        "label": split.targets["label"][None, :8],
        "valid": np.ones((1, 8), bool),
        "index": np.arange(8, dtype=np.int32)[None],
    }
    return assembly.run_chunk, assembly.initial_state(), item


@pytest.mark.parametrize("name", cnn_jax.models.names())
def test_every_model_goes_with_the_recipe_of_every_data_set(name):
    for source in ("digits", "mnist", "cifar10"):
        recipe = resolve(None, {"data": source, "model": name})
        size = {"digits": 8, "mnist": 28, "cifar10": 32}[source]
        assert build_model(recipe, 10, (size, size, 3)) is not None
    assert resolve(None, {"data": "mnist", "model": "compact"}).model.options


def test_arrays_of_ones_own_get_no_recipe_that_was_made_for_others(own):
    expected = Recipe().override({"train.epochs": 2, "train.batch_size": 8})
    assert own.recipe.loss == expected.loss and own.recipe.augment == expected.augment
    assert own.recipe.train == expected.train


@pytest.mark.heavy
def test_a_run_goes_on_from_another_folder_and_finds_data_that_moved(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    for k in range(40):
        folder = pictures / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shade = rng.integers(0, 60, (8, 8)) + 120 * (k % 2)
        Image.fromarray(shade.astype(np.uint8)).save(folder / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    small = {"model.options": {"widths": [4], "units": 1}, "epochs": 3}
    run = cnn_jax.train(data="pictures", out="run", reporter=Interrupting(after=1), **small)
    assert run.status == "interrupted" and run.shown == "run"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = Run.load(tmp_path / "run").resume(reporter=Silent())
    assert run.status == "finished" and run.metrics["test"]["accuracy"].n > 0
    pictures.rename(tmp_path / "moved")
    gone = re.escape(f"the data of this run are no longer at {str(pictures)!r}: give --data PATH")
    with pytest.raises(DataError, match=gone):
        Run.load(tmp_path / "run").dataset  # noqa: B018
    with pytest.raises(DataError, match="pictures"):
        Run.load(tmp_path / "run").evaluate("test")
    moved = Run.load(tmp_path / "run", data=str(tmp_path / "moved"))
    assert moved.evaluate("test") == run.metrics["test"]
    check_that_a_page_keeps_its_pictures(tmp_path)


def check_that_a_page_keeps_its_pictures(tmp_path):
    """`tmp_path` holds a run whose data are in `moved`, no longer in `pictures`."""
    path, moved = tmp_path / "run", str(tmp_path / "moved")
    page = path / "report.html"
    before = page.read_bytes()
    unreadable = r"/report.html' is left as it was, .*pictures', are not .* Give --data PATH"
    with pytest.raises(DataError, match=unreadable):
        Run.load(path).report()
    with pytest.raises(DataError, match=r"^(?!.*left as it was).*nowhere"):
        Run.load(path, data=str(tmp_path / "nowhere")).report()
    shutil.copytree(moved, tmp_path / "pictures")
    changed = r"left as it was, .* has changed since .* Give --data PATH"
    next((tmp_path / "pictures" / "a").iterdir()).unlink()
    with pytest.raises(RunError, match=changed):
        Run.load(path).report()
    with pytest.raises(RunError, match=r"^(?!.*left as it was).*has changed since"):
        Run.load(path, data=str(tmp_path / "pictures")).report()
    assert page.read_bytes() == before and b"data:image" in before
    page.unlink()
    Run.load(path).report()
    assert "could not be read, so there are no pictures" in page.read_text("utf-8")
    again = Run.load(path, data=moved).report().read_bytes()
    assert again.count(b"data:image") == before.count(b"data:image")


def test_best_is_the_best_epoch(tmp_path):
    run = cnn_jax.train(
        model=Tiny(),
        data=small_set(40),
        out=tmp_path / "run",
        epochs=4,
        batch_size=8,
        reporter=Silent(),
        **{"train.select": "best", "optimizer.learning_rate": 0.5},
    )
    scores = [(r["validation_accuracy"], -r["validation_loss"]) for r in run.history]
    best = scores.index(max(scores)) + 1
    assert run.info["selected"]["epoch"] == best
    assert run.metrics["validation"]["accuracy"].value == pytest.approx(max(scores)[0])


def test_patience_ends_training_and_says_so(tmp_path):
    run = cnn_jax.train(
        model=Tiny(),
        data=small_set(20),
        out=tmp_path / "run",
        epochs=50,
        batch_size=8,
        reporter=Silent(),
        **{"train.patience": 1},
    )
    assert len(run.history) < 50
    assert run.info["reason"].startswith("validation has not improved for 1 epochs")


@pytest.mark.heavy
def test_until_converged_ends_by_itself(tmp_path):
    run = cnn_jax.train(
        model=Tiny(),
        data=small_set(30),
        out=tmp_path / "run",
        epochs=200,
        until="converged",
        reporter=Silent(),
        **{"train.patience": 1, "optimizer.learning_rate": 0.01},
    )
    assert run.info["reason"].startswith("converged: after 2 drops")
    assert len(run.history) < 200
    rates = [row["learning_rate"] for row in run.history]
    assert rates[-1] == pytest.approx(1e-4, rel=1e-3)


def test_multilabel_and_soft_targets_train(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (60, 6, 6, 1)).astype(np.uint8)
    many = np.stack([np.arange(60) % 2, np.arange(60) // 2 % 2], axis=1).astype(np.float32)
    soft = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    for name, targets, k in (("many", many, 2), ("soft", soft, 3)):
        dataset = data.from_arrays(images, targets, name=name)
        run = cnn_jax.train(model=Tiny(k), data=dataset, out=tmp_path / name, **FAST)
        assert run.status == "finished" and run.info["data"]["kind"] in ("multilabel", "soft")
        assert run.predict(images[:2]).probabilities.shape == (2, k)
        assert run.report().exists()


def test_training_works_outside_the_main_thread(tmp_path):
    """Signals cannot be caught there; nothing else changes."""
    runs = []

    def work():
        runs.append(cnn_jax.train(model=Tiny(), data=small_set(20), out=tmp_path / "r", **FAST))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert runs and runs[0].status == "finished"


class Screen:
    """A terminal that remembers."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((40, 24)))
    screen = Screen()
    console = Console(10, screen)
    row = {
        "epoch": 3,
        "train_loss": 0.5,
        "train_accuracy": 0.9,
        "validation_accuracy": 0.8,
    }
    console.chunk(3, 5, 10, 0.5)
    console.epoch([row], 1234.5)
    console.say("done")
    for line in screen.text.replace("\r", "\n").split("\n"):
        assert len(line) <= 40
    assert "epoch  3/10  loss 0.5000" in screen.text and screen.text.endswith("done\n")


def test_overrides_reach_the_recipe():
    recipe = resolve(None, {"data": "mnist", "epochs": 3, "optimizer.weight_decay": 0.1})
    assert recipe.train.epochs == 3 and recipe.optimizer.weight_decay == 0.1
    assert recipe.data.source == "mnist"
    assert resolve(Recipe(seed=4), {"model": "lenet5"}) == Recipe(seed=4).override(
        {"model.name": "lenet5"}
    )
    assert resolve("digits", {}).augment.translate == 1


class Volumes(nn.Module):
    """Three-dimensional convolution."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3, 3))(image))
        return nn.Dense(2)(nn.global_avg_pool(x))


def test_volumes_train_and_baselines_refuse_them_before_training(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 20), ("val", 6), ("test", 6)):
        labels = np.arange(n) % 2
        shade = rng.integers(0, 60, (n, 4, 6, 6)) + 120 * labels[:, None, None, None]
        arrays |= {f"{part}_images": shade.astype(np.uint8), f"{part}_labels": labels[:, None]}
    np.savez(tmp_path / "volumes.npz", **arrays)
    source = {"model": Volumes(), "data": str(tmp_path / "volumes.npz"), "augment.translate": 0}
    with pytest.raises(DataError, match="baselines take images"):
        cnn_jax.train(**source, baselines=True, out=tmp_path / "run", **FAST)
    with pytest.raises(DataError, match="baselines take images"):
        cnn_jax.train_population(**source, seeds=2, baselines=True, out=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()
    run = cnn_jax.train(**source, out=tmp_path / "run", **FAST)
    assert run.predict(arrays["test_images"]).probabilities.shape == (6, 2)
    assert run.report().exists()
