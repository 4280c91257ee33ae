"""`Gallery`: who or what is known, by embeddings, and the search among them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from cnn_jax import fields
from cnn_jax.errors import DataError, EvaluationError, ModelError
from cnn_jax.evaluation import CalibrationPairScores
from cnn_jax.gallery.answers import UNKNOWN, Identified, Verified
from cnn_jax.gallery.search import Index, Precision
from cnn_jax.gallery.storage import EmbeddingModel, Storage
from cnn_jax.gallery.templates import templates_of, unit_and_quality
from cnn_jax.gallery.threshold import FittedThreshold, enrolled_pairs, fit_threshold


class Gallery:
    """Identities in a file, each with a template from one image or several.

    Several processes may have a file open; what one changes the others see at their next call.
    One thread uses a `Gallery`, the one that opened it. `close` it, or use it in a `with`.
    """

    def __init__(self, storage: Storage, *, knows_model: bool, precision: Precision) -> None:
        self._storage, self._knows_model, self._precision = storage, knows_model, precision
        self._loaded: tuple[int, tuple[str, ...], Index] | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: EmbeddingModel,
        *,
        precision: Precision = "float32",
    ) -> Gallery:
        """A new gallery; or the one that is there, if it is of the same model.

        Args:
          path: the file, on a disk of this machine.
          model: what makes its embeddings.
          precision: as of `open`.

        Raises:
          DataError: another file is in its place, or it cannot be written.
          ModelError: it is of another model.
        """
        return cls._of(Storage.create(Path(path), model), model.digest, precision)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        digest: str | None = None,
        *,
        precision: Precision = "float32",
    ) -> Gallery:
        """A gallery that is there.

        Args:
          path: the file.
          digest: of the model that makes the embeddings to come; None to list and remove only.
          precision: of the templates that are searched first; answers are the same with both, and
            float16 takes half of the memory of the device.

        Raises:
          DataError: there is none, or it is damaged or of another schema. It is left as it is.
          ModelError: it is of another model.
        """
        return cls._of(Storage.open(Path(path)), digest, precision)

    @classmethod
    def _of(cls, storage: Storage, digest: str | None, precision: Precision) -> Gallery:
        made = storage.model
        if digest is not None and made.digest != digest:
            storage.close()
            raise ModelError(
                f"{str(storage.path)!r} has embeddings of the model {made.digest[:12]}, and this "
                f"one is {digest[:12]}: they do not compare; enrol the images anew in another file"
            )
        return cls(storage, knows_model=digest is not None, precision=precision)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({str(self._storage.path)!r}, {len(self.counts())} identities)"

    def close(self) -> None:
        """Close the file."""
        self._storage.close()

    @property
    def model(self) -> EmbeddingModel:
        """What makes its embeddings."""
        return self._storage.model

    def counts(self) -> dict[str, int]:
        """Name -> number of images, in the order of enrolment."""
        return self._storage.counts()

    def sources(self, name: str) -> tuple[str, ...]:
        """The sources of an identity's images.

        Raises:
          DataError: it is not enrolled.
        """
        found = self._storage.sources(name)
        if not found:
            raise self._not_enrolled(name)
        return found

    def enrol(
        self,
        names: Sequence[str],
        embeddings: np.ndarray,
        *,
        sources: Sequence[str],
        quality: Sequence[float] | np.ndarray | None = None,
    ) -> int:
        """Add images, all or (on any error, or where the process is killed) none.

        A template is the mean of unit embeddings weighted by quality, of unit length. An image
        that is enrolled already, by name and source, is left as it is.

        Args:
          names: N names, whose each image is.
          embeddings: floating `[N, D]`, as the network gives them.
          sources: N strings by which single images can be removed, such as file names.
          quality: positive `[N]`; None for the lengths of the embeddings.

        Returns:
          How many images are new.

        Raises:
          DataError: embeddings that do not fit, a name or source that is empty or no text, a
            source twice or with another picture, or images that cancel out.
          ModelError: the gallery was opened without the digest of a model.
        """
        self._check_model()
        units, weights = unit_and_quality(embeddings, self.model.dimension, quality)
        if not len(names) == len(sources) == len(units):
            raise DataError(
                f"{len(units)} embeddings come with {len(names)} names and {len(sources)} sources"
            )
        for text in {*names, *sources}:
            _check_text(text)
        if UNKNOWN in names:
            raise DataError(f"{UNKNOWN!r} is the answer for who is not enrolled: take another name")
        if len(set(zip(names, sources, strict=True))) < len(names):
            raise DataError("a source of one name is given twice: name each image once")
        new = self._storage.add(names, units, weights, sources)
        self._loaded = None
        return new

    def remove(self, name: str, sources: Sequence[str] | None = None) -> None:
        """Remove an identity, or images of it, and overwrite their bytes on disk.

        What the file system keeps of an overwritten file (snapshots, flash memory) and copies of
        the file are beyond this.

        Args:
          name: the identity.
          sources: of the images to remove; None for all. With the last it is gone.

        Raises:
          DataError: it is not enrolled or has no such image, or another process hinders the
            overwriting: see `erase`.
        """
        self.remove_all({name: sources})

    def remove_all(self, wanted: Mapping[str, Sequence[str] | None]) -> None:
        """`remove` for several identities, name -> sources; all or, on an error, nothing.

        Raises:
          DataError: as `remove`.
        """
        known = self.counts()
        for name in wanted:
            if name not in known:
                raise self._not_enrolled(name)
        self._loaded = None
        self._storage.remove(wanted)
        self.erase()

    def erase(self) -> None:
        """Overwrite what was removed, as `remove` does; again where another process hindered it.

        Raises:
          DataError: another process is in the way.
        """
        self._storage.erase()

    def identify(
        self, embeddings: np.ndarray, *, top: int = 5, threshold: float | None = None
    ) -> Identified:
        """The nearest identities of each image, and whether the nearest is near enough.

        Args:
          embeddings: floating `[M, D]`, of the gallery's model.
          top: how many identities, where so many are enrolled.
          threshold: cosine; None for the fitted one, -1 to accept all.

        Raises:
          DataError: nobody is enrolled, or embeddings that do not fit.
          EvaluationError: no threshold was fitted or given.
          ModelError: the gallery was opened without the digest of a model.
        """
        queries, line = self._asked(embeddings, threshold)
        if top < 1:
            raise DataError(f"top = {top}: ask for one candidate or more")
        names, index = self._index()
        scores, positions = index.top(queries, min(top, len(names)))
        return Identified(np.asarray(names, np.str_)[positions], scores, line)

    def verify(
        self, name: str, embeddings: np.ndarray, *, threshold: float | None = None
    ) -> Verified:
        """Whether images are of an identity; arguments and errors as of `identify`.

        Raises:
          DataError: also, it is not enrolled.
        """
        queries, line = self._asked(embeddings, threshold)
        names, index = self._index()
        if name not in names:
            raise self._not_enrolled(name)
        return Verified(index.scores(queries, names.index(name)), line)

    @property
    def threshold(self) -> FittedThreshold | None:
        """The fitted threshold, or None."""
        found = self._storage.threshold
        return None if found is None else FittedThreshold.from_json(found)

    def fit_threshold(
        self,
        far: float,
        *,
        pairs: CalibrationPairScores | None = None,
        confidence: float = 0.95,
        promised: bool = False,
    ) -> FittedThreshold:
        """Fit the threshold of `identify` and `verify`, and write it into the file.

        Args:
          far: false accept rate of an image and one wrong identity; an image that is searched is
            compared with all of them (`FittedThreshold.false_alarm`).
          pairs: of people that the network has not learned; None for those that are enrolled,
            of whom the same is then to be true (see `enrolled_pairs`).
          confidence, promised: as of `decision.fit_threshold_far`.

        Raises:
          EvaluationError: too few disjoint impostor pairs for the rate: 3 / far are needed, of
            twice as many identities.
        """
        if pairs is None:
            pairs = enrolled_pairs(self._storage.read())
        found = fit_threshold(pairs, far=far, confidence=confidence, promised=promised)
        self._storage.write_threshold(found.to_json())
        return found

    def _asked(self, embeddings: np.ndarray, threshold: float | None) -> tuple[np.ndarray, float]:
        self._check_model()
        queries, _ = unit_and_quality(embeddings, self.model.dimension)
        if threshold is None:
            fitted = self.threshold
            if fitted is None:
                raise EvaluationError(
                    "which score is near enough? Fit a threshold for a false accept rate first "
                    "(cnn-jax gallery threshold, or Gallery.fit_threshold), or give a cosine"
                )
            threshold = fitted.score
        if not -1 <= threshold <= 1:
            raise EvaluationError(f"a threshold is a cosine between -1 and 1, not {threshold:g}")
        return queries, threshold

    def _index(self) -> tuple[tuple[str, ...], Index]:
        """What is enrolled now; read again only where the file has changed."""
        if self._loaded is None or self._loaded[0] != self._storage.version:
            enrolled = self._storage.read()
            if not enrolled.names:
                raise DataError(f"nobody is enrolled in {str(self._storage.path)!r}")
            templates = templates_of(enrolled.units, enrolled.quality, enrolled.first)
            index = Index(templates, self._precision)
            self._loaded = enrolled.version, enrolled.names, index
        return self._loaded[1:]

    def _check_model(self) -> None:
        if not self._knows_model:
            raise ModelError(
                "the gallery was opened to list and remove: open it with the digest of the model "
                "that makes the embeddings"
            )

    def _not_enrolled(self, name: str) -> DataError:
        near = fields.nearest(name, list(self.counts()))
        return DataError(f"{name!r} is not enrolled in {str(self._storage.path)!r}{near}")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{text!r} has bytes that are no UTF-8: rename it") from None
    if not text.strip():
        raise DataError("a name and the source of an image need a letter or more")
