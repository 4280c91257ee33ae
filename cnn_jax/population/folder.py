"""The folder of a population: what all members share, and a run folder for each of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn_jax.run_folder import RunFolder, append_row, write_text
from cnn_jax.training.member import Row

_TIMINGS = ("epoch", "seconds", "images_per_second")


class PopulationFolder(RunFolder):
    """Files of a population, beside those it shares with a run folder.

    population.json  schema, status, members with what each changes in the recipe, strategy
    recipe.toml      what the members have in common
    metrics.csv      a row for each epoch and member, while they train together
    checkpoints/     of all members together, while they train together
    NAME/            the run folder of each member
    """

    info_name = "population.json"
    required = dict.fromkeys(("status", "command", "recipe_digest", "members", "started", "data"))

    def member(self, name: str) -> RunFolder:
        """The run folder of a member, which may not be there yet."""
        return RunFolder(self.path / name)

    @classmethod
    def is_one(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a folder is that of a population."""
        return (Path(path) / cls.info_name).is_file()

    def epochs(
        self,
        names: Sequence[str],
        histories: Sequence[Sequence[Row]],
        seconds: float,
        images_per_second: float,
    ) -> None:
        """Write all rows of metrics.csv, and append one to timings.csv."""
        rows = [
            {"member": name, **row}
            for name, history in zip(names, histories, strict=True)
            for row in history
        ]
        if not rows:
            return
        lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
        write_text(self.metrics, "\n".join(lines) + "\n")
        epoch = max(len(history) for history in histories)
        append_row(self.timings, _TIMINGS, (epoch, round(seconds, 3), round(images_per_second, 1)))


def names_of(info: dict[str, Any]) -> list[str]:
    """The names of the members."""
    return [member["name"] for member in info["members"]]
