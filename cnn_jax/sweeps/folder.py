"""The folder of a sweep."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from cnn_jax.errors import RunError
from cnn_jax.recipe import Recipe
from cnn_jax.run_folder import RunFolder, write_text
from cnn_jax.sweeps.space import Space
from cnn_jax.sweeps.study import Trial


class SweepFolder(RunFolder):
    """Files of a sweep.

    sweep.json   schema, status, what is varied and how it is searched
    recipe.toml  what all trials have in common
    study.db     the trials, unless a database of yours holds them
    trials.csv   the same as a table
    best.toml    the best recipe so far, ready for `cnn-jax train`
    """

    info_name = "sweep.json"
    verb = "sweep"
    required = dict.fromkeys(
        [
            *("status", "command", "recipe_digest", "vary", "search", "metric", "total"),
            *("batch", "wanted", "storage", "study", "validation_examples"),
        ]
    )

    @property
    def database(self) -> str:
        """The URL of the study that lies in the folder.

        Raises:
          RunError: the folder has a name that SQLAlchemy cannot put into a URL (before 2.1).
        """
        from sqlalchemy.engine import URL, make_url

        path = str(self.path / "study.db")
        url = URL.create("sqlite", database=path).render_as_string(hide_password=False)
        if make_url(url).database != path:
            raise RunError(f"{str(self.path)!r} cannot hold a sweep: choose a plainer name")
        return url

    def write_trials(self, space: Space, trials: Sequence[Trial]) -> None:
        """Write trials.csv."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(
            [
                "trial",
                "state",
                *space,
                "validation_accuracy",
                "validation_loss",
                "epochs",
                "failure",
            ]
        )
        for trial in trials:
            values = [str(trial.point[name]) for name in space]
            ended = [trial.accuracy, trial.loss, trial.epochs, trial.failure]
            table.writerow([trial.number, trial.state, *values, *ended])
        write_text(self.path / "trials.csv", text.getvalue())

    def write_best(self, recipe: Recipe) -> None:
        """Write best.toml."""
        write_text(self.path / "best.toml", recipe.to_toml())
