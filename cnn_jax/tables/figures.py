"""Figures of runs, populations, sweeps, comparisons and decisions."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from cnn_jax.errors import printable
from cnn_jax.evaluation import COVERS, Estimate, Gain, Verdict
from cnn_jax.tables.layout import Format, aligned, csv_text

if TYPE_CHECKING:
    from cnn_jax.deciding import Decision
    from cnn_jax.population import Population
    from cnn_jax.sweeps import Setting


def figures(estimates: Mapping[str, Estimate], form: Format) -> str:
    """Figures with their intervals."""
    if form == "json":
        values = {name: estimate.to_dict() for name, estimate in estimates.items()}
        return json.dumps(values, indent=1)
    if form == "csv":
        rows = [{"metric": name, **e.to_dict()} for name, e in estimates.items()]
        return csv_text(rows)
    return aligned([(name.replace("_", " "), str(e)) for name, e in estimates.items()])


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
    return aligned(rows)


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
        return csv_text(
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
        f"{aligned(rows)}\nn = {n}; two members disagree on {100 * apart:.2f} % of them; "
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
    return aligned(rows)


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
    lines = [aligned(rows)]
    for estimate in (found.difference, found.over_seeds):
        if estimate is not None:
            lines.append(f"A - B  {estimate}")
            lines.append(
                f"       {estimate.level:.0%} over {COVERS[estimate.covers]}: {estimate.method}"
            )
    lines += [str(test) for test in found.tests]
    lines += textwrap.wrap(" ".join([_SENTENCES.get(found.answer, ""), *found.advice]).strip(), 79)
    return "\n".join(lines)


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
        f"{aligned(rows)}\n\n"
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
