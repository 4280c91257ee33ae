import dataclasses

import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.mask_predictions import MaskPredictions, out_of_fold_masks
from cnn_jax.evaluation.predictions import Predictions


def example(n=4, spatial=(3, 5), r=2, seed=0, dtype=np.float32, **changes):
    generator = np.random.default_rng(seed)
    values = {
        "split": "validation",
        "ids": np.array([f"id{i:02d}" for i in range(n)]),
        "masks": generator.integers(0, r, (n, *spatial)).astype(np.uint8),
        "probabilities": generator.dirichlet(np.ones(r), (n, *spatial))[..., 1:].astype(dtype),
        "regions": tuple(f"r{i}" for i in range(r)),
    }
    return MaskPredictions(**{**values, **changes})


def with_value(shape, value, dtype=np.float32):
    array = np.zeros(shape, dtype)
    array[2, 1, 3] = value
    return array


P = (4, 3, 5, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": ("only",)}, "a background and a region, not 1"),
        ({"probabilities": np.zeros((4, 3, 5), np.float32)}, r"\[4, 3, 5\], not \[4, 3, 5, 1\]"),
        ({"probabilities": np.zeros((4, 3, 5, 2), np.float32)}, "1 regions without background"),
        ({"probabilities": np.zeros(P)}, "float64, not float16 or float32"),
        ({"probabilities": with_value(P, np.nan)}, "1 of 4 predictions .* are not finite"),
        ({"probabilities": with_value(P, -np.inf)}, "1 of 4 predictions .* are not finite"),
        ({"probabilities": with_value(P, 1.5)}, "from 0 to 1.5, not within 0..1"),
        ({"probabilities": with_value(P, -0.5, np.float16)}, "from -0.5 to 0, not within 0..1"),
        ({"masks": np.zeros((4, 15), np.uint8)}, r"masks of 'validation' are \[4, 15\], not"),
        ({"masks": np.zeros((3, 3, 5), np.uint8)}, r"are \[3, 3, 5\], not \[4 examples"),
        ({"masks": np.zeros((4, 0, 5), np.uint8)}, r"are \[4, 0, 5\], not"),
        ({"masks": np.zeros((4, 3, 5), np.int32)}, "are int32, not uint8"),
        ({"masks": with_value((4, 3, 5), 255, np.uint8)}, "'id02' .* holds 255, .* are 0..1"),
        ({"groups": np.array(["a"])}, "groups of 'validation' are not 4 long"),
        ({"ids": np.array(list("aabc"))}, "predicted twice"),
        ({"spacing": (1.0,)}, r"\[1.0\] must be 2 positive numbers"),
        ({"spacing": (1.0, 0.0)}, "must be 2 positive numbers"),
        ({"spacing": (1.0, float("nan"))}, "must be 2 positive numbers"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    with pytest.raises(EvaluationError, match=message):
        example(**changes)


def test_refuses_regions_that_do_not_exclude_each_other():
    sigmoids = np.full((4, 3, 5, 2), 0.7, np.float32)
    with pytest.raises(EvaluationError, match=r"sum to 1.4 at a pixel, .* softmax"):
        example(r=3, probabilities=sigmoids)
    # What float16 rounds up is no error.
    rounded = np.full((4, 3, 5, 2), np.float16(0.50025))
    assert rounded.sum(axis=-1, dtype=np.float64).max() > 1
    assert len(example(r=3, probabilities=rounded)) == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_most_probable_region_is_predicted(dtype):
    half = np.nextafter(dtype(0.5), dtype(1))
    p = np.array([[[0.0], [0.5], [half], [1.0]]], dtype)[np.newaxis]
    one = example(1, (1, 4), probabilities=p)
    np.testing.assert_array_equal(one.predicted(), [[[0, 0, 1, 1]]])  # 0.5 is a tie
    assert one.predicted().dtype == np.uint8
    # Background 0.5, 0.4, 0.25, 0, 0: the last but one is a tie of the regions.
    p = np.array([[[0.5, 0], [0.5, 0.125], [0.25, 0.5], [0.5, 0.5], [0, 1]]], dtype)[np.newaxis]
    two = example(1, (1, 5), 3, probabilities=p)
    np.testing.assert_array_equal(two.predicted(), [[[0, 1, 2, 1, 2]]])


def test_prediction_is_the_argmax_with_the_background():
    p = example(3, (2, 3, 4), 4)
    rest = 1 - p.probabilities.sum(axis=-1, dtype=np.float64, keepdims=True)
    whole = np.concatenate([rest, p.probabilities], axis=-1)
    np.testing.assert_array_equal(p.predicted(), whole.argmax(axis=-1))
    assert example(0).predicted().shape == (0, 3, 5)


def test_aligned_undoes_any_order_and_refuses_strangers():
    p = example(groups=np.array(list("aabb")))
    order = np.array([2, 0, 3, 1])
    moved = dataclasses.replace(p.take(order), probabilities=np.zeros(P, np.float32), groups=None)
    again = p.aligned(moved)
    np.testing.assert_array_equal(again.ids, moved.ids)
    np.testing.assert_array_equal(again.probabilities, p.probabilities[order])
    np.testing.assert_array_equal(again.groups, p.groups[order])
    for changes, message in [
        ({"ids": np.array(["id00", "id01", "id02", "zz"])}, "same examples"),
        ({"masks": 1 - p.masks}, "disagree on the masks"),
        ({"regions": ("x", "y")}, "not over the same regions: r0, r1, and x, y"),
        ({"spacing": (1.0, 1.0)}, r"not over the same spacing: None, and \(1.0, 1.0\)"),
        ({"masks": p.masks[:, 1:], "probabilities": p.probabilities[:, 1:]}, "size of image"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            p.aligned(dataclasses.replace(p, **changes))
    with pytest.raises(EvaluationError, match="same examples"):
        p.aligned(example(3))


def test_take_by_position_and_by_mask():
    p = example(groups=np.array(list("aabb")))
    for rows in (np.array([1, 3]), np.array([False, True, False, True])):
        some = p.take(rows)
        assert some.ids.tolist() == ["id01", "id03"] and some.groups.tolist() == ["a", "b"]
        np.testing.assert_array_equal(some.masks, p.masks[[1, 3]])


@pytest.mark.parametrize(
    "p",
    [
        example(),
        example(dtype=np.float16, groups=np.array(list("aabb")), spacing=(0.5, 2), run_digest="x"),
        example(2, (2, 3, 4), 3, spacing=(5.0, 1.0, 1.0)),
    ],
)
def test_file_holds_everything(tmp_path, p):
    p.save(tmp_path / "predictions" / "validation.npz")
    again = MaskPredictions.load(tmp_path / "predictions" / "validation.npz")
    for field in dataclasses.fields(p):
        before, after = getattr(p, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(before, after)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
    assert [f.name for f in (tmp_path / "predictions").iterdir()] == ["validation.npz"]
    with np.load(tmp_path / "predictions" / "validation.npz", allow_pickle=False) as z:
        assert str(z["kind"]) == "masks"


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"nowhere\.npz"):
        MaskPredictions.load(tmp_path / "nowhere.npz")
    example().save(tmp_path / "p.npz")
    whole = (tmp_path / "p.npz").read_bytes()
    altered = bytearray(whole)
    altered[100:140] = bytes(40)
    np.save(tmp_path / "single.npy", np.zeros(3))
    foreign = (tmp_path / "single.npy").read_bytes()
    for damaged in (whole[: len(whole) // 2], bytes(altered), b"", b"not a zip file", foreign):
        (tmp_path / "p.npz").write_bytes(damaged)
        with pytest.raises(EvaluationError, match="cannot read predictions"):
            MaskPredictions.load(tmp_path / "p.npz")


def test_files_of_classes_and_of_masks_are_not_mistaken(tmp_path):
    example().save(tmp_path / "masks.npz")
    with pytest.raises(EvaluationError, match="cannot read predictions"):
        Predictions.load(tmp_path / "masks.npz")
    of_classes = Predictions(
        split="test",
        ids=np.array(["a"]),
        targets=np.zeros(1, np.int32),
        logits=np.zeros((1, 2), np.float32),
        classes=("x", "y"),
    )
    of_classes.save(tmp_path / "classes.npz")
    with pytest.raises(EvaluationError, match=r"classes\.npz.* kind 'class', not masks"):
        MaskPredictions.load(tmp_path / "classes.npz")


def test_folds_are_put_together():
    whole = example(groups=np.array(list("aabb")), spacing=(1.0, 2.0), run_digest="x")
    folds = [whole.take(np.array([0, 1])), whole.take(np.array([2, 3]))]
    pooled = out_of_fold_masks(folds)
    assert (pooled.split, pooled.run_digest) == ("out-of-fold", "")
    assert pooled.aligned(whole).ids.tolist() == whole.ids.tolist()
    np.testing.assert_array_equal(pooled.probabilities, whole.probabilities)
    np.testing.assert_array_equal(pooled.groups, whole.groups)
    assert out_of_fold_masks([example(2)]).groups is None


def test_folds_that_leak_or_do_not_fit_are_refused():
    whole = example(groups=np.array(list("aabb")))
    first, second = whole.take(np.array([0, 1])), whole.take(np.array([2, 3]))
    replace = dataclasses.replace
    other_size = example(2, (3, 6), ids=second.ids, groups=second.groups)
    for folds, message in [
        ([], "no folds"),
        ([first, replace(second, regions=("x", "y"))], "same regions and spacing"),
        ([first, replace(second, spacing=(1.0, 1.0))], "same regions and spacing"),
        ([first, other_size], r"\[3, 5\] and \[3, 6\]: bring them to one size"),
        ([first, replace(second, groups=None)], "some folds have groups"),
        ([first, replace(second, groups=np.array(["b", "a"]))], "group 'a' is in folds 1 and 2"),
        ([replace(f, groups=None) for f in (first, first)], "predicted twice"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            out_of_fold_masks(folds)
