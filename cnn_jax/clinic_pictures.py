"""The pictures of a clinician's page: images, heat maps, and outlines of what is marked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import environment
from cnn_jax.data import Dataset, original_masks
from cnn_jax.errors import CnnJaxError, ModelError
from cnn_jax.explain import grad_cam, last_maps, occlusion
from cnn_jax.report.pictures import fullest_slice, viewable
from cnn_jax.run import Run
from cnn_jax.training.devices import numerics

_AT_ONCE = 8  # images whose heat maps are made in one call; fixed, so that it compiles once

_HEAT = {
    "grad-cam": (
        "Beside each image its heat map (Grad-CAM of {positive}): orange to yellow is where the "
        "network's last maps speak for that class; what speaks against it is not shown."
    ),
    "occlusion": (
        "Beside each image its heat map (occlusion): orange to yellow is where covering a "
        "square lowers the network's answer of {positive}; where it raises it nothing is shown."
    ),
}
_OWN_SCALE = (
    "Each map has its own scale, so that they do not compare in strength. They show what the "
    "network answers to, which need not be where a disease is."
)
_REFERENCE = (
    "Blue is the outline of the reference, which lies beside the images: the network never saw it."
)
_OUTLINES = (
    "Beside each image its outlines: blue is what the reference marks as {positive}, orange what "
    "the network does. The risk is that of the most suspicious pixel, so that an image may be "
    "flagged though nothing is outlined."
)


@dataclass(frozen=True, eq=False)
class CasePictures:
    """What is shown of some test examples, by their positions among the predictions.

    Attributes:
      images: uint8 `[H, W, C]`.
      heat: float32 `[H, W]`, 0 or more, of a network that classifies.
      given, marked: uint8 `[H, W]`: the masks of the reference and, of a network that segments, of
        what it marks.
      missing: why something is missing; or empty.
      legend: what the second picture of a case shows; or empty.
    """

    images: dict[int, np.ndarray] = field(default_factory=dict)
    heat: dict[int, np.ndarray] = field(default_factory=dict)
    given: dict[int, np.ndarray] = field(default_factory=dict)
    marked: dict[int, np.ndarray] = field(default_factory=dict)
    missing: str = ""
    legend: str = ""


def case_pictures(
    run: Run,
    dataset: Dataset | None,
    ids: np.ndarray,
    chosen: np.ndarray,
    positive: str,
    *,
    needed: bool,
) -> CasePictures:
    """The pictures of some test examples.

    Args:
      run: a finished run.
      dataset: its data, or None if they cannot be read.
      ids: str `[N]`, of the test predictions.
      chosen: int `[M]`, positions among them.
      positive: the class or region that is looked for.
      needed: raise where the images cannot be read.

    Raises:
      CnnJaxError: the images are needed and cannot be read.
    """
    unread = CasePictures(missing="The images could not be read, so there are no pictures.")
    if dataset is None:
        return unread
    split = dataset.splits["test"]
    place = {name: i for i, name in enumerate(split.ids.tolist())}
    try:
        pixels = split.read_images([place[name] for name in ids[chosen].tolist()])
    except CnnJaxError:
        if needed:
            raise
        return unread
    images = dict(zip(chosen.tolist(), pixels, strict=True))
    if run.regions:
        return _outlined(run, images, positive)
    heat, legend = _heat(run, images, positive)
    given, missing = _reference(run, ids, images)
    return CasePictures(
        images={i: viewable(image) for i, image in images.items()},
        heat=heat,
        given=given,
        missing=missing,
        legend=" ".join([legend, *([_REFERENCE] if any(map(np.any, given.values())) else [])]),
    )


def _outlined(run: Run, images: dict[int, np.ndarray], positive: str) -> CasePictures:
    """Images with both masks of the region that is looked for; of a volume its fullest slice."""
    region, rows = run.regions.index(positive), list(images)
    test = run.masks("test").take(np.array(rows, np.int64))
    given = dict(zip(rows, (test.masks == region).astype(np.uint8), strict=True))
    marked = dict(zip(rows, (test.predicted() == region).astype(np.uint8), strict=True))
    for i in rows:
        if images[i].ndim == 4:
            slice_ = fullest_slice(given[i], marked[i])
            images[i], given[i], marked[i] = (x[i][slice_] for x in (images, given, marked))
    return CasePictures(
        images={i: viewable(image) for i, image in images.items()},
        given=given,
        marked=marked,
        legend=_OUTLINES.format(positive=positive),
    )


def _reference(
    run: Run, ids: np.ndarray, images: dict[int, np.ndarray]
) -> tuple[dict[int, np.ndarray], str]:
    """The masks beside the images of a network that classifies, and why there are none."""
    data = run.recipe_here.data
    if data.source.startswith("custom:") or next(iter(images.values())).ndim != 3:
        return {}, ""
    names = {i: str(ids[i]) for i in images}
    shape = next(iter(images.values())).shape[:2]
    try:
        found = original_masks(data.source, names.values(), shape, data_dir=data.root, fit=data.fit)
    except CnnJaxError as error:
        return {}, f"The masks beside the images could not be read: {error}."
    return {i: found[name] for i, name in names.items() if name in found}, ""


def _heat(
    run: Run, images: dict[int, np.ndarray], positive: str
) -> tuple[dict[int, np.ndarray], str]:
    """Heat maps float32 `[H, W]` for the positive class, and what they are, in words."""
    pixels = np.stack(list(images.values()))
    if pixels.ndim != 4:
        return {}, "There are no heat maps of volumes."
    try:
        classifier = run.classifier
    except CnnJaxError:
        return {}, "The network could not be loaded, so there are no heat maps."
    environment.enable_compile_cache()
    model, variables = classifier.model, dict(classifier.variables)
    target = jnp.full(_AT_ONCE, classifier.classes.index(positive), jnp.int32)
    some: Any = jax.ShapeDtypeStruct((_AT_ONCE, *pixels.shape[1:]), jnp.float32)
    try:
        at: str | None = last_maps(model, variables, some)
    except ModelError:
        at = None

    @jax.jit
    def maps(variables: Any, image: jax.Array) -> jax.Array:
        x = classifier.preprocess(image)
        if at is not None:
            return grad_cam(model, variables, x, target, at=at)
        side = max(1, min(x.shape[1:3]) // 4)
        heat = occlusion(
            lambda covered: _logits(model.apply(variables, covered)),
            x,
            target,
            side=side,
            stride=max(1, side // 2),
        )
        return jax.nn.relu(heat)

    found = []
    with numerics(run.recipe.train.precision):
        for start in range(0, len(pixels), _AT_ONCE):
            part = pixels[start : start + _AT_ONCE]
            full = np.resize(part, (_AT_ONCE, *part.shape[1:]))
            found += list(np.asarray(maps(variables, full))[: len(part)])
    heat = dict(zip(images, found, strict=True))
    # A network that overflows has no map to draw; what is left is still right.
    heat = {i: one for i, one in heat.items() if np.isfinite(one).all()}
    words = _HEAT["occlusion" if at is None else "grad-cam"].format(positive=positive)
    return heat, f"{words} {_OWN_SCALE}"


def _logits(outputs: Any) -> jax.Array:
    return outputs["logits"] if isinstance(outputs, dict) else outputs
