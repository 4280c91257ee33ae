"""What the page of a run says that recognises people never seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.data import Dataset
from cnn_jax.decision import fit_threshold_far
from cnn_jax.errors import CnnJaxError, EvaluationError
from cnn_jax.evaluation import (
    CalibrationPairScores,
    EmbeddingPredictions,
    Estimate,
    PairScores,
    SubgroupRow,
    error_curve,
    leave_one_out,
    paired_difference,
    people_pairs,
    ranks,
    recognition_metrics,
    recognition_pairs,
    unit_embeddings,
    verification_by_subgroup,
    verification_rates,
)
from cnn_jax.report import Baseline
from cnn_jax.report.pictures import viewable
from cnn_jax.report.recognition import SHOWN_PAIRS, PairShown, PersonErrors, UnseenPeople

if TYPE_CHECKING:
    from cnn_jax.run import Run

# Of these the least that the validation people can show.
_FARS = (0.001, 0.01, 0.1)
# Where they can show none of them, a line without a bound.
_PLAIN_FAR = 0.01
_MAPPED = 2_000  # images

# Positions in the test part -> their images, of those that can be read.
Pictures = Callable[[np.ndarray], dict[int, np.ndarray]]


def headline_of_people(run: Run, eer: Estimate) -> tuple[str, str]:
    """What the headline figure is called, and what it means."""
    test = run.embeddings("test")
    people = len(np.unique(test.subjects))
    return "equal error rate on test people", (
        f"On {eer.n:,} pairs of {len(test):,} images of {people:,} people, none of whom the "
        "network had seen: at the threshold that wrongly accepts as large a share of the pairs of "
        f"two people as it wrongly rejects of those of one, it is that share. {100 * eer.level:g} "
        "in 100 intervals made like this one hold the figure of endlessly many such people "
        f"({eer.method}); what another seed, or other people to learn from, would change is not "
        "in it."
    )


def of_unseen_people(run: Run, pictures: Pictures) -> dict[str, Any]:
    """The fields of `report.Page` that only such a run has.

    Args:
      run: finished, with saved embeddings.
      pictures: reads test images.
    """
    test = run.embeddings("test")
    pairs = recognition_pairs(test)
    threshold, chosen = threshold_of(recognition_pairs(run.embeddings("validation")))
    baselines = tuple(
        Baseline(
            name,
            recognition_metrics(other)["eer"],
            paired_difference(test, other, "eer"),
            f"{note} Of the equal error rate less is better.",
        )
        for name, note in run.info.get("baselines", {}).items()
        for other in [run.embeddings(f"{name}-test")]
    )
    places, rows, explained = _map(test)
    lowest, highest = _hardest(test, pairs, pictures)
    try:
        dataset = run.dataset
    except CnnJaxError:
        dataset = None
    subgroups, subgroups_note = _subgroups(dataset, test, pairs, threshold)
    return {
        "measure": "accuracy, and of validation 1 − equal error rate",
        "train_accuracy": None,
        "ended": f"{run.info['reason']}. Training counts how many images of those learned are "
        "named rightly, and its loss is what is minimised; of the people held back the figure is "
        "1 − EER, and the loss the EER that normally distributed scores would have.",
        "baselines": baselines,
        "unseen": UnseenPeople(
            genuine=pairs.scores[pairs.same],
            impostor=pairs.scores[~pairs.same],
            curve=error_curve(pairs, resamples=300),
            threshold=threshold,
            chosen=chosen,
            realised=verification_rates(pairs, threshold),
            lowest=lowest,
            highest=highest,
            people=_errors(test, pairs, threshold),
            places=places,
            names=tuple(test.subjects[rows].tolist()),
            explained=explained,
            subgroups=subgroups,
            subgroups_note=subgroups_note,
            drawn=people_pairs(test.subjects).note,
        ),
    }


def threshold_of(validation: PairScores) -> tuple[float, str]:
    """The threshold of the page and how it was chosen, in words: on validation people alone.

    It is fitted for the least false accept rate of 0.1, 1 and 10 % that they can show with a
    bound; where they can show none, it accepts at most 1 % of their impostor pairs, as it is.
    """
    assert isinstance(validation, CalibrationPairScores)  # as its split says
    refused = ""
    for far in _FARS:
        try:
            found = fit_threshold_far(validation, far=far)
        except EvaluationError as error:
            refused = str(error)
            continue
        return found.score, (
            f"Fitted on {found.fitted_on.n:,} validation images: from a cosine of "
            f"{found.score:.4f} on two images are taken to be of one person, for a {found.rule}. "
            f"Of {found.disjoint_pairs:,} impostor pairs that share nobody it follows that the "
            f"true rate of new people is at most {100 * found.bound:.3g} % "
            f"(confidence {100 * found.confidence:g} %)."
        )
    impostors = np.sort(validation.scores[~validation.same])[::-1]
    last = impostors[int(_PLAIN_FAR * len(impostors))]
    threshold = float(np.nextafter(last, np.inf))
    return threshold, (
        f"From a cosine of {threshold:.4f} on two images are taken to be of one person: that "
        f"accepts at most {100 * _PLAIN_FAR:g} % of the validation part's {len(impostors):,} "
        f"impostor pairs. No bound can be promised for it: {refused}."
    )


def _errors(
    test: EmbeddingPredictions, pairs: PairScores, threshold: float
) -> tuple[PersonErrors, ...]:
    """Errors of each person, most first."""
    assert pairs.subjects is not None
    names, person = np.unique(test.subjects, return_inverse=True)
    ends = np.searchsorted(names, pairs.subjects)
    accepted, searches = pairs.scores >= threshold, leave_one_out(test)

    def counts(of: np.ndarray) -> np.ndarray:
        return np.bincount(of.reshape(-1), minlength=len(names))

    columns = (
        counts(person),
        counts(ends[pairs.same & ~accepted, 0]),
        counts(ends[pairs.same, 0]),
        counts(ends[~pairs.same & accepted]),
        counts(ends[~pairs.same]),
        counts(person[searches.mated & (ranks(searches) > 1)]),
    )
    rows = zip(names.tolist(), *(column.tolist() for column in columns), strict=True)
    found = [PersonErrors(*row) for row in rows]
    return tuple(sorted(found, key=lambda p: (-p.rejected - p.accepted - p.lost, p.name)))


def _subgroups(
    dataset: Dataset | None, test: EmbeddingPredictions, pairs: PairScores, threshold: float
) -> tuple[dict[str, tuple[SubgroupRow, ...]], str]:
    """Errors within groups of people by each further property that the data name, and a note."""
    if dataset is None:
        return {}, (
            "The data could not be read, so nothing is known here of how the threshold does among "
            "groups of people."
        )
    split = dataset.splits["test"]
    place = {name: i for i, name in enumerate(split.ids.tolist())}
    rows = np.array([place[name] for name in test.ids.tolist()])
    names, first, person = np.unique(test.subjects, return_index=True, return_inverse=True)
    found, changing = {}, []
    for target, kind in dataset.kinds.items():
        if target == "label" or kind != "class" or target not in split.targets:
            continue
        values = split.targets[target][rows]
        if (values != values[first][person]).any():
            changing.append(target)
            continue
        groups = [dataset.classes[target][k] for k in values[first].tolist()]
        of_person = dict(zip(names.tolist(), groups, strict=True))
        found[target] = verification_by_subgroup(pairs, of_person, threshold)
    note = (
        "False accepts of two people of one group, and false rejects of its people, at the "
        "threshold of all. Of properties that the data do not name nothing is known; small groups "
        "have wide intervals, and of many groups one looks bad by chance."
    )
    if not found:
        note = (
            "The data name no property of people, such as age, skin colour or sex (as further "
            "columns of a table of images): nothing is known of how the threshold does among them, "
            "and it may do far worse."
        )
    if changing:
        note += f" Not looked at, since it changes from image to image: {', '.join(changing)}."
    return found, note


def _hardest(
    test: EmbeddingPredictions, pairs: PairScores, pictures: Pictures
) -> tuple[tuple[PairShown, ...], tuple[PairShown, ...]]:
    """Genuine pairs with the lowest scores, impostor pairs with the highest; each person, or two
    persons, once, so that one picture does not fill the page."""
    assert pairs.subjects is not None
    chosen = []
    people = len(np.unique(pairs.subjects))
    for kind, order, most in (
        (pairs.same, pairs.scores, min(SHOWN_PAIRS, people)),
        (~pairs.same, -pairs.scores, min(SHOWN_PAIRS, people * (people - 1) // 2)),
    ):
        seen: set[frozenset[str]] = set()
        rows: list[int] = []
        of_kind = np.flatnonzero(kind)
        for row in of_kind[np.argsort(order[of_kind], kind="stable")].tolist():
            who = frozenset(pairs.subjects[row].tolist())
            if who not in seen:
                seen.add(who)
                rows.append(row)
            if len(rows) == most:
                break
        chosen.append(rows)
    place = {i: n for n, i in enumerate(test.ids.tolist())}
    ends = [tuple(pairs.images[row].tolist()) for rows in chosen for row in rows]
    images = pictures(np.unique([place[i] for end in ends for i in end]))

    def shown(row: int) -> PairShown:
        a, b = pairs.images[row].tolist()
        both = [images[place[i]] for i in (a, b) if place[i] in images]
        return PairShown(
            score=float(pairs.scores[row]),
            names=tuple(pairs.subjects[row].tolist()),  # type: ignore[index]
            ids=(a, b),
            images=(viewable(both[0]), viewable(both[1])) if len(both) == 2 else None,
        )

    lowest, highest = (tuple(map(shown, rows)) for rows in chosen)
    return lowest, highest


def _map(test: EmbeddingPredictions) -> tuple[np.ndarray, np.ndarray, float]:
    """Places float64 `[M, 2]`, which M images they are of, and the share of variance shown."""
    rows = np.arange(len(test))
    if len(rows) > _MAPPED:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MAPPED, replace=False))
    unit = unit_embeddings(test.embeddings[rows])
    centred = unit - unit.mean(axis=0)
    directions, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(rows), 2))
    width = min(2, len(lengths))
    places[:, :width] = directions[:, :width] * lengths[:width]
    whole = float((lengths**2).sum())
    return places, rows, float((lengths[:2] ** 2).sum()) / whole if whole else 1.0
