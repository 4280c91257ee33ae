"""From what a person typed to the data it means: a name or a path, and its layout."""

from __future__ import annotations

import difflib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnn_jax.data.cifar import find_cifar
from cnn_jax.data.fetching.download import find_home
from cnn_jax.data.files import is_image
from cnn_jax.data.idx import find_idx_files
from cnn_jax.data.known import KNOWN, known_set, plain_name
from cnn_jax.data.published import TITLES, find_published
from cnn_jax.data.reading import counted, some_of
from cnn_jax.data.table import TABLE_SUFFIXES, find_part_tables
from cnn_jax.errors import DataError, MissingDataError

Layout = Literal[
    "digits",
    "idx",
    "cifar10",
    "cifar100",
    "medmnist",
    "gtsrb",
    "oxford_pets",
    "cub",
    "table",
    "part tables",
    "class folders",
]

_DATA_SUFFIXES = (".npz", *TABLE_SUFFIXES)


@dataclass(frozen=True)
class Location:
    """Where a data set lies, how it is laid out, and the name it goes by."""

    path: Path
    layout: Layout
    name: str


def locate(spec: str, data_dir: str | os.PathLike[str] | None = None) -> Location:
    """The one data set that `spec` means.

    A path, relative to the working folder or to `data_dir`; or a name, which is looked for
    among the entries of `data_dir` (the working folder by default) without regard to case
    and separators, under the names by which the set is distributed; `data_dir` may itself be
    the set.

    Raises:
      MissingDataError: nothing fits; gives the nearest name.
      DataError: several things fit, or what fits is in no known layout.
    """
    root = Path(os.curdir if data_dir is None else data_dir).expanduser()
    try:
        return _locate(spec, root)
    except OSError as error:
        raise DataError(f"cannot look for {spec!r} in {str(root)!r}: {error}") from error


def _locate(spec: str, root: Path) -> Location:
    if not root.exists():
        raise MissingDataError(f"the data folder {str(root)!r} does not exist")
    candidates = _candidates(spec, root)
    locations = {
        location.path.resolve(): location
        for path in candidates
        if (location := _recognise(path)) is not None
    }
    found = list(locations.values())
    if plain_name(spec) == "digits":
        found.insert(0, Location(Path("digits"), "digits", "digits"))
    if not found:
        found = _root_of_that_kind(spec, root)
    if len(found) > 1:
        raise DataError(
            f"{spec!r} may mean {some_of([location.path for location in found])}: give the path"
        )
    if not found and candidates:
        raise DataError(_unknown_layout(candidates[0]))
    if not found:
        raise MissingDataError(_not_found(spec, root))
    return found[0]


def _candidates(spec: str, root: Path) -> list[Path]:
    """Existing paths that the spec may mean."""
    paths = [path for path in (Path(spec).expanduser(), root / spec) if path.exists()]
    known = known_set(spec)
    names = {spec} if known is None else {spec, known[0], *known[1].folders}
    plain = {plain_name(name) for name in names}
    near = [root, *sorted(root.iterdir())] if root.is_dir() else [root]
    return paths + [path for path in near if plain_name(_stem(path)) in plain]


def _recognise(path: Path) -> Location | None:
    """The data set at a path, or None when it is in no known layout."""
    if path.is_file():
        layout: Layout = "medmnist" if path.suffix == ".npz" else "table"
        known_suffix = path.suffix.lower() in _DATA_SUFFIXES
        return Location(path, layout, _set_name(path)) if known_suffix else None
    # Wrapping folders: torchvision keeps IDX files in `raw`, others keep one .npz in a folder.
    if (path / "raw").is_dir() and find_idx_files(path / "raw"):
        return Location(path / "raw", "idx", _set_name(path))
    archives = sorted(path.glob("*.npz"))
    if len(archives) == 1:
        return Location(archives[0], "medmnist", _set_name(archives[0]))
    layouts = _folder_layouts(path)
    if len(layouts) > 1:
        raise DataError(f"{str(path)!r} holds several data sets: {', '.join(layouts)}")
    return Location(path, layouts[0], _set_name(path)) if layouts else None


def _folder_layouts(path: Path) -> list[Layout]:
    layouts: list[Layout] = []
    if find_idx_files(path):
        layouts.append("idx")
    layouts += find_cifar(path)
    if (published := find_published(path)) is not None:
        layouts.append(published)
    # Lists of files are explicit: they win over the folders in which the files lie.
    if published is None and find_part_tables(path):
        layouts.append("part tables")
    has_folders = any(p.is_dir() for p in path.iterdir() if not p.name.startswith("."))
    if has_folders and not layouts:
        layouts.append("class folders")
    return layouts


def _root_of_that_kind(spec: str, root: Path) -> list[Location]:
    """The data folder itself, when its files are of the kind named but its name says nothing."""
    location = _recognise(root) if root.is_dir() else None
    if location is None or known_set(location.name) is not None:
        return []
    known = known_set(spec)
    is_that_kind = location.layout == (known[0] if known else spec) or (
        location.layout == "idx" and known is not None and "mnist" in known[0]
    )
    return [Location(root, location.layout, spec)] if is_that_kind else []


def _set_name(path: Path) -> str:
    name = _stem(path)
    known = known_set(name)
    return name if known is None else known[0]


def _stem(path: Path) -> str:
    if path.name in ("", os.pardir):
        path = path.resolve()
    return path.stem if path.suffix.lower() in _DATA_SUFFIXES else path.name


def _unknown_layout(path: Path) -> str:
    images = [file for file in path.iterdir() if is_image(file)] if path.is_dir() else []
    if images:
        return (
            f"{str(path)!r} holds {counted(len(images), 'image', 'images')} but no class folders: "
            "put them into one folder per class"
        )
    return (
        f"{str(path)!r} is in no known layout: IDX files, CIFAR files, a MedMNIST .npz, "
        f"{', '.join(TITLES.values())}, tables of paths and labels, or a folder of images for "
        "each class"
    )


def _not_found(spec: str, root: Path) -> str:
    path = Path(spec).expanduser()
    nearby = root if path.parent == Path(os.curdir) else path.parent
    here = sorted(p.name for p in nearby.iterdir()) if nearby.is_dir() else []
    here = [name for name in here if not name.startswith(".")]
    near = difflib.get_close_matches(path.name, [*KNOWN, *here], n=1)
    known = known_set(spec)
    if near and known is None:
        return f"no data set {spec!r}; did you mean {near[0]!r}? (looked in {str(nearby)!r})"
    aliases = "" if known is None or not known[1].folders else f" (or {known[1].folders[0]!r})"
    missing = f"no data set {spec!r}: {str(root.resolve())!r} has no {path.name!r}{aliases}"
    home = find_home(spec)
    if home is not None:
        folder = shlex.quote(str(root))
        return f"{missing}; get it with: cnn-jax data {home[0]} --download --data-dir {folder}"
    holds = f"{str(nearby)!r} holds {some_of(here) or 'nothing'}"
    return f"{missing}; {holds}" + ("" if known else f"; names: {', '.join(KNOWN)}")
