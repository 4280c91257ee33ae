"""TensorFlow Datasets (TFDS) by name: what a name means, and where the prepared set lies.

A prepared set is a folder `ROOT/NAME[/CONFIG]/VERSION` with `dataset_info.json`. It is read
from there alone: no code of the set is imported, nothing is downloaded, and TensorFlow is
never needed.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cnn_jax.data.reading import some_of
from cnn_jax.errors import DataError

PREFIX = "tfds:"

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"\w+")
_CONFIG = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class TfdsName:
    """A TFDS set as a person names it.

    Attributes:
      name, config, version: as TFDS spells them; None where not given.
      split: a split expression of TFDS such as `train[:10%]`; None for all splits.
    """

    name: str
    config: str | None = None
    version: str | None = None
    split: str | None = None

    @property
    def full(self) -> str:
        """Name, config and version, as `tfds.builder` takes them."""
        config = "" if self.config is None else f"/{self.config}"
        version = "" if self.version is None else f":{self.version}"
        return f"{self.name}{config}{version}"


def parse_name(spec: str) -> TfdsName:
    """`tfds:NAME[/CONFIG][/VERSION | :VERSION][:SPLIT]`, taken apart.

    What follows a colon is a version if it is three numbers with dots between, which no split
    can be, and otherwise a split expression, in which more colons may come.

    Raises:
      DataError: the spec has another form.
    """
    path, _, rest = spec.removeprefix(PREFIX).partition(":")
    words = path.split("/")
    versions = [words.pop()] if len(words) > 1 and _VERSION.fullmatch(words[-1]) else []
    first, _, others = rest.partition(":")
    if _VERSION.fullmatch(first):
        versions.append(first)
        rest = others
    well_formed = (
        len(words) <= 2
        and _NAME.fullmatch(words[0])
        and all(_CONFIG.fullmatch(word) for word in words[1:])
        and len(versions) <= 1
    )
    if not well_formed:
        raise DataError(
            f"{spec!r} is no name of a TFDS set: write tfds:NAME, tfds:NAME/CONFIG, "
            "tfds:NAME:VERSION or tfds:NAME:SPLIT, such as tfds:mnist:train[:10%]"
        )
    return TfdsName(
        name=words[0],
        config=words[1] if len(words) == 2 else None,
        version=versions[0] if versions else None,
        split=rest or None,
    )


def tfds_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """The absolute folder of prepared sets.

    `data_dir` if given, else `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`, as TFDS has it.
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(root).expanduser().absolute()


def prepared_folder(wanted: TfdsName, root: Path) -> Path:
    """The folder of the set's highest version, or of the version asked for.

    Raises:
      DataError: it is not there (said with the command that prepares it, or the nearest
        names), or several configs are and none is chosen.
    """
    try:
        base = root / wanted.name
        if wanted.config is not None:
            base /= wanted.config
        versions = _versions(base)
        if not versions and wanted.config is None:
            base = _only_config(wanted, base)
            versions = _versions(base)
    except OSError as error:
        raise DataError(f"cannot look for {wanted.full!r} in {str(root)!r}: {error}") from error
    if not versions:
        raise _not_prepared(wanted, root)
    if wanted.version is None:
        return base / versions[-1]
    if wanted.version not in versions:
        raise DataError(
            f"{str(base)!r} has no version {wanted.version}; it has {', '.join(versions)}"
        )
    return base / wanted.version


def prepare_command(wanted: TfdsName, root: Path) -> str:
    """The command that downloads a set and prepares it as ArrayRecord below `root`."""
    code = (
        "import tensorflow_datasets as tfds; "
        f"tfds.builder({json.dumps(wanted.full)}, data_dir={json.dumps(str(root))}, "
        'file_format="array_record").download_and_prepare()'
    )
    return f"python -c {shlex.quote(code)} (needs the extra 'prepare' of cnn_jax)"


def is_in_catalogue(name: str) -> bool:
    """Whether TFDS knows how to prepare a set of this name."""
    return name in _catalogue()


def import_tfds() -> ModuleType:
    """The package `tensorflow_datasets`.

    Raises:
      DataError: it or `array_record` is not installed.
    """
    try:
        import array_record  # noqa: F401 - TFDS needs it, but only when records are read
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            f"TFDS sets need packages that are not here ({error}): "
            "pip install tensorflow-datasets array_record importlib_resources"
        ) from error
    return tensorflow_datasets


def _catalogue() -> list[str]:
    # The catalogue of community sets is on the network, and asking for it imports TensorFlow.
    names: list[str] = import_tfds().list_builders(with_community_datasets=False)
    return names


def _versions(folder: Path) -> list[str]:
    """The version folders, lowest first."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name)]
    return sorted(names, key=lambda name: [int(number) for number in name.split(".")])


def _only_config(wanted: TfdsName, base: Path) -> Path:
    """The folder of the only config that is prepared; `base` if there is none."""
    if not base.is_dir():
        return base
    configs = [path for path in sorted(base.iterdir()) if _versions(path)]
    if len(configs) > 1:
        raise DataError(
            f"{str(base)!r} holds several configs ({', '.join(path.name for path in configs)}): "
            f"choose one, such as tfds:{wanted.name}/{configs[0].name}"
        )
    return configs[0] if configs else base


def _sets_in(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    folders = (*root.glob("*"), *root.glob("*/*"))
    return sorted(path.relative_to(root).as_posix() for path in folders if _versions(path))


def _not_prepared(wanted: TfdsName, root: Path) -> DataError:
    catalogue = _catalogue()
    if wanted.name in catalogue:
        return DataError(
            f"TFDS set {wanted.full!r} is not prepared in {str(root)!r}; prepare it once: "
            f"{prepare_command(wanted, root)}"
        )
    here = _sets_in(root)
    near = difflib.get_close_matches(wanted.name, [*here, *catalogue], n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return DataError(
        f"no TFDS set {wanted.name!r}: TFDS has none of that name, and {str(root)!r} holds "
        f"{some_of(here) or 'nothing'}{hint}"
    )
