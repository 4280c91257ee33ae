import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_jax.data import decode_image, list_images, load
from cnn_jax.data.decode import read_header
from cnn_jax.errors import DataError


def encoded(image, suffix="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_grey_and_rgb_keep_every_pixel(pixels):
    grey = pixels[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels)), (5, 7, 3)), pixels)
    np.testing.assert_array_equal(
        decode_image(encoded(Image.fromarray(grey)), (5, 7, 1)), grey[..., None]
    )
    np.testing.assert_array_equal(
        decode_image(encoded(Image.fromarray(grey)), (5, 7, 3)), np.stack([grey] * 3, -1)
    )


def test_colour_to_grey_is_luma(pixels):
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    got = decode_image(encoded(Image.fromarray(pixels)), (5, 7, 1))[..., 0]
    assert np.abs(got - luma).max() <= 1


def test_palette_keeps_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    got = decode_image(encoded(image), (1, 2, 3))
    assert got.tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode_image(encoded(image), (1, 2, 1)).ravel().tolist() == [0, 255]


def test_transparency_is_composited_over_white():
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (100, 0, 200, alpha))
    expected = [[round(255 + (c - 255) * a / 255) for c in (100, 0, 200)] for a in (0, 128, 255)]
    got = decode_image(encoded(image), (1, 3, 3)).astype(int)
    assert np.abs(got - [expected]).max() <= 1
    grey = Image.new("LA", (1, 1), (40, 0))
    assert decode_image(encoded(grey), (1, 1, 1)).item() == 255
    palette = Image.new("P", (1, 1))
    palette.putpalette([10, 20, 30])
    assert decode_image(encoded(palette, transparency=0), (1, 1, 3)).ravel().tolist() == [255] * 3


GREY = np.array([[0, 1, 2], [253, 254, 255]])
COMMENT = "# made by hand, 7 bits\n"


# Behind which field of the header, and after what. The blank behind the maximum of a binary file
# ends its header: what follows are pixels.
PLACES = [
    (magic, k, blank) for magic in ("P2", "P5") for k in range(3) for blank in ("", " ", "\n")
]
PLACES += [("P2", 3, " "), ("P2", 3, ""), ("P5", 3, ""), ("P2", None, ""), ("P5", None, "")]


@pytest.mark.parametrize("maximum", [255, 65_535])
@pytest.mark.parametrize(("magic", "behind", "blank"), PLACES)
def test_comments_anywhere_in_the_header_of_a_pgm(tmp_path, magic, maximum, behind, blank):
    """Netpbm: from # to the end of the line, anywhere before the blank that ends the header."""
    fields = [magic, "3", "2", str(maximum)]
    if behind is not None:
        fields[behind] += blank + COMMENT
    values = GREY * (maximum // 255)
    if magic == "P2":
        pixels = "\n".join(" ".join(map(str, row)) for row in values.tolist()).encode()
    else:
        pixels = values.astype(">u2" if maximum > 255 else np.uint8).tobytes()
    path = tmp_path / "face.pgm"
    path.write_bytes("\n".join([*fields, ""]).encode() + pixels)
    for image in (path, path.read_bytes()):
        np.testing.assert_array_equal(decode_image(image, (2, 3, 1))[..., 0], GREY)
        header = read_header(image)
        assert (header.height, header.width, header.grey) == (2, 3, True)
        assert header.deep == (maximum > 255)


def test_what_only_begins_like_a_pgm_is_no_image(tmp_path):
    for contents in (b"P7#\n", b"P", b"P5#", b"Q5#\n1 1\n255\n0"):
        (tmp_path / "face.pgm").write_bytes(contents)
        with pytest.raises(DataError, match=r"face\.pgm' cannot be read as an image"):
            decode_image(tmp_path / "face.pgm", (1, 1, 1))


def test_16_bit_grey_is_scaled_by_257():
    values = np.array([[0, 128, 129, 257, 40_000, 65_535]], np.uint16)
    got = decode_image(encoded(Image.fromarray(values)), (1, 6, 1)).ravel()
    assert got.tolist() == [round(v / 257) for v in values.ravel().tolist()]
    assert read_header(encoded(Image.fromarray(values))).grey


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # a bright corner, top left, where JPEG blocks keep it exact
    # What the camera stored, by the table of EXIF 2.3: rows and columns of the stored image.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", exif=exif, quality=95)
    got = decode_image(data, (16, 24, 1))[..., 0]
    assert np.abs(got.astype(int) - upright).max() < 10
    header = read_header(data)
    assert (header.height, header.width) == (16, 24)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, (2, 2, 1)).ravel().tolist() == [10] * 4
    assert read_header(data).animated


def test_crop_takes_the_centre():
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 77
    data = encoded(Image.fromarray(wide))
    assert (decode_image(data, (4, 4, 1), "crop") == 77).all()
    covering = np.asarray(Image.fromarray(wide).resize((6, 2), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_image(data, (2, 2, 1), "crop")[..., 0], covering[:, 2:4])


def test_pad_adds_black_bars():
    data = encoded(Image.new("L", (12, 4), 77))
    got = decode_image(data, (12, 12, 1), "pad")[..., 0]
    assert (got[4:8] == 77).all() and (got[:4] == 0).all() and (got[8:] == 0).all()
    assert decode_image(encoded(Image.new("L", (500, 1), 9)), (4, 4, 1), "pad").max() == 9


def test_stretch_is_pillows_antialiased_bilinear(rng):
    image = Image.fromarray(rng.integers(0, 256, (40, 20), dtype=np.uint8))
    expected = np.asarray(image.resize((5, 7), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(
        decode_image(encoded(image), (7, 5, 1), "stretch")[..., 0], expected
    )


def test_a_checkerboard_shrinks_to_grey():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    got = decode_image(encoded(Image.fromarray(board)), (8, 8, 1)).astype(int)
    assert np.abs(got[1:-1, 1:-1] - 127.5).max() < 3


def test_a_truncated_file_is_named(tmp_path, rng):
    path = tmp_path / "half of it.jpg"
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)), "JPEG")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="half of it"):
        decode_image(path, (64, 64, 1))


def test_a_file_beyond_pillows_limit_is_refused(monkeypatch):
    data = encoded(Image.new("L", (100, 100)))
    for limit in (9_000, 100):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="limit"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decode_image(data, (4, 4, 1))


def test_what_cannot_be_decoded_says_so(tmp_path):
    with pytest.raises(DataError, match="missing"):
        decode_image(tmp_path / "missing.png", (4, 4, 1))
    with pytest.raises(DataError, match="image of 4 bytes cannot be read"):
        decode_image(b"text", (4, 4, 1))
    data = encoded(Image.new("L", (3, 3)))
    for shape in ((4, 4, 2), (4, 4), (2, 4, 4, 1), (0, 4, 1)):
        with pytest.raises(DataError, match="decoded to"):
            decode_image(data, shape)
    with pytest.raises(DataError, match="fit must be one of"):
        decode_image(data, (4, 4, 1), "squeeze")
    floating = encoded(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF")
    with pytest.raises(DataError, match="floating-point"):
        decode_image(floating, (3, 3, 1))


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]), st.data())
@pytest.mark.filterwarnings("ignore")
def test_damage_never_raises_anything_else(suffix, data):
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    contents = bytearray(encoded(image, suffix))
    for _ in range(data.draw(st.integers(1, 6))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    contents = contents[: data.draw(st.integers(1, len(contents)))]
    try:
        assert decode_image(bytes(contents), (8, 8, 3)).shape == (8, 8, 3)
    except DataError as error:
        assert "\n" not in str(error)


def test_list_images_keeps_the_order_and_searches_folders(tmp_path, write_image):
    for name in ("b/2.PNG", "b/deep/1.png", "a.png", ".hidden/x.png", "b/.thumb.png"):
        write_image(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    found = list_images([tmp_path / "b", str(tmp_path / "a.png"), tmp_path / "b" / "2.PNG"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "b/2.PNG",
        "b/deep/1.png",
        "a.png",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty' has no image files"):
        list_images([tmp_path / "empty"])
    with pytest.raises(DataError, match="does not exist"):
        list_images(["nowhere"])


@pytest.mark.parametrize(("brightest", "told"), [(4095, True), (65535, False)])
def test_files_that_use_few_of_their_16_bits_are_told(tmp_path, brightest, told):
    for i in range(12):
        values = np.random.default_rng(i).integers(0, brightest, (6, 8)).astype(np.uint16)
        values[0, 0] = brightest
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    notes = load(str(tmp_path)).notes
    assert "12 of 12 image files have 16 bits a value: 65535 becomes 255." in notes
    assert any("The brightest pixel of all is 16 of 255" in note for note in notes) == told
