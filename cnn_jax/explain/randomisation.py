"""Does a map depend on what the network has learned? (Adebayo et al. 2018, *Sanity checks*)

The weights of the network are drawn anew, layer by layer from the answer down, and its maps are
compared with those before. A map that stays as it was, as an edge detector's does, shows the image
and not the network. How alike unrelated maps are anyway, since objects stand in the middle, say, is
a null distribution: the map of an image beside that which the network drawn anew makes of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flax import traverse_util
from scipy.stats import rankdata

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Estimate, bootstrap
from cnn_jax.evaluation.weighted import mean_statistic

MARGIN = 0.2  # retained: what is below it is as good as unrelated
_ROOM = 0.05  # between unrelated maps and equal ones: with less nothing can be told
Verdict = Literal["passes", "fails", "cannot be told"]
# Variables, images [N, H, W, C] and classes [N] to maps [N, H, W].
Maps = Callable[[Mapping[str, Any], Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Randomisation:
    """What became of maps while layers were drawn anew.

    Attributes:
      layers: in the order in which they were drawn anew, all above a layer included.
      similarity: float64 `[L]`, mean over images of the rank correlation of |map| before and after.
      null: float64 `[D]`, that mean where each map before is beside one after of another image.
      retained: (s - n) / (1 - n), s the last similarity and n the mean over all pairs of different
        images: 1 where maps are as they were, 0 where they are as unrelated as those of different
        images, with its interval over images.
      flat: how many of the maps before are the same everywhere, as where nothing speaks for a
        class; they are like no other.
      images: how many there are.
    """

    layers: tuple[str, ...]
    similarity: np.ndarray
    null: np.ndarray
    retained: Estimate
    flat: int
    images: int

    @property
    def verdict(self) -> Verdict:
        """`passes` where surely less than 0.2 is retained, `fails` where surely more is.

        It fails, too, where more than half of the maps are the same everywhere: they say nothing.
        """
        if 2 * self.flat > self.images or self.retained.low > MARGIN:
            return "fails"
        return "passes" if self.retained.high < MARGIN else "cannot be told"


def randomisation_check(
    maps: Maps,
    variables: Mapping[str, Any],
    fresh: Mapping[str, Any],
    images: Any,
    target: Any,
    layers: Sequence[str],
    *,
    permutations: int = 200,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Randomisation:
    """Draw layers anew, one after the other, and compare maps (the cascading randomisation).

    Args:
      maps: a method, such as `lambda v, x, c: explain.grad_cam(model, v, x, c)`.
      variables: of the trained network.
      fresh: the same tree, as initialised with another seed.
      images: `[N, H, W, C]`, as `maps` takes them; 8 at least, better 32.
      target: int `[N]`.
      layers: scopes of the parameters from the answer down, such as `("head", "stage2", "stage1")`;
        scopes within them are drawn anew with them.
      permutations: of the images, for `null`; each leaves no image at its place.
      groups: of the images, for the interval.
      level: of the interval.
      seed: of the permutations and of the bootstrap.

    Raises:
      EvaluationError: fewer than 8 images, no layers, a layer without parameters, trees that
        differ, or maps of another shape.
    """
    count = len(images)
    if count < 8 or not layers or permutations < 1:
        raise EvaluationError(
            f"the check needs 8 images, a layer and a permutation at least, not {count}, "
            f"{len(layers)} and {permutations}"
        )
    before = _ranks(_as_maps(maps(variables, images, target), count))
    similarity, after = [], before
    for k in range(len(layers)):
        changed = redrawn(variables, fresh, layers[: k + 1])
        after = _ranks(_as_maps(maps(changed, images, target), count))
        similarity.append(float((before * after).sum(axis=1).mean()))
    own = (before * after).sum(axis=1)
    every = before @ after.T  # [image before, image after]
    rng = np.random.default_rng(seed)
    null = np.array(
        [every[np.arange(count), _derangement(rng, count)].mean() for _ in range(permutations)]
    )
    others = (every.sum(axis=1) - own) / (count - 1)
    room = 1 - float(others.mean())
    # Where unrelated maps are as good as equal any share may be retained.
    share = (own - others) / room if room > _ROOM else np.full(count, np.nan)
    retained = bootstrap(
        {"retained": mean_statistic(share)}, count, groups, level=level, seed=seed
    )["retained"]
    flat = int((np.abs(before).sum(axis=1) == 0).sum())
    return Randomisation(tuple(layers), np.array(similarity), null, retained, flat, count)


def redrawn(
    variables: Mapping[str, Any], fresh: Mapping[str, Any], layers: Sequence[str]
) -> dict[str, Any]:
    """Variables of which those in some scopes are fresh, in all collections.

    Raises:
      EvaluationError: no parameters in a scope, or trees that differ.
    """
    flat, other = (traverse_util.flatten_dict(dict(each), sep="/") for each in (variables, fresh))
    if set(flat) != set(other):
        raise EvaluationError("the fresh variables are of another network")

    def within(name: str, scope: str) -> bool:
        _, _, path = name.partition("/")
        return path == scope or path.startswith(f"{scope}/")

    for scope in layers:
        if not any(name.startswith("params/") and within(name, scope) for name in flat):
            raise EvaluationError(
                f"no parameters in {scope!r}: give scopes such as 'stage1/block1'"
            )
    mixed = {
        name: other[name] if any(within(name, scope) for scope in layers) else value
        for name, value in flat.items()
    }
    return dict(traverse_util.unflatten_dict(mixed, sep="/"))


def _as_maps(found: Any, count: int) -> np.ndarray:
    values = np.asarray(found, np.float64)
    if values.ndim != 3 or len(values) != count:
        raise EvaluationError(f"a method gives maps [{count}, H, W], not {list(values.shape)}")
    return values


def _ranks(values: np.ndarray) -> np.ndarray:
    """float64 `[N, H W]`: ranks of |map|, centred and of length 1; zeros of a constant map."""
    flat = np.abs(values).reshape(len(values), -1)
    ranks = rankdata(flat, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.asarray(ranks / np.where(length > 0, length, 1))


def _derangement(rng: np.random.Generator, count: int) -> np.ndarray:
    """A permutation that leaves nothing at its place."""
    while True:
        order = rng.permutation(count)
        if (order != np.arange(count)).all():
            return order
