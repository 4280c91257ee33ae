"""Where arrays lie: one mesh over the devices, batches split along their first axis."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax.errors import RecipeError


@dataclass(frozen=True)
class Placement:
    """Puts trees on the devices of a mesh with one axis, `data`."""

    mesh: Mesh

    @property
    def count(self) -> int:
        """Number of devices."""
        return self.mesh.size

    def replicate(self, tree: Any) -> Any:
        """Every leaf whole on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def split(self, tree: Any, axis: int = 0) -> Any:
        """Every leaf split along `axis` over the devices."""
        spec = PartitionSpec(*[None] * axis, "data")
        return jax.device_put(tree, NamedSharding(self.mesh, spec))


def place(devices: int = 0) -> Placement:
    """A placement over `devices` devices; 0 is all accelerators, or one CPU.

    A CPU counts as one device however many are simulated, unless a number asks for them.

    Raises:
      RecipeError: there are not so many.
    """
    available = jax.devices()
    wanted = devices or (1 if jax.default_backend() == "cpu" else len(available))
    if wanted > len(available):
        raise RecipeError(f"train.devices is {wanted}, but jax sees {len(available)}: {available}")
    return Placement(
        jax.make_mesh((wanted,), ("data",), (AxisType.Auto,), devices=available[:wanted])
    )


def numerics(precision: Literal["default", "highest"]) -> contextlib.AbstractContextManager[Any]:
    """The precision of matrix products and convolutions of what is traced meanwhile."""
    if precision == "highest":
        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()
