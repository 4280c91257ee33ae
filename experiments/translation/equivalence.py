"""MNIST: does adaptive polyphase sampling cost accuracy, where shifts need not be guessed?

    python -m experiments.translation.equivalence --data-dir DIR --out FOLDER [--seeds 10]

As `experiments.translation.measure`, with strided convolutions and adaptive polyphase sampling
alone. Of each class 1,000 digits are learned, shifted at random by up to 4 pixels (the border of
MNIST is as wide, so that nothing is lost): what the one network knows of shifts by its making, the
other can learn. The digits are learned in 8 epochs of batches of 64; nothing of that was tried in
another way first. FOLDER keeps the populations. Appends to results.csv beside this file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.results import Row
from experiments.rows import command_of_seeds
from experiments.translation import measure

SHOTS, PATH = 1_000, measure.PATH
METHODS = {name: way for name, way in measure.METHODS.items() if way in ("stride", "polyphase")}
LEARNING: Mapping[str, Any] = {
    "augment.translate": 4,
    "augment.padding": "zero",
    "train.epochs": 8,
    "train.batch_size": 64,
}
COMMAND = (
    'python -m experiments.translation.equivalence --data-dir "$CNN_JAX_DATA" --out FOLDER '
    "--seeds {}"
)


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset, split = measure.load(folder, SHOTS), f"{SHOTS} of each class, learned shifted, test"
    yield from measure.compared(dataset, out, seeds, METHODS, LEARNING, split, COMMAND)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "translation", PATH, rows, arguments, seeds=10)


if __name__ == "__main__":
    sys.exit(main())
