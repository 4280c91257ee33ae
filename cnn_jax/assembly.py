"""From a recipe and its data to the parts of a run: model, step, state."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import jax
import numpy as np

from cnn_jax import models, nn
from cnn_jax.augment import Augment, window_of
from cnn_jax.classifier import build_model
from cnn_jax.data import Dataset
from cnn_jax.errors import DataError, ModelError, RecipeError
from cnn_jax.evaluation import (
    Answers,
    CalibrationPredictions,
    MaskPredictions,
    Predictions,
    embeddings_type,
    predictions_type,
)
from cnn_jax.programs import hyper_of, program_of, shared
from cnn_jax.recipe import AugmentRecipe, Recipe, ScheduleRecipe
from cnn_jax.shapes import abstract_state, check_signature, check_sizes, logits_shape
from cnn_jax.tasks import check_sampling, check_segmentation, make_task
from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.devices import Placement, place
from cnn_jax.training.evaluate import EvalStep, begin_predicting, predict_examples
from cnn_jax.training.feed import Feed
from cnn_jax.training.member import Progress
from cnn_jax.training.optimizers import Optimizer
from cnn_jax.training.preprocess import Preprocess, fit_preprocess
from cnn_jax.training.recognition import Recognition, subjects_of
from cnn_jax.training.segmentation import Segmentation, pixel_logits
from cnn_jax.training.state import State, create_state, purpose_key
from cnn_jax.training.step import (
    ApplyFn,
    LinenApply,
    RunChunk,
    TrainStep,
    make_eval_step,
    make_run_chunk,
)
from cnn_jax.training.task import Task
from cnn_jax.training.windows import slide


@dataclass(frozen=True, eq=False)
class Assembly:
    """Everything a run is made of, built once.

    Attributes:
      recipe, dataset, model, task, preprocess, placement: as their names say.
      feeds: name of the part -> its batches.
      apply: the model in evaluation.
      step: one step of training; `run_chunk` is so many of them, compiled.
      run_chunk, eval_step: compiled at their first call.
      final_step: `eval_step` averaged over the recipe's views of each image.
      template: the state's structure, without arrays.
      compiler_options: of XLA, for `run_chunk` alone.
      population_programs: strategy -> the programs of many members, once they are made.
    """

    recipe: Recipe
    dataset: Dataset
    model: nn.Module
    task: Task
    preprocess: Preprocess
    placement: Placement
    feeds: dict[str, Feed]
    apply: ApplyFn
    step: TrainStep
    run_chunk: RunChunk
    eval_step: EvalStep
    final_step: EvalStep
    template: State
    optimizer: Optimizer
    compiler_options: Mapping[str, Any]
    population_programs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def initial_state(self) -> State:
        """The state before the first step: parameters from the seed."""
        return self.placement.replicate(self.initial_states([self.recipe])[0])

    def initial_states(self, recipes: Sequence[Recipe]) -> list[State]:
        """The state before the first step of each of several recipes with one program."""
        shape = self.dataset.image_shape
        initialize = shared(models.initializer, self.model, self.model, shape)
        states = []
        for recipe in recipes:
            key = jax.random.key(recipe.seed)
            variables = initialize(purpose_key(key, "init"))
            opt_state = self.optimizer.init(variables["params"])
            states.append(create_state(variables, opt_state, hyper_of(recipe), key))
        return states

    def restored(
        self, checkpoints: Checkpoints, say: Callable[[str], None]
    ) -> tuple[State, Progress] | None:
        """State and progress of the newest sound checkpoint, on the devices; None without one."""
        found = checkpoints.restore(self.template)
        if found is None:
            return None
        state, progress = self.placement.replicate(found[0]), Progress.from_dict(found[1])
        say(f"resumed at step {int(state.step)}, {len(progress.history)} epochs done")
        return state, progress

    def of(self, recipe: Recipe) -> Assembly:
        """The same for a recipe with the same program and data; what is compiled is shared."""
        return dataclasses.replace(self, recipe=recipe)

    @overload
    def predict(
        self,
        part: Literal["validation"],
        variables: Any,
        run_digest: str = "",
        *,
        final: bool = True,
    ) -> CalibrationPredictions: ...

    @overload
    def predict(
        self, part: str, variables: Any, run_digest: str = "", *, final: bool = True
    ) -> Predictions: ...

    def predict(
        self, part: str, variables: Any, run_digest: str = "", *, final: bool = True
    ) -> Predictions:
        """Predictions for every example of a part.

        Args:
          part: name of the part.
          variables: what `model.apply` takes.
          run_digest: recorded in the predictions.
          final: whether they are averaged over the recipe's views of each image, as they
            are when training has ended.
        """
        return self.predictions(part, self._kept(part, variables, final), run_digest)

    def answers(self, part: str, variables: Any, run_digest: str = "") -> Answers:
        """`predict`, or of a segmentation the masks, or of recognition the embeddings."""
        return self.answers_of(part, self._kept(part, variables), run_digest)

    def validating(self, variables: Any) -> Callable[[], Answers]:
        """Begin to predict the validation part; what is returned waits for that."""
        feed = self.feeds["validation"]
        collect = begin_predicting(self.eval_step, variables, feed, ahead=self.predicted_ahead)
        return lambda: self.answers_of("validation", collect())

    def scoring(self, variables: Any) -> Callable[[], dict[str, float]]:
        """Begin to find validation loss and accuracy; what is returned waits for that."""
        answers = self.validating(variables)
        return lambda: self.task.score(answers())

    @property
    def predicted_ahead(self) -> int | None:
        """Batches that the device may hold while validation goes on; None for all.

        One where masks are predicted, or images are read while training: both are large.
        """
        return 1 if self.dataset.regions or self.feeds["validation"].streamed else None

    def _kept(self, part: str, variables: Any, final: bool = True) -> np.ndarray:
        step = self.final_step if final else self.eval_step
        return predict_examples(step, variables, self.feeds[part])

    @overload
    def predictions(
        self, part: Literal["validation"], logits: np.ndarray, run_digest: str = ""
    ) -> CalibrationPredictions: ...

    @overload
    def predictions(self, part: str, logits: np.ndarray, run_digest: str = "") -> Predictions: ...

    def predictions(self, part: str, logits: np.ndarray, run_digest: str = "") -> Predictions:
        """Logits float32 `[N, K]` of a part, with all that is known of its examples.

        Raises:
          ModelError: the network answers for pixels, or embeds people it has not seen.
        """
        if isinstance(self.task, Segmentation):
            raise ModelError("this network segments: it has masks, not predictions of classes")
        if isinstance(self.task, Recognition):
            raise ModelError("this network recognises: it has embeddings, not predictions")
        split = self.dataset.splits[part]
        return predictions_type(part)(
            split=part,
            ids=split.ids,
            targets=split.targets["label"],
            logits=logits,
            classes=self.dataset.classes["label"],
            kind=self.dataset.kinds["label"],
            groups=split.groups,
            run_digest=run_digest,
        )

    def answers_of(self, part: str, kept: np.ndarray, run_digest: str = "") -> Answers:
        """`predictions`; of a segmentation the masks beside their probabilities; of recognition
        the embeddings beside who is on the images."""
        split = self.dataset.splits[part]
        if isinstance(self.task, Recognition):
            return embeddings_type(part)(
                split=part,
                ids=split.ids,
                subjects=subjects_of(self.dataset, split),
                embeddings=kept,
                run_digest=run_digest,
            )
        if split.masks is None:
            return self.predictions(part, kept, run_digest)
        return MaskPredictions(
            split=part,
            ids=split.ids,
            masks=split.masks,
            probabilities=kept,
            regions=self.dataset.regions,
            groups=split.groups,
            spacing=self.dataset.spacing,
            run_digest=run_digest,
        )


def assemble_run(recipe: Recipe, dataset: Dataset, model: nn.Module | None = None) -> Assembly:
    """Build the parts of a run.

    Args:
      recipe: what to build.
      dataset: with train, validation and test parts.
      model: a module of the user's own, in place of the one the recipe names.

    Raises:
      ModelError: the model does not fit the contract or the images.
      RecipeError: augmentation, weights, sampling or patterns do not fit.
      DataError: a part is missing or empty.
      EvaluationError: too few people or images to judge recognition by.
    """
    for part in ("train", "validation", "test"):
        if part not in dataset.splits or not len(dataset.splits[part]):
            raise DataError(f"data set {dataset.name!r} has no {part} part")
    image_shape = dataset.image_shape
    train = dataset.splits["train"]
    shape = logits_shape(image_shape, dataset.classes["label"], dataset.regions)
    own = model is not None
    model = model or build_model(recipe, shape[-1], image_shape)
    check_signature(model)
    check_segmentation(recipe, dataset)
    check_sampling(recipe, dataset)
    augment = make_augment(recipe.augment, image_shape)
    task = make_task(recipe.loss, dataset, train, unseen=recipe.data.unseen_identities > 0)
    placement = place(recipe.train.devices)
    preprocess = fit_preprocess(dataset)
    # One size for all parts that are evaluated, so that evaluation compiles once.
    evaluated = max(len(split) for name, split in dataset.splits.items() if name != "train")
    eval_batch_size = min(recipe.train.eval_batch_size, evaluated)
    feeds = {
        name: Feed(
            split,
            min(recipe.train.batch_size, len(split)) if name == "train" else eval_batch_size,
            placement,
            memory_limit=recipe.train.memory_limit,
            sampling=recipe.train.sampling if name == "train" else "uniform",
            images_per_identity=recipe.train.images_per_identity,
            parts=recipe.train.accumulate if name == "train" else 1,
            together=-(-evaluated // eval_batch_size),
        )
        for name, split in dataset.splits.items()
    }
    template, optimizer = abstract_state(recipe, model, image_shape, shape)
    apply = evaluating(recipe, model, image_shape)
    check_sizes(recipe.train.sizes, model, template, image_shape)
    if own and isinstance(task, Recognition):  # of a named one `build_model` sees to it
        check_embeds(task, model, template, image_shape)
    evaluation = functools.partial(shared, make_eval_step, model, apply, task, preprocess)
    eval_step = evaluation("one")
    views = recipe.train.views
    step = train_step(recipe, model, task, optimizer, augment, preprocess, feeds["train"])
    options = compiler_options_of(recipe)
    return Assembly(
        recipe=recipe,
        dataset=dataset,
        model=model,
        task=task,
        preprocess=preprocess,
        placement=placement,
        feeds=feeds,
        apply=apply,
        step=step,
        run_chunk=shared(make_run_chunk, model, step, tuple(options.items())),
        eval_step=eval_step,
        final_step=eval_step if views == "one" else evaluation(views),
        template=template,
        optimizer=optimizer,
        compiler_options=options,
    )


def train_step(
    recipe: Recipe,
    model: nn.Module,
    task: Task,
    optimizer: Optimizer,
    augment: Augment,
    preprocess: Preprocess,
    feed: Feed,
) -> TrainStep:
    """One step of training a model on the batches of a feed, as the recipe says."""
    return TrainStep(
        apply=LinenApply(model, tuple(recipe.train.remat)),
        task=task,
        optimizer=optimizer,
        schedule=_schedule(program_of(recipe)),
        augment=augment,
        preprocess=preprocess,
        steps_per_epoch=feed.steps,
        epochs=recipe.train.epochs,
        padded=feed.padded,
        accumulate=recipe.train.accumulate,
        sharpness=recipe.optimizer.sam > 0,
    )


def evaluating(recipe: Recipe, model: nn.Module, image_shape: tuple[int, ...]) -> ApplyFn:
    """The model as it is evaluated: where it was trained on patches, by windows of their size."""
    whole = LinenApply(model)
    if not recipe.augment.patch:
        return whole
    return _Windows(whole, window_of(image_shape, recipe.augment.patch))


@dataclass(frozen=True)
class _Windows:
    """An apply function that works through an image by windows; see `windows.slide`."""

    whole: ApplyFn
    window: tuple[int, ...]

    def __call__(
        self,
        variables: Mapping[str, Any],
        image: jax.Array,
        train: bool,
        rngs: dict[str, jax.Array],
    ) -> tuple[Any, Any]:
        def logits(patch: jax.Array) -> jax.Array:
            return pixel_logits(self.whole(variables, patch, train, rngs)[0])

        others = {name: value for name, value in variables.items() if name != "params"}
        return slide(logits, image, self.window), others


def check_embeds(
    task: Recognition, model: nn.Module, template: State, image_shape: tuple[int, ...]
) -> None:
    """Raise `ModelError` for a model that makes no embedding."""
    image = jax.ShapeDtypeStruct((2, *image_shape), np.float32)
    jax.eval_shape(
        lambda variables, image: task.predictions(model.apply(variables, image, train=False)),
        {"params": template.params, **template.model_state},
        image,
    )


def make_augment(augment: AugmentRecipe, image_shape: tuple[int, ...]) -> Augment:
    """The transforms of a recipe.

    Raises:
      RecipeError: one does not fit images of that shape.
    """
    transforms = Augment(**dataclasses.asdict(augment))
    transforms.check(image_shape)
    return transforms


def _schedule(recipe: Recipe) -> ScheduleRecipe:
    """The recipe's; until convergence the rate is constant and only plateaus lower it."""
    if recipe.train.until == "converged":
        return dataclasses.replace(recipe.schedule, name="constant")
    return recipe.schedule


def compiler_options_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe's options of XLA that concern this platform.

    Raises:
      RecipeError: this version of jaxlib does not know one, or not its value.
    """
    on_cpu = jax.default_backend() == "cpu"
    wanted = recipe.train.compiler_options
    options = {k: v for k, v in wanted.items() if on_cpu or not k.startswith("xla_cpu_")}
    if options:
        try:
            jax.jit(lambda: 0, compiler_options=options).lower().compile()
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RecipeError(
                f"train.compiler_options: {reason}; leave it out, or use another jaxlib"
            ) from error
    return options
