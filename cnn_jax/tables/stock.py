"""How many there are of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnn_jax.errors import printable
from cnn_jax.tables.layout import aligned

if TYPE_CHECKING:
    from cnn_jax.counting import Inventory


def stock(inventory: Inventory, most: int) -> str:
    """The classes with the most pictures, and what is for a person."""
    present = [count for count in inventory.counts if count.high > 0]
    present.sort(key=lambda count: (-count.mean, count.name))
    interval = f"{100 * inventory.level:g} % interval"
    rows = [
        (
            printable(count.name),
            f"{count.mean:,.1f}",
            f"{count.low:,} to {count.high:,}",
            f"{count.answered:,}",
        )
        for count in present[:most]
    ]
    lines = [aligned([("class", "number", interval, "as answered"), *rows])]
    if len(present) > most:
        lines.append(f"and {len(present) - most:,} more classes")
    lines.append(
        f"{len(inventory.files):,} pictures counted, {len(inventory.unsure):,} for a person to "
        f"look at, {len(inventory.unread):,} not read"
    )
    return "\n".join(lines)
