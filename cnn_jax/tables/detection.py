"""What a detector of anomalies does on test, and what it says of new images."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Literal

from cnn_jax.errors import printable
from cnn_jax.tables.layout import Format, aligned, csv_text

if TYPE_CHECKING:
    from cnn_jax.decision import Alarm
    from cnn_jax.detecting import Detection, Detector, Scored


def detection(found: Detection, form: Literal["table", "json"]) -> str:
    """What a detector of anomalies and its alarm do on test, beside the baselines."""
    alarm, gains = found.alarm, found.gains()
    if form == "json":
        values = {
            "normal": found.normal,
            "method": found.method,
            "features": found.features,
            "alarm": alarm.to_dict(),
            "promise": {
                "kept": None if found.promise is None else found.promise.kept,
                "text": found.promise_text,
            },
            "test": {name: one.to_dict() for name, one in found.figures.items()},
            "baselines": {
                name: {"auroc": auroc.to_dict(), "difference": gain.to_dict()}
                for name, (auroc, gain) in gains.items()
            },
        }
        return json.dumps(values, indent=1)
    rows = [(name.replace("_", " "), str(one)) for name, one in found.figures.items()]
    rows += [(f"auroc of {name}", str(auroc)) for name, (auroc, _) in gains.items()]
    rows += [(f"auroc above {name}", str(gain)) for name, (_, gain) in gains.items()]
    promised = f"{_promised(alarm)} {found.promise_text}"
    head = f"{printable(found.normal)} is normal; {found.method} of {printable(found.features)}"
    return "\n".join([head, "", aligned(rows), "", *textwrap.wrap(promised, 79)])


def scored(found: Scored, detector: Detector, form: Format) -> str:
    """Score and alarm of each image.

    The last lines of a table are the alarm's promise, and what became of it on test; CSV and JSON
    hold the rows alone.
    """
    records = [
        {"image": image, "score": score, "threshold": found.threshold, "alarm": alarm}
        for image, score, alarm in zip(
            found.ids, found.scores.tolist(), found.alarms.tolist(), strict=True
        )
    ]
    if form == "json":
        return json.dumps(records, indent=1, ensure_ascii=False)
    if form == "csv":
        return csv_text(records)
    rows = [
        (printable(image), f"{score:.6g}", "alarm" if alarm else "-")
        for image, score, alarm in zip(found.ids, found.scores, found.alarms, strict=True)
    ]
    shown = aligned([("image", "score", ""), *rows])
    return "\n".join([shown, "", _promised(detector.alarm), detector.verdict])


def _promised(alarm: Alarm) -> str:
    things = "groups of normal images" if alarm.of_groups else "normal images"
    return (
        f"An alarm is a score above {alarm.threshold:.4g}: the {alarm.k:,} lowest of {alarm.n:,} "
        f"{things} of {alarm.fitted_on.split} lie at or below it. Of {things} like these at most "
        f"{100 * alarm.false_alarm:g} % raise one, with confidence {100 * alarm.confidence:g} %."
    )
