"""From a decision of a run to the page for a clinician."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import environment
from cnn_jax.data import Dataset
from cnn_jax.decision import is_positive
from cnn_jax.decision.threshold import scores
from cnn_jax.errors import CnnJaxError, ModelError, RunError
from cnn_jax.evaluation import (
    Predictions,
    calibration_curve,
    decision_curve,
    precision_recall_curve,
    roc_curve,
)
from cnn_jax.evaluation.intervals import Units, share_of
from cnn_jax.explain import grad_cam, last_maps, occlusion
from cnn_jax.report.clinic import Case, ClinicPage, Subgroup, write
from cnn_jax.report.pictures import viewable
from cnn_jax.run import Run
from cnn_jax.training.devices import numerics

if TYPE_CHECKING:
    from cnn_jax.deciding import Decision

SHOWN_HIGHEST, SHOWN_FAILURES = 24, 12
SHOWN_SUBGROUPS = 20
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


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse to write a page over anything.

    Raises:
      RunError: something is at `path`.
    """
    if os.path.lexists(path):
        raise RunError(f"{str(path)!r} is there already: name another, as in --page OTHER.html")


def write_clinic_page(
    run: Run,
    decision: Decision,
    path: str | os.PathLike[str],
    *,
    command: str = "",
    needs_images: bool = False,
) -> Path:
    """Write the page for a clinician: the decision on test, its curves, cases and model card.

    Args:
      run: a finished run.
      decision: what `deciding.decide` found for it.
      path: of the HTML file.
      command: the shell command that makes the page, shown on it.
      needs_images: raise rather than write a page without pictures.

    Raises:
      RunError: something is at `path`, or it cannot be written; or the images are needed and
        have changed since the run.
      DataError: they are needed and cannot be read.
    """
    check_place(path)
    page = make_clinic_page(run, decision, command=command, needs_images=needs_images)
    try:
        write(page, path)
    except OSError as error:
        raise RunError(f"cannot write {str(path)!r}: {error.strerror}") from error
    return Path(path)


def make_clinic_page(
    run: Run, decision: Decision, *, command: str = "", needs_images: bool = False
) -> ClinicPage:
    """Everything the page shows; arguments and errors as `write_clinic_page`."""
    threshold, info = decision.threshold, run.info
    test = run.predictions("test")
    score = scores(test, threshold.positive, threshold.temperature)
    actual, flagged = is_positive(test, threshold.positive), threshold.flags(test)
    risk = 1 / (1 + np.exp(-np.clip(score, -700, 700)))
    descending = np.argsort(-score, kind="stable")
    shown = (
        descending[:SHOWN_HIGHEST],
        descending[(actual & ~flagged)[descending]][::-1][:SHOWN_FAILURES],
        descending[(flagged & ~actual)[descending]][:SHOWN_FAILURES],
    )
    dataset, pictures_note = _dataset(run, needed=needs_images)
    images: dict[int, np.ndarray] = {}
    if dataset is not None:
        images, pictures_note = _images(dataset, test, np.unique(np.concatenate(shown)),
                                        needed=needs_images)  # fmt: skip
    heat: dict[int, np.ndarray] = {}
    heat_note = ""
    if images:
        heat, heat_note = _heat(run, images, threshold.positive)

    def case(i: int) -> Case:
        return Case(
            id=str(test.ids[i]),
            risk=float(risk[i]),
            truth=_truth(test, threshold.positive, i),
            positive=bool(actual[i]),
            flagged=bool(flagged[i]),
            image=viewable(images[i]) if i in images else None,
            heat=heat.get(i),
        )

    highest, missed, alarms = (tuple(case(i) for i in part.tolist()) for part in shown)
    subgroups, subgroups_note = _subgroups(dataset, test, actual, flagged)
    none_flagged = math.isinf(threshold.log_odds)
    line = f"flagged from a probability of {threshold.probability:.4f} on"
    if threshold.probability == 1:  # rounded: the line itself is in the log odds
        line = f"flagged from log odds of {threshold.log_odds:.2f} on"
    fitted = threshold.fitted_on
    return ClinicPage(
        positive=threshold.positive,
        dataset=info["data"]["name"],
        model=info["model"]["name"].removeprefix("custom:"),
        rule=threshold.rule,
        line="no one is flagged" if none_flagged else line,
        line_probability=None if none_flagged else threshold.probability,
        fitted_on=f"{fitted.n:,} {fitted.split} examples",
        on_validation=decision.on_validation,
        on_test=decision.on_test,
        elsewhere=decision.elsewhere,
        all_negative=decision.all_negative,
        roc=roc_curve(score, actual, test.groups),
        precision_recall=precision_recall_curve(score, actual, test.groups),
        calibration=calibration_curve(risk, actual, test.groups),
        benefit=decision_curve(risk, actual, test.groups),
        highest=highest,
        missed=missed,
        alarms=alarms,
        pictures_note=pictures_note,
        heat_note=heat_note,
        made=_made(run, info, decision),
        intended=_intended(threshold.positive, info["data"]["name"]),
        not_for=_not_for(decision),
        facts=_facts(run, info),
        data_facts=_data_facts(info["data"]),
        notes=tuple(info["data"]["notes"]),
        subgroups=subgroups,
        subgroups_note=subgroups_note,
        test_uses=tuple(run.test_uses),
        command=command,
    )


def _truth(test: Predictions, positive: str, i: int) -> str:
    if test.kind == "multilabel":
        has = test.targets[i, test.classes.index(positive)] > 0.5
        return positive if has else f"not {positive}"
    return test.classes[int(test.labels()[i])]


def _dataset(run: Run, *, needed: bool) -> tuple[Dataset | None, str]:
    try:
        return run.dataset, ""
    except CnnJaxError:
        if needed:
            raise
        return None, "The images could not be read, so there are no pictures."


def _images(
    dataset: Dataset, test: Predictions, chosen: np.ndarray, *, needed: bool
) -> tuple[dict[int, np.ndarray], str]:
    """The chosen test images as the data hold them, by position among the predictions."""
    split = dataset.splits["test"]
    place = {name: i for i, name in enumerate(split.ids.tolist())}
    try:
        images = split.read_images([place[name] for name in test.ids[chosen].tolist()])
    except CnnJaxError:
        if needed:
            raise
        return {}, "The images could not be read, so there are no pictures."
    return dict(zip(chosen.tolist(), images, strict=True)), ""


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


def _subgroups(
    dataset: Dataset | None, test: Predictions, actual: np.ndarray, flagged: np.ndarray
) -> tuple[tuple[Subgroup, ...], str]:
    """The line's shares among each class of every further target of the test part."""
    if dataset is None:
        return (), (
            "The data could not be read, so nothing is known here of how the line does among "
            "parts of the patients."
        )
    split = dataset.splits["test"]
    order = {name: i for i, name in enumerate(split.ids.tolist())}
    rows = np.array([order[name] for name in test.ids.tolist()])
    further = [
        name
        for name, kind in dataset.kinds.items()
        if name != "label" and kind != "soft" and name in split.targets
    ]
    if not further:
        return (), (
            "The data name no further property of a patient or an image, such as age, sex or "
            "device: nothing is known of how the line does among them, and it may do far worse."
        )
    units = Units.of(len(test), test.groups)
    found = []
    for target in further:
        values = split.targets[target][rows]
        for k, name in enumerate(dataset.classes[target]):
            inside = values == k if values.ndim == 1 else values[:, k] > 0.5
            sick, healthy = inside & actual, inside & ~actual
            found.append(
                Subgroup(
                    target=target,
                    name=name,
                    n=int(inside.sum()),
                    sensitivity=share_of(flagged[sick], units, sick) if sick.any() else None,
                    specificity=share_of(~flagged[healthy], units, healthy)
                    if healthy.any()
                    else None,
                )
            )
    found = sorted((group for group in found if group.n), key=lambda group: -group.n)
    note = (
        "What the line does among examples with each further property that the data name. Of "
        "properties that they do not name nothing is known. Small parts have wide intervals, and "
        "of many parts one looks bad by chance."
    )
    if len(found) > SHOWN_SUBGROUPS:
        note += f" Shown are the {SHOWN_SUBGROUPS} largest of {len(found)}."
    return tuple(found[:SHOWN_SUBGROUPS]), note


def _made(run: Run, info: dict[str, Any], decision: Decision) -> tuple[str, ...]:
    parts, selected = info["data"]["parts"], info["selected"]
    chosen = "of all epochs the best on the validation part"
    if selected["rule"] != "best":
        chosen = "the last one"
    sentences = [
        f"Trained on {parts['train']:,} images, {run.recipe.train.epochs:,} epochs planned; "
        f"{info['reason']}.",
        f"The state after epoch {selected['epoch']} was kept: {chosen}.",
        f"Calibrated by one temperature, {decision.threshold.temperature:.3g}, fitted on "
        f"{info['temperature']['n']:,} validation examples: it changes how sure the model is.",
        f"The line was chosen by this rule: {decision.threshold.rule}. It was fitted on "
        f"{decision.threshold.fitted_on.n:,} {decision.threshold.fitted_on.split} examples; no "
        "test example was used for it.",
    ]
    return tuple(sentences)


def _intended(positive: str, dataset: str) -> tuple[str, ...]:
    return (
        f"Research on recognising {positive} in images like those of {dataset}: to compare "
        "methods, to plan a study, to teach.",
        "To be read by a person who knows the data and what was left out of them.",
    )


def _not_for(decision: Decision) -> tuple[str, ...]:
    counts = decision.on_test.counts
    share = 100 * (counts[0] + counts[2]) / sum(counts)
    return (
        "Diagnosis, triage, treatment, or any other decision on a patient.",
        "Images from elsewhere: it was tested on the test part of this data set and never "
        "validated on other hospitals, devices or populations.",
        f"Figures beyond those here: they hold for images like the {sum(counts):,} of the test "
        f"part, of which {share:.1f} % have it, and for labels made as theirs were.",
        "Showing where a disease is: heat maps were checked by no physician.",
    )


def _facts(run: Run, info: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    model, where = info["model"], info["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    facts = [
        ("model", model["name"].removeprefix("custom:")),
        ("parameters", f"{model['parameters']:,}"),
        ("run", run.path.name),
        ("run digest", info.get("digest", "")),
        ("seed", str(info["seed"])),
        ("precision", f"{run.recipe.train.dtype}, matrix products {run.recipe.train.precision}"),
        ("hardware", where["hardware"]),
        ("versions", versions),
        ("commit", where["commit"]),
        ("began", info["started"]),
    ]
    return tuple((name, value) for name, value in facts if value)


def _data_facts(data: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = [
        ("name", data["name"]),
        ("parts", ", ".join(f"{n:,} {name}" for name, n in data["parts"].items())),
        ("images", "×".join(map(str, data["image_shape"]))),
        ("classes", ", ".join(data["classes"])),
        ("licence", data["licence"] or "none stated"),
        ("source", data["citation"] or "none stated"),
        ("digest", data["digest"]),
    ]
    return tuple(facts)
