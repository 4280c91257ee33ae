"""Populations from end to end: folders, figures, failures, resuming and the command line."""

import json
import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from small import Tiny, small_set

import cnn_jax
from cnn_jax import Population, Run, data
from cnn_jax.cli import main
from cnn_jax.errors import CnnJaxError, NonFiniteLossError, RecipeError, RunError
from cnn_jax.population.stacking import validation_of
from cnn_jax.training.checkpoints import to_host
from cnn_jax.training.progress import Silent

FAST = {"epochs": 2, "batch_size": 8, "reporter": Silent()}
MEMBERS = {
    "low": {"optimizer.learning_rate": 0.01},
    "high": {"optimizer.learning_rate": 0.2, "seed": 3},
}


def train(out, **options):
    given = {"model": Tiny(), "data": small_set(40), **FAST, **options}
    return cnn_jax.train_population(out=out, **given)


@pytest.fixture(scope="module", params=["loop", "vmap", "map"])
def seeds(request, tmp_path_factory):
    return train(tmp_path_factory.mktemp("seeds") / "p", seeds=3, strategy=request.param)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The second of the seeds as a run of its own."""
    out = tmp_path_factory.mktemp("single") / "run"
    return cnn_jax.train(model=Tiny(), data=small_set(40), seed=1, out=out, **FAST)


def test_members_are_runs(seeds, single):
    assert seeds.status == "finished" and list(seeds.members) == ["seed-0", "seed-1", "seed-2"]
    member = seeds.members["seed-1"]
    exact = seeds.strategy[0] == "loop"
    same = np.testing.assert_array_equal if exact else near
    same(member.predictions("test").logits, single.predictions("test").logits)
    assert [row["epoch"] for row in member.history] == [1, 2]
    for mine, own in zip(member.history, single.history, strict=True):
        same(list(mine.values()), list(own.values()))
    for mine, own in zip(
        jax.tree.leaves(member.variables), jax.tree.leaves(single.variables), strict=True
    ):
        same(mine, own)
    assert member.recipe == single.recipe
    assert member.info["selected"] == single.info["selected"]
    assert member.temperature == pytest.approx(single.temperature, rel=1e-3)
    images = single.dataset.splits["test"].images
    near(member.predict(images).probabilities, single.predict(images).probabilities)
    assert len(member.test_uses) == 1
    assert 0 < member.training_seconds < 100 and list(member.images_per_second) == [1, 2]


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_figures_are_those_of_the_members(seeds):
    accuracies = [run.metrics["test"]["accuracy"].value for run in seeds.members.values()]
    figures = seeds.figures()
    assert set(figures) == {"seed", "both"}
    for estimate in figures.values():
        assert estimate.value == pytest.approx(np.mean(accuracies))
        assert (estimate.n, estimate.n_seeds, estimate.percent) == (9, 3, True)
    assert seeds.summary().splitlines()[-1].endswith("3 seeds (over test sets and seeds)")


def test_a_member_evaluates_to_what_was_saved(seeds):
    member = Run.load(seeds.path / "seed-2", model=Tiny(), data=small_set(40))
    saved = member.predictions("test").logits
    assert member.evaluate("test")["accuracy"] == member.metrics["test"]["accuracy"]
    np.testing.assert_allclose(member.predictions("test").logits, saved, rtol=1e-5, atol=1e-6)


def test_the_folder_itself_is_no_run(seeds):
    with pytest.raises(RunError, match=r"holds 3 runs: name one of them, such as .*seed-0"):
        Run.load(seeds.path)
    with pytest.raises(RunError, match=r"it has no population\.json"):
        Population.load(seeds.path / "seed-0")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("strategy", "select"),
    [
        *(("loop", "last"), ("vmap", "best")),
        pytest.param("loop", "best", marks=pytest.mark.slow),
        pytest.param("vmap", "last", marks=pytest.mark.slow),
        pytest.param("map", "last", marks=pytest.mark.slow),
        pytest.param("map", "best", marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_it_is_as_if_it_never_was(strategy, select, tmp_path):
    options = {"seeds": 2, "strategy": strategy, "epochs": 3, "train.select": select}
    whole = train(tmp_path / "whole", **options)
    begun = train(tmp_path / "begun", **{**options, "reporter": Pressing(1)})
    assert begun.status == "interrupted" and not begun.members
    resumed = Population.load(begun.path, model=Tiny(), data=small_set(40))
    resumed.resume(reporter=Silent())
    assert resumed.status == "finished"
    for name, run in whole.members.items():
        other = resumed.members[name]
        assert other.history == run.history and other.info["selected"] == run.info["selected"]
        np.testing.assert_array_equal(
            other.predictions("test").logits, run.predictions("test").logits
        )
        leaves = [to_host(r.variables) for r in (run, other)]
        for path, leaf in leaves[0].items():
            np.testing.assert_array_equal(leaf, leaves[1][path])
    assert resumed.resume().status == "finished"  # nothing to do


class Pressing(Silent):
    """Presses the stop button, once, at the end of an epoch; of a loop no epochs are shown."""

    def __init__(self, after, step=None):
        self.after, self.step, self.pressed = after, step, False

    def chunk(self, epoch, step, steps, loss):
        if (epoch, step) == (self.after, self.step or steps) and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.heavy
@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_within_an_epoch_and_resumed_on_other_devices(devices, tmp_path):
    """Three members, so that two devices are filled up with a fourth."""
    options = {"seeds": 3, "strategy": "vmap", "train.chunk_steps": 1, "epochs": 3}
    whole = train(tmp_path / "whole", **options)
    pressing = Pressing(2, step=3)
    begun = train(tmp_path / "p", **{**options, "train.devices": 2, "reporter": pressing})
    assert begun.status == "interrupted" and not begun.members
    if devices == 1:  # as if the recipe had left it open, and one device were there
        values = begun.recipe.override({"train.devices": 1})
        (begun.path / "recipe.toml").write_text(values.to_toml())
        begun._folder.update_info(recipe_digest=values.digest())
    resumed = Population.load(begun.path, model=Tiny(), data=small_set(40))
    resumed.resume(reporter=Silent())
    assert resumed.status == "finished" and len(resumed.members) == 3
    for name, run in whole.members.items():
        near(resumed.members[name].predictions("test").logits, run.predictions("test").logits)


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["vmap", "map"])
def test_one_program_is_compiled_once(strategy, tmp_path, monkeypatch):
    """Measured, trained, cut short within an epoch and resumed."""
    from cnn_jax.training.population import PopulationChunk

    made = []
    original = PopulationChunk.__init__

    def init(self, jitted):
        original(self, jitted)
        made.append(self)

    monkeypatch.setattr(PopulationChunk, "__init__", init)
    train(tmp_path / "p", seeds=2, strategy=strategy, epochs=3)
    assert [chunk.compilations for chunk in made] == [1]
    assert made[0]._jitted._cache_size() == 0  # which would be a second time


@pytest.mark.heavy
def test_a_signal_at_the_end_of_a_member_stops_before_the_next(tmp_path):
    begun = train(tmp_path / "p", seeds=3, strategy="loop", reporter=Pressing(2))
    assert begun.status == "interrupted" and list(begun.members) == ["seed-0"]
    begun.resume(reporter=Silent())
    assert begun.status == "finished" and len(begun.members) == 3


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["loop", "vmap", pytest.param("map", marks=pytest.mark.slow)])
def test_a_member_that_is_not_finite_does_not_stop_the_others(strategy, tmp_path):
    broken = {"broken": {"optimizer.learning_rate": 1e30}}
    population = train(tmp_path / "p", members={**broken, **MEMBERS}, strategy=strategy)
    assert population.status == "finished"
    assert list(population.members) == ["low", "high"]
    assert list(population.failures) == ["broken"]
    assert "not finite in step" in population.failures["broken"]
    failed = Run.load(population.path / "broken", model=Tiny(), data=small_set(40))
    assert failed.status == "failed"
    healthy = train(tmp_path / "healthy", members=MEMBERS, strategy=strategy)
    for name, run in healthy.members.items():
        near(population.members[name].predictions("test").logits, run.predictions("test").logits)
    with pytest.raises(NonFiniteLossError, match=r"lower optimizer\.learning_rate"):
        train(tmp_path / "all", members={**broken, "b": broken["broken"]}, strategy=strategy)
    failed = Population.load(tmp_path / "all")
    assert failed.status == "failed" and list(failed.failures) == ["broken", "b"]


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", [pytest.param("loop", marks=pytest.mark.slow), "vmap"])
def test_members_end_each_for_itself(strategy, tmp_path):
    """Patience ends one before the other; what is kept is its own last state."""
    rates = {f"rate-{rate:g}": {"optimizer.learning_rate": rate} for rate in (0.01, 3.0, 30.0)}
    options = {"epochs": 6, "train.patience": 1, "members": rates}
    population = train(tmp_path / "p", strategy=strategy, **options)
    lengths = {name: len(run.history) for name, run in population.members.items()}
    assert len(set(lengths.values())) > 1
    for name, run in population.members.items():
        steps_per_epoch = 5
        expected = {"step": lengths[name] * steps_per_epoch, "epoch": lengths[name], "rule": "last"}
        assert run.info["selected"] == expected


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_cross_validation_tests_every_example_once(strategy, tmp_path):
    whole = data.from_arrays(*pictures(45), groups=np.arange(45) // 3, name="squares")
    options = {"epochs": 2, "loss.logit_adjustment": 1.0}  # each fold has priors of its own
    population = train(tmp_path / "p", data=whole, folds=3, strategy=strategy, **options)
    assert list(population.members) == ["fold-1", "fold-2", "fold-3"]
    (predictions,) = population.predictions()
    assert sorted(predictions.ids) == sorted(i for s in whole.splits.values() for i in s.ids)
    figures = population.figures("accuracy")
    assert list(figures) == ["test-set"]
    assert (figures["test-set"].n, figures["test-set"].unit) == (45, "group")
    assert population.summary().startswith("out-of-fold accuracy ")
    # Each fold's run is the one that its own recipe gives.
    member = population.members["fold-2"]
    own = cnn_jax.train(member.recipe, model=Tiny(), data=whole, reporter=Silent())
    same = np.testing.assert_array_equal if strategy == "loop" else near
    same(member.predictions("test").logits, own.predictions("test").logits)
    assert member.info["preprocess"] == own.info["preprocess"]


@pytest.mark.heavy
def test_folds_are_split_over_devices(tmp_path):
    whole = data.from_arrays(*pictures(45), name="squares")
    options = {"data": whole, "folds": 3, "strategy": "vmap", "loss.class_weights": "balanced"}
    one = train(tmp_path / "one", **options)
    two = train(tmp_path / "two", **options, **{"train.devices": 2})
    for name, run in one.members.items():
        near(two.members[name].predictions("test").logits, run.predictions("test").logits)


class Scored:
    """An assembly that writes down when a score begins and when it is asked for."""

    def __init__(self, name, events):
        self.name, self.events = name, events

    def scoring(self, variables):
        self.events.append(f"begin {self.name}")

        def score():
            self.events.append(f"score {self.name}")
            return {"loss": float(variables["params"]), "accuracy": 1.0}

        return score


def test_members_with_data_of_their_own_begin_to_be_scored_together():
    events = []
    plan = SimpleNamespace(assemblies=[Scored(n, events) for n in "ab"], same_data=False)
    score = validation_of("vmap", plan)({"params": np.array([3.0, 4.0])})
    assert events == ["begin a", "begin b"]
    assert score(1) == {"loss": 4.0, "accuracy": 1.0}
    assert events == ["begin a", "begin b", "score b"]


def test_seeds_within_a_fold_are_seeds(tmp_path):
    whole = data.from_arrays(*pictures(45), name="squares")
    within = {"data.folds": 3, "data.fold": 2}
    population = train(tmp_path / "p", data=whole, seeds=2, strategy="loop", epochs=1, **within)
    assert population.folds == 0 and set(population.figures()) == {"seed", "both"}
    assert len(population.ensemble()) == 15


def test_members_of_other_settings_have_no_mean(tmp_path):
    population = train(tmp_path / "p", members=MEMBERS, strategy="vmap", epochs=1)
    assert population.summary() == (
        "2 members that differ in optimizer.learning_rate: see each of them"
    )
    with pytest.raises(CnnJaxError, match=r"differ in optimizer\.learning_rate, not in seed"):
        population.figures()


def pictures(n):
    rng = np.random.default_rng(1)
    labels = np.arange(n) % 3
    images = rng.integers(0, 80, (n, 6, 6, 1)) + 80 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "1 seed or more, not 0"),
        ({"seeds": 10**9}, "1,000,000,000 members: at most 10,000"),
        ({"folds": 1}, "between 2 and 1000 folds, not 1"),
        ({"folds": 49}, "49 groups .* cannot make 49 folds without cutting one"),
        ({"seeds": 2, "strategy": "fast"}, "auto, loop, vmap or map, not 'fast'"),
        ({"members": {}}, "not 0"),
        ({"members": MEMBERS, "seeds": 2}, "either members, or seeds and folds"),
        ({"members": {"metrics.csv": {}}}, "cannot be called"),
        ({"data.fold": 2}, r"data\.fold is 2, but data\.folds is 0"),
        ({"train.tensorboard": True, "seeds": 2}, "is for single runs"),
        (
            {"members": {"a": {}, "b": {"data.image_size": 12}}},
            "cannot differ in how data are read",
        ),
        ({"members": {"../up": {}}}, r"cannot be called '\.\./up'"),
        ({"members": {"a": {}, "A": {}}}, "cannot be called 'A'"),
        ({"members": {"a": {"optimizer.lr": 1}}}, r"no field 'optimizer\.lr'"),
        (
            {"members": {"a": {}, "b": {"augment.translate": 0}}, "strategy": "vmap"},
            "cannot be vmap: members differ in more than seed, fold, split_seed and scalars",
        ),
        (
            {"seeds": 2, "strategy": "map", "train.memory_limit": 0},
            "cannot be map: the images are read while training",
        ),
    ],
)
def test_what_cannot_be_is_said_before_any_work(options, message, tmp_path):
    with pytest.raises(CnnJaxError, match=message):
        train(tmp_path / "p", **options)
    assert not (tmp_path / "p").exists()


@pytest.mark.heavy
def test_more_than_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("cnn_jax.environment.free_memory", lambda: 1000)
    with pytest.raises(RecipeError, match=r"2 members at once \(vmap\) need .* of memory"):
        train(tmp_path / "p", seeds=2, strategy="vmap")
    population = train(tmp_path / "q", seeds=2, strategy="auto")
    assert population.strategy[0] == "loop" and "would need" in population.strategy[1]


@pytest.mark.heavy
def test_the_command_line(capsys, tmp_path):
    small = ["--model.options.widths", "[4]", "--model.options.units", "1"]
    small += ["--epochs", "1", "--seeds", "2"]
    assert main(["train", "digits", *small, "--out", "a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 members, strategy " in lines[1]
    assert [line.split()[0] for line in lines[-5:-3]] == ["seed-0", "seed-1"]
    assert lines[-1].startswith("test accuracy") and "2 seeds (over test sets" in lines[-1]
    info = json.loads((tmp_path / "a" / "population.json").read_text("utf-8"))
    assert info["status"] == "finished" and info["strategy"]["reason"]
    assert main(["train", "--resume", "a"]) == 0
    assert capsys.readouterr().out.startswith("a is finished: nothing to resume")
    assert main(["train", "digits", *small, "--seed", "7", "--strategy", "loop", "--out", "b"]) == 0
    capsys.readouterr()
    assert main(["compare", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert "over test sets and seeds" in out
    assert main(["train", "digits", "--strategy", "vmap"]) == 2
    assert "give --seeds N or --folds K, too" in capsys.readouterr().err
    assert main(["train", "--resume", "a", "--seeds", "3"]) == 2


def test_a_population_is_an_ensemble(seeds):
    """Its answers for new images are those that its saved predictions give."""
    together = seeds.ensemble()
    members = [run.predictions("test") for run in seeds.members.values()]
    expected = np.mean([run.probabilities() for run in members], axis=0)
    near(together.probabilities(), expected)
    answers = seeds.predict(small_set(40).splits["test"].images)
    near(answers.probabilities, seeds.ensemble(calibrated=True).probabilities())
    gains = seeds.gains()
    assert gains["nll"].ensemble.n == 9
    scaled = [run.metrics["test"] for run in seeds.members.values()]
    assert gains["accuracy"].members == pytest.approx(
        np.mean([figures["accuracy"].value for figures in scaled])
    )
    assert seeds.disagreement().pairs.shape == (9,)


@pytest.mark.heavy
def test_folds_are_no_ensemble(tmp_path):
    whole = data.from_arrays(*pictures(45), name="squares")
    population = train(tmp_path / "p", data=whole, folds=3, strategy="loop", epochs=1)
    with pytest.raises(CnnJaxError, match="they are no ensemble"):
        population.predict(np.zeros((1, 6, 6, 1), np.uint8))
    assert population.cross_validated()["accuracy"].n == 45


@pytest.mark.heavy
def test_ensembles_on_the_command_line(capsys, tmp_path):
    small = ["--model.options.widths", "[4]", "--model.options.units", "1"]
    small += ["--epochs", "1", "--strategy", "loop"]
    assert main(["train", "digits", *small, "--seeds", "2", "--out", "a"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "a"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["ensemble", "members'", "mean", "difference"]
    assert any(line.startswith("nll ") for line in out)
    assert out[-2].startswith("n = 360; two members disagree on ")
    assert " ".join(out[-2:]).endswith(
        "all calibrated on validation data; intervals over test sets"
    )
    apart = float(out[-2].split("disagree on ")[1].split(" %")[0])
    answers = [Run.load(f"a/seed-{seed}").predictions("test").predicted() for seed in (0, 1)]
    assert apart == pytest.approx(100 * (answers[0] != answers[1]).mean(), abs=0.01)
    assert main(["evaluate", "a", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["ensemble"]["n"] == 360
    assert main(["evaluate", "a", "--split", "train"]) == 2
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "one.png")
    capsys.readouterr()
    assert main(["predict", "a", "one.png"]) == 0
    assert "one.png" in capsys.readouterr().out
    assert main(["report", "a"]) == 2
    assert "holds 2 runs" in capsys.readouterr().err


@pytest.mark.heavy
def test_members_that_read_the_data_otherwise_have_theirs(tmp_path):
    seeds = {"a": {"data.split_seed": 0}, "b": {"data.split_seed": 1}}
    population = cnn_jax.train_population(
        members=seeds, model=Tiny(num_classes=10), data="digits", out=tmp_path / "p",
        strategy="loop", epochs=1, batch_size=500, reporter=Silent(), **{"data.folds": 2},
    )  # fmt: skip
    for run in population.members.values():
        assert run.dataset.digest == run.info["data"]["digest"]
