"""The folder of a population: what all members share, and a run folder for each of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn_jax.run_folder import RunFolder, append_row, csv_text, write_text
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
    required = dict.fromkeys(
        [
            *("status", "command", "recipe_digest", "members", "started", "data"),
            *("wanted", "wants_baselines"),
        ]
    )

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
        write_text(self.metrics, csv_text(rows[0].keys(), rows))
        epoch = max(len(history) for history in histories)
        append_row(self.timings, _TIMINGS, (epoch, round(seconds, 3), round(images_per_second, 1)))

    def write_share(self, run: RunFolder, epochs: int, members: int) -> None:
        """Write timings.csv of a member: its share of the seconds, the speed of all together."""
        rows = [row for row in self.read_numbers(self.timings) if row["epoch"] <= epochs]
        for row in rows:
            row["seconds"] = round(row["seconds"] / members, 4)
        if rows:
            write_text(run.timings, csv_text(_TIMINGS, rows))


def names_of(info: dict[str, Any]) -> list[str]:
    """The names of the members."""
    return [member["name"] for member in info["members"]]
