"""Effective receptive fields of the blocks of a network, before and after training.

    python -m experiments.receptive_fields.measure --data-dir DIR --out FOLDER [--seeds 3]

For each block of the network that `experiments.species.hierarchy` trains on CIFAR-10 (whose FOLDER
this may be) the side of the theoretical field, and the standard deviation of the Gaussian that fits
the effective one, mean of both axes, at the middle of the map over 64 test images: as initialised
and as trained. Intervals are over seeds. Appends to results.csv beside this file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import Run, models, nn
from cnn_jax.evaluation import over_seeds
from cnn_jax.principles import effective_field, receptive_field
from experiments.results import Row
from experiments.rows import command_of_seeds, here, row_of
from experiments.species import hierarchy

PATH = Path(__file__).with_name("results.csv")
IMAGES = 64
COMMAND = (
    'python -m experiments.receptive_fields.measure --data-dir "$CNN_JAX_DATA" --out FOLDER '
    "--seeds {}"
)


def blocks(run: Run) -> list[str]:
    """Paths of the blocks, from the image on."""
    images = jax.ShapeDtypeStruct((1, *run.info["data"]["image_shape"]), np.float32)
    paths = nn.tap_paths(run.model, run.variables, images, train=False)
    return sorted(path for path in paths if re.fullmatch(r"stage\d+/block\d+", path))


def sigmas(run: Run) -> dict[str, dict[str, float]]:
    """Block -> standard deviation as initialised and as trained, in pixels."""
    shape = tuple(run.info["data"]["image_shape"])
    fresh = models.initialize(run.model, jax.random.key(run.info["seed"]), shape)
    images = run.dataset.splits["test"].read_images(np.arange(IMAGES))
    x = run.classifier.preprocess(jnp.asarray(images))
    return {
        block: {
            name: float(np.mean(effective_field(run.model, variables, x, block).sigma))
            for name, variables in (("as initialised", fresh), ("trained", run.variables))
        }
        for block in blocks(run)
    }


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset, _ = hierarchy.load(folder)
    runs = [hierarchy.trained(dataset, out / f"0-{seed}", seed, {}) for seed in range(seeds)]
    found, first = [sigmas(run) for run in runs], runs[0]
    for block, of_first in found[0].items():
        field = receptive_field(first.model, first.variables, dataset.image_shape, block)
        values = {"theoretical side": [float(max(field.size))] * seeds}
        values |= {name: [one[block][name] for one in found] for name in of_first}
        before, after = values["as initialised"], values["trained"]
        values["log growth in training"] = np.log(np.divide(after, before)).tolist()
        for metric, each in values.items():
            figure = over_seeds(each, IMAGES)
            print(f"{block} {metric} {figure}", flush=True)
            yield row_of(
                figure,
                experiment=block,
                metric=metric,
                command=COMMAND.format(seeds),
                data=first.info["data"]["name"],
                data_digest=first.info["data"]["digest"][:16],
                split=f"{first.info['model']['name']}, {IMAGES} test images",
                seed=" ".join(map(str, range(seeds))),
                **here(),
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "receptive_fields", PATH, rows, arguments, seeds=3)


if __name__ == "__main__":
    sys.exit(main())
