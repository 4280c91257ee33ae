import pytest

from cnn_jax.data import load
from cnn_jax.errors import DataError


@pytest.fixture
def images(tmp_path, write_image):
    names = [f"im/{i:02d}.png" for i in range(40)]
    for i, name in enumerate(names):
        write_image(tmp_path / name, i)
    return names


def lines(*columns, joined=","):
    return "\n".join(joined.join(map(str, row)) for row in zip(*columns, strict=True)) + "\n"


def label_of(dataset, target="label"):
    return {
        str(name): dataset.classes[target][k]
        for split in dataset.splits.values()
        for name, k in zip(split.ids, split.targets[target], strict=True)
    }


@pytest.mark.parametrize(
    ("file", "joined"), [("t.csv", ","), ("t.csv", ", "), ("t.tsv", "\t"), ("t.txt", " ")]
)
@pytest.mark.parametrize("header", ["", "file{0}label\n"])
def test_delimiters_with_and_without_header(tmp_path, images, file, joined, header):
    labels = ["yes" if i % 3 else "no" for i in range(40)]
    (tmp_path / file).write_text(header.format(joined) + lines(images, labels, joined=joined))
    dataset = load(str(tmp_path / file))
    assert label_of(dataset) == dict(zip(images, labels, strict=True))
    for split in dataset.splits.values():
        assert [int(image.max()) for image in split.images] == [int(i[3:5]) for i in split.ids]


def test_columns_by_usual_name_by_name_and_by_position(tmp_path, images):
    table = tmp_path / "t.csv"
    patients = [f"p{i // 4}" for i in range(40)]
    coarse, fine, url = ["xy"[i % 2] for i in range(40)], [i % 4 for i in range(40)], range(40)
    parts = ["train"] * 30 + ["val"] * 5 + ["Test"] * 5
    header = "url,fine,coarse,part,patient,image\n"
    table.write_text(header + lines(url, fine, coarse, parts, patients, images))
    by_name = load(str(table), label="fine")
    assert [len(split) for split in by_name.splits.values()] == [30, 5, 5]
    assert by_name.classes == {"label": ("0", "1", "2", "3"), "coarse": ("x", "y")}
    assert set(by_name.splits["test"].groups) == {"p8", "p9"}
    assert any("Column 'url' has gaps or too many values" in note for note in by_name.notes)
    leaks = [note[:34] for note in by_name.notes if note.startswith("Leak")]
    assert leaks == ["Leak: 2 of 5 validation images sha", "Leak: 1 of 5 test images share a g"]
    by_position = load(
        str(table), label=1, path_column=5, split_column="part", group_column="patient"
    )
    assert by_position.digest == by_name.digest
    assert label_of(load(str(table), label="coarse"), "fine") == label_of(by_name)


def test_a_file_for_each_part_with_names_of_classes(tmp_path, images):
    fine = [i % 4 for i in range(40)]
    coarse = [k // 2 for k in fine]
    for part, here in (("train", slice(0, 30)), ("val", slice(30, 35)), ("test", slice(35, 40))):
        text = lines(images[here], fine[here], coarse[here], joined=", ")
        (tmp_path / f"{part}.txt").write_text(text)
    assert load(str(tmp_path)).classes == {
        "label": ("0", "1", "2", "3"),
        "column2": ("0", "1"),
    }
    (tmp_path / "classes.csv").write_text(
        "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)\n"
        "Gala,0,Apple,0\nFuji,1,Apple,0\nLemon,2,Citrus,1\nLime,3,Citrus,1\n"
    )
    dataset = load(str(tmp_path))
    assert dataset.classes == {
        "label": ("Gala", "Fuji", "Lemon", "Lime"),
        "coarse": ("Apple", "Citrus"),
    }
    assert label_of(dataset)[images[2]] == "Lemon"
    assert label_of(load(str(tmp_path), label="coarse"))[images[2]] == "Citrus"
    (tmp_path / "classes.csv").write_text("N,I,M,J\nGala,0,A,0\nFuji,0,A,0\n")
    with pytest.raises(DataError, match="does not give each class of 'label' one name"):
        load(str(tmp_path))


def test_numbers_are_ordered_by_size(tmp_path, images):
    (tmp_path / "t.csv").write_text(lines(images, [i % 12 for i in range(40)]))
    assert load(str(tmp_path / "t.csv")).classes["label"] == tuple(map(str, range(12)))


def test_missing_files_are_counted_and_named(tmp_path, images):
    names = [*images[:36], *(f"gone{i}.png" for i in range(4))]
    (tmp_path / "t.csv").write_text(lines(names, [i % 2 for i in range(40)]))
    with pytest.raises(DataError, match=r"4 of 40 files .*'gone0\.png', .*'gone2\.png', \.\.\."):
        load(str(tmp_path / "t.csv"))


def test_quoted_cells_may_hold_anything(tmp_path, write_image):
    for i in range(10):
        write_image(tmp_path / f'a, "b"\n{i}.png')
    rows = "".join(f'"a, ""b""\n{i}.png",<i>{i % 2}</i>\n' for i in range(10))
    (tmp_path / "t.csv").write_text(rows)
    dataset = load(str(tmp_path / "t.csv"))
    assert set(label_of(dataset)) == {f'a, "b"\n{i}.png' for i in range(10)}
    assert dataset.classes["label"] == ("<i>0</i>", "<i>1</i>")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("im/00.png\n", {}, "two columns or more"),
        ("image,label\n", {}, "a line per image"),
        ("im/00.png,a\nim/01.png\n", {}, "row 2 of .* has 1 cells instead of 2"),
        ("name,label\nzero,a\n", {}, "no column of .* holds image files"),
        ("im/00.png,a\nim/00.png,b\n", {}, "listed more than once"),
        ("image,label\nim/00.png,\nim/01.png,b\n", {}, "1 of 2 images in the table have no label"),
        ("image,label,split\nim/00.png,a,fold3\n", {}, "in split 'fold3'"),
        ("image,split\nim/00.png,train\n", {}, "no column of labels"),
        ("im/00.png,a\n", {"label": "kind"}, "no column 'kind'; it has 'column0', 'column1'"),
        ("im/00.png,a\n", {"label": 2}, "2 columns, none is 2"),
        ('im/00.png,"a\n', {}, "cannot be read"),
    ],
)
def test_unfit_tables_say_what_is_wrong(tmp_path, images, text, options, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path / "t.csv"), **options)


def test_binary_tables_and_two_tables_for_a_part(tmp_path, images):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00im/00.png,a\n")
    with pytest.raises(DataError, match="cannot be read"):
        load(str(tmp_path / "t.csv"))
    for name in ("train.txt", "train.csv"):
        (tmp_path / name).write_text("im/00.png,a\n")
    with pytest.raises(DataError, match="two tables of its train part"):
        load(str(tmp_path))
