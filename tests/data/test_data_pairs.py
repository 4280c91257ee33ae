import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import DataError

IDS = [f"{name}/{name}_{i:04d}.png" for name in ("Ann", "Bo Lee", "Cy") for i in (1, 2, 3)]
# Two folds of one pair of each sort; tabs, and blanks where a name has none.
LINES = ["2\t1", "Bo Lee\t1\t3", "Ann 2 Cy 1", "Cy\t3\t2", "Ann\t1\tBo Lee\t3"]


def write(path, lines, end="\n"):
    path.write_bytes((end.join(lines) + end).encode())
    return path


def test_pairs_in_the_order_of_the_file(tmp_path):
    pairs = data.read_pairs(write(tmp_path / "pairs.txt", LINES), IDS)
    assert pairs.indices.tolist() == [[3, 5], [1, 6], [8, 7], [0, 5]]
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1] and len(pairs) == 4
    assert pairs.indices.dtype == pairs.fold.dtype == np.int64 and pairs.same.dtype == bool


def test_one_fold_windows_lines_and_images_in_one_folder(tmp_path):
    lines = ["2", "Ann 1 2", "Cy 1 3", "Ann 1 Cy 1", "Ann 3 Cy 2", "", ""]
    flat = [name.partition("/")[2].replace(".png", ".jpg") for name in IDS]
    pairs = data.read_pairs(write(tmp_path / "dev.txt", lines, "\r\n"), np.array(flat))
    assert pairs.indices.tolist() == [[0, 1], [6, 8], [0, 6], [2, 7]]
    assert pairs.fold.tolist() == [0] * 4 and pairs.same.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "", r"line 1 of .* such as '10 300'"),
        (1, "2 1 1", "line 1 of"),
        (1, "2 -1", "line 1 of"),
        (1, "0 1", "line 1 of"),
        (1, "2 2", "4 pairs, but its first line means 8: 2 folds of 2 pairs of one person and 2"),
        (2, "Ann 1 Cy 2", "line 2 of .* must be name i j, a pair of one person, not 'Ann 1 Cy 2'"),
        (2, "Ann 1 x", "line 2 of .* with numbers from 1"),
        (2, "Ann 1 0", "line 2 of .* with numbers from 1"),
        (2, "Ann 1 ²", "line 2 of .* with numbers from 1"),
        (2, "Ann 1 1", "line 2 of .* pairs an image with itself"),
        (2, "", "line 2 of"),
        (3, "Ann 1 2", "line 3 of .* must be name i other j"),
        (3, "Cy 1 Cy 2", "line 3 of .* pair of two people"),
        (4, "Dee\t1\t2", "2 images of .* cannot be found among 9: 'Dee_0001', 'Dee_0002' .*line 4"),
        (5, "Ann 1 Cy 4", r"1 image of .*: 'Cy_0004' \(first in line 5\)"),
    ],
)
def test_what_is_no_pair_is_told_with_its_line(tmp_path, line, text, message):
    lines = [text if number == line else own for number, own in enumerate(LINES, start=1)]
    with pytest.raises(DataError, match=message):
        data.read_pairs(write(tmp_path / "pairs.txt", lines), IDS)


def test_files_that_are_none_and_names_that_are_not_unique(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        data.read_pairs(tmp_path / "none.txt", IDS)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        data.read_pairs(tmp_path / "binary.txt", IDS)
    path = write(tmp_path / "pairs.txt", LINES)
    with pytest.raises(DataError, match=r"'Cy_0001' of .* more than one image"):
        data.read_pairs(path, [*IDS, "other/Cy_0001.jpg"])
    # An image that no pair names may come twice.
    assert len(data.read_pairs(path, [*IDS, "other/Ann_0003.jpg"])) == 4


@pytest.mark.realdata
def test_the_pairs_of_lfw(real):
    folder = real("lfw")
    ids = [path.relative_to(folder).as_posix() for path in data.list_images([folder])]
    pairs = data.read_pairs(folder / "pairs.txt", ids)
    assert len(pairs) == 6000 and np.bincount(pairs.fold).tolist() == [600] * 10
    assert pairs.same.reshape(10, 2, 300).all(axis=2).tolist() == [[True, False]] * 10
    people = np.array([name.split("/")[0] for name in ids])[pairs.indices]
    np.testing.assert_array_equal(people[:, 0] == people[:, 1], pairs.same)
    assert people[300].tolist() == ["Abdel_Madi_Shabneh", "Dean_Barker"]
    assert len(np.unique(pairs.indices)) == len(ids)
