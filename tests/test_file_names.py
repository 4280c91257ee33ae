"""Whatever a class is called, its folder has a name that is safe and its own."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.file_names import safe_name, safe_names

pieces = st.sampled_from(["..", "/", "\\", "~", "CON", "nul", ".", " ", "é", "é", "ß", "A"])
texts = st.lists(pieces | st.characters(), max_size=8).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tulip", "tulip"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".hidden", "hidden"),
        ("", "_"),
        ("..", "_"),
        ("a\tb\x00c", "a_b_c"),
        ("Con.txt", "_Con.txt"),
        ("שלום", "שלום"),
        ("x" * 300, "x" * 80),
        ("é" * 60, "é" * 40),
        ("caf\udcff", "caf_"),
    ],
)
def test_examples(text, expected):
    assert safe_name(text) == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=6))
def test_names_are_safe_and_differ_on_every_system(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("names")
    names = safe_names(wanted, taken=["_remove"])
    for name in names:
        assert 0 < len(name.encode()) <= 90 and name.isprintable()
        path = folder / name
        assert path.parent == folder and Path(name).name == name and not name.startswith(".")
        path.mkdir()  # fails where two are one
    alike = [unicodedata.normalize("NFKD", n).casefold() for n in ["_remove", *names]]
    assert len({unicodedata.normalize("NFKC", n) for n in alike}) == len(names) + 1


def test_the_first_of_two_keeps_its_name():
    assert safe_names(["Cat", "cat", "CAT", "cat-2"]) == ["Cat", "cat-2", "CAT-3", "cat-2-2"]
