"""`Detector`: what tells that a picture is not normal, with its alarm; it can be kept."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from cnn_jax import data, environment
from cnn_jax.anomaly import arrays_of, of_arrays
from cnn_jax.data import Split
from cnn_jax.decision import Alarm, fit_alarm
from cnn_jax.detecting.looking import Look, look_at
from cnn_jax.detecting.scorer import FITTED, Method, Scorer
from cnn_jax.detecting.tiles import Tiles
from cnn_jax.errors import DataError, EvaluationError, RunError
from cnn_jax.evaluation import CalibrationScores
from cnn_jax.new_images import source_of
from cnn_jax.pretraining.kept import described, flattened, rebuilt
from cnn_jax.recipe import Recipe
from cnn_jax.run_folder import write_text

if TYPE_CHECKING:
    from cnn_jax.new_images import Images

# 2 since there are windows, of which an earlier version would not know.
SCHEMA, _READABLE = 2, (1, 2)
DESCRIPTION = "detection.json"
_ARRAYS, _CALIBRATION = "detector.safetensors", "scores-validation.npz"


@dataclass(frozen=True, eq=False)
class Scored:
    """What a detector says of N images.

    Attributes:
      ids: path of each image, or its position.
      scores: float64 `[N]`, higher for what is more anomalous.
      alarms: bool `[N]`, which images raise one: those with a score above `threshold`.
      threshold: of the alarm.
    """

    ids: tuple[str, ...]
    scores: np.ndarray
    alarms: np.ndarray
    threshold: float

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector with all it needs to say whether a picture is normal.

    Attributes:
      method, features: how it works.
      normal: the class that is normal.
      image_shape: (H, W, C) that images are brought to; of windows, theirs.
      fit: how pictures of another size are brought to it.
      tiles: windows in which pictures are looked at; None where they are looked at as a whole.
      data_name, data_digest: of the data set it was fitted for.
      scorer: what scores images.
      recipe: of the network; None for pixels.
      calibration: scores of the normal images of the validation part.
      alarm: fitted on `calibration`.
      verdict: whether the test part can be one for which the alarm's promise is kept, in words.
      test_uses: each time the test part was looked at: `date`, `split`, `n` and `command`.
      folder: where it was loaded from.
    """

    method: Method
    features: str
    normal: str
    image_shape: tuple[int, ...]
    fit: data.Fit
    data_name: str
    data_digest: str
    scorer: Scorer
    recipe: Recipe | None
    calibration: CalibrationScores
    alarm: Alarm
    tiles: Tiles | None = None
    verdict: str = ""
    test_uses: tuple[dict[str, Any], ...] = ()
    folder: Path | None = None

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.image_shape))
        return (
            f"Detector({self.method} of {self.features}, {self.normal} is normal, images {shape}, "
            f"alarm above {self.alarm.threshold:.4g})"
        )

    def predict(self, images: Images) -> Scored:
        """Score and alarm of new images.

        Args:
          images: uint8 `[N, H, W, C]` (or `[N, H, W]` for grey ones), or float32 in 0..1; or a
            list of paths of files, of uint8 arrays `[H, W, C]` or `[H, W]`, or of Pillow images,
            of any size, which are decoded and fitted as for `Classifier.predict`.

        A detector of windows takes paths alone, and looks at the files at their own resolution.

        Raises:
          DataError: no images, a wrong shape, or a file that cannot be decoded.
        """
        environment.enable_compile_cache()
        if self.tiles is not None:
            paths = _paths(images)
            found = np.array([look.score for look in self.look(paths)])
            return Scored(tuple(map(str, paths)), found, self.alarm.of(found), self.alarm.threshold)
        source, ids = source_of(images, self.image_shape, self.fit)
        scores = self.scorer.of(Split(source, {}, np.asarray(ids, dtype=np.str_)))
        return Scored(tuple(ids), scores, self.alarm.of(scores), self.alarm.threshold)

    def score(self, images: Images) -> np.ndarray:
        """Scores of new images, float64 `[N]`; as `predict`."""
        return self.predict(images).scores

    def look(self, files: Sequence[str | os.PathLike[str]]) -> Iterator[Look]:
        """What it sees in each of some picture files, in their order; see `looking.look_at`.

        Raises:
          DataError: a file cannot be read.
        """
        environment.enable_compile_cache()
        paths = [Path(file) for file in files]
        return look_at(self.scorer, paths, self.image_shape, self.fit, self.tiles)

    def judged(self, n: int, command: str, verdict: str) -> Detector:
        """The same, its test part having been looked at; written to its folder where it has one.

        Args:
          n: how many images were looked at.
          command: what the log says.
          verdict: what came of it.

        Raises:
          RunError: the log cannot be written.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        use = {"date": now, "split": "test", "n": n, "command": command}
        uses = (*self.test_uses, use)
        if self.folder is not None:
            values = read_description(self.folder)
            uses = (*values["test_uses"], use)  # those of another process too
            write_description(self.folder, {**values, "test_uses": uses})
        return replace(self, verdict=verdict, test_uses=uses)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write its arrays into a folder; returns what `detection.json` has to say beside them.

        Raises:
          OSError: they cannot be written.
        """
        import safetensors.numpy

        network = self.scorer.network
        tensors: dict[str, np.ndarray] = {}
        if self.scorer.fitted is not None:
            found = arrays_of(self.scorer.fitted)
            tensors |= {f"fitted/{name}": array for name, array in found.items()}
        if network is not None:
            tensors |= {f"network/{k}": array for k, array in flattened(network).items()}
        content = safetensors.numpy.save(tensors)
        (folder / _ARRAYS).write_bytes(content)
        self.calibration.save(folder / _CALIBRATION)
        return {
            "schema": SCHEMA,
            "versions": environment.versions(),
            "data": {"name": self.data_name, "digest": self.data_digest},
            "normal": self.normal,
            "method": self.method,
            "features": self.features,
            "image_shape": list(self.image_shape),
            "fit": self.fit,
            "tiles": None if self.tiles is None else asdict(self.tiles),
            "network": None
            if network is None or self.recipe is None
            else {**described(network, self.recipe), "at": list(self.scorer.at)},
            "alarm": self.alarm.to_dict(),
            "promise": self.verdict,
            "test_uses": list(self.test_uses),
            "sha256": {name: _sha256(folder / name) for name in (_ARRAYS, _CALIBRATION)},
        }

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Detector:
        """Read what `Detection.save` wrote; its scores are the same, bit for bit, on this machine.

        Raises:
          RunError: the folder is that of no detection, a file of it is missing, damaged or of
            another detection, or was written by a newer version.
        """
        import safetensors
        import safetensors.numpy

        folder = Path(folder)
        values = read_description(folder)
        try:
            for name in (_ARRAYS, _CALIBRATION):
                if _sha256(folder / name) != values["sha256"][name]:
                    raise RunError(f"{str(folder / name)!r} is not what was written: damaged")
            tensors = safetensors.numpy.load((folder / _ARRAYS).read_bytes())
            calibration = CalibrationScores.load(folder / _CALIBRATION)
            shape = tuple(int(n) for n in values["image_shape"])
            if values["method"] not in get_args(Method) or values["fit"] not in get_args(data.Fit):
                raise ValueError(f"method {values['method']!r} or fit {values['fit']!r}")
            scorer, recipe = _scorer(values, tensors, shape)
            return cls(
                method=values["method"],
                features=str(values["features"]),
                normal=str(values["normal"]),
                image_shape=shape,
                fit=values["fit"],
                data_name=str(values["data"]["name"]),
                data_digest=str(values["data"]["digest"]),
                scorer=scorer,
                recipe=recipe,
                calibration=calibration,
                tiles=None if values.get("tiles") is None else Tiles(**values["tiles"]),
                alarm=_alarm(calibration, values["alarm"]),
                verdict=str(values["promise"]),
                test_uses=tuple(map(dict, values["test_uses"])),
                folder=folder,
            )
        except KeyError as error:
            raise RunError(f"cannot read a detector from {str(folder)!r}: no {error}") from error
        except (
            *(OSError, ValueError, TypeError, AttributeError, EvaluationError),
            safetensors.SafetensorError,
        ) as error:
            raise RunError(f"cannot read a detector from {str(folder)!r}: {error}") from error


def read_description(folder: Path) -> dict[str, Any]:
    """What `detection.json` holds.

    Raises:
      RunError: it is not there, is damaged, or of another schema.
    """
    if not folder.is_dir():
        raise RunError(f"no folder {str(folder)!r}")
    path = folder / DESCRIPTION
    if not path.exists():
        raise RunError(
            f"{str(folder)!r} holds no detector: it has no {DESCRIPTION}, which cnn-jax detect "
            "--out writes"
        )
    try:
        values = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"cannot read {str(path)!r}: {error}") from error
    if (schema := values.get("schema")) is None:
        raise RunError(
            f"{str(folder)!r} has figures but no detector, as earlier versions wrote: detect again"
        )
    if schema not in _READABLE:
        raise RunError(
            f"{str(folder)!r} has schema {schema}, this version of cnn_jax reads {SCHEMA}"
        )
    return values


def write_description(folder: Path, values: Mapping[str, Any]) -> Path:
    """Write `detection.json`, whole or not at all.

    Raises:
      RunError: it cannot be written.
    """
    path = folder / DESCRIPTION
    write_text(path, json.dumps(values, indent=1) + "\n")
    return path


def _paths(images: Images) -> list[Path]:
    """Picture files alone, each once."""
    if isinstance(images, np.ndarray | str | os.PathLike) or not all(
        isinstance(image, str | os.PathLike) for image in images
    ):
        raise DataError(
            "this detector looks at pictures in windows, at their own resolution: give a list of "
            "paths of files"
        )
    paths = [Path(image) for image in images]  # type: ignore[arg-type]
    if not paths:
        raise DataError("no images to predict")
    if len(set(paths)) != len(paths):
        raise DataError("a file is named twice among the images to predict")
    return paths


def _scorer(
    values: Mapping[str, Any], tensors: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> tuple[Scorer, Recipe | None]:
    """What scores, and the recipe of its network."""
    fitted = None
    if values["method"] in FITTED:
        fitted = of_arrays(FITTED[values["method"]], _below(tensors, "fitted/"))
    if (network := values["network"]) is None:
        if fitted is None:
            raise ValueError(f"{values['method']} without a network")
        return Scorer(fitted), None
    recipe = Recipe.from_dict(network["recipe"])
    found = rebuilt(network, recipe, shape, _below(tensors, "network/"))
    return Scorer(fitted, found, tuple(map(str, network["at"]))), recipe


def _below(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays whose names begin so, by the rest of the name; copies that can be written to."""
    return {
        name.removeprefix(prefix): np.array(array)
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _alarm(calibration: CalibrationScores, recorded: Mapping[str, Any]) -> Alarm:
    """The alarm, drawn again: it knows then which images it was drawn on."""
    alarm = fit_alarm(
        calibration,
        false_alarm=float(recorded["false_alarm"]),
        confidence=float(recorded["confidence"]),
    )
    if alarm.threshold != recorded["threshold"]:
        raise ValueError(
            f"its alarm is above {recorded['threshold']}, but by its scores above {alarm.threshold}"
        )
    return alarm


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
