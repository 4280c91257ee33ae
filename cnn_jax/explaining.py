"""Explaining a run's answers: maps of new images, and whether the method can be trusted on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import environment, explain, models, nn
from cnn_jax.errors import ModelError, RunError
from cnn_jax.evaluation import Estimate
from cnn_jax.explain.answers import logits_of
from cnn_jax.explain.randomisation import Verdict
from cnn_jax.new_images import source_of
from cnn_jax.principles.layers import layers, main_layers
from cnn_jax.training.baselines import stratified_subset
from cnn_jax.training.devices import numerics

if TYPE_CHECKING:
    from cnn_jax.new_images import Images
    from cnn_jax.run import Run

AUDITED = 48  # validation images by which a method is audited
_AT_ONCE = 16  # images that are explained in one call; fixed, so that it compiles once


@dataclass(frozen=True, eq=False)
class Audit:
    """How far a method can be trusted on one network.

    All figures are of the class that the network holds likeliest, on validation images. Gains are
    positive where the method is better than the control, paired by image.

    Attributes:
      method: its name.
      images: how many.
      randomisation: see `explain.randomisation_check`.
      deletion: how much faster the probability falls than when pixels go in random order.
      insertion: how much faster it comes back.
      road: see `explain.road`, less that of a random order.
      deletion_edges: as `deletion`, against the order of an edge detector.
    """

    method: str
    images: int
    randomisation: explain.Randomisation
    deletion: Estimate
    insertion: Estimate
    road: Estimate
    deletion_edges: Estimate

    @property
    def weights(self) -> Verdict:
        """Whether its maps depend on what was learned."""
        return self.randomisation.verdict

    @property
    def faithful(self) -> bool:
        """Whether deletion, insertion and ROAD are all surely better than a random order."""
        return min(self.deletion.low, self.insertion.low, self.road.low) > 0

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, a sentence each; none if the method can be trusted as far as is known."""
        said = []
        kept = 100 * self.randomisation.retained.value
        if self.randomisation.flat:
            said.append(
                f"{self.randomisation.flat} of {self.images} maps are the same everywhere: they "
                "show nothing"
            )
        if self.weights == "fails":
            said.append(
                f"{kept:.0f} % of its maps is left when the weights are drawn anew: that part "
                "shows the image, not what was learned"
            )
        elif self.weights == "cannot be told":
            said.append(
                "how much of its maps is left when the weights are drawn anew cannot be told by "
                f"{self.images} images"
            )
        worse = [
            name
            for name, gain in (
                ("deletion", self.deletion),
                ("insertion", self.insertion),
                ("ROAD", self.road),
            )
            if gain.low <= 0
        ]
        if worse:
            said.append(f"by {_listed(worse)} it is not surely better than a random order")
        if self.deletion_edges.low <= 0:
            said.append("by deletion it is not surely better than an edge detector")
        return tuple(said)


@dataclass(frozen=True, eq=False)
class Explained:
    """Maps of images by one method.

    Attributes:
      ids: path of each image, or its position.
      images: uint8 or float32 `[N, H, W, C]`, as the network is given them.
      classes: name of the class that each map is of.
      probabilities: float64 `[N]`, of that class, calibrated.
      maps: float32 `[N, H, W]`, higher where the image speaks for the class.
      method: its name.
      audit: of the method on this network, or None where none was asked for.
    """

    ids: tuple[str, ...]
    images: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray
    maps: np.ndarray
    method: str
    audit: Audit | None

    def __repr__(self) -> str:
        said = "not audited"
        if self.audit is not None:
            said = "; ".join(self.audit.failures) or "passed its audit"
        return f"Explained({len(self.ids)} images by {self.method}: {said})"


def explain_run(
    run: Run,
    images: Images,
    *,
    method: str = "grad_cam",
    of_class: str | None = None,
    audited: bool = True,
    audit_images: int = AUDITED,
    seed: int = 0,
) -> Explained:
    """Explain what a network answers for images, and audit the method on this network.

    Args:
      run: finished, of one class for each two-dimensional image.
      images: see `Classifier.predict`.
      method: one of `explain.METHODS`.
      of_class: the class to explain; None for the likeliest of each image.
      audited: whether to audit, which looks at validation images of the run.
      audit_images: how many of them, at most.
      seed: of methods and checks that draw something.

    Raises:
      RunError: the run does not tell classes of two-dimensional images apart, or has not finished.
      ModelError: no such method or class, or one that this network's layers do not allow.
      DataError: images that cannot be read, or those of the audit.
    """
    _check(run)
    classifier = run.classifier
    _check_class(run, of_class)
    explain.method(method)
    source, ids = source_of(images, classifier.image_shape, run.recipe.data.fit)
    pixels = np.stack([source[i] for i in range(len(source))])
    answers = classifier.predict(pixels)
    chosen = answers.probabilities.argmax(axis=1)
    if of_class is not None:
        chosen = np.full(len(pixels), classifier.classes.index(of_class))
    environment.enable_compile_cache()
    with numerics(run.recipe.train.precision):
        maps = maps_of(run, method, run.variables, pixels, chosen, seed=seed)
        audit = audit_method(run, method, images=audit_images, seed=seed) if audited else None
    return Explained(
        ids=tuple(ids),
        images=pixels,
        classes=tuple(classifier.classes[k] for k in chosen.tolist()),
        probabilities=answers.probabilities[np.arange(len(pixels)), chosen],
        maps=maps,
        method=method,
        audit=audit,
    )


def maps_of(
    run: Run,
    method: str,
    variables: Mapping[str, Any],
    pixels: np.ndarray,
    target: np.ndarray,
    *,
    seed: int = 0,
) -> np.ndarray:
    """float32 `[N, H, W]`: maps of images as they are kept `[N, H, W, C]`, of classes `[N]`."""
    found = []
    preprocess = run.classifier.preprocess
    for start in range(0, len(pixels), _AT_ONCE):
        batch, classes = pixels[start : start + _AT_ONCE], target[start : start + _AT_ONCE]
        short = _AT_ONCE - len(batch) if start else 0
        if short:
            batch = np.concatenate([batch, batch[:1].repeat(short, axis=0)])
            classes = np.concatenate([classes, classes[:1].repeat(short)])
        x, of = preprocess(jnp.asarray(batch)), jnp.asarray(classes, jnp.int32)
        maps = _maps(run.model, method, variables, x, of, jax.random.key(seed))
        found.append(np.asarray(maps, np.float32)[: len(batch) - short])
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _maps(
    model: nn.Module, method: str, variables: Any, x: jax.Array, target: jax.Array, key: jax.Array
) -> jax.Array:
    return explain.method(method).of(model, variables, x, target, key)


def audit_method(run: Run, method: str, *, images: int = AUDITED, seed: int = 0) -> Audit:
    """Audit a method on the network of a run, by images of its validation part.

    Args:
      run: as `explain_run`.
      method: one of `explain.METHODS`.
      images: how many, each class in its share.
      seed: of what is drawn.

    Raises:
      RunError, ModelError, DataError: as `explain_run`; or fewer than 8 validation images.
    """
    _check(run)
    split = run.dataset.splits.get("validation")
    if split is None or len(split) < 8 or images < 8:
        raise RunError(
            f"an audit needs 8 validation images at least: {run.dataset.name!r} has "
            f"{0 if split is None else len(split)}, and {images} are wanted; --no-audit does "
            "without"
        )
    rows = stratified_subset(np.asarray(split.targets["label"]), images)
    pixels = split.read_images(rows)
    groups = None if split.groups is None else split.groups[rows]
    logits = run.classifier.logits(pixels)[1]
    target = logits.argmax(axis=1)
    shape = tuple(run.dataset.image_shape)
    fresh = models.initialize(run.model, jax.random.key(run.recipe.seed + 1), shape)
    randomisation = explain.randomisation_check(
        lambda variables, x, c: maps_of(run, method, variables, x, c, seed=seed),
        run.variables,
        fresh,
        pixels,
        target,
        _from_the_answer_down(run, shape),
        groups=groups,
        seed=seed,
    )
    maps = maps_of(run, method, run.variables, pixels, target, seed=seed)
    x = np.asarray(run.classifier.preprocess(jnp.asarray(pixels)))
    probability = _probability(run, target)
    random, edges = explain.random_maps(x, seed), explain.edges(x)

    def area(curve: Any, order: np.ndarray) -> np.ndarray:
        found: np.ndarray = curve(probability, x, order, seed=seed).area
        return found

    paired = functools.partial(explain.paired_gain, groups=groups, seed=seed)
    deleted = area(explain.deletion, maps)
    return Audit(
        method=method,
        images=len(pixels),
        randomisation=randomisation,
        deletion=paired(area(explain.deletion, random), deleted),
        insertion=paired(area(explain.insertion, maps), area(explain.insertion, random)),
        road=paired(
            explain.road(probability, x, maps, seed=seed),
            explain.road(probability, x, random, seed=seed),
        ),
        deletion_edges=paired(area(explain.deletion, edges), deleted),
    )


def _probability(run: Run, target: np.ndarray) -> explain.Probability:
    """The probability of each image's class, of images as the network sees them."""
    model, variables = run.model, run.variables

    def of(x: np.ndarray) -> np.ndarray:
        found = [
            np.asarray(_answers(model, variables, jnp.asarray(x[i : i + 64], jnp.float32)))
            for i in range(0, len(x), 64)
        ]
        p: np.ndarray = np.concatenate(found)[np.arange(len(x)), target]
        return p

    return of


@functools.partial(jax.jit, static_argnums=0)
def _answers(model: nn.Module, variables: Any, x: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits_of(model, variables)(x))


def _from_the_answer_down(run: Run, shape: Sequence[int]) -> tuple[str, ...]:
    """Scopes of the main layers that hold parameters, the last first."""
    scopes: Any = run.variables["params"]
    found = []
    for layer in reversed(main_layers(layers(run.model, run.variables, shape))):
        path = layer.path.partition("#")[0]
        node = scopes
        for name in path.split("/"):
            node = node.get(name, {}) if isinstance(node, Mapping) else {}
        if jax.tree.leaves(node) and path not in found:
            found.append(path)
    # What the network's own scope holds, or no layer on the way does.
    covered = {path.partition("/")[0] for path in found}
    return (*found, *(name for name in scopes if name not in covered))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _check_class(run: Run, name: str | None) -> None:
    if name is not None and name not in run.classifier.classes:
        known = ", ".join(run.classifier.classes)
        raise ModelError(f"no class {name!r}: choose one of {known}")


def _check(run: Run) -> None:
    if run.regions or run.recognises or run.info["data"]["kind"] != "class":
        raise RunError(f"{run.shown!r} does not tell classes of images apart: name a run that does")
    run.check_ended()
    if len(run.info["data"]["image_shape"]) != 3:
        raise RunError(f"the images of {run.shown!r} are volumes, not [H, W, C]")


def explain_by(
    run: Run,
    images: Images,
    methods: Sequence[str],
    *,
    reporter: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> tuple[list[Explained], dict[str, str]]:
    """Explain by several methods; those that the network's layers do not allow are told apart.

    Args:
      run, images: as `explain_run`.
      methods: their names.
      reporter: is told which comes next.
      **options: as `explain_run`.

    Returns:
      What each method found, and method -> why it was refused.

    Raises:
      RunError, DataError, ModelError: as `explain_run`; every method was refused.
    """
    _check(run)
    _check_class(run, options.get("of_class"))
    for name in methods:
        explain.method(name)
    found, refused = [], {}
    for name in methods:
        reporter(name.replace("_", " "))
        try:
            found.append(explain_run(run, images, method=name, **options))
        except ModelError as error:
            refused[name] = str(error)
    if not found:
        raise ModelError(f"{run.shown!r} cannot be explained so: {next(iter(refused.values()))}")
    return found, refused
