"""Corrections change the labels they name, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_jax.data import (
    Correction,
    Dataset,
    Split,
    apply_corrections,
    corrections_table,
    original_files,
    read_corrections,
)
from cnn_jax.data.digest import dataset_digest
from cnn_jax.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), dtype=np.uint8)


def dataset(labels=((0, 1, 2, 0), (1, 2, 0), (2, 1)), kind="class", test="x"):
    letters = {"train": "t", "validation": "v", "test": test}
    splits, start = {}, 0
    for part, some in zip(("train", "validation", "test"), labels, strict=True):
        target = (
            np.array(some, np.int32) if kind == "class" else np.eye(3, dtype=np.float32)[list(some)]
        )
        ids = np.array([f"{letters[part]}{i}" for i in range(len(some))])
        images = PIXELS[start : start + len(some)]
        splits[part] = Split(images, {"label": target}, ids, np.char.add("group ", ids))
        start += len(some)
    return Dataset(
        "pets",
        splits,
        {"label": ("cat", "dog", "owl")},
        dataset_digest(splits),
        {"label": kind},
        notes=("Read.",),
    )


def test_corrected_data_are_the_data_labelled_rightly_from_the_start():
    rows = [Correction("t0", "cat", "owl"), Correction("v1", "owl", "dog")]
    corrected = apply_corrections(dataset(), rows)
    clean = dataset(((2, 1, 2, 0), (1, 1, 0), (2, 1)))
    assert corrected.digest == clean.digest != dataset().digest
    assert corrected.splits["train"].targets["label"].tolist() == [2, 1, 2, 0]
    assert corrected.notes == (
        "Read.",
        "Corrections: of 4 train images 1 relabelled, 0 removed.",
        "Corrections: of 3 validation images 1 relabelled, 0 removed.",
    )


def test_removed_examples_leave_with_all_they_have():
    corrected = apply_corrections(dataset(), [Correction("t1", "dog", None)]).splits["train"]
    assert corrected.ids.tolist() == ["t0", "t2", "t3"]
    assert corrected.groups.tolist() == ["group t0", "group t2", "group t3"]
    np.testing.assert_array_equal(corrected.images, PIXELS[[0, 2, 3]])


def test_corrections_of_the_test_part_are_said_to_break_comparison():
    (note,) = apply_corrections(dataset(), [Correction("x1", "dog", None)]).notes[1:]
    assert "of 2 test images 0 relabelled, 1 removed" in note and "no longer compare" in note


def test_a_correction_may_be_corrected_again():
    rows = [Correction("v0", "dog", "cat"), Correction("v0", "cat", "owl")]
    assert apply_corrections(dataset(), rows).splits["validation"].targets["label"][0] == 2
    undone = [Correction("v0", "dog", "cat"), Correction("v0", "cat", "dog")]
    data = dataset()
    assert apply_corrections(data, undone) is data
    with pytest.raises(DataError, match="but it is removed already"):
        apply_corrections(
            dataset(), [Correction("v0", "dog", None), Correction("v0", "dog", "cat")]
        )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Correction("zz", "cat", "dog")], r"1 corrected ids are not in 'pets' \('zz'\)"),
        ([Correction("t0", "owl", "dog")], "corrected from 'owl', but it is 'cat'"),
        ([Correction("t0", "lynx", "dog")], "corrected from 'lynx', but it is 'cat'"),
        ([Correction("t0", "cat", "lynx")], "'lynx', which is no class of 'pets': 'cat', 'dog'"),
        ([Correction(f"v{i}", c, None) for i, c in enumerate(("dog", "owl", "cat"))], "every vali"),
    ],
)
def test_corrections_of_other_data_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        apply_corrections(dataset(), rows)


def test_ids_must_name_one_example_and_labels_be_classes():
    with pytest.raises(DataError, match="in several parts"):
        apply_corrections(dataset(test="t"), [Correction("t0", "cat", "dog")])
    with pytest.raises(DataError, match="multilabel labels"):
        apply_corrections(dataset(kind="multilabel"), [Correction("v0", "dog", "cat")])


# What UTF-8 can hold, with the quotes and line ends that a table must escape.
texts = st.text(
    st.sampled_from('",\r\n\x00') | st.characters(exclude_categories=["Cs"]), min_size=1
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(texts, texts, st.none() | texts)))
def test_any_text_survives_the_table(tmp_path_factory, rows):
    corrections = tuple(Correction(*row) for row in rows)
    path = tmp_path_factory.getbasetemp() / "corrections.csv"
    path.write_bytes(corrections_table(corrections).encode())
    assert read_corrections(path) == corrections


def test_names_that_are_no_unicode_and_a_spreadsheets_mark_are_read(tmp_path):
    path = tmp_path / "corrections.csv"
    path.write_bytes(b"\xef\xbb\xbfid,given,corrected\r\nfolder/\xff.png,cat,\r\n\r\n")
    assert read_corrections(path) == (Correction("folder/\udcff.png", "cat", None),)


@pytest.mark.parametrize("text", ["", "id,given\n", "a,b,c\n", 'id,given,corrected\nx,"y\n', None])
def test_tables_of_another_kind_are_refused(tmp_path, text):
    path = tmp_path / "corrections.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"corrections.csv'.*(three columns|cannot be read)"):
        read_corrections(path)


def test_original_files_are_found_by_id(tmp_path):
    rows = ["path,label"]
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert original_files(str(tmp_path / "labels.csv"), ["3.png", "none"]) == {
        "3.png": tmp_path / "3.png"
    }
    assert original_files("digits", ["0001"]) == {}
