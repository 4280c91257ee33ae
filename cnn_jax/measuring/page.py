"""From a run to the page of the principles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn_jax import environment
from cnn_jax.errors import RunError
from cnn_jax.measuring.learning import learning_of
from cnn_jax.measuring.moving import translation_of
from cnn_jax.measuring.representing import hierarchy_of
from cnn_jax.measuring.seeing import fields_of, sharing_of
from cnn_jax.measuring.subject import Subject
from cnn_jax.report import principles
from cnn_jax.report.markup import Markup
from cnn_jax.report.principles import render
from cnn_jax.report.principles_parts import PrinciplesPage
from cnn_jax.report.render import Shown
from cnn_jax.run import Run
from cnn_jax.training.devices import numerics
from cnn_jax.whole_files import write_whole

IMAGES, TRAIN_IMAGES = 256, 1000


def measure(
    run: Run,
    *,
    beside: Run | None = None,
    images: int = IMAGES,
    train_images: int = TRAIN_IMAGES,
    command: str = "cnn_jax.measuring.measure",
    reporter: Callable[[str], None] = lambda _: None,
) -> PrinciplesPage:
    """Measure what is said of convolutional networks on one of them.

    Args:
      run: finished, of one class for each two-dimensional image.
      beside: another run of the same image shape, whose layers are compared with its own; None
        compares its layers with each other.
      images: at most so many test images are looked at, and so many of validation.
      train_images: at most so many train images, from which linear probes learn.
      command: shown on the page, and written down as what looked at test.
      reporter: is told what is measured next.

    Raises:
      RunError: see `Subject.of`; or images of `beside` have another shape.
      DataError: the images cannot be read.
    """
    environment.enable_compile_cache()
    with numerics(run.recipe.train.precision):
        subject = Subject.of(run, images=images, train_images=train_images)
        other = None
        if beside is not None:
            if tuple(beside.info["data"]["image_shape"]) != subject.image_shape:
                raise RunError(
                    f"{beside.shown!r} takes images {list(beside.info['data']['image_shape'])}, "
                    f"{run.shown!r} {list(subject.image_shape)}: their layers cannot be compared"
                )
            other = Subject.of(beside, images=8, train_images=8)
        run.log_use("test", len(subject.test[0]), command)
        reporter("what convolutions share")
        shared = sharing_of(subject)
        reporter("shifts and turns")
        translation = translation_of(subject)
        reporter("receptive fields")
        fields = fields_of(subject)
        reporter("what layers represent")
        hierarchy = hierarchy_of(subject, other)
        reporter("activity and gradients")
        learning = learning_of(subject)
    info = run.info
    return PrinciplesPage(
        dataset=info["data"]["name"],
        model=info["model"]["name"].removeprefix("custom:"),
        headline=f"{_capital(run.summary())}. What convolutional networks are said to do, "
        "measured on this one.",
        sharing=shared,
        translation=translation,
        fields=fields,
        hierarchy=hierarchy,
        learning=learning,
        facts=[
            ("run", run.shown),
            ("test images", f"{len(subject.test[0]):,}"),
            ("train images", f"{len(subject.train[0]):,}"),
            ("validation images", f"{len(subject.validation[0]):,}"),
            ("layers", ", ".join(layer.path for layer in subject.main)),
        ],
        command=command,
    )


def show(page: PrinciplesPage, part: str) -> Shown:
    """One part of the page for a notebook, which displays it.

    Args:
      page: what `measure` found.
      part: `sharing`, `translation`, `fields`, `hierarchy`, `units` or `learning`.

    Raises:
      RunError: there is no such part.
    """
    parts: dict[str, tuple[Callable[..., Markup], Any, int]] = {
        "sharing": (principles.sharing, page.sharing, 560),
        "translation": (principles.translation, page.translation, 1000),
        "fields": (principles.fields, page.fields, 640),
        "hierarchy": (principles.hierarchy, page.hierarchy, 900),
        "units": (principles.units, page.hierarchy.units, 760),
        "learning": (principles.learning, page.learning, 760),
    }
    if part not in parts:
        raise RunError(f"no part {part!r}: choose one of {', '.join(parts)}")
    section, of, height = parts[part]
    return Shown(part, section(of), height)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def write_principles_page(page: PrinciplesPage, path: str | os.PathLike[str]) -> Path:
    """Write the page as HTML; it appears whole or not at all.

    Raises:
      RunError: it cannot be written.
    """
    try:
        write_whole(path, render(page))
    except OSError as error:
        raise RunError(f"cannot write {str(path)!r}: {error.strerror}") from error
    return Path(path)
