"""From a run folder to its page."""

from __future__ import annotations

import functools
import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.traverse_util
import numpy as np

from cnn_jax.data.known import CANNOT_BE_TOLD
from cnn_jax.errors import CnnJaxError, DataError, RunError
from cnn_jax.evaluation import (
    EMPTY_POLICY,
    Estimate,
    Fate,
    Predictions,
    case_figures,
    classification_metrics,
    compare_segmentations,
    confusion_matrix,
    paired_difference,
    per_class,
    reliability,
    segmentation_metrics,
)
from cnn_jax.recognition_page import headline_of_people, of_unseen_people
from cnn_jax.report import (
    Baseline,
    ConfusedClasses,
    ErrorsOfClass,
    HardExample,
    MaskCase,
    Page,
    write,
)
from cnn_jax.report.hardest import (
    SHOWN_CLASSES,
    SHOWN_CONFUSIONS,
    SHOWN_EXAMPLES,
    SHOWN_OF_CLASS,
    SHOWN_OF_CONFUSION,
)
from cnn_jax.report.pictures import fullest_slice, viewable

if TYPE_CHECKING:
    from cnn_jax.run import Run

_CLOSE = 0.05  # a baseline within so much of the model needs an explanation

# What notes of the data say of test images that the network may have learned from, and how the
# sentence below the headline says it.
_KEPT = re.compile(r"(\d+) of \d+ test images equal a train or validation image and were kept")
_SHARED = re.compile(
    r"(\d+) of \d+ test images share (?:a group|one of \d+ groups) with a (train|validation) image"
)
_UNTOLD = re.compile(rf"(\w+) {CANNOT_BE_TOLD}")


def write_page(run: Run, *, needs_images: bool = False) -> Path:
    """Write report.html from what the run folder holds.

    A run that did not finish gets a page too, without figures.

    Args:
      run: a run.
      needs_images: raise rather than write a page without pictures.

    Raises:
      DataError: the images are needed and cannot be read; the page is left as it was.
      RunError: they are needed and have changed since the run; the same.
    """
    path = run.path / "report.html"
    write(make_page(run, needs_images=needs_images), path)
    return path


def rewrite_page(run: Run, *, moved: bool) -> Path:
    """Write report.html again, but never a page without pictures over one that is there.

    Args:
      run: a run.
      moved: the caller said where the data are, so they must be there.

    Raises:
      DataError: the images cannot be read.
      RunError: they have changed since the run.
    """
    try:
        return write_page(run, needs_images=moved or (run.path / "report.html").exists())
    except (DataError, RunError) as error:
        source = run.recipe.data.source
        if moved or source.startswith("custom:"):
            raise
        raise type(error)(
            f"'{run.shown}/report.html' is left as it was, because its images, looked for as "
            f"{source!r}, are not to be had: {error}. Give --data PATH if they are elsewhere"
        ) from error


def make_page(run: Run, *, needs_images: bool = False) -> Page:
    """Everything the page shows; `needs_images` and errors as for `write_page`."""
    info = run.info
    rates = run.images_per_second
    history = tuple(
        {**row, "images_per_second": rates.get(int(row["epoch"]))} for row in run.history
    )
    page = functools.partial(
        Page,
        dataset=info["data"]["name"],
        model=info["model"]["name"].removeprefix("custom:"),
        history=history,
        ended=info.get("reason", ""),
        throughput=float(np.median(list(rates.values()))) if rates else None,
        classes=tuple(info["data"]["classes"]),
        facts=_facts(run, info),
        notes=tuple(info["data"]["notes"]),
        test_uses=tuple(run.test_uses),
        command=info["command"],
    )
    if "selected" not in info:
        return page()
    metrics, end = run.metrics, info["end"]
    name, headline = next(iter(metrics["test"].items()))
    of_task = _of_masks if run.regions else _of_classes
    if run.recognises:
        of_task = _of_people
    headline_name = f"test {name.replace('_', ' ')}"
    sentence = _sentence(headline, info["data"]["notes"])
    if run.recognises:
        headline_name, sentence = headline_of_people(run, headline)
    return page(
        headline_name=headline_name,
        headline=headline,
        sentence=sentence,
        figures=tuple(
            (f"{part} {key.replace('_', ' ')}", estimate)
            for part in ("test", "validation")
            for key, estimate in metrics[part].items()
        ),
        gradient_norm=end["gradient_norm"],
        accuracy_gap=end["gap"],
        filters=_first_kernel(run.variables["params"], info["data"]["image_shape"][-1]),
        **{"train_accuracy": end["train_accuracy"], **of_task(run, needs_images=needs_images)},
    )


def _of_classes(run: Run, *, needs_images: bool) -> dict[str, Any]:
    """What the page says of a network that classifies."""
    test, temperature = run.predictions("test"), run.temperature
    baselines = _baselines(run, test)
    hard = test.kind == "class"  # one true class each, so that they can be counted
    return dict(
        baselines=baselines,
        baselines_note=_baselines_note(baselines),
        confusion=confusion_matrix(test) if hard else None,
        class_rows=per_class(test) if test.kind != "soft" else (),
        reliability=reliability(test) if hard else None,
        ece=run.metrics["test"].get("ece"),
        reliability_after=reliability(test, temperature=temperature) if hard else None,
        ece_after=classification_metrics(test, temperature=temperature).get("ece"),
        temperature=temperature,
        **_examples(run, Fate.of(test, temperature), needs_images=needs_images),
    )


def _of_masks(run: Run, *, needs_images: bool) -> dict[str, Any]:
    """What the page says of a network that segments."""
    test = run.masks("test")
    baselines = tuple(
        Baseline(
            f"{name} on pixels",
            segmentation_metrics(other)["dice"],
            compare_segmentations(test, other, "dice"),
            note,
        )
        for name, note in run.info.get("baselines", {}).items()
        for other in [run.masks(f"{name}-test")]
    )
    dice = case_figures(test).dice
    worst = np.argsort(dice, kind="stable")[:SHOWN_EXAMPLES]
    images = _pictures(run, worst, needed=needs_images)
    cases = []
    for i, found in zip(worst.tolist(), test.take(worst).predicted(), strict=True):
        given = test.masks[i]
        if given.ndim == 3:  # of a volume the slice in which most is marked, given or found
            slice_ = fullest_slice(given, found)
            given, found = given[slice_], found[slice_]
            if i in images:
                images[i] = images[i][slice_]
        image = viewable(images[i]) if i in images else None
        cases.append(MaskCase(str(test.ids[i]), float(dice[i]), given, found, image))
    return {
        "measure": "Dice",
        "mask_cases": tuple(cases),
        "baselines": baselines,
        "baselines_note": _baselines_note(baselines),
        "policy": EMPTY_POLICY,
    }


def _of_people(run: Run, *, needs_images: bool) -> dict[str, Any]:
    """What the page says of a network that recognises people it has not seen."""

    def pictures(indices: np.ndarray) -> dict[int, np.ndarray]:
        return _pictures(run, indices, needed=needs_images)

    return of_unseen_people(run, pictures)


def _sentence(headline: Estimate, notes: list[str]) -> str:
    resampled = {"example": "images", "group": "groups of images", "seed": "seeds"}[headline.unit]
    return (
        f"On {headline.n:,} images{_seen(notes)}. Of intervals made like this one, "
        f"{100 * headline.level:g} in 100 hold the figure that endlessly many such images would "
        f"give ({headline.method}, over {resampled}); what another seed would change is not in it."
    )


def _seen(notes: list[str]) -> str:
    """Whether the network had seen the test images or their like, from the notes of the data."""
    leaks, untold = [], ""
    for note in notes:
        if of := _UNTOLD.match(note):
            what = of[1].lower()
            untold = f"some perhaps of {what} with other images in train ({what} {CANNOT_BE_TOLD})"
        elif kept := _KEPT.match(note):
            count = int(kept[1])
            verb = "is" if count == 1 else "are"
            leaks.append(f"{count:,} of which {verb} also in train or validation (kept on demand)")
        elif shared := _SHARED.search(note):
            count = int(shared[1])
            verb = "shares" if count == 1 else "share"
            leaks.append(f"{count:,} of which {verb} a group with a {shared[2]} image")
    seen = f", {' and '.join(leaks)}" if leaks else " the network had not seen"
    if untold:
        seen += f", {untold}"
    return f"{seen}: the figure is optimistic" if leaks or untold else seen


def _baselines(run: Run, test: Predictions) -> tuple[Baseline, ...]:
    rows = []
    for name, note in run.info.get("baselines", {}).items():
        other = run.predictions(f"{name}-test")
        figures = classification_metrics(other)
        key = next(iter(figures))
        difference = None if key != "accuracy" else paired_difference(test, other, key)
        rows.append(Baseline(f"{name} on pixels", figures[key], difference, note))
    return tuple(rows)


def _baselines_note(baselines: tuple[Baseline, ...]) -> str:
    close = [b.name for b in baselines if b.difference is not None and b.difference.value < _CLOSE]
    if not close:
        return ""
    return (
        f"{' and '.join(close)} come{'s' if len(close) == 1 else ''} within five points of the "
        "network: the set is easy, or test images resemble training images too closely. "
        "Small, centred, evenly lit pictures are easy; copies and neighbours across the parts "
        "are a leak."
    )


def _examples(run: Run, fate: Fate, *, needs_images: bool) -> dict[str, Any]:
    """The hardest and the confused examples, those of each class, with pictures if there are."""
    hardest, by_class = fate.hardest(SHOWN_EXAMPLES), fate.errors_by_class()
    confusions = fate.confusions(SHOWN_CONFUSIONS)
    pictured = [row.examples[:SHOWN_OF_CLASS] for row in by_class[:SHOWN_CLASSES]]
    for row in confusions:
        pictured += [row.examples[:SHOWN_OF_CONFUSION], row.clearest[:SHOWN_OF_CONFUSION]]
    indices = np.unique(np.concatenate([hardest, *pictured]))
    images = _pictures(run, indices, needed=needs_images)

    def shown(indices: np.ndarray) -> tuple[HardExample, ...]:
        return tuple(
            HardExample(
                id=str(fate.ids[i]),
                given=fate.given_name(i),
                predicted=fate.predicted_name(i),
                p_given=float(fate.p_given[i]),
                p_predicted=float(fate.p_predicted[i]),
                loss=float(fate.loss[i]),
                image=viewable(images[i]) if i in images else None,
            )
            for i in indices.tolist()
        )

    return {
        "hardest": shown(hardest),
        "errors_by_class": tuple(
            ErrorsOfClass(
                row.name,
                row.support,
                len(row.examples),
                row.taken_for,
                shown(row.examples[:SHOWN_OF_CLASS]),
            )
            for row in by_class
        ),
        "confused": tuple(
            ConfusedClasses(
                row.given,
                row.predicted,
                len(row.examples),
                row.support,
                shown(row.examples[:SHOWN_OF_CONFUSION]),
                shown(row.clearest[:SHOWN_OF_CONFUSION]),
            )
            for row in confusions
        ),
    }


def _pictures(run: Run, indices: np.ndarray, *, needed: bool) -> dict[int, np.ndarray]:
    try:
        images = run.dataset.splits["test"].read_images(indices)
    except CnnJaxError:
        if needed:
            raise
        return {}  # the data are gone or were the user's arrays; the page says so
    return {int(i): image for i, image in zip(indices, images, strict=True)}


def _first_kernel(params: Any, channels: int) -> np.ndarray | None:
    """The largest 2-D kernel that takes as many channels as an image has: the first layer's."""
    leaves = flax.traverse_util.flatten_dict(dict(params)).values()
    first = [leaf for leaf in leaves if leaf.ndim == 4 and leaf.shape[2] == channels]
    return np.asarray(max(first, key=np.size), np.float32) if first else None


def _facts(run: Run, info: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    data, model, where = info["data"], info["model"], info["environment"]
    parts = ", ".join(f"{n:,} {name}" for name, n in data["parts"].items())
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    facts = [
        ("images", f"{parts}; {'×'.join(map(str, data['image_shape']))}"),
        ("data digest", data["digest"]),
        ("licence", data["licence"]),
        ("source", data["citation"]),
        ("parameters", f"{model['parameters']:,}"),
        ("FLOPs", f"{model['flops']:,} a forward pass of one image"),
        ("seed", str(info["seed"])),
        ("precision", f"{run.recipe.train.dtype}, matrix products {run.recipe.train.precision}"),
        ("hardware", where["hardware"]),
        ("versions", versions),
        ("commit", where["commit"]),
        ("began", info["started"]),
        ("took", f"{info['seconds']:,.0f} s" if "seconds" in info else ""),
    ]
    return tuple((name, value) for name, value in facts if value)


def summary_html(run: Run) -> str:
    """One screen for a notebook: the headline, the figures, where the page is."""
    figures = run.metrics.get("test", {})
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(name.replace('_', ' '))}</td>"
        f"<td style='text-align:left'>{html.escape(str(estimate))}</td></tr>"
        for name, estimate in figures.items()
    )
    title = html.escape(run.summary())
    state = html.escape(f"{run.status}: {run.info.get('reason', '')}")
    return (
        f"<h3>{title}</h3><p>{state}</p><table>{rows}</table>"
        f"<p>page: <code>{html.escape(str(run.path / 'report.html'))}</code></p>"
    )
