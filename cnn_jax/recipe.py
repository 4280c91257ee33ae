"""The frozen description of a run: plain values, TOML in and out.

A recipe is the whole of what a person chooses. Everything else about a run (class names,
image shape, digests, versions) follows from it and from the data, and is recorded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from cnn_jax import fields
from cnn_jax.errors import RecipeError


@dataclass(frozen=True)
class DataRecipe:
    """Where images come from.

    Attributes:
      source: name of a known data set, or a path whose layout is recognised.
      root: folder in which named data sets lie; None for the current folder.
      image_size: height and width in pixels; None keeps or chooses one (see `data.load`).
      channels: 1 or 3; None follows the images.
      fit: how an image of another shape is fitted: `crop`, `pad` or `stretch`.
      label, path_column, split_column, group_column: columns of a table, by name or by
        position from 0; None finds them.
      validation: fraction of the training part held out where the source has no
        validation part.
      split_seed: seed of the splits we make; not the seed of the run, so that runs
        with different seeds share their splits.
    """

    source: str = "digits"
    root: str | None = None
    image_size: int | None = None
    channels: Literal[1, 3] | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    label: str | None = None
    path_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    validation: float = 0.1
    split_seed: int = 0


@dataclass(frozen=True)
class ModelRecipe:
    """Which network: a name that `cnn-jax models` lists, and its own options."""

    name: str = "compact"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentRecipe:
    """What happens to training images inside the step.

    Attributes:
      translate: largest shift along each axis, pixels; 0 for none.
      padding: what a shift uncovers: `zero` (black) or `reflect`.
      flip: mirror left and right with probability 1/2.
      cutout: side of the square set to zero, pixels; 0 for none.
      mixup: alpha of the Beta distribution of mixing weights; 0 for none.
    """

    translate: int = 2
    padding: Literal["zero", "reflect"] = "reflect"
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0


@dataclass(frozen=True)
class LossRecipe:
    """What is minimised.

    Attributes:
      label_smoothing: share of the target spread evenly over the classes.
      class_weights: `none`; `balanced` (inverse frequency in the training part); or one
        weight for each class.
    """

    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"


@dataclass(frozen=True)
class OptimizerRecipe:
    """How parameters move.

    Attributes:
      name: `sgd` (momentum; weight decay is added to the gradient, as in PyTorch) or
        `adamw` (decoupled decay, scaled by the learning rate).
      learning_rate: peak learning rate.
      momentum: SGD's momentum, or AdamW's beta 1.
      nesterov: Nesterov's form of momentum (SGD only).
      weight_decay: strength of the decay.
      decay_exclude: regular expressions, searched in parameter paths such as
        `stem/conv/kernel`; what matches is not decayed. One that matches nothing is an
        error, except for the defaults.
      beta2, epsilon: AdamW only.
      clip_norm: gradients are scaled down to this global norm; 0 for no clipping.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_exclude: tuple[str, ...] = ("bias$", "scale$")
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 0.0


@dataclass(frozen=True)
class ScheduleRecipe:
    """How the learning rate changes.

    Attributes:
      name: `cosine`, `linear`, `piecewise` or `constant` after the warm-up.
      warmup_epochs: length of the linear warm-up from zero.
      final_fraction: where cosine and linear end, as a fraction of the peak.
      milestones: where piecewise drops, as fractions of the whole training.
      drop: factor of each drop.
    """

    name: Literal["cosine", "linear", "piecewise", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    final_fraction: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    drop: float = 0.1


@dataclass(frozen=True)
class TrainRecipe:
    """How long, in what batches, and what is kept.

    Attributes:
      epochs: number of epochs; the largest number where training may end sooner.
      batch_size: examples a step, over all devices.
      eval_batch_size: examples a batch of evaluation; does not change any figure.
      until: `epochs`; or `converged`: the learning rate stays constant after the warm-up,
        drops by 10 whenever the training loss has not fallen by 1 % within `patience`
        epochs, and training ends when it does not fall after two drops.
      patience: with `epochs`, stop when validation has not improved for so many epochs (0:
        never); with `converged`, length of a plateau (0: 5 epochs).
      select: which state is evaluated and exported: `last` or `best` (on validation).
      dtype: type of activations: `float32` or `bfloat16`; parameters stay float32.
      precision: of matrix products and convolutions: `default` lets recent GPUs use TF32
        and TPUs bfloat16; `highest` is float32 throughout.
      chunk_steps: steps between two looks of the host; None chooses.
      devices: number of devices the batch is split over; 0 for all (one, on a CPU).
      checkpoint_seconds: least time between two checkpoints that are not a new best.
      compiler_options: options of XLA for the compiled step, such as
        `xla_cpu_experimental_ynn_fusion_type`. Those of the CPU (`xla_cpu_...`) are left
        out on other platforms. They may change results in the last bits and vanish with
        a version of jaxlib.
      memory_limit: bytes of images that are held in memory (and on the device); larger
        data are read while training.
    """

    epochs: int = 30
    batch_size: int = 64
    eval_batch_size: int = 256
    until: Literal["epochs", "converged"] = "epochs"
    patience: int = 0
    select: Literal["last", "best"] = "last"
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "highest"] = "default"
    chunk_steps: int | None = None
    devices: int = 0
    checkpoint_seconds: float = 30.0
    compiler_options: Mapping[str, Any] = field(default_factory=dict)
    memory_limit: int = 4 * 2**30


@dataclass(frozen=True)
class Recipe:
    """A whole run. See each part for its fields."""

    seed: int = 0
    data: DataRecipe = DataRecipe()
    model: ModelRecipe = ModelRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    train: TrainRecipe = TrainRecipe()

    def __post_init__(self) -> None:
        for path, accepts, rule in _LIMITS:
            value = fields.get(self, path)
            if value is not None and not accepts(value):
                raise RecipeError(f"{path} must be {rule}, not {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values; a field that is None is left out."""
        return fields.plain(self)

    def to_toml(self) -> str:
        """The recipe as TOML; `Recipe.from_toml` reads it back to an equal recipe."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe with these values; fields that are left out keep their defaults."""
        return cls().override(values)

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """Read a TOML file.

        Raises:
          RecipeError: the file cannot be read, is no TOML, or names an unknown field.
        """
        return cls().override(read_toml(path))

    def override(self, values: Mapping[str, Any]) -> Recipe:
        """A copy with some fields changed.

        Args:
          values: nested (`{"optimizer": {"learning_rate": 0.1}}`) or dotted
            (`{"optimizer.learning_rate": 0.1}`) names. Values are checked against the
            type of the field; text is read as that type where it can be.

        Raises:
          RecipeError: an unknown field (the nearest one is named) or a value that does
            not fit.
        """
        return fields.override(self, fields.nested(values))

    def digest(self) -> str:
        """sha256 (hex) of all values."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def bundled() -> list[str]:
    """Names of the recipes that ship with the library."""
    folder = resources.files("cnn_jax") / "recipes"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def load(name_or_path: str) -> dict[str, Any]:
    """Values of a bundled recipe, or of a TOML file.

    Raises:
      RecipeError: there is neither.
    """
    if name_or_path in bundled():
        text = (resources.files("cnn_jax") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
        return tomllib.loads(text)
    if Path(name_or_path).suffix == ".toml" or Path(name_or_path).exists():
        return read_toml(name_or_path)
    raise RecipeError(
        f"no recipe called {name_or_path!r}{fields.nearest(name_or_path, bundled())}; "
        f"bundled are {', '.join(bundled())}, or name a .toml file"
    )


def read_toml(path: str | Path) -> dict[str, Any]:
    """Values of a TOML file, unchecked.

    Raises:
      RecipeError: the file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {str(path)!r} is not TOML: {error}") from error


def for_data(source: str) -> Recipe:
    """The recipe for a data set: the bundled one of that name, else the defaults.

    A path counts by its last part, so `~/sets/mnist` gets the recipe for MNIST.
    """
    key = Path(source).name.lower().removesuffix(".npz").replace("-", "_")
    name = _RECIPE_OF.get(key, key)
    values = load(name) if name in bundled() else {}
    return Recipe().override(values).override({"data": {"source": source}})


# Shorter names of the fields that are changed most, in Python and on the command line.
SHORT_NAMES = {
    "data": "data.source",
    "data_dir": "data.root",
    "model": "model.name",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "optimizer.learning_rate",
    "seed": "seed",
    "until": "train.until",
}


def resolve(recipe: Recipe | str | os.PathLike[str] | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe a run will have.

    Args:
      recipe: a recipe, the name of a bundled one or a TOML file; None takes the one for the
        data set.
      overrides: fields by dotted or short name. Another model than the recipe's starts
        from that model's own options.

    Raises:
      RecipeError: an unknown name or a value that does not fit.
    """
    dotted = {SHORT_NAMES.get(name, name): value for name, value in overrides.items()}
    if isinstance(recipe, Recipe):
        base = recipe
    elif recipe is not None:
        base = Recipe.from_dict(load(os.fspath(recipe)))
    else:
        base = for_data(str(dotted.get("data.source", Recipe().data.source)))
    if dotted.get("model.name", base.model.name) != base.model.name:
        base = dataclasses.replace(base, model=ModelRecipe())
    return base.override(dotted)


# Sets of the same kind share a recipe; nothing in it was tuned on these.
_RECIPE_OF = {
    "fashion_mnist": "mnist",
    "kmnist": "mnist",
    "cifar_10_batches_bin": "cifar10",
    "cifar_100_binary": "cifar10",
    "cifar100": "cifar10",
}

_LIMITS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("seed", lambda v: 0 <= v < 2**32, "between 0 and 4294967295"),
    ("data.source", lambda v: v != "", "a name or a path"),
    ("data.image_size", lambda v: v >= 4, "at least 4 pixels"),
    ("data.validation", lambda v: 0 < v < 1, "between 0 and 1"),
    ("data.split_seed", lambda v: 0 <= v < 2**32, "between 0 and 4294967295"),
    ("augment.translate", lambda v: v >= 0, "0 or more pixels"),
    ("augment.cutout", lambda v: v >= 0, "0 or more pixels"),
    ("augment.mixup", lambda v: v >= 0, "0 or more"),
    ("loss.label_smoothing", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    (
        "loss.class_weights",
        lambda v: isinstance(v, str) or all(w >= 0 for w in v),
        "'none', 'balanced' or weights of 0 or more",
    ),
    ("optimizer.learning_rate", lambda v: v > 0, "above 0"),
    ("optimizer.momentum", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("optimizer.weight_decay", lambda v: v >= 0, "0 or more"),
    ("optimizer.beta2", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("optimizer.epsilon", lambda v: v > 0, "above 0"),
    ("optimizer.clip_norm", lambda v: v >= 0, "0 or more"),
    ("schedule.warmup_epochs", lambda v: v >= 0, "0 or more"),
    ("schedule.final_fraction", lambda v: 0 <= v <= 1, "between 0 and 1"),
    (
        "schedule.milestones",
        lambda v: all(0 < m < 1 for m in v) and list(v) == sorted(v),
        "increasing fractions between 0 and 1",
    ),
    ("schedule.drop", lambda v: 0 < v < 1, "between 0 and 1"),
    ("train.epochs", lambda v: v >= 1, "at least 1"),
    ("train.batch_size", lambda v: v >= 1, "at least 1"),
    ("train.eval_batch_size", lambda v: v >= 1, "at least 1"),
    ("train.patience", lambda v: v >= 0, "0 or more epochs"),
    ("train.chunk_steps", lambda v: v >= 1, "at least 1"),
    ("train.devices", lambda v: v >= 0, "0 or more"),
    ("train.checkpoint_seconds", lambda v: v >= 0, "0 or more seconds"),
    ("train.memory_limit", lambda v: v >= 0, "0 or more bytes"),
)
