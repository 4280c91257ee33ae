"""What was seen in each image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.classifier import Classified
from cnn_jax.errors import printable
from cnn_jax.evaluation import Fate, classification_metrics
from cnn_jax.tables.layout import Format, aligned, csv_text

if TYPE_CHECKING:
    from pathlib import Path

    from cnn_jax.relabelling import Relabelled
    from cnn_jax.segmenter import Segmented


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
            return aligned([("image", "class", "probability"), *rows])
        asked = ["refer to a human" if human else "" for human in classified.for_a_human]
        named = [printable(", ".join(names)) or "no class" for names in _set_names(classified)]
        shown = [(*row, *more) for row, *more in zip(rows, named, asked, strict=True)]
        return aligned([("image", "class", "probability", "set", ""), *shown])
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
    return csv_text(
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


def segmented(found: Segmented, paths: Sequence[Path], form: Format) -> str:
    """How much of each image is marked, how surely, and where its mask was written."""
    names = found.regions[1:]
    where = [str(path) for path in paths] or [""] * len(found)
    rows = list(zip(found.ids, found.shares.tolist(), found.highest.tolist(), where, strict=True))
    if form == "table":
        header = ("image", *(f"{name}: share, highest p" for name in names), "mask")
        shown = [
            (
                printable(image),
                *(f"{100 * s:6.2f} %  {p:.3f}" for s, p in zip(shares, highest, strict=True)),
                printable(path),
            )
            for image, shares, highest, path in rows
        ]
        return aligned([header, *shown])
    records = [
        {
            "image": image,
            **{f"share({name})": s for name, s in zip(names, shares, strict=True)},
            **{f"highest p({name})": p for name, p in zip(names, highest, strict=True)},
            "mask": path,
        }
        for image, shares, highest, path in rows
    ]
    return (
        json.dumps(records, indent=1, ensure_ascii=False) if form == "json" else csv_text(records)
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
        return csv_text(records)
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
    return aligned([header, *rows])


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
