"""From explanations to a folder: the page, the table of audits, and a picture for each map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_jax.errors import RunError
from cnn_jax.explain import METHODS
from cnn_jax.explaining import Audit, Explained
from cnn_jax.file_names import safe_names
from cnn_jax.report.explanations import (
    AuditRow,
    ExplainedImage,
    ExplanationsPage,
    overlaid,
    render,
)
from cnn_jax.report.pictures import viewable
from cnn_jax.run import Run
from cnn_jax.tables.layout import csv_text
from cnn_jax.whole_files import write_whole

SHOWN = 48  # images on the page


def write_explanations(
    run: Run,
    found: Sequence[Explained],
    refused: Mapping[str, str],
    folder: Path,
    *,
    unread: Mapping[str, str] | None = None,
    command: str = "",
) -> Path:
    """Write `maps/METHOD/*.png`, `audit.csv` where there was an audit, and `page.html`.

    Args:
      run: whose answers are explained.
      found: by each method, of the same images.
      refused: method -> why the network does not allow it.
      folder: made if it is not there.
      unread: image -> why it cannot be read.
      command: shown on the page.

    Returns:
      The page.

    Raises:
      RunError: something cannot be written.
    """
    from PIL import Image

    names = safe_names([Path(name).stem for name in found[0].ids])
    try:
        for one in found:
            place = folder / "maps" / one.method
            place.mkdir(parents=True, exist_ok=True)
            for name, image, heat in zip(names, one.images, one.maps, strict=True):
                picture = viewable(image)
                pixels = overlaid(picture, heat, max(picture.shape[:2]))
                Image.fromarray(pixels).save(place / f"{name}.png")
        if rows := [row_of(one.audit) for one in found if one.audit is not None]:
            write_whole(folder / "audit.csv", csv_text(rows) + "\n")
        write_whole(folder / "page.html", render(_page(run, found, refused, unread or {}, command)))
    except OSError as error:
        raise RunError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    return folder / "page.html"


def row_of(audit: Audit) -> dict[str, Any]:
    """An audit as a row of a table: each figure with the ends of its interval."""
    row: dict[str, Any] = {
        "method": audit.method,
        "images": audit.images,
        "of_class": audit.of_class or "",
        "weights": audit.weights,
    }
    for name, gain in (
        ("retained", audit.randomisation.retained),
        ("deletion", audit.deletion),
        ("insertion", audit.insertion),
        ("road", audit.road),
        ("deletion_edges", audit.deletion_edges),
    ):
        row |= {name: gain.value, f"{name}_low": gain.low, f"{name}_high": gain.high}
    return {**row, "gap": audit.gap, "failures": "; ".join(audit.failures)}


def _page(
    run: Run,
    found: Sequence[Explained],
    refused: Mapping[str, str],
    unread: Mapping[str, str],
    command: str,
) -> ExplanationsPage:
    audits = [one.audit for one in found if one.audit is not None]
    first = found[0]
    info = run.info
    return ExplanationsPage(
        dataset=info["data"]["name"],
        model=info["model"]["name"].removeprefix("custom:"),
        audits=[
            AuditRow(
                audit.method,
                METHODS[audit.method].words,
                audit.weights,
                audit.randomisation.retained,
                audit.deletion,
                audit.insertion,
                audit.road,
                audit.deletion_edges,
                audit.failures,
            )
            for audit in audits
        ],
        audited=audits[0].images if audits else 0,
        of_class=first.of_class,
        audited_otherwise=first.audited_otherwise,
        images=[
            ExplainedImage(
                first.ids[i],
                f"{first.classes[i]}, {100 * first.probabilities[i]:.1f} %",
                viewable(first.images[i]),
                {one.method: one.maps[i] for one in found},
            )
            for i in range(min(SHOWN, len(first.ids)))
        ],
        refused=list(refused.items()),
        unread=list(unread.items()),
        facts=[
            ("run", run.shown),
            ("images", f"{len(first.ids):,}, the first {SHOWN} shown"
             if len(first.ids) > SHOWN else f"{len(first.ids):,}"),
            ("methods", ", ".join(one.method for one in found)),
        ],
        command=command,
    )  # fmt: skip
