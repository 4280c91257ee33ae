"""`Feed`: batches of fixed shape from a split, by default each example once an epoch."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import jax
import numpy as np

from cnn_jax.data import Split, balanced_order, check_identities, epoch_order, identity_order
from cnn_jax.errors import DataError
from cnn_jax.training.devices import Placement

Item = dict[str, np.ndarray]

# Chunks read ahead while a streamed one trains: enough to hide decoding, little memory.
_READ_AHEAD = 2
# Batches evaluated in one call, at most.
MOST_TOGETHER = 32


class Feed:
    """Batches of a split, from arrays on the device or read while training.

    A batch has `batch_size` rows, rounded up to a multiple of the devices and of the
    `parts` a step works through; the last one of an epoch is padded. Padded rows have
    `valid` False and repeat row 0. With balanced `sampling` an epoch has as many examples
    as the split, but each class equally often (`data.balanced_order`). With `identities` every
    batch is whole and holds `images_per_identity` images of each of its people
    (`data.identity_order`); the labels are the people.

    Args:
      split: the examples.
      batch_size: see above.
      placement: devices over which a batch is split.
      memory_limit: bytes; larger images are read while training.
      sampling, parts, images_per_identity: see above; the last one with `identities` only.
      together: batches that are evaluated in one call, up to 32; None for all there are. Feeds
        of one size share a program.

    Attributes:
      streamed: whether the images are read while training.
      batch_size: examples in a batch.
      steps: batches in an epoch.
      padded: whether any batch has padded rows.

    Raises:
      DataError: batches of identities that cannot be made.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        placement: Placement,
        *,
        memory_limit: int,
        sampling: Literal["uniform", "balanced", "identities"] = "uniform",
        images_per_identity: int = 1,
        parts: int = 1,
        together: int | None = None,
    ) -> None:
        self._split = split
        self._placement = placement
        self.batch_size = batch_size
        self.steps = -(-len(split) // self.batch_size)
        self._sampling = sampling
        self._images_per_identity = images_per_identity
        if sampling == "identities":
            self._check_identities()
        even = placement.count * parts
        self._rows = -(-self.batch_size // even) * even
        whole_batches = sampling == "identities" or len(split) % self.batch_size == 0
        self.padded = not whole_batches or self._rows != self.batch_size
        whole = 1 << (self.steps - 1).bit_length()  # a power of two: few programs are compiled
        self._together = min(MOST_TOGETHER, together or whole)
        images = split.images
        self.streamed = not isinstance(images, np.ndarray) or images.nbytes > memory_limit

    def _check_identities(self) -> None:
        images = self._images_per_identity
        if images < 1 or self.batch_size % images:
            raise DataError(
                f"a batch of {self.batch_size} examples does not hold {images} images of each "
                "identity: choose a multiple"
            )
        check_identities(self._split.targets["label"], self.batch_size // images, images)

    @functools.cached_property
    def resident(self) -> dict[str, jax.Array]:
        """The arrays of the split on every device, or nothing if it is streamed."""
        if self.streamed:
            return {}
        # A copy of our own: on a CPU device_put may alias the caller's memory.
        arrays = {"image": self._split.images, **self._beside}
        return dict(self._placement.replicate({k: np.array(v) for k, v in arrays.items()}))

    @property
    def _beside(self) -> dict[str, np.ndarray]:
        """What a batch holds beside the images: targets, and masks as `mask`."""
        masks = self._split.masks
        return {**self._split.targets, **({} if masks is None else {"mask": masks})}

    def __len__(self) -> int:
        return len(self._split)

    def chunk_steps(self, wanted: int | None, first_step: int = 0) -> int:
        """Steps in a chunk: at most `wanted`, a divisor of `steps` and of `first_step`.

        All chunks then have one shape and the program compiles once, also in an epoch that
        a resume enters at `first_step`. Without a wish it is 1 where batches are streamed
        and on a CPU (see `step.chunk_of`), else 32.
        """
        if wanted is None:
            wanted = 1 if self.streamed or jax.default_backend() == "cpu" else 32
        whole = math.gcd(self.steps, first_step)
        return max(k for k in range(1, min(wanted, whole) + 1) if whole % k == 0)

    def train_chunks(
        self, *, seed: int, epoch: int, first_step: int, chunk_steps: int
    ) -> Iterator[dict[str, jax.Array]]:
        """Chunks `[K, B]` of an epoch from `first_step` on, on the devices.

        The order is a pure function of (seed, epoch), so a resumed epoch goes on exactly
        where it was.
        """
        order = self.order(seed=seed, epoch=epoch)
        starts = range(first_step, self.steps, chunk_steps)
        for item in self._read_ahead(order, starts, chunk_steps):
            yield self._placement.split(item, axis=1)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """int64 `[N]`: positions in the split, in the order in which an epoch visits them.

        With `identities` it is `[steps * batch_size]`.
        """
        if self._sampling == "identities":
            images = self._images_per_identity
            return identity_order(
                self._split.targets["label"],
                identities=self.batch_size // images,
                images=images,
                seed=seed,
                epoch=epoch,
            )
        if self._sampling == "balanced":
            return balanced_order(self._split.targets["label"], seed=seed, epoch=epoch)
        return epoch_order(len(self._split), seed=seed, epoch=epoch)

    def eval_items(self) -> Iterator[tuple[Item, dict[str, jax.Array]]]:
        """Batches `[S, B]` in the order of the split: index and valid, and the device items.

        The device items have `count`, how many of the S batches there are: the last chunk is
        padded, and all have one shape (see `step.over_batches`).
        """
        order = np.arange(len(self._split))
        size = 1 if self.streamed else self._together
        starts = range(0, self.steps, size)
        for start, item in zip(starts, self._read_ahead(order, starts, size), strict=True):
            count = np.int32(min(size, self.steps - start))
            yield (
                item,
                {
                    **self._placement.split(item, axis=1),
                    "count": self._placement.replicate(count),
                },
            )

    def _read_ahead(self, order: np.ndarray, starts: range, steps: int) -> Iterator[Item]:
        if not self.streamed:
            for start in starts:
                yield self._item(order, start, steps)
            return
        with ThreadPoolExecutor(_READ_AHEAD, "cnn_jax-read") as pool:
            waiting = [pool.submit(self._item, order, s, steps) for s in starts[:_READ_AHEAD]]
            try:
                for ahead in range(len(starts)):
                    if ahead + _READ_AHEAD < len(starts):
                        start = starts[ahead + _READ_AHEAD]
                        waiting.append(pool.submit(self._item, order, start, steps))
                    yield waiting.pop(0).result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def positions(self, order: np.ndarray, start: int, steps: int) -> Item:
        """`index` int32 and `valid` bool, both `[steps, rows]`, of the batches from `start` on."""
        index = np.zeros((steps, self._rows), np.int32)
        valid = np.zeros((steps, self._rows), bool)
        for k in range(steps):
            rows = order[(start + k) * self.batch_size : (start + k + 1) * self.batch_size]
            index[k, : len(rows)], valid[k, : len(rows)] = rows, True
            index[k, len(rows) :] = order[0]
        return {"index": index, "valid": valid}

    def _item(self, order: np.ndarray, start: int, steps: int) -> Item:
        item = self.positions(order, start, steps)
        if self.streamed:
            index = item["index"]
            flat = index.reshape(-1)
            images = self._split.read_images(flat)
            item["image"] = images.reshape(*index.shape, *images.shape[1:])
            for name, target in self._beside.items():
                item[name] = target[flat].reshape(*index.shape, *target.shape[1:])
        return item
