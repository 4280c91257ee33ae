"""Explaining a run's answers for new images, with the audit of the method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax import environment, explain
from cnn_jax.errors import ModelError
from cnn_jax.explaining.audit import AUDITED, Audit, Controls, audit_method
from cnn_jax.explaining.maps import check_explainable, class_number, maps_of
from cnn_jax.new_images import source_of
from cnn_jax.training.devices import numerics

if TYPE_CHECKING:
    from cnn_jax.new_images import Images
    from cnn_jax.run import Run


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
      of_class: the class that was asked for; None for the likeliest of each image.
    """

    ids: tuple[str, ...]
    images: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray
    maps: np.ndarray
    method: str
    audit: Audit | None
    of_class: str | None = None

    @property
    def audited_otherwise(self) -> bool:
        """Whether too few images were of the class that was asked for, to audit its maps."""
        return self.audit is not None and self.audit.of_class != self.of_class

    def __repr__(self) -> str:
        said = "not audited"
        if self.audit is not None:
            said = "; ".join(self.audit.failures) or "passed its audit"
            if self.audited_otherwise:
                said += f", which is not of {self.of_class!r}: too few images"
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
    controls = functools.partial(Controls.of, run, audit_images, seed, of_class)
    return _explained(run, asked, method, controls if audited else None, seed)


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
    once = functools.cache(functools.partial(Controls.of, run, audit_images, seed, of_class))
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


@dataclass(frozen=True, eq=False)
class _Asked:
    """Images, as the network is given them, and the class of each that is explained."""

    ids: tuple[str, ...]
    pixels: np.ndarray
    chosen: np.ndarray
    probabilities: np.ndarray
    of_class: str | None


def _ask(run: Run, images: Images, of_class: str | None) -> _Asked:
    check_explainable(run)
    classifier = run.classifier
    number = None if of_class is None else class_number(run, of_class)
    source, ids = source_of(images, classifier.image_shape, run.recipe.data.fit)
    pixels = np.stack([source[i] for i in range(len(source))])
    probabilities = classifier.predict(pixels).probabilities
    chosen = probabilities.argmax(axis=1)
    if number is not None:
        chosen = np.full(len(pixels), number)
    probability = probabilities[np.arange(len(pixels)), chosen]
    return _Asked(tuple(ids), pixels, chosen, probability, of_class)


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
        of_class=asked.of_class,
    )
