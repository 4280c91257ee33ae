"""What the command line prints: aligned text, CSV or JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cnn_jax import models as model_room
from cnn_jax.classifier import Classified
from cnn_jax.data import Dataset
from cnn_jax.errors import printable
from cnn_jax.evaluation import COVERS, Estimate, Fate, Gain, Verdict, classification_metrics
from cnn_jax.learning_rates import RangeTest

if TYPE_CHECKING:
    from cnn_jax.deciding import Decision
    from cnn_jax.population import Population
    from cnn_jax.relabelling import Relabelled
    from cnn_jax.sweeps import Setting

Format = Literal["table", "csv", "json"]


def figures(estimates: Mapping[str, Estimate], form: Format) -> str:
    """Figures with their intervals."""
    if form == "json":
        values = {name: estimate.to_dict() for name, estimate in estimates.items()}
        return json.dumps(values, indent=1)
    if form == "csv":
        rows = [{"metric": name, **e.to_dict()} for name, e in estimates.items()]
        return _csv(rows)
    return _aligned([(name.replace("_", " "), str(e)) for name, e in estimates.items()])


_MOST_MEMBERS = 20  # rows that one still reads


def population(found: Population) -> str:
    """The first figure of each member, and what happened to the others."""
    runs, failures = found.members, found.failures
    rows = []
    for name, run in list(runs.items())[:_MOST_MEMBERS]:
        metric, estimate = next(iter(run.metrics["test"].items()))
        rows.append((name, f"test {metric.replace('_', ' ')} {estimate}"))
    if len(runs) > _MOST_MEMBERS:
        rows.append((f"and {len(runs) - _MOST_MEMBERS} more", ""))
    rows += [(name, f"failed: {reason}") for name, reason in failures.items()]
    return _aligned(rows)


def gains(found: Mapping[str, Gain], apart: float, form: Format) -> str:
    """Figures of an ensemble beside those of its members; `apart`: how often two disagree."""
    if form == "json":
        values = {
            name: {
                "ensemble": gain.ensemble.to_dict(),
                "members": gain.members,
                "difference": gain.difference.to_dict(),
            }
            for name, gain in found.items()
        }
        return json.dumps({**values, "disagreement": apart}, indent=1)
    if form == "csv":
        return _csv(
            [
                {"metric": name, "of": of, **estimate.to_dict()}
                for name, gain in found.items()
                for of, estimate in (("ensemble", gain.ensemble), ("difference", gain.difference))
            ]
        )
    rows = [("", "ensemble", "members' mean", "difference")]
    for name, gain in found.items():
        percent = gain.ensemble.percent
        alone = f"{100 * gain.members:.2f} %" if percent else f"{gain.members:.4f}"
        of, difference = (str(e).split(", n =")[0] for e in (gain.ensemble, gain.difference))
        rows.append((name.replace("_", " "), of, alone, difference))
    n = next(iter(found.values())).ensemble.n
    return (
        f"{_aligned(rows)}\nn = {n}; two members disagree on {100 * apart:.2f} % of them; "
        "all calibrated on\nvalidation data; intervals over test sets"
    )


_MOST_SETTINGS = 10


def settings(found: Sequence[Setting]) -> str:
    """The best settings of a sweep, the best first."""
    if not found:
        return ""
    names = list(found[0].point)
    rows = [(*names, "validation accuracy", "loss")]
    for one in found[:_MOST_SETTINGS]:
        values = (printable(_short(one.point[name])) for name in names)
        accuracy = str(one.accuracy).replace(" [no interval]", "")
        rows.append((*values, accuracy, f"{one.loss:.4f}"))
    if len(found) > _MOST_SETTINGS:
        rows.append((f"and {len(found) - _MOST_SETTINGS} more", *[""] * (len(names) + 1)))
    return _aligned(rows)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_SENTENCES = {"better": "A is better than B.", "worse": "A is worse than B."}


def verdict(found: Verdict, names: tuple[str, str], form: Literal["table", "json"]) -> str:
    """Two sides, their difference, and the answer; its sentences come last."""
    if form == "json":
        over_seeds = found.over_seeds
        values = {
            **{name: getattr(found, name) for name in ("answer", "metric", "of_a", "of_b")},
            "difference": found.difference.to_dict(),
            "over_seeds": over_seeds.to_dict() if over_seeds else None,
            "tests": [dataclasses.asdict(test) for test in found.tests],
            "advice": list(found.advice),
        }
        return json.dumps(values, indent=1)
    percent = found.difference.percent
    show = "{:.2f} %" if percent else "{:.4f}"
    scale, metric = 100 if percent else 1, found.metric.replace("_", " ")
    rows = [
        (letter, printable(name), f"{metric} {show.format(scale * value)}")
        for letter, name, value in zip("AB", names, (found.of_a, found.of_b), strict=True)
    ]
    lines = [_aligned(rows)]
    for estimate in (found.difference, found.over_seeds):
        if estimate is not None:
            lines.append(f"A - B  {estimate}")
            lines.append(
                f"       {estimate.level:.0%} over {COVERS[estimate.covers]}: {estimate.method}"
            )
    lines += [str(test) for test in found.tests]
    lines += textwrap.wrap(" ".join([_SENTENCES.get(found.answer, ""), *found.advice]).strip(), 79)
    return "\n".join(lines)


def answers(classified: Classified, form: Format) -> str:
    """What was seen in each image."""
    if form == "table":
        rows = [
            (printable(i), printable(label), f"{100 * p:6.2f} %")
            for i, label, p in zip(
                classified.ids, classified.labels, classified.confidence, strict=True
            )
        ]
        if classified.sets is None:
            return _aligned([("image", "class", "probability"), *rows])
        asked = ["refer to a human" if human else "" for human in classified.for_a_human]
        named = [printable(", ".join(names)) or "no class" for names in _set_names(classified)]
        shown = [(*row, *more) for row, *more in zip(rows, named, asked, strict=True)]
        return _aligned([("image", "class", "probability", "set", ""), *shown])
    records: list[dict[str, Any]] = [
        {
            "image": i,
            "class": label,
            "probability": float(p),
            "probabilities": dict(zip(classified.classes, map(float, row), strict=True)),
        }
        for i, label, p, row in zip(
            classified.ids,
            classified.labels,
            classified.confidence,
            classified.probabilities,
            strict=True,
        )
    ]
    if classified.sets is not None:
        for record, names, human in zip(
            records, _set_names(classified), classified.for_a_human.tolist(), strict=True
        ):
            record |= {"set": names, "refer": human}
    if form == "json":
        return json.dumps(records, indent=1, ensure_ascii=False)
    return _csv(
        [
            {
                "image": r["image"],
                "class": r["class"],
                "probability": r["probability"],
                **{f"p({name})": p for name, p in r["probabilities"].items()},
                **({"set": "|".join(r["set"]), "refer": r["refer"]} if "set" in r else {}),
            }
            for r in records
        ]
    )


def _set_names(classified: Classified) -> list[list[str]]:
    """The classes in the set of each image."""
    assert classified.sets is not None
    return [
        [name for name, inside in zip(classified.classes, row, strict=True) if inside]
        for row in classified.sets
    ]


def compared(classified: Classified, form: Format) -> str:
    """The answers beside the class that each file's folder names, highest loss first.

    The last line of a table is the accuracy; CSV and JSON hold the rows alone.
    """
    predictions = classified.by_folder()
    fate = Fate.of(predictions)
    rows = fates(fate, fate.hardest(), form)
    if form != "table":
        return rows
    return f"{rows}\naccuracy {classification_metrics(predictions)['accuracy']}"


def fates(fate: Fate, chosen: np.ndarray, form: Format) -> str:
    """What became of the chosen examples."""
    records: list[dict[str, Any]] = [
        {
            "id": str(fate.ids[i]),
            "given": fate.given_name(i),
            "predicted": fate.predicted_name(i),
            "p_given": float(fate.p_given[i]),
            "p_predicted": float(fate.p_predicted[i]),
            "loss": float(fate.loss[i]),
            "right": not fate.wrong[i],
        }
        for i in chosen.tolist()
    ]
    if form == "json":
        return json.dumps(records, indent=1, ensure_ascii=False)
    if form == "csv":
        return _csv(records)
    header = ("id", "given", "predicted", "p(given)", "p(predicted)", "loss", "right")
    rows = [
        (
            *(printable(r[name]) for name in ("id", "given", "predicted")),
            *(f"{100 * r[name]:6.2f} %" for name in ("p_given", "p_predicted")),
            f"{r['loss']:.4f}",
            "yes" if r["right"] else "no",
        )
        for r in records
    ]
    return _aligned([header, *rows])


def relabelled(found: Relabelled) -> str:
    """How many labels were corrected, and which files count for nothing."""
    removed = sum(c.corrected is None for c in found.corrections)
    lines = [
        f"{len(found.corrections) - removed} relabelled, {removed} removed, "
        f"{found.unchanged} unchanged"
    ]
    if found.earlier:
        lines.append(f"after {len(found.earlier)} earlier corrections, with which the run trained")
    for what, files in (
        ("missing, their labels stay", found.missing),
        ("not in labels.csv, left out", found.unknown),
    ):
        if files:
            lines.append(f"{what}: {', '.join(map(printable, files))}")
    return "\n".join(lines)


def dataset(data: Dataset) -> str:
    """Parts, classes, origin."""
    lines = [f"{data.name}: images of {'×'.join(map(str, data.image_shape))}"]
    lines += [f"  {note}" for note in data.notes]
    classes = data.classes["label"]
    header = ("class", *data.splits)
    counts = [
        np.bincount(t, minlength=len(classes)) if t.ndim == 1 else t.sum(axis=0).astype(int)
        for t in (split.targets["label"] for split in data.splits.values())
    ]
    rows = [
        (printable(name), *(f"{int(column[k]):,}" for column in counts))
        for k, name in enumerate(classes)
    ]
    total = ("in all", *(f"{len(split):,}" for split in data.splits.values()))
    lines.append(_aligned([header, *rows, total]))
    for label, value in (
        ("licence", data.licence),
        ("cite", data.citation),
        ("digest", data.digest),
    ):
        if value:
            lines.append(f"{label}: {value}")
    return "\n".join(lines)


def learning_rates(seen: RangeTest) -> str:
    """The smoothed loss over the learning rate, in some twenty lines."""
    shown = range(0, len(seen.rates), -(-len(seen.rates) // 20))
    # Where the loss has exploded its height means nothing: bars end a little above the start.
    lowest, highest = seen.smoothed.min(), 1.1 * seen.smoothed[0]
    share = np.clip((seen.smoothed - lowest) / (highest - lowest), 0, 1)
    filled = 1 + np.round(39 * share).astype(int)
    rows = [(f"{seen.rates[i]:.1e}", f"{seen.smoothed[i]:.3f}", "*" * filled[i]) for i in shown]
    return _aligned([("rate", "loss", ""), *rows])


def decision(found: Decision, form: Literal["table", "json"]) -> str:
    """A threshold, and what it does on the examples it was fitted on, on test, and elsewhere."""
    threshold, columns = found.threshold, {"on test": found.on_test}
    if found.elsewhere is not None:
        columns[f"where {100 * found.elsewhere.prevalence:g} % have it"] = found.elsewhere
    names = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
    if form == "json":
        parts = {"validation": found.on_validation, "test": found.on_test}
        if found.elsewhere is not None:
            parts["elsewhere"] = found.elsewhere
        values = {
            "positive": threshold.positive,
            "rule": threshold.rule,
            "probability": threshold.probability,
            "log_odds": threshold.log_odds if math.isfinite(threshold.log_odds) else None,
            "temperature": threshold.temperature,
            "fitted_on": {"split": threshold.fitted_on.split, "n": threshold.fitted_on.n},
            **{
                part: {
                    "prevalence": figures.prevalence,
                    **{name: getattr(figures, name).to_dict() for name in names},
                }
                for part, figures in parts.items()
            },
            "all_negative": found.all_negative.to_dict(),
        }
        return json.dumps(values, indent=1)
    rows = [("", threshold.fitted_on.split, *columns)]
    for name in names:
        own = getattr(found.on_validation, name)
        shown = (_share(getattr(f, name)) for f in columns.values())
        label = name.upper() if name in ("ppv", "npv") else name
        rows.append((label, _share(own).partition(" [")[0], *shown))
    tp, fp, fn, tn = found.on_test.counts
    positive = printable(threshold.positive)
    line = f"flagged from a probability of {threshold.probability:.4f} on"
    if threshold.probability == 1:  # rounded: the line itself is in the log odds
        line = f"flagged from log odds of {threshold.log_odds:.2f} on"
    if math.isinf(threshold.log_odds):
        line = "no one is flagged"
    return (
        f"{positive}, {threshold.rule}: {line}\n"
        f"(from {threshold.fitted_on.n:,} {threshold.fitted_on.split} examples)\n\n"
        f"{_aligned(rows)}\n\n"
        f"of {tp + fn:,} test examples that are {positive} {tp:,} are found and {fn:,} missed; of\n"
        f"{fp + tn:,} others {fp:,} are flagged. Calling none so would be right in "
        f"{100 * found.all_negative.value:.2f} %.\n"
        f"PPV and NPV hold where {100 * found.on_test.prevalence:.1f} % have it, as on test."
    )


def _share(estimate: Estimate) -> str:
    """A share with its interval, but without n."""
    if math.isnan(estimate.value):
        return "undefined"
    return str(estimate).split(", n =")[0]


def audit(rows: Sequence[Sequence[str]]) -> str:
    """Counts of copies, by where they lie."""
    return _aligned([("copies", "equal", "near"), *rows])


def models(image_size: int, channels: int, num_classes: int) -> str:
    """Every network with its parameters and FLOPs."""
    rows = [("model", "parameters", "FLOPs a forward pass", "stem")]
    for name in model_room.names():
        row = model_room.describe(
            name, num_classes=num_classes, image_shape=(image_size, image_size, channels)
        )
        rows.append((row.name, f"{row.parameters:,}", _si(row.flops), row.stem))
    return _aligned(rows) + f"\nat {image_size}×{image_size}×{channels}, {num_classes} classes"


def _si(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().rstrip("\n")
