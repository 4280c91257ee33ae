"""A trained network as what makes the embeddings of a gallery, and folders of images enrolled."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from cnn_jax import environment, exported
from cnn_jax.classifier import Classifier
from cnn_jax.data import decode_image, list_images
from cnn_jax.data.files import is_image, walk
from cnn_jax.data.sources import for_each
from cnn_jax.errors import DataError, ModelError
from cnn_jax.evaluation import add_flipped
from cnn_jax.gallery import EmbeddingModel, Gallery
from cnn_jax.pretraining import Pretrained
from cnn_jax.run import Run

_ROWS = 64  # images decoded and embedded at a time


@dataclass(frozen=True, eq=False)
class Embedder:
    """A network that embeds images, and what its embeddings are told from others' by.

    Attributes:
      classifier: the trained network; its classes are not used.
      mirrored: whether the embedding of the image's mirror image is added: good for faces, not
        for what has letters on it. See `evaluation.add_flipped`.
    """

    classifier: Classifier
    mirrored: bool = False

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Embedder:
        """Of a run folder, or of one that `cnn-jax export` wrote.

        Raises:
          RunError: it is neither, or its training has not ended, or it segments.
          ModelError: it takes volumes, which are no image files.
        """
        was_exported = exported.is_one(folder)
        classifier = Classifier.load(folder) if was_exported else Run.load(folder).classifier
        if len(classifier.image_shape) != 3:
            raise ModelError(f"the network of {str(folder)!r} takes volumes, and no image files")
        return cls(classifier)

    def as_in(self, gallery: str | os.PathLike[str]) -> Embedder:
        """The same network, adding mirror images if those of an existing gallery were added.

        Raises:
          DataError: it is no gallery.
        """
        with Gallery.open(gallery) as known:
            preprocessing = known.model.preprocessing
        try:
            values = json.loads(preprocessing)
        except ValueError:  # in words: it is of another program
            values = None
        mirrored = isinstance(values, dict) and bool(values.get("mirrored"))
        return replace(self, mirrored=mirrored)

    @property
    def preprocessing(self) -> str:
        """How images become the network's input, and their embeddings, as JSON."""
        c = self.classifier
        values = {"image_shape": c.image_shape, "fit": c.recipe.data.fit, **asdict(c.preprocess)}
        if self.mirrored:
            values["mirrored"] = True
        return json.dumps(values, sort_keys=True)

    @functools.cached_property
    def digest(self) -> str:
        """Of the weights, the network's options and the preprocessing."""
        named = self.classifier.recipe.model
        text = json.dumps([self.preprocessing, named.name, named.options], sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for name, leaf in sorted(exported.flattened(self.classifier.variables).items()):
            digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
            digest.update(leaf.tobytes())
        return digest.hexdigest()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Embeddings float32 `[N, D]` of images uint8 `[N, H, W, C]` of the network's shape.

        They are the `embedding` of the network's outputs, or else what its last layer sees;
        with `mirrored` of length 1.

        Raises:
          ModelError: the network has neither.
        """
        found = np.asarray(self._embed(images))
        if not self.mirrored:
            return found
        return add_flipped(found, self._embed(images[:, :, ::-1])).astype(np.float32)

    def files(self, paths: Sequence[Path]) -> np.ndarray:
        """Embeddings of image files of any size, fitted as the training images were.

        Raises:
          DataError: a file cannot be decoded.
        """
        shape, fit = self.classifier.image_shape, self.classifier.recipe.data.fit
        environment.enable_compile_cache()
        found = []
        for start in range(0, len(paths), _ROWS):
            some = paths[start : start + _ROWS]
            images = for_each(lambda i, some=some: decode_image(some[i], shape, fit), len(some))  # type: ignore[misc, arg-type]
            found.append(self(np.stack(images)))
        return np.concatenate(found)

    @functools.cached_property
    def _embed(self) -> Callable[[np.ndarray], np.ndarray]:
        c = self.classifier
        return Pretrained.of(c.model, c.variables, c.preprocess, c.image_shape).embedding


@dataclass(frozen=True)
class Enrolment:
    """What became of folders of images.

    Attributes:
      new: images that were enrolled now; the others were before.
      images: image files that were found.
      counts: name -> number of its images among them.
      single: names that have one image in the gallery, which is all that their template is.
      empty: folders without images, of whom nobody is enrolled.
    """

    new: int
    images: int
    counts: dict[str, int]
    single: tuple[str, ...]
    empty: tuple[Path, ...]


def enrol_folders(
    path: str | os.PathLike[str], embedder: Embedder, folders: Iterable[str | os.PathLike[str]]
) -> Enrolment:
    """Enrol the images of folders, each under the name of the folder that it lies in.

    Either all images are enrolled or, if one cannot be read, none.

    Args:
      path: of the gallery, which is made if it is not there.
      embedder: the network.
      folders: with a folder for each identity, or these themselves, or image files.

    Raises:
      DataError: no image, or one that cannot be decoded; or as `Gallery.enrol`.
      ModelError: the gallery is of another network.
    """
    places = list(map(Path, folders))
    files = list_images(places)
    names = [file.absolute().parent.name for file in files]
    sources = [f"{name}/{file.name}" for name, file in zip(names, files, strict=True)]
    repeated = [source for source, count in Counter(sources).items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} images, such as {repeated[0]!r}, come from two folders of one name: "
            "rename a folder or a file"
        )
    if is_begun(path):  # refused before the work, if it is
        Gallery.open(path, embedder.digest).close()
    embeddings = embedder.files(files)
    model = EmbeddingModel(embedder.digest, embeddings.shape[1], embedder.preprocessing)
    with Gallery.create(path, model) as gallery:
        new = gallery.enrol(names, embeddings, sources=sources)
        total = gallery.counts()
    counts = dict(Counter(names))
    return Enrolment(
        new=new,
        images=len(files),
        counts=counts,
        single=tuple(name for name in counts if total.get(name) == 1),
        empty=tuple(
            folder for place in places for folder in _folders(place) if not _has_image(folder)
        ),
    )


def is_begun(gallery: str | os.PathLike[str]) -> bool:
    """Whether there is a file, and anything in it."""
    return Path(gallery).exists() and Path(gallery).stat().st_size > 0


def learned_names(gallery: Gallery, embedder: Embedder) -> list[str]:
    """Enrolled names that are classes of the network's data.

    It has learned to keep these apart, so that a threshold fitted on them is too low for others;
    but for the people who were held out, if its recipe held people out.
    """
    classes = set(embedder.classifier.classes)
    return [name for name in gallery.counts() if name in classes]


def _folders(path: Path) -> list[Path]:
    return [p for p in sorted(path.iterdir()) if p.is_dir()] if path.is_dir() else []


def _has_image(folder: Path) -> bool:
    return any(is_image(file) for file in walk(folder))
