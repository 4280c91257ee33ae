import sys

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from cnn_jax.data import decode_image, fold, list_images, load, read_header, resolve_duplicates
from cnn_jax.data.dicom import windowed
from cnn_jax.errors import DataError

RNG = np.random.default_rng(0)


def write(path, values, patient="one", **tags):
    """A file as a scanner writes it: 12 bits of 16, or 8-bit colours."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PatientID = patient
    bits = 8 * values.dtype.itemsize
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.SamplesPerPixel = 3 if values.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def scan(low=0, high=4096, size=(14, 12)):
    return RNG.integers(low, high, size).astype(np.uint16)


def decoded(path):
    header = read_header(path)
    return decode_image(path, (header.height, header.width, 1 if header.grey else 3))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_that_of_pydicom(tmp_path, function):
    values = scan()
    tags = {
        "WindowCenter": [1030.0, 50.0],
        "WindowWidth": [600.0, 10.0],
        "RescaleSlope": "2",
        "RescaleIntercept": "-1024",
        "VOILUTFunction": function,
    }
    path = write(tmp_path / "x.dcm", values, **tags)
    dataset = pydicom.dcmread(path)
    modality = pydicom.pixels.apply_modality_lut(values, dataset)
    theirs = pydicom.pixels.apply_windowing(modality, dataset)
    # Theirs reaches over all values that the slope can make of 16 bits.
    low, high = -1024.0, 2 * 65535 - 1024.0
    share = (theirs - low) / (high - low)
    np.testing.assert_allclose(windowed(modality, 1030, 600, function), share, atol=1e-9)
    np.testing.assert_array_equal(decoded(path)[..., 0], np.round(255 * share))


def test_without_a_window_the_image_reaches_from_black_to_white(tmp_path):
    values = scan(100, 900).astype(np.uint16)
    shown = decoded(write(tmp_path / "x.dcm", values))[..., 0]
    low, high = values.min(), values.max()
    np.testing.assert_array_equal(shown, np.round(255.0 * (values - low) / (high - low)))
    assert not decoded(write(tmp_path / "y.dcm", np.full((5, 4), 7, np.uint16))).any()


def test_where_more_is_darker_it_is_turned_round(tmp_path):
    values = scan()
    plain = decoded(write(tmp_path / "x.dcm", values))
    turned = decoded(write(tmp_path / "y.dcm", values, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(plain.astype(int) + turned, 255)


def test_signed_values_and_colours(tmp_path):
    signed = RNG.integers(-1000, 1000, (6, 7)).astype(np.int16)
    path = write(tmp_path / "x.dcm", signed, WindowCenter="0", WindowWidth="200")
    np.testing.assert_array_equal(
        decoded(path)[..., 0], np.round(255 * np.clip((signed + 0.5) / 199 + 0.5, 0, 1))
    )
    colours = RNG.integers(0, 255, (6, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(write(tmp_path / "y.DCM", colours)), colours)


def folder_of(place, patients, classes=("ill", "well"), parts=("",)):
    number = 0
    for part in parts:
        for name in classes:
            for patient in patients:
                write(place / part / name / f"{number}.dcm", scan(), f"{patient} of {name}")
                number += 1
    return place


def test_patients_are_groups_and_their_names_are_not_kept(tmp_path):
    folder = folder_of(tmp_path / "set", [p for p in "abcdefgh" for _ in range(3)])
    dataset = load(str(folder))
    assert dataset.image_shape == (14, 12, 1)
    for whole in (dataset, fold(dataset, 3, 1)):
        held = [set(split.groups) for split in whole.splits.values()]
        assert sum(map(len, held)) == len(set().union(*held)) == 16
        assert not any("of ill" in group for group in set().union(*held))
    assert len(list_images([folder])) == 48


def test_a_patient_in_two_given_parts_stops(tmp_path):
    folder = folder_of(tmp_path / "set", "abcd", parts=("train", "val", "test"))
    with pytest.raises(DataError, match="share one of 8 groups"):
        resolve_duplicates(load(str(folder)))


def test_without_patients_there_are_no_groups(tmp_path):
    folder = folder_of(tmp_path / "set", "abcdefgh")
    write(folder / "ill" / "x.dcm", scan(), patient="")
    assert all(split.groups is None for split in load(str(folder)).splits.values())


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


def empty(path):
    path.write_bytes(b"")


BAD = {
    "frames": ({"NumberOfFrames": "3"}, None, "holds 3 frames"),
    "kind": ({"PhotometricInterpretation": "PALETTE COLOR"}, None, "'PALETTE COLOR', which is"),
    "huge": ({"Rows": 65535, "Columns": 65535}, None, "Pillow's limit"),
    "window": ({"WindowCenter": "0", "WindowWidth": "0"}, None, "shows nothing"),
    "cut": ({}, cut, "cannot be read as a DICOM image"),
    "empty": ({}, empty, "cannot be read as a DICOM image"),
}


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path, name):
    tags, spoil, words = BAD[name]
    path = write(tmp_path / "scan of x.dcm", scan(), **tags)
    if spoil is not None:
        spoil(path)
    with pytest.raises(DataError, match=words) as caught:
        decode_image(path, (14, 12, 1))
    assert "scan of x.dcm" in str(caught.value)


def test_without_pydicom_it_is_told_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "x.dcm", scan())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pip install 'cnn_jax\[dicom\]'"):
        decode_image(path, (14, 12, 1))
