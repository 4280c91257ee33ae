"""From a decision of a run to the page for a clinician."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.clinic_pictures import case_pictures
from cnn_jax.data import Dataset
from cnn_jax.data.known import known_set
from cnn_jax.decision import is_positive
from cnn_jax.decision.threshold import scores
from cnn_jax.errors import CnnJaxError, RunError
from cnn_jax.evaluation import (
    Predictions,
    calibration_curve,
    decision_curve,
    precision_recall_curve,
    roc_curve,
)
from cnn_jax.evaluation.intervals import Units, share_of
from cnn_jax.report.clinic import Case, ClinicPage, Subgroup, write
from cnn_jax.run import Run

if TYPE_CHECKING:
    from cnn_jax.deciding import Decision

SHOWN_HIGHEST, SHOWN_FAILURES = 24, 12
SHOWN_SUBGROUPS = 20


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
    test = decision.test
    score = scores(test, threshold.positive, threshold.temperature)
    actual, flagged = is_positive(test, threshold.positive), threshold.flags(test)
    risk = 1 / (1 + np.exp(-np.clip(score, -700, 700)))
    descending = np.argsort(-score, kind="stable")
    shown = (
        descending[:SHOWN_HIGHEST],
        descending[(actual & ~flagged)[descending]][::-1][:SHOWN_FAILURES],
        descending[(flagged & ~actual)[descending]][:SHOWN_FAILURES],
    )
    dataset = _dataset(run, needed=needs_images)
    pictures = case_pictures(
        run,
        dataset,
        test.ids,
        np.unique(np.concatenate(shown)),
        threshold.positive,
        needed=needs_images,
    )

    def case(i: int) -> Case:
        return Case(
            id=str(test.ids[i]),
            risk=float(risk[i]),
            truth=_truth(test, threshold.positive, i),
            positive=bool(actual[i]),
            flagged=bool(flagged[i]),
            image=pictures.images.get(i),
            heat=pictures.heat.get(i),
            given=pictures.given.get(i),
            marked=pictures.marked.get(i),
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
        pictures_note=pictures.missing,
        heat_note=pictures.legend,
        made=_made(run, info, decision),
        intended=_intended(threshold.positive, info["data"]["name"]),
        not_for=_not_for(decision, segments=bool(run.regions)),
        facts=_facts(run, info),
        data_facts=_data_facts(info["data"]),
        notes=(*info["data"]["notes"], *_ungrouped(run, test)),
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


def _ungrouped(run: Run, test: Predictions) -> tuple[str, ...]:
    """A note where nobody has said which images are of one patient, of data not known by name."""
    if known_set(run.info["data"]["name"]) is not None:
        return ()  # what is known of it is among its notes
    # Where copies alone have made groups, an image without one is a group named by its id.
    if test.groups is not None and not np.isin(test.groups, test.ids).any():
        return ()
    return (
        "No groups were given: if a patient has several images, test images may be of patients "
        "with other images in train, and figures on test are then optimistic.",
    )


def _dataset(run: Run, *, needed: bool) -> Dataset | None:
    try:
        return run.dataset
    except CnnJaxError:
        if needed:
            raise
        return None


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
    # The class is a property like others where not it but a region of the image is looked for.
    truth = () if dataset.regions and len(dataset.classes["label"]) > 1 else ("label",)
    further = [
        name
        for name, kind in dataset.kinds.items()
        if name not in truth and kind != "soft" and name in split.targets
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
    threshold = decision.threshold
    fitted = f"{threshold.fitted_on.n:,} {threshold.fitted_on.split} examples"
    sentences = [
        f"Trained on {parts['train']:,} images, {run.recipe.train.epochs:,} epochs planned; "
        f"{info['reason']}.",
        f"The state after epoch {selected['epoch']} was kept: {chosen}.",
        f"Calibrated by one temperature, {threshold.temperature:.3g}, fitted on {fitted}: it "
        "changes how sure the model is.",
        f"The line was chosen by this rule: {threshold.rule}. It was fitted on {fitted}; no test "
        "example was used for it.",
    ]
    if run.regions:
        sentences.insert(
            2,
            f"It marks pixels: the risk of an image is the highest probability of "
            f"{threshold.positive} at any of them, and an image has it where the reference marks "
            "any.",
        )
    return tuple(sentences)


def _intended(positive: str, dataset: str) -> tuple[str, ...]:
    return (
        f"Research on recognising {positive} in images like those of {dataset}: to compare "
        "methods, to plan a study, to teach.",
        "To be read by a person who knows the data and what was left out of them.",
    )


def _not_for(decision: Decision, *, segments: bool) -> tuple[str, ...]:
    counts = decision.on_test.counts
    share = 100 * (counts[0] + counts[2]) / sum(counts)
    shown = "the network's outlines" if segments else "heat maps"
    return (
        "Diagnosis, triage, treatment, or any other decision on a patient.",
        "Images from elsewhere: it was tested on the test part of this data set and never "
        "validated on other hospitals, devices or populations.",
        f"Figures beyond those here: they hold for images like the {sum(counts):,} of the test "
        f"part, of which {share:.1f} % have it, and for labels made as theirs were.",
        f"Showing where a disease is: {shown} were checked by no physician.",
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
