"""Whether a method can be trusted on a run's network."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from cnn_jax import explain, models
from cnn_jax.errors import RunError
from cnn_jax.evaluation import Estimate
from cnn_jax.explain.randomisation import Verdict
from cnn_jax.explaining.maps import check_explainable, class_number, logits, maps_of
from cnn_jax.principles.layers import layers, main_layers
from cnn_jax.training.baselines import stratified_subset

if TYPE_CHECKING:
    from cnn_jax.run import Run

AUDITED = 48  # validation images by which a method is audited
FEWEST_AUDITED = 8  # of them
LARGEST_GAP = 0.05  # of a map that has to add up, what may be missing of the sum


@dataclass(frozen=True, eq=False)
class Audit:
    """How far a method can be trusted on one network.

    Gains are positive where the method is better than the control, paired by image.

    Attributes:
      method: its name.
      images: how many validation images.
      of_class: what was explained, on images of this class; None for the class that the network
        holds likeliest, on images of all.
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
    of_class: str | None = None

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
class Controls:
    """The images of an audit, and what the orders do on them that explain nothing.

    They are the same for every method. Areas are float64 `[N]`; see `explain.Curve`.

    Attributes:
      pixels: as they are kept `[N, H, W, C]`, of the validation part, each class in its share.
      groups: of each, or None.
      target: int `[N]`, the class that is explained.
      of_class: see `Audit`.
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
    of_class: str | None
    x: np.ndarray
    probability: explain.Probability
    fresh: Mapping[str, Any]
    random_deletion: np.ndarray
    random_insertion: np.ndarray
    random_road: np.ndarray
    edge_deletion: np.ndarray
    change: np.ndarray

    @classmethod
    def of(
        cls, run: Run, images: int = AUDITED, seed: int = 0, of_class: str | None = None
    ) -> Controls:
        """From so many validation images of a run, or from all where they are fewer.

        Args:
          run: as `explain_run`.
          images: how many, at most.
          seed: of what is drawn.
          of_class: the class to explain, on images of it: elsewhere its probability is too low to
            fall. None, or a class of fewer than 8 images: the likeliest one, on images of all.

        Raises:
          RunError, DataError: as `explain_run`; or fewer than 8 validation images.
        """
        check_explainable(run)
        split = run.dataset.splits.get("validation")
        if split is None or len(split) < FEWEST_AUDITED or images < FEWEST_AUDITED:
            raise RunError(
                f"an audit needs {FEWEST_AUDITED} validation images at least: "
                f"{run.dataset.name!r} has {0 if split is None else len(split)}, and {images} are "
                "wanted; --no-audit does without"
            )
        label = np.asarray(split.targets["label"])
        own = np.flatnonzero(label == (-1 if of_class is None else class_number(run, of_class)))
        if len(own) < FEWEST_AUDITED:
            own, of_class = np.arange(len(label)), None
        rows = own[stratified_subset(label[own], images)]
        pixels = split.read_images(rows)
        target = label[rows]
        if of_class is None:
            target = run.classifier.logits(pixels)[1].argmax(axis=1)
        x = np.asarray(run.classifier.preprocess(jnp.asarray(pixels)))
        key, shape = jax.random.key(run.recipe.seed + 1), tuple(run.dataset.image_shape)
        probability, random = _probability(run, target), explain.random_maps(x, seed)
        return cls(
            pixels=pixels,
            groups=None if split.groups is None else split.groups[rows],
            target=target,
            of_class=of_class,
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
        of_class=given.of_class,
    )


def _gap(maps: np.ndarray, change: np.ndarray) -> float:
    """The median of |sum of a map - change| / |change|."""
    left = np.abs(maps.sum(axis=(1, 2), dtype=np.float64) - change)
    return float(np.median(left / np.maximum(np.abs(change), np.finfo(np.float32).eps)))


def _probability(run: Run, target: np.ndarray) -> explain.Probability:
    """The probability of each image's class, of images as the network sees them."""

    def of(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = softmax(logits(run, x), axis=1)[np.arange(len(x)), target]
        return found

    return of


def _logits_of(run: Run, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float64 `[N]`: of each image's class."""
    found: np.ndarray = logits(run, x)[np.arange(len(x)), target]
    return found


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
