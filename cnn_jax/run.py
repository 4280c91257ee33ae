"""A run: train it, load it, evaluate it, predict with it, resume it.

run = cnn_jax.train(epochs=5)
run.evaluate("test")["accuracy"]
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from cnn_jax import environment, nn
from cnn_jax.assembly import Assembly, assemble_run
from cnn_jax.classifier import Classified, Classifier, build_model
from cnn_jax.data import Dataset
from cnn_jax.decision import fit_prediction_sets
from cnn_jax.errors import DataError, RunError
from cnn_jax.evaluation import (
    Answers,
    CalibrationPredictions,
    EmbeddingPredictions,
    Estimate,
    MaskPredictions,
    Predictions,
)
from cnn_jax.execution import carry_out, describe
from cnn_jax.recipe import Recipe, resolve
from cnn_jax.recorded import Recorded
from cnn_jax.run_data import (
    group_data,
    group_own_classes,
    load_again,
    load_data,
    located,
    resolve_data,
)
from cnn_jax.run_folder import RunFolder
from cnn_jax.segmenter import Segmented, Segmenter
from cnn_jax.shapes import abstract_state, logits_shape
from cnn_jax.training import checkpoints as saved
from cnn_jax.training import tensorboard
from cnn_jax.training.devices import numerics
from cnn_jax.training.monte_carlo import dropout_logits
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.progress import Console, Reporter

if TYPE_CHECKING:
    from cnn_jax.new_images import Images


class Run(Recorded):
    """A run folder and what can be done with it.

    Attributes:
      path: the folder.
      recipe: the resolved recipe.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        model: nn.Module | None = None,
        data: Dataset | str | None = None,
        assembly: Assembly | None = None,
    ) -> None:
        super().__init__(folder, model=model, data=data)
        self._assembly = assembly

    def __repr__(self) -> str:
        return f"Run({self.shown!r}, {self.status}: {self.summary()})"

    @property
    def history(self) -> list[dict[str, float]]:
        """A row for each finished epoch."""
        return self._folder.read_numbers(self._folder.metrics)

    @property
    def images_per_second(self) -> dict[int, float]:
        """Epoch -> training images a second."""
        rows = self._folder.read_numbers(self._folder.timings)
        return {int(row["epoch"]): row["images_per_second"] for row in rows}

    @property
    def training_seconds(self) -> float:
        """Wall time of the training steps of all epochs, without validation."""
        rows = self._folder.read_numbers(self._folder.timings)
        return sum({int(row["epoch"]): row["seconds"] for row in rows}.values())

    @property
    def test_uses(self) -> list[dict[str, str]]:
        """Each time the test part was looked at."""
        return self._folder.read_table(self._folder.test_use)

    @property
    def metrics(self) -> dict[str, dict[str, Estimate]]:
        """Part -> name -> figure, as computed when training ended."""
        parts = self.info.get("metrics", {})
        return {
            part: {name: Estimate.from_dict(value) for name, value in figures.items()}
            for part, figures in parts.items()
        }

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, read again and checked to be the same.

        Raises:
          DataError: it cannot be read.
          RunError: it has changed since the run.
        """
        if isinstance(self._data, Dataset):
            dataset = self._data
        else:
            dataset = (load_data if self._data else load_again)(self.recipe_here)
        return self._as_recorded(dataset)

    @property
    def recipe_here(self) -> Recipe:
        """The recipe, with the place to which the data have moved."""
        moved = isinstance(self._data, str)
        return self.recipe.override({"data.source": self._data, "data.root": None} if moved else {})

    def _as_recorded(self, dataset: Dataset) -> Dataset:
        """The data set as it is, or without its duplicates: whichever this run was trained on."""
        recorded = self.info["data"]["digest"]
        if dataset.digest == recorded:
            return group_data(self.recipe, group_own_classes(self.recipe, dataset))
        try:
            resolved = resolve_data(self.recipe, dataset)
        except DataError:  # equal images that were not there when the run began
            resolved = dataset
        if resolved.digest != recorded:
            raise RunError(
                f"the data set {dataset.name!r} has changed since this run "
                f"(digest {resolved.digest[:12]}, then {recorded[:12]}): nothing would compare"
            )
        return resolved

    @functools.cached_property
    def assembly(self) -> Assembly:
        """Model, step and batches, rebuilt from the recipe."""
        return self._assembly or assemble_run(self.recipe, self.dataset, self.model)

    @functools.cached_property
    def variables(self) -> dict[str, Any]:
        """Parameters and other collections of the evaluated state, from its checkpoint.

        Raises:
          RunError: training has not ended.
          CheckpointError: the checkpoint is damaged.
        """
        info = self._selected_info()
        shape = tuple(info["data"]["image_shape"])
        template, _ = abstract_state(self.recipe, self.model, shape, self._logits_shape)
        step = int(info["selected"]["step"])
        state, _ = saved.read(self._folder.checkpoints, step, template)
        return dict(state.evaluated)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The Linen module."""
        shape = tuple(self.info["data"]["image_shape"])
        return self._model or build_model(
            self.recipe, self._logits_shape[-1], shape, f"cnn_jax.Run.load({self.shown!r}, "
        )

    @property
    def _logits_shape(self) -> tuple[int, ...]:
        described = self.info["data"]
        return logits_shape(tuple(described["image_shape"]), described["classes"], self.regions)

    def ids(self, part: str) -> list[str]:
        """The ids of the examples of a part, as they were when the run began."""
        return self._folder.read_splits()[part]

    @property
    def regions(self) -> tuple[str, ...]:
        """What its masks show, the background first; nothing of a run that classifies."""
        return tuple(self.info["data"].get("regions", ()))

    @overload
    def predictions(self, part: Literal["validation"]) -> CalibrationPredictions: ...

    @overload
    def predictions(self, part: str) -> Predictions: ...

    def predictions(self, part: str) -> Predictions:
        """The saved predictions for a part; of validation, those that something may be fitted on.

        Raises:
          EvaluationError: there are none; `evaluate` makes them.
          RunError: the network segments: it has `masks`; or recognises: it has `embeddings`.
        """
        self._check_classifies("predictions of classes")
        return Predictions.load(self._folder.predictions / f"{part}.npz")

    def masks(self, part: str) -> MaskPredictions:
        """The saved masks of a part, true and predicted, of a run that segments.

        Raises:
          EvaluationError: there are none; `evaluate` makes them.
          RunError: the network classifies: it has `predictions`.
        """
        self._check_segments()
        return MaskPredictions.load(self._folder.predictions / f"{part}.npz")

    def embeddings(self, part: str) -> EmbeddingPredictions:
        """The saved embeddings of a part, of a run that recognises people never seen.

        Those of validation are `CalibrationEmbeddings`, which a threshold may be fitted on.

        Raises:
          EvaluationError: there are none; `evaluate` makes them.
          RunError: the network classifies or segments.
        """
        if not self.recognises:
            raise RunError(
                f"{self.shown!r} was not trained with data.unseen_identities: it has no embeddings "
                "of people never seen"
            )
        return EmbeddingPredictions.load(self._folder.predictions / f"{part}.npz")

    def answers(self, part: str) -> Answers:
        """`predictions`, `masks` or `embeddings` of a part, whichever the run has."""
        if self.recognises:
            return self.embeddings(part)
        return self.masks(part) if self.regions else self.predictions(part)

    @property
    def recognises(self) -> bool:
        """Whether it is judged by people never seen; see `DataRecipe.unseen_identities`."""
        return self.recipe.data.unseen_identities > 0

    def _check_classifies(self, what: str) -> None:
        if self.recognises:
            raise RunError(
                f"{self.shown!r} recognises people never seen: it has embeddings, no {what}; in "
                "Python take embeddings(part), for new images 'cnn-jax gallery'"
            )
        if self.regions:
            raise RunError(
                f"{self.shown!r} segments: it has masks, no {what}; in Python take masks(part) and "
                "segment(images)"
            )

    def _check_segments(self) -> None:
        if self.recognises:
            raise RunError(
                f"{self.shown!r} recognises people never seen: it has no masks; take "
                "embeddings(part)"
            )
        if not self.regions:
            raise RunError(
                f"{self.shown!r} classifies: it has no masks; take predictions(part) and "
                "predict(images)"
            )

    def evaluate(self, part: str = "test", *, command: str = "Run.evaluate") -> dict[str, Estimate]:
        """Predict every example of a part once, save the predictions, compute all figures.

        Args:
          part: `test`, `validation` or `train`. Each look at `test` is logged in the run.
          command: what the log says.

        Raises:
          RunError: there is no such part, or training has not ended.
        """
        environment.enable_compile_cache()
        with numerics(self.recipe.train.precision):
            self._check_part(part)
            variables = self.assembly.placement.replicate(self.variables)
            predictions = self.assembly.answers(part, variables, self.info["digest"])
        predictions.save(self._folder.predictions / f"{part}.npz")
        self.log_use(part, len(predictions), command)
        return self.assembly.task.metrics(predictions)

    def dropout_samples(
        self,
        part: str = "test",
        *,
        samples: int = 20,
        seed: int = 0,
        command: str = "Run.dropout_samples",
    ) -> list[Predictions]:
        """Monte-Carlo dropout (Gal and Ghahramani 2016): predictions with units dropped at random.

        `evaluation.ensemble` of them is the mean prediction, `evaluation.disagreement` how much
        each image's answer hangs on the units dropped. Each look at `test` is logged in the run.

        Args:
          part: `test`, `validation` or `train`.
          samples: how many.
          seed: of what is dropped.
          command: what the log says.

        Raises:
          RunError: there is no such part, training has not ended, or the network segments.
          ModelError: the model has no dropout.
        """
        environment.enable_compile_cache()
        self._check_classifies("samples of dropout")
        self._check_part(part)
        if samples < 1:
            raise RunError(f"Monte-Carlo dropout needs 1 sample or more, not {samples}")
        with numerics(self.recipe.train.precision):
            assembly = self.assembly
            found = dropout_logits(
                self.model,
                assembly.task,
                assembly.preprocess,
                assembly.placement.replicate(self.variables),
                assembly.feeds[part],
                samples=samples,
                seed=seed,
            )
        self.log_use(part, len(found[0]), command)
        return [assembly.predictions(part, logits, self.info["digest"]) for logits in found]

    def _check_part(self, part: str) -> None:
        if part not in self.dataset.splits:
            raise RunError(f"no part {part!r}: there are {', '.join(self.dataset.splits)}")

    def log_use(self, part: str, n: int, command: str) -> None:
        """Write down that n examples of a part were looked at, if it is `test`."""
        if part == "test":
            step = int(self._selected_info()["selected"]["step"])
            self._folder.log_test_use(part, step, n, command)

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The trained network, ready for new images; needs no data set.

        Of a run that recognises people never seen its classes mean nothing, but its embeddings
        do: see `recognising.Embedder`.

        Raises:
          RunError: training has not ended, or the network segments.
        """
        if self.regions:
            self._check_classifies("classes to predict")
        info = self._selected_info()
        described = info["data"]
        return Classifier(
            recipe=self.recipe,
            model=self.model,
            variables=self.variables,
            preprocess=Preprocess.from_dict(info["preprocess"]),
            classes=tuple(described["classes"]),
            kind=described["kind"],
            image_shape=tuple(described["image_shape"]),
            temperature=1.0 if self.recognises else self.temperature,
        )

    @functools.cached_property
    def segmenter(self) -> Segmenter:
        """The trained network, ready to mark new images; needs no data set.

        Raises:
          RunError: training has not ended, or the network classifies.
        """
        self._check_segments()
        info = self._selected_info()
        return Segmenter(
            recipe=self.recipe,
            model=self.model,
            variables=self.variables,
            preprocess=Preprocess.from_dict(info["preprocess"]),
            regions=self.regions,
            image_shape=tuple(info["data"]["image_shape"]),
        )

    def segment(self, images: Images) -> Segmented:
        """Masks of new images; see `Segmenter.segment`."""
        return self.segmenter.segment(images)

    @property
    def temperature(self) -> float:
        """What divides the logits, fitted on validation data.

        Raises:
          RunError: training has not ended, or the network segments or recognises.
        """
        self._check_classifies("temperature")
        return float(self._selected_info()["temperature"]["value"])

    def predict(self, images: Images, *, coverage: float | None = None) -> Classified:
        """Calibrated class probabilities of new images; see `Classifier.predict`.

        Args:
          images: paths, folders or arrays.
          coverage: also give the set of classes that holds the true one with this probability;
            see `decision.fit_prediction_sets` for what that promises.

        Raises:
          EvaluationError: a coverage out of range, or several labels.
        """
        sets, temperature = None, self.temperature
        if coverage is not None:
            sets = fit_prediction_sets(self.predictions("validation"), coverage=coverage)
        answers = self.classifier.predict(images)
        return answers if sets is None else answers.with_sets(sets, temperature)

    def export(self, folder: str | os.PathLike[str]) -> Path:
        """Write the network to one safetensors file with its description beside it.

        `Classifier.load` reads it, or `Segmenter.load`; see their `save` for the errors.
        """
        return (self.segmenter if self.regions else self.classifier).save(folder)

    def resume(self, *, reporter: Reporter | None = None, command: str = "Run.resume") -> Run:
        """Go on where training stopped, bit for bit as if it never had.

        Damaged checkpoints are named and set aside; if none is left, training starts from
        the beginning, and that is said. A finished run is left as it is.

        Raises:
          RunError: another process trains in the folder, or the data have changed.
          CheckpointError: the checkpoints are of another model.
        """
        from cnn_jax.run_page import write_page

        with self._folder.lock():
            if self.status != "finished":
                self._carry_out(reporter, command)
            elif not self._folder.report.exists():
                write_page(self)
        return self

    def _carry_out(self, reporter: Reporter | None, command: str) -> None:
        from cnn_jax.run_page import write_page

        reporter = reporter or Console(self.recipe.train.epochs)
        with self._advised(), contextlib.ExitStack() as stack:
            if self.recipe.train.tensorboard:
                events = self.path / "tensorboard"
                board = tensorboard.TensorBoard(reporter, events)
                reporter = stack.enter_context(contextlib.closing(board))
            carry_out(self._folder, self.assembly, reporter, command)
            if self.status == "finished":
                write_page(self)

    def report(self) -> Path:
        """Write report.html from what the run folder holds, and return its path.

        Raises:
          DataError, RunError: the images cannot be read or have changed, and there is a page
            already, which is left as it was, or the data were given; see `dataset`.
        """
        from cnn_jax.run_page import rewrite_page

        return rewrite_page(self, moved=self._data is not None)

    def summary(self) -> str:
        """One line: `test accuracy 98.06 % [96.0, 99.1], n = 360`."""
        figures = self.metrics.get("test")
        if not figures:
            return f"{len(self.history)} epochs trained, not evaluated"
        name, estimate = next(iter(figures.items()))
        return f"test {name.replace('_', ' ')} {estimate}"

    def _repr_html_(self) -> str:
        """One screen in a notebook."""
        from cnn_jax.run_page import summary_html

        return summary_html(self)

    def check_ended(self) -> None:
        """Raise RunError, with what to do, where training has not ended."""
        self._selected_info()

    def _selected_info(self) -> dict[str, Any]:
        info = self.info
        if "selected" not in info:
            raise RunError(
                f"{self.shown!r} has not finished training: go on with {self._folder.go_on}"
            )
        return info


def train(
    recipe: Recipe | str | os.PathLike[str] | None = None,
    *,
    model: nn.Module | str | None = None,
    data: Dataset | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    baselines: bool = False,
    reporter: Reporter | None = None,
    command: str = "cnn_jax.train",
    **overrides: Any,
) -> Run:
    """Train a network, evaluate it exactly and write a run folder.

    Args:
      recipe: a recipe, the name of a bundled one, or a TOML file; None takes the one for
        the data set.
      model: the name of a model, or any Linen module with
        `__call__(self, image, *, train=False)` that returns logits `[B, K]`.
      data: the name or path of a data set, or a `Dataset` (see `data.from_arrays`).
      out: the run folder; None for `runs/DATA-MODEL-001` or the next free number.
      overwrite: move a run that lies in `out` aside.
      baselines: also evaluate pixel 1-nearest neighbour and logistic regression; of masks
        Otsu's threshold.
      reporter: what shows progress; None for the console.
      command: recorded as what started the run.
      **overrides: fields of the recipe: `epochs=5`, `seed=1`, or
        `**{"optimizer.weight_decay": 1e-4}`.

    Returns:
      The run. If a signal ended it early, its `status` is `interrupted` and `resume`
      goes on.

    Raises:
      CnnJaxError: whatever is wrong, in one line.
    """
    resolved, own_model = named_overrides(recipe, model, data, overrides)
    resolved = located(resolved)
    dataset = resolve_data(resolved, data if isinstance(data, Dataset) else load_data(resolved))
    name = f"{dataset.name}-{resolved.model.name.removeprefix('custom:')}"
    assembly = assemble_run(resolved, dataset, own_model)
    info = describe(assembly, command, baselines=baselines)
    if resolved.train.tensorboard:
        tensorboard.check_installed()  # rather now than after a folder was made
    folder = RunFolder.create(out, name, overwrite=overwrite)
    with folder.lock():
        folder.write_recipe(resolved)
        folder.write_splits(dataset)
        folder.write_info(info)
        run = Run(folder, model=own_model, data=dataset, assembly=assembly)
        run._carry_out(reporter, command)
    return run


def named_overrides(
    recipe: Recipe | str | os.PathLike[str] | None,
    model: nn.Module | str | None,
    data: Dataset | str | None,
    overrides: dict[str, Any],
) -> tuple[Recipe, nn.Module | None]:
    """The recipe that the arguments of `train` ask for, and the model if it is the user's own."""
    named = {k: v for k, v in (("model", model), ("data", data)) if isinstance(v, str)}
    if isinstance(model, nn.Module):
        named["model"] = f"custom:{type(model).__name__}"
    if isinstance(data, Dataset):
        named["data"] = f"custom:{data.name}"
    if recipe is None and isinstance(data, Dataset):
        recipe = Recipe()  # no bundled one was made for it
    own_model = model if isinstance(model, nn.Module) else None
    return resolve(recipe, {**named, **overrides}), own_model
