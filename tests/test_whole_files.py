"""Files appear whole or not at all."""

import pytest

from cnn_jax.whole_files import whole_file, write_whole


def test_a_file_is_replaced_only_when_all_is_written(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "first")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_text() == "first"
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".a.txt.tmp").write_text("half of something much longer")
    write_whole(tmp_path / "a.txt", "whole \udcff")
    assert (tmp_path / "a.txt").read_bytes() == b"whole \xff"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
