import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.decode import decode_image
from cnn_jax.data.large import large_picture
from cnn_jax.errors import DataError


def written(path, shape=(70, 90), seed=0, **more):
    pixels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **more)
    return pixels


@pytest.mark.parametrize("shape", [(70, 90), (70, 90, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_are_the_picture(tmp_path, shape, channels):
    file = tmp_path / "a.png"
    written(file, shape)
    whole = decode_image(file, (70, 90, channels))
    with large_picture(file, channels) as picture:
        assert (picture.height, picture.width) == (70, 90)
        np.testing.assert_array_equal(picture.window(10, 20, 32), whole[10:42, 20:52])
        beyond = picture.window(60, 80, 32)
        np.testing.assert_array_equal(beyond[:10, :10], whole[60:, 80:])
        # The border is repeated: down, across, and in the corner.
        np.testing.assert_array_equal(beyond[10:, :10], np.repeat(whole[-1:, 80:], 22, axis=0))
        assert (beyond[10:, 10:] == whole[-1, -1]).all()
        small = picture.reduced(45)
        assert small.shape == (35, 45, channels)
        assert abs(small.mean() - whole.mean()) < 3
        np.testing.assert_array_equal(picture.reduced(500), whole)


def test_it_stands_as_its_exif_says(tmp_path):
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    written(file, (16, 48), exif=exif)
    with large_picture(file, 1) as picture:
        assert (picture.height, picture.width) == (48, 16)
        np.testing.assert_array_equal(
            picture.window(8, 0, 16), decode_image(file, (48, 16, 1))[8:24]
        )


def test_other_modes(tmp_path):
    grey16 = np.random.default_rng(0).integers(0, 2**16, (40, 40), dtype=np.uint16)
    Image.fromarray(grey16).save(tmp_path / "deep.png")
    Image.fromarray(np.uint8(grey16 >> 8)).convert("P").save(tmp_path / "palette.png")
    for name in ("deep.png", "palette.png"):
        whole = decode_image(tmp_path / name, (40, 40, 1))
        with large_picture(tmp_path / name, 1) as picture:
            np.testing.assert_array_equal(picture.window(4, 8, 16), whole[4:20, 8:24])
            assert picture.reduced(20).shape == (20, 20, 1)


def test_pillows_limit_is_lifted_for_this_file_alone(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    written(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with large_picture(file, 1) as picture:
        assert picture.window(0, 0, 8).shape == (8, 8, 1)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(DataError, match="Pillow's limit"):
        decode_image(file, (8, 8, 1))
    with (
        pytest.raises(DataError, match=r"a.png' has more than 6000 pixels, the limit"),
        large_picture(file, 1, 6000),
    ):
        pass
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_damage_and_what_is_no_image(tmp_path):
    file = tmp_path / "a.png"
    written(file)
    content = file.read_bytes()
    for name, damaged in (("cut.png", content[: len(content) // 2]), ("text.png", b"text")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=name), large_picture(tmp_path / name, 1):
            pass
