"""A folder per class, with or without a folder per part above.

FOLDER/<class>/[.../]image.png
FOLDER/{train,val,test}/<class>/[.../]image.png

With masks also FOLDER/[{train,val,test}/]{images,masks}/[.../]image.png, or
FOLDER/ground_truth/<class>/[.../]image_mask.png of those in FOLDER/test; see `masks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.data.dicom import patients
from cnn_jax.data.files import GROUPS_FILE, is_image, read_groups, walk
from cnn_jax.data.masks import (
    BACKGROUND,
    IMAGES_FOLDER,
    LESION,
    MASKS_FOLDER,
    MOST_REGIONS,
    TRUTH_FOLDER,
    has_truth,
    masks_of,
    split_off,
)
from cnn_jax.data.reading import PART_NAMES, PARTS, Part, Reading, encode_labels, some_of
from cnn_jax.errors import DataError


def read_class_folders(
    folder: Path, *, masks: bool = False, regions: Sequence[str] = ()
) -> Reading:
    """Images labelled by the folder they lie in; classes sorted by name.

    Ids are the paths relative to `folder`; groups come from `groups.csv` where it is present, else
    from the patients where all files are DICOM and state one.

    Args:
      folder: see the layouts above.
      masks: whether to read the masks of the images, too.
      regions: names of what the values 1, 2, ... of the masks mean; empty for one region.

    Raises:
      DataError: a class folder has no image, an image lies in no class folder, folders of
        parts and of classes are mixed, a class of another part differs from one of train in
        letter case only, `groups.csv` does not fit, or an image has no mask.
    """
    parts_of = _part_folders(folder)
    contents = {part: _list_classes(path, masks=masks) for part, path in parts_of.items()}
    if has_truth(folder) and "test" in contents:
        contents["test"].masks.extend(filter(is_image, walk(folder / TRUTH_FOLDER)))
    _check_letter_case(parts_of, contents)
    classes = tuple(sorted({name for listing in contents.values() for name in listing.images}))
    if not classes:
        raise DataError(f"{str(folder)!r} has no folder per class with images")
    return Reading(
        parts={
            part: _part(folder, contents[part], classes, masks=masks)
            for part in PARTS
            if part in contents
        },
        classes={"label": classes},
        notes=_notes(folder, list(contents.values()), masks=masks),
        regions=_regions(regions) if masks else (),
        named_regions=bool(regions),
    )


def _regions(named: Sequence[str]) -> tuple[str, ...]:
    names = (BACKGROUND, *(named or (LESION,)))
    if len(set(names)) < len(names) or len(names) - 1 > MOST_REGIONS:
        raise DataError(
            f"data.regions must be 1 to {MOST_REGIONS} different names, none of them "
            f"{BACKGROUND!r}, which is value 0: not {some_of(list(named))}"
        )
    return names


@dataclass(frozen=True)
class _Listing:
    """The images of each class below a folder, and which files were left aside."""

    images: dict[str, list[Path]]
    masks: list[Path]
    others: list[str]


def _part_folders(folder: Path) -> dict[str, Path]:
    """Part -> its folder; `train` alone, the folder itself, where there are no parts."""
    folders = _folders(folder)
    found: dict[str, Path] = {}
    for path in folders:
        part = PART_NAMES.get(path.name.lower())
        if part in found:
            raise DataError(
                f"{str(found[part])!r} and {str(path)!r} are both a {part} part; keep one"
            )
        if part is not None:
            found[part] = path
    if not found:
        return {"train": folder}
    others = [
        path.name
        for path in folders
        if path not in found.values()
        and not (path.name == TRUTH_FOLDER and has_truth(folder))
        and any(is_image(file) for file in walk(path))
    ]
    if others:
        raise DataError(
            f"{str(folder)!r} mixes folders of parts ({some_of([p.name for p in found.values()])}) "
            f"with other folders of images ({some_of(others)}); move one kind elsewhere"
        )
    if "train" not in found:
        raise DataError(f"{str(folder)!r} has no folder 'train' beside {some_of(list(found))}")
    return found


def _list_classes(folder: Path, *, masks: bool) -> _Listing:
    folders = _folders(folder)
    apart: list[Path] = []
    if masks and {IMAGES_FOLDER, MASKS_FOLDER} <= {path.name for path in folders}:
        apart = [path for path in folders if path.name == MASKS_FOLDER]
        folders = [path for path in folders if path.name != MASKS_FOLDER]
    stray = [path.name for path in sorted(folder.iterdir()) if path.is_file() and is_image(path)]
    if stray:
        raise DataError(
            f"{len(stray)} images lie in {str(folder)!r} outside any class folder: {some_of(stray)}"
        )
    listing: dict[str, list[Path]] = {}
    others: list[str] = []
    found = [file for path in apart for file in walk(path) if is_image(file)]
    for path in folders:
        files = list(walk(path))
        images = [file for file in files if is_image(file)]
        listing[path.name], own = split_off(path, images)
        if not listing[path.name]:
            raise DataError(f"class folder {str(path)!r} has no image: remove it or fill it")
        others += [file.name for file in files if not is_image(file)]
        found += own
    return _Listing(listing, found, others)


def _check_letter_case(parts_of: Mapping[str, Path], contents: Mapping[str, _Listing]) -> None:
    """Refuse `test/Rose` beside `train/rose`; in one part the two may be classes of their own."""
    spelt = {name.casefold(): name for name in contents["train"].images}
    for part, listing in contents.items():
        for name in listing.images:
            known = spelt.get(name.casefold(), name)
            if known != name and name not in contents["train"].images:
                raise DataError(
                    f"class folders {str(parts_of[part] / name)!r} and "
                    f"{str(parts_of['train'] / known)!r} differ in letter case only: rename the "
                    f"first to {known!r}"
                )


def _part(folder: Path, listing: _Listing, classes: Sequence[str], *, masks: bool) -> Part:
    labelled = [(path, name) for name in sorted(listing.images) for path in listing.images[name]]
    ids = [path.relative_to(folder).as_posix() for path, _ in labelled]
    groups = read_groups(folder, ids)
    return Part(
        images=[path for path, _ in labelled],
        targets={"label": encode_labels([name for _, name in labelled], classes)},
        ids=np.array(ids, dtype=np.str_),
        groups=patients([path for path, _ in labelled]) if groups is None else groups,
        masks=masks_of(folder, [path for path, _ in labelled], listing.masks) if masks else None,
    )


def _notes(folder: Path, listings: Sequence[_Listing], *, masks: bool) -> tuple[str, ...]:
    notes = []
    count = sum(len(listing.masks) for listing in listings)
    if count and not masks:
        notes.append(f"Files left out as masks of other images: {count}.")
    others = [name for listing in listings for name in listing.others]
    others += [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name != GROUPS_FILE
    ]
    if others:
        notes.append(f"Files left out as not images: {len(others)} ({some_of(others)}).")
    return tuple(notes)


def _folders(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
        return [path for path in entries if not path.name.startswith(".") and path.is_dir()]
    except OSError as error:
        raise DataError(f"{str(folder)!r} cannot be listed: {error}") from error
