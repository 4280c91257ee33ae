"""The records of a set that TensorFlow Datasets (TFDS) prepared as ArrayRecord.

They stay on disk, their images encoded as they are, until they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_jax.data.decode import EncodedImage
from cnn_jax.data.tfds.folder import (
    TfdsName,
    import_tfds,
    is_in_catalogue,
    prepare_command,
    prepared_folder,
)
from cnn_jax.errors import DataError


class PreparedSet:
    """A TFDS set that lies prepared in a folder.

    Attributes:
      folder: where.
      info: its `tfds.core.DatasetInfo`.

    Raises:
      DataError: the set is not prepared, not as ArrayRecord, or damaged; says what helps.
    """

    def __init__(self, wanted: TfdsName, root: Path) -> None:
        self.folder = prepared_folder(wanted, root)
        self._wanted = wanted
        self._root = root
        tfds = import_tfds()
        try:
            self._builder = tfds.builder_from_directory(str(self.folder))
            self.info = self._builder.info
            form = self.info.file_format
        except _damage() as error:
            raise self.damaged("is damaged or only half prepared", error) from error
        if form != tfds.core.FileFormat.ARRAY_RECORD:
            raise DataError(self._other_format(form.value if form else "nothing"))

    def records(self, split: str, image: str, features: Sequence[str]) -> Records:
        """The records of a split, with an image feature and further features."""
        raw = import_tfds().decode.DeserializeMethod.RAW_BYTES
        try:
            source = self._builder.as_data_source(split, deserialize_method=raw)
            positions = _positions(self.info, split)
        except _damage() as error:
            raise self.damaged(f"split {split!r} cannot be opened", error) from error
        return Records(self, source, positions, image, features)

    def damaged(self, what: str, error: Exception) -> DataError:
        """The error that says what is damaged, what helps and what the cause said."""
        remedy = "remove the folder and write the set again"
        if is_in_catalogue(self._wanted.name):
            command = prepare_command(self._wanted, self._root)
            remedy = f"remove the folder and prepare the set again: {command}"
        reason = " ".join(str(error).split()) or type(error).__name__
        return DataError(f"TFDS set {str(self.folder)!r}: {what}; {remedy} ({reason})")

    def _other_format(self, form: str) -> str:
        why = "drops records" if form == "parquet" else "cannot be read without TensorFlow"
        message = f"TFDS set {str(self.folder)!r} was prepared as {form}, which {why}: "
        if not is_in_catalogue(self._wanted.name):
            return message + "write it again with file_format='array_record'"
        # TFDS leaves alone what is prepared already, in whichever format.
        beside = self._root / "array_record"
        return (
            f"{message}prepare it in another folder, {prepare_command(self._wanted, beside)}, and "
            f"give --data-dir {str(beside)!r}"
        )


class Records:
    """The records of a split, read one at a time; as an `ImageList`, their encoded images.

    Attributes:
      positions: the split that each record lies in and its position there: `train/00000`.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        source: Any,
        positions: list[str],
        image: str,
        features: Sequence[str],
    ) -> None:
        tfds = import_tfds()
        described = prepared.info.features
        self.positions = positions
        self._prepared = prepared
        self._source = source
        self._image = image
        self._decoders = {image: tfds.decode.SkipDecoding()}
        # What is not named here is not even parsed.
        self._image_alone = tfds.features.FeaturesDict({image: described[image]})
        self._features = tfds.features.FeaturesDict(
            {name: described[name] for name in (image, *features)}
        )

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int, /) -> EncodedImage:
        return self._encoded(index, self._parse(index, self._image_alone))

    def read(self, index: int) -> tuple[EncodedImage, Mapping[str, Any]]:
        """The encoded image of a record, and its other features.

        Raises:
          DataError: the record is damaged or lacks a feature.
        """
        example = self._parse(index, self._features)
        return self._encoded(index, example), example

    def _parse(self, index: int, features: Any) -> Mapping[str, Any]:
        try:
            example = features.deserialize_example_np(self._source[index], decoders=self._decoders)
            absent = [name for name in features if example[name] is None]
            if absent:
                raise LookupError(f"it has no {absent[0]!r}")
            return dict(example)
        except _damage() as error:
            what = f"record {self.positions[index]} cannot be read"
            raise self._prepared.damaged(what, error) from error

    def _encoded(self, index: int, example: Mapping[str, Any]) -> EncodedImage:
        name = f"the image of record {self.positions[index]} in {str(self._prepared.folder)!r}"
        return EncodedImage(name, example[self._image])


def _positions(info: Any, split: str) -> list[str]:
    """The split in which each record lies and its position there."""
    starts: dict[str, tuple[str, int]] = {}
    for name, whole in info.splits.items():
        start = 0
        for path, length in zip(whole.filepaths, whole.shard_lengths, strict=True):
            starts[str(path)] = name, start
            start += length
    positions = []
    for piece in info.splits[split].file_instructions:
        name, start = starts[str(piece.filename)]
        first = start + piece.skip
        positions += [f"{name}/{i:05d}" for i in range(first, first + piece.take)]
    return positions


def _damage() -> tuple[type[Exception], ...]:
    """What TFDS, ArrayRecord and protobuf are known to raise for damaged sets."""
    from google.protobuf import json_format, message

    return (
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        AssertionError,
        message.Error,
        json_format.Error,
    )
