"""Sweeps: every point once, the best by validation, halving, resuming, sharing, bad input."""

import csv
import dataclasses
import os
import signal
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
from small import Tiny, small_set

import cnn_jax
from cnn_jax import Sweep
from cnn_jax.cli import main
from cnn_jax.errors import CnnJaxError, RecipeError, RunError
from cnn_jax.recipe import Recipe
from cnn_jax.sweeps import trials
from cnn_jax.sweeps.space import Range, Values, grid, space_of
from cnn_jax.sweeps.trials import better_first, rungs_of
from cnn_jax.training.member import Progress
from cnn_jax.training.progress import Silent

RATES = {"optimizer.learning_rate": [0.001, 0.1]}
GRID = {**RATES, "seed": [0, 1, 2]}


def sweep(out, vary=GRID, **options):
    given = {"epochs": 2, "batch_size": 8, "reporter": Silent(), "strategy": "vmap", **options}
    return cnn_jax.sweep(vary=vary, model=Tiny(), data=small_set(40), out=out, **given)


def loaded(path):
    return Sweep.load(path, model=Tiny(), data=small_set(40))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("sweep") / "s")


def test_a_grid_is_every_point_once(found):
    assert found.status == "finished"
    points = [tuple(trial.point.values()) for trial in found.trials]
    assert sorted(points) == sorted((rate, seed) for rate in (0.001, 0.1) for seed in (0, 1, 2))
    assert {trial.state for trial in found.trials} == {"done"}
    with open(found.path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(6))
    assert [float(row["validation_accuracy"]) for row in rows] == [
        trial.accuracy for trial in found.trials
    ]


def test_settings_are_judged_by_the_mean_over_seeds(found):
    settings = found.settings()
    assert [setting.point for setting in settings] == [
        {"optimizer.learning_rate": 0.1},
        {"optimizer.learning_rate": 0.001},
    ]
    for setting in settings:
        of_it = [t.accuracy for t in found.trials if setting.point.items() <= t.point.items()]
        assert setting.accuracy.value == pytest.approx(np.mean(of_it))
        assert (setting.accuracy.n_seeds, setting.accuracy.covers) == (3, "seed")
    best = tomllib.loads((found.path / "best.toml").read_text("utf-8"))
    assert best["optimizer"]["learning_rate"] == 0.1 and best["seed"] == 0
    assert found.best == found.recipe.override({"optimizer.learning_rate": 0.1})
    assert "it was chosen for that figure, so expect less" in found.summary()


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", [pytest.param("loop", marks=pytest.mark.slow), "vmap"])
def test_a_trial_is_what_training_alone_gives(strategy, tmp_path):
    found = sweep(tmp_path / "s", strategy=strategy)
    trial = next(t for t in found.trials if t.point == {"optimizer.learning_rate": 0.1, "seed": 1})
    run = cnn_jax.train(
        found.recipe.override(trial.point), model=Tiny(), data=small_set(40), reporter=Silent()
    )
    assert trial.epochs == len(run.history) == 2
    assert trial.loss == pytest.approx(run.history[-1]["validation_loss"], rel=1e-3)
    assert trial.accuracy == run.history[-1]["validation_accuracy"]


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["loop", "vmap", pytest.param("map", marks=pytest.mark.slow)])
def test_the_test_part_is_never_looked_at(strategy, tmp_path, monkeypatch):
    from cnn_jax.training.feed import Feed

    seen = []
    original = Feed.eval_items

    def eval_items(self):
        seen.append(tuple(self._split.ids))
        return original(self)

    monkeypatch.setattr(Feed, "eval_items", eval_items)
    sweep(tmp_path / "s", strategy=strategy)
    assert set(seen) == {tuple(small_set(40).splits["validation"].ids)}


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", [pytest.param("loop", marks=pytest.mark.slow), "vmap"])
def test_halving_drops_two_in_three(strategy, tmp_path):
    vary = {"optimizer.learning_rate": Range(1e-4, 0.3, log=True)}
    options = {"search": "adaptive", "trials": 12, "batch": 9, "epochs": 9}
    found = sweep(tmp_path / "s", vary, strategy=strategy, **options)
    first = found.trials[:9]
    assert sorted(trial.epochs for trial in first) == [1] * 6 + [3] * 2 + [9]
    assert [trial.state for trial in first].count("done") == 1
    assert len(found.trials) == 12
    assert all(1e-4 <= t.point["optimizer.learning_rate"] <= 0.3 for t in found.trials)
    assert len({t.point["optimizer.learning_rate"] for t in found.trials}) == 12


def test_rungs_are_a_ninth_and_a_third():
    assert rungs_of(30) == (4, 10)
    assert rungs_of(9) == (1, 3)
    assert rungs_of(2) == (1,)
    assert rungs_of(1) == ()


def test_ties_are_decided_by_the_other_figure():
    rows = {
        k: {"validation_accuracy": a, "validation_loss": loss}
        for k, (a, loss) in enumerate([(0.9, 0.5), (0.9, 0.4), (0.8, 0.1), (0.9, 0.4)])
    }
    assert better_first(rows, "accuracy") == [1, 3, 0, 2]
    assert better_first(rows, "loss") == [2, 1, 3, 0]


class Pressing(Silent):
    """Presses the stop button in the n-th epoch that is shown."""

    def __init__(self, nth):
        self.left = nth

    def epoch(self, rows, images_per_second):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.heavy
def test_interrupted_and_resumed_all_points_are_tried_once(found, tmp_path):
    begun = sweep(tmp_path / "s", batch=2, reporter=Pressing(3))  # in the second batch
    assert begun.status == "interrupted" and len(begun.trials) == 2
    resumed = loaded(begun.path).resume(reporter=Silent())
    assert resumed.status == "finished"
    whole = {tuple(t.point.values()): t.loss for t in found.trials}
    again = {tuple(t.point.values()): t.loss for t in resumed.trials}
    assert len(resumed.trials) == 6 and again.keys() == whole.keys()
    for point, loss in whole.items():
        assert again[point] == pytest.approx(loss, rel=1e-3)
    assert loaded(begun.path).resume().status == "finished"


@pytest.mark.heavy
@pytest.mark.parametrize("search", ["grid", "random"])
def test_what_a_killed_process_had_begun_is_tried_again(search, tmp_path):
    options = {} if search == "grid" else {"search": "random", "trials": 6}
    begun = sweep(tmp_path / "a?b#c %20", batch=3, reporter=Pressing(3), **options)  # odd, too
    assert (begun.path / "study.db").is_file() and len(begun.trials) == 3
    begun._study.propose(2, 6)  # and never heard of again
    begun._study._study.ask()  # killed before it had any value
    resumed = loaded(begun.path).resume(reporter=Silent())
    assert resumed.status == "finished" and len(resumed.trials) == 6
    if search == "grid":
        assert len({tuple(t.point.values()) for t in resumed.trials}) == 6


@pytest.mark.heavy
def test_in_a_loop_every_trial_that_ended_is_kept(tmp_path):
    begun = sweep(tmp_path / "s", strategy="loop", reporter=PressingChunks(7))  # in the fourth
    assert begun.status == "interrupted"
    assert len(begun.trials) == 3
    resumed = loaded(begun.path).resume(reporter=Silent())
    assert [t.state for t in resumed.trials] == ["done"] * 6


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_signal_with_the_last_step_of_a_batch_stops_before_the_next(strategy, tmp_path):
    begun = sweep(tmp_path / "s", strategy=strategy, batch=3, reporter=PressingChunks(2))
    if strategy == "loop":
        assert len(begun.trials) == 1
    else:
        assert len(begun.trials) == 3
    assert begun.status == "interrupted"
    assert len(loaded(begun.path).resume(reporter=Silent()).trials) == 6


class PressingChunks(Silent):
    """Presses the stop button when the n-th epoch of all trials ends."""

    def __init__(self, nth):
        self.left = nth

    def chunk(self, epoch, step, steps, loss):
        self.left -= step == steps
        if self.left == 0:
            self.left = -1
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.heavy
def test_data_may_vary_between_batches(tmp_path):
    vary = {"data.validation": [0.2, 0.3], "data.split_seed": [0, 1]}
    options = {"model.options": {"widths": [4], "units": 1}, "reporter": Silent(), "batch": 1}
    found = cnn_jax.sweep("digits", vary, epochs=1, out=tmp_path / "s", **options)
    assert [trial.state for trial in found.trials] == ["done"] * 4


def test_a_setting_that_failed_once_comes_last(tmp_path):
    vary = {"optimizer.learning_rate": [1e-6, 0.1], "seed": [0, 1]}
    found = sweep(tmp_path / "s", vary)
    trials = found.trials
    broken = [t for t in trials if t.point == {"optimizer.learning_rate": 0.1, "seed": 1}]
    assert found.settings()[0].point == {"optimizer.learning_rate": 0.1}
    changed = [dataclasses.replace(t, state="failed") if t in broken else t for t in trials]
    found._study.trials = lambda: changed
    settings = found.settings()
    assert [s.failed for s in settings] == [0, 1]
    assert settings[0].point == {"optimizer.learning_rate": 1e-6}


def test_two_claims_of_one_point(found, tmp_path):
    """The second gives way, so that no point is trained twice."""
    from cnn_jax.sweeps.study import Study

    url = f"sqlite:///{tmp_path / 'shared.db'}"
    space = space_of(Recipe(), {"seed": [0, 1]})
    one, two = (
        Study(url, "s", space, "grid", "accuracy", seed=None, owner=who) for who in ("a", "b")
    )
    assert one._claim({"seed": 0}) == (0, {"seed": 0})
    assert two._claim({"seed": 0}) is None
    assert two.propose(5, 2) == [(2, {"seed": 1})]
    assert one.propose(5, 2) == []
    assert one.under_way() == 2
    one.lose(alone=False)
    assert one.propose(5, 2) == [(3, {"seed": 0})]


@pytest.mark.heavy
def test_random_points_go_on_and_do_not_repeat(tmp_path):
    vary = {"optimizer.learning_rate": "0.001..1", "augment.translate": "0..1"}
    options = {"search": "random", "trials": 6, "batch": 3, "strategy": "loop"}
    begun = sweep(tmp_path / "s", vary, reporter=Silent(), **options)
    rates = [trial.point["optimizer.learning_rate"] for trial in begun.trials]
    assert len(set(rates)) == 6 and all(0.001 <= rate <= 1 for rate in rates)
    same = sweep(tmp_path / "t", vary, reporter=Silent(), **options)
    assert [t.point for t in same.trials] == [t.point for t in begun.trials]
    cut = sweep(tmp_path / "u", vary, reporter=PressingChunks(3), **options)
    assert cut.status == "interrupted" and len(cut.trials) < 6
    cut = loaded(cut.path).resume(reporter=Silent())
    assert len({trial.point["optimizer.learning_rate"] for trial in cut.trials}) == 6


@pytest.mark.heavy
def test_batches_share_one_program(tmp_path, monkeypatch):
    from cnn_jax.training import population

    made = []
    original = population.make_population_chunk

    def make(*arguments):
        made.append(original(*arguments))
        return made[-1]

    monkeypatch.setattr(population, "make_population_chunk", make)
    found = sweep(tmp_path / "s", batch=2)
    assert len(found.trials) == 6
    assert [one.compilations for one in made] == [1]


@pytest.mark.heavy
def test_machines_share_a_study_through_its_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one = sweep(tmp_path / "one", storage=url, batch=2, reporter=Pressing(1))
    assert one.status == "interrupted"
    two = sweep(tmp_path / "two", storage=url)
    assert two.status == "finished" and len(two.trials) == 4  # the first has two under way
    assert "2 are under way on other machines" in two.summary()
    one = loaded(tmp_path / "one").resume(reporter=Silent())
    assert len(one.trials) == 6
    assert [t.point for t in one.trials] == [t.point for t in loaded(tmp_path / "two").trials]
    other = sweep(tmp_path / "other", RATES, storage=url)
    assert len(other.trials) == 2  # another sweep in the same database


@pytest.mark.heavy
def test_a_trial_that_is_not_finite_is_told(tmp_path):
    found = sweep(tmp_path / "s", {"optimizer.learning_rate": [0.1, 1e30]})
    assert [trial.state for trial in found.trials] == ["done", "failed"]
    assert "not finite" in found.trials[1].failure
    assert len(found.settings()) == 1
    all_failed = sweep(tmp_path / "t", {"optimizer.learning_rate": [1e29, 1e30]})
    assert all_failed.settings() == [] and all_failed.best is None
    assert "no trial of 2 can be used: the loss" in all_failed.summary()


@pytest.mark.heavy
def test_structure_can_vary_too(tmp_path):
    """One program cannot train both, so they are trained one after another."""
    found = sweep(tmp_path / "s", {"augment.translate": [0, 1]}, strategy="auto")
    assert {trial.state for trial in found.trials} == {"done"}
    assert "strategy" not in found.info  # there was no choice


def test_values_and_ranges():
    recipe = Recipe()
    space = space_of(
        recipe,
        {
            "learning_rate": "0.001..1",
            "optimizer.momentum": "0.8..0.9",
            "seed": "2..4",
            "optimizer.name": "sgd,adamw",
            "optimizer.decay_exclude": [["bias$"], []],
            "model.options.units": "1,2",
            "model.options.widths": "[16, 32], [32, 64]",
            "data.source": "../a,../b",
        },
    )
    assert space["optimizer.learning_rate"] == Range(0.001, 1.0, log=True)
    assert space["optimizer.momentum"] == Range(0.8, 0.9)
    assert space["seed"] == Values((2, 3, 4))
    assert space["optimizer.name"] == Values(("sgd", "adamw"))
    assert space["optimizer.decay_exclude"] == Values((("bias$",), ()))
    assert space["model.options.units"] == Values((1, 2))
    assert space["model.options.widths"] == Values(((16, 32), (32, 64)))
    assert space["data.source"] == Values(("../a", "../b"))
    for name in ("model.options.widths", "data.source"):
        del space[name]
    del space["optimizer.learning_rate"], space["optimizer.momentum"]
    points = list(grid(space))
    assert len(points) == 3 * 2 * 2 * 2
    assert len({str(point) for point in points}) == len(points)


@pytest.mark.parametrize(
    ("vary", "options", "message"),
    [
        ({}, {}, "needs a field that varies"),
        ({"optimizer.learning_rte": [1]}, {}, r"did you mean 'optimizer\.learning_rate'"),
        ({"optimizer.learning_rate": [-1]}, {}, r"optimizer\.learning_rate must be above 0"),
        ({"optimizer.learning_rate": "a,b"}, {}, r"optimizer\.learning_rate"),
        ({"optimizer.learning_rate": [0.1, 0.1]}, {}, "or one twice"),
        ({"seed": "5..2"}, {}, r"the range 5\.\.2 has no two ends in order"),
        ({"optimizer.momentum": "0.9..0.1"}, {}, "0.9 to 0.1 is no range"),
        ({"optimizer.name": "sgd..adamw"}, {}, r"optimizer\.name must be 'sgd' or"),
        ({"optimizer.momentum": "0.1..0.9"}, {}, "a grid needs values"),
        (
            {
                "seed": list(range(1000)),
                "data.split_seed": list(range(1000)),
                "augment.cutout": "0..9",
            },
            {},
            "a grid of 10,000,000 points: at most 10,000",
        ),
        ({"data.fold": [1, 2]}, {}, r"data\.fold cannot vary"),
        ({"data.unseen_identities": [2, 3]}, {}, r"data\.unseen_identities cannot vary"),
        *(
            ({name: values}, {"data.unseen_identities": 2}, rf"{name} cannot vary: .* of people")
            for name, values in (("data.split_seed", [0, 1]), ("data.validation", [0.1, 0.3]))
        ),
        ({"learning_rate": "1,2", **RATES}, {}, "is given twice"),
        ({"augment.cutout": Range(0, 4)}, {}, r"takes whole numbers: Range\(\.\.\., integer=True"),
        ({"optimizer.decay_exclude": [["bias$"], ["nothing"]]}, {}, "matches no parameter"),
        (
            {"augment.translate": [0, 1]},
            {"strategy": "vmap"},
            "cannot be vmap: one program cannot train all trials",
        ),
        (GRID, {"search": "adaptive", "trials": 9}, "seed cannot vary in an adaptive search"),
        (GRID, {"train.tensorboard": True}, "is for single runs"),
        (GRID, {"trials": 3}, "as many trials as points"),
        (GRID, {"search": "random"}, "a random search needs --trials"),
        (GRID, {"search": "random", "trials": 10**9}, "between 1 and 10,000"),
        (GRID, {"search": "clever"}, "grid, random or adaptive"),
        (GRID, {"metric": "auroc"}, "accuracy or loss"),
        (GRID, {"batch": 0}, "1 trial or more"),
        (GRID, {"strategy": "fast"}, "auto, loop, vmap or map"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(vary, options, message, tmp_path):
    with pytest.raises(CnnJaxError, match=message):
        sweep(tmp_path / "s", vary, **options)
    assert not (tmp_path / "s").exists()


def test_trials_in_turn_begin_to_be_scored_before_it_is_asked_for(monkeypatch):
    events = []

    def scoring(variables):
        events.append("begin")
        return lambda: events.append("score")

    def fit(state, members, run_chunk, validate, *_, **__):
        score = validate({})
        assert events == ["begin"]
        score(0)
        return SimpleNamespace(signal=None, state=state)

    monkeypatch.setattr(trials, "fit", fit)
    assembly = SimpleNamespace(
        recipe=Recipe(), scoring=scoring, initial_state=dict, run_chunk=None, feeds={"train": None},
        placement=None,
    )  # fmt: skip
    plan = SimpleNamespace(assemblies=[assembly])
    trials._InTurn(plan, [Progress()], lambda number: None, Silent()).train(until=1)
    assert events == ["begin", "score"]


def test_a_database_that_cannot_be_opened(tmp_path):
    with pytest.raises(RunError, match="cannot use the study in 'sqlite:////no/such"):
        sweep(tmp_path / "s", storage="sqlite:////no/such/folder/study.db")
    for url in ("nonsense", "redis://localhost"):
        with pytest.raises(RunError, match=f"cannot use the study in '{url}'"):
            sweep(tmp_path / "t", storage=url)
    for address in ("me:secret@host/db", "me:secret/#w@host/db", "me@host/db?password=secret"):
        with pytest.raises(RecipeError, match=r"holds a password.*~/\.pgpass") as caught:
            sweep(tmp_path / "u", storage=f"postgresql://{address}")
        assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_machines_that_begin_at_once_in_an_empty_database(tmp_path, monkeypatch):
    import optuna
    import sqlalchemy.exc

    tries = []
    original = optuna.create_study

    def create(**options):
        tries.append(options)
        if len(tries) == 1:
            raise sqlalchemy.exc.IntegrityError("create table", {}, Exception("duplicate key"))
        return original(**options)

    monkeypatch.setattr(optuna, "create_study", create)
    assert len(sweep(tmp_path / "s", {"seed": [0, 1]}).trials) == 2
    assert len(tries) > 1


def test_without_optuna(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(__import__("sys").modules, "optuna", raising=False)
    with pytest.raises(RunError, match=r"pip install 'cnn_jax\[sweep\]'"):
        sweep(tmp_path / "s")


@pytest.mark.heavy
def test_the_command_line(capsys, tmp_path):
    small = ["--model.options.widths", "[4]", "--model.options.units", "1", "--epochs", "1"]
    small += ["--strategy", "loop", "--out", "s"]
    vary = ["--vary", "learning_rate=0.01,0.1", "--vary", "seed=0..1"]
    assert main(["sweep", "digits", *vary, *small]) == 0
    out = capsys.readouterr().out.splitlines()
    assert any(line.startswith("4 trials, 0 of 4 done, strategy loop: as wanted") for line in out)
    told = [line for line in out if line.startswith("trial ")]
    assert len(told) == 4 and all(line.endswith(" after 1 epoch") for line in told)
    assert out[-2].startswith("best of 4 trials, 2 settings: optimizer.learning_rate 0.1: ")
    assert out[-1].endswith("test it with: cnn-jax train s/best.toml --seeds 5")
    assert main(["sweep", "--resume", "s"]) == 0
    assert capsys.readouterr().out.startswith("s is finished: nothing to resume")
    assert main(["train", "s/best.toml", "--epochs", "1", "--out", "r"]) == 0
    for words, message in (
        (["sweep", "digits", "--vary", "seed"], "--vary needs FIELD=VALUES"),
        (["sweep", "digits", "--vary", "seed=1", "--vary", "seed=2"], "given twice"),
        (["sweep", "--resume", "s", "--trials", "3"], "give nothing else"),
        (["sweep", "digits"], "needs a field that varies"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_the_same_data_elsewhere_are_the_same_study(tmp_path):
    """Two machines keep their copies in other places."""
    whole = small_set(40)
    arrays = {}
    for part, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        arrays[f"{name}_images"] = np.repeat(whole.splits[part].images, 3, axis=3)
        arrays[f"{name}_labels"] = whole.splits[part].targets["label"][:, None]
    options = {"epochs": 1, "model.options": {"widths": [4], "units": 1}, "reporter": Silent()}
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    found = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        path = tmp_path / place / "squares.npz"
        np.savez(path, **arrays)
        out = tmp_path / f"of-{place}"
        found.append(
            cnn_jax.sweep(
                vary=RATES, data=str(path), storage=url, out=out, strategy="loop", **options
            )
        )
    assert found[0].info["study"] == found[1].info["study"]
    assert len(found[1].trials) == 2  # those of the first, and no more
