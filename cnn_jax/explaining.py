"""Explaining a run's answers: maps of new images, and whether the method can be trusted on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

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
LARGEST_GAP = 0.05  # of a map that has to add up, what may be missing of the sum
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
      gap: of a method whose maps have to add up to the change of the logit, the share of it that
        is missing, or too much: the median over images; else None.
    """

    method: str
    images: int
    randomisation: explain.Randomisation
    deletion: Estimate
    insertion: Estimate
    road: Estimate
    deletion_edges: Estimate
    gap: float | None = None

    @property
    def weights(self) -> Verdict:
        """Whether its maps depend on what was learned."""
        return self.randomisation.verdict

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
        if self.gap is not None and self.gap > LARGEST_GAP:
            said.append(
                f"its maps do not add up to the answer: {100 * self.gap:.0f} % are missing or too "
                "much (the median), so its path wants more steps"
            )
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
    explain.method(method)
    asked = _ask(run, images, of_class)
    controls = functools.partial(Controls.of, run, audit_images, seed) if audited else None
    return _explained(run, asked, method, controls, seed)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Images, as the network is given them, and the class of each that is explained."""

    ids: tuple[str, ...]
    pixels: np.ndarray
    chosen: np.ndarray
    probabilities: np.ndarray


def _ask(run: Run, images: Images, of_class: str | None) -> _Asked:
    _check(run)
    classifier = run.classifier
    _check_class(run, of_class)
    source, ids = source_of(images, classifier.image_shape, run.recipe.data.fit)
    pixels = np.stack([source[i] for i in range(len(source))])
    probabilities = classifier.predict(pixels).probabilities
    chosen = probabilities.argmax(axis=1)
    if of_class is not None:
        chosen = np.full(len(pixels), classifier.classes.index(of_class))
    return _Asked(tuple(ids), pixels, chosen, probabilities[np.arange(len(pixels)), chosen])


def _explained(
    run: Run, asked: _Asked, method: str, controls: Callable[[], Controls] | None, seed: int
) -> Explained:
    """Maps by one method, and its audit where there are controls."""
    environment.enable_compile_cache()
    with numerics(run.recipe.train.precision):
        maps = maps_of(run, method, run.variables, asked.pixels, asked.chosen, seed=seed)
        audit = None if controls is None else audit_method(run, method, controls(), seed=seed)
    return Explained(
        ids=asked.ids,
        images=asked.pixels,
        classes=tuple(run.classifier.classes[k] for k in asked.chosen.tolist()),
        probabilities=asked.probabilities,
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


@dataclass(frozen=True, eq=False)
class Controls:
    """The images of an audit, and what the orders do on them that explain nothing.

    They are the same for every method. Areas are float64 `[N]`; see `explain.Curve`.

    Attributes:
      pixels: as they are kept `[N, H, W, C]`, of the validation part, each class in its share.
      groups: of each, or None.
      target: int `[N]`, the likeliest class of each.
      x: float32 `[N, H, W, C]`, as the network sees them.
      probability: of the targets, of images as the network sees them.
      fresh: variables whose weights are drawn anew.
      random_deletion, random_insertion: areas of a random order.
      random_road: float64 `[N]`, as `explain.road`, of a random order.
      edge_deletion: areas of the order of an edge detector.
      change: float64 `[N]`, the logit of each target less that of the mean image.
    """

    pixels: np.ndarray
    groups: np.ndarray | None
    target: np.ndarray
    x: np.ndarray
    probability: explain.Probability
    fresh: Mapping[str, Any]
    random_deletion: np.ndarray
    random_insertion: np.ndarray
    random_road: np.ndarray
    edge_deletion: np.ndarray
    change: np.ndarray

    @classmethod
    def of(cls, run: Run, images: int = AUDITED, seed: int = 0) -> Controls:
        """From so many validation images of a run, or from all where they are fewer.

        Raises:
          RunError, DataError: as `explain_run`; or fewer than 8 validation images.
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
        target = run.classifier.logits(pixels)[1].argmax(axis=1)
        x = np.asarray(run.classifier.preprocess(jnp.asarray(pixels)))
        key, shape = jax.random.key(run.recipe.seed + 1), tuple(run.dataset.image_shape)
        probability, random = _probability(run, target), explain.random_maps(x, seed)
        return cls(
            pixels=pixels,
            groups=None if split.groups is None else split.groups[rows],
            target=target,
            x=x,
            probability=probability,
            fresh=models.initialize(run.model, key, shape),
            random_deletion=explain.deletion(probability, x, random, seed=seed).area,
            random_insertion=explain.insertion(probability, x, random, seed=seed).area,
            random_road=explain.road(probability, x, random, seed=seed),
            edge_deletion=explain.deletion(probability, x, explain.edges(x), seed=seed).area,
            change=_logits_of(run, x, target) - _logits_of(run, np.zeros_like(x), target),
        )


def audit_method(
    run: Run, method: str, controls: Controls | None = None, *, seed: int = 0
) -> Audit:
    """Audit a method on the network of a run, by images of its validation part.

    Args:
      run: as `explain_run`.
      method: one of `explain.METHODS`.
      controls: of this run and seed; None to take `AUDITED` images.
      seed: of what is drawn.

    Raises:
      RunError, ModelError, DataError: as `explain_run`; or fewer than 8 validation images.
    """
    given = Controls.of(run, seed=seed) if controls is None else controls
    x, probability = given.x, given.probability
    randomisation = explain.randomisation_check(
        lambda variables, x, c: maps_of(run, method, variables, x, c, seed=seed),
        run.variables,
        given.fresh,
        given.pixels,
        given.target,
        _from_the_answer_down(run, tuple(run.dataset.image_shape)),
        groups=given.groups,
        seed=seed,
    )
    maps = maps_of(run, method, run.variables, given.pixels, given.target, seed=seed)
    deleted = explain.deletion(probability, x, maps, seed=seed).area
    inserted = explain.insertion(probability, x, maps, seed=seed).area
    road = explain.road(probability, x, maps, seed=seed)
    paired = functools.partial(explain.paired_gain, groups=given.groups, seed=seed)
    return Audit(
        method=method,
        images=len(given.pixels),
        randomisation=randomisation,
        deletion=paired(given.random_deletion, deleted),
        insertion=paired(inserted, given.random_insertion),
        road=paired(road, given.random_road),
        deletion_edges=paired(given.edge_deletion, deleted),
        gap=_gap(maps, given.change) if explain.METHODS[method].complete else None,
    )


def _gap(maps: np.ndarray, change: np.ndarray) -> float:
    """The median of |sum of a map - change| / |change|."""
    left = np.abs(maps.sum(axis=(1, 2), dtype=np.float64) - change)
    return float(np.median(left / np.maximum(np.abs(change), np.finfo(np.float32).eps)))


def _probability(run: Run, target: np.ndarray) -> explain.Probability:
    """The probability of each image's class, of images as the network sees them."""

    def of(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = softmax(_all_logits(run, x), axis=1)[np.arange(len(x)), target]
        return found

    return of


def _logits_of(run: Run, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float64 `[N]`: of each image's class."""
    found: np.ndarray = _all_logits(run, x)[np.arange(len(x)), target]
    return found


def _all_logits(run: Run, x: np.ndarray) -> np.ndarray:
    """float64 `[N, K]`, of images as the network sees them."""
    model, variables = run.model, run.variables
    found = [
        np.asarray(_answers(model, variables, jnp.asarray(x[i : i + 64], jnp.float32)), np.float64)
        for i in range(0, len(x), 64)
    ]
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _answers(model: nn.Module, variables: Any, x: jax.Array) -> jax.Array:
    return logits_of(model, variables)(x)


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
    of_class: str | None = None,
    audited: bool = True,
    audit_images: int = AUDITED,
    seed: int = 0,
    reporter: Callable[[str], None] = lambda _: None,
) -> tuple[list[Explained], dict[str, str]]:
    """Explain by several methods; those that the network's layers do not allow are told apart.

    Args:
      run, images, of_class, audited, audit_images, seed: as `explain_run`.
      methods: their names.
      reporter: is told which comes next.

    Returns:
      What each method found, and method -> why it was refused.

    Raises:
      RunError, DataError, ModelError: as `explain_run`; every method was refused.
    """
    for name in methods:
        explain.method(name)
    asked = _ask(run, images, of_class)
    once = functools.cache(functools.partial(Controls.of, run, audit_images, seed))
    found, refused = [], {}
    for name in methods:
        reporter(name.replace("_", " "))
        try:
            found.append(_explained(run, asked, name, once if audited else None, seed))
        except ModelError as error:
            refused[name] = str(error)
    if not found:
        raise ModelError(f"{run.shown!r} cannot be explained so: {next(iter(refused.values()))}")
    return found, refused
