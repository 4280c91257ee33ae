"""`cnn-jax gallery`, with a network that was never trained: its embeddings are of colours."""

import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import nn
from cnn_jax.classifier import Classifier, build_model
from cnn_jax.cli import main
from cnn_jax.errors import ModelError
from cnn_jax.gallery import EmbeddingModel, Gallery
from cnn_jax.recipe import Recipe
from cnn_jax.recognising import Embedder
from cnn_jax.training.preprocess import Preprocess

COLOURS = {"anna": (250, 20, 20), "ben": (20, 250, 20), "cleo": (20, 20, 250)}


def exported(folder, seed=0, options=None, model=None):
    recipe = Recipe().override({"model.options.widths": [16]} if options is None else options)
    model = model or build_model(recipe, 2, (16, 16, 3))
    images = np.zeros((1, 16, 16, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    draw = np.random.default_rng(seed)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), dict(shapes))
    variables["params"] = jax.tree.map(
        lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), variables["params"]
    )
    classifier = Classifier(
        recipe=recipe,
        model=model,
        variables=variables,
        preprocess=Preprocess((0.5,) * 3, (0.25,) * 3),
        classes=("anna", "other"),
        kind="class",
        image_shape=(16, 16, 3),
    )
    classifier.save(folder)
    return classifier


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An exported network, which is read and compiled once."""
    folder = tmp_path_factory.mktemp("network") / "exported"
    exported(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "load", functools.cache(Embedder.load))
        yield str(folder)


@pytest.fixture
def said(capsys):
    def call(*words):
        status = main(["gallery", *map(str, words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err and err.count("\n") <= 1
        return status, out, err

    return call


def picture(path, colour, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).normal(colour, 4, (*size, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def folders(place, names=("anna", "ben")):
    for name in names:
        picture(place / name / "1.png", COLOURS[name], (16, 16))
        picture(place / name / "2.png", COLOURS[name], (40, 23))


def test_from_folders_to_names_and_away_again(tmp_path, network, said):
    folders(tmp_path / "staff")
    (tmp_path / "staff" / "empty").mkdir()
    picture(tmp_path / "staff" / "solo" / "1.png", (128, 128, 128), (16, 16))
    use = ("--gallery", "g", "--run", network)
    status, out, _ = said("enrol", *use, "staff")
    assert status == 0 and out.splitlines() == [
        "5 images of 3 names enrolled",
        "with one image, whose template is that alone: 'solo'",
        "without an image, and not enrolled: 'staff/empty'",
    ]
    picture(tmp_path / "staff" / "anna" / "3.png", COLOURS["anna"], (9, 30))
    status, out, _ = said("enrol", *use, "staff/anna")
    assert out == "1 image of 1 name enrolled, 2 were already\n"
    status, out, _ = said("list", "--gallery", "g")
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["name", "images"], ["anna", "3"], ["ben", "2"], ["solo", "1"],
    ]  # fmt: skip
    assert out.endswith("no threshold fitted\n")
    folders(tmp_path / "new", ("anna", "ben", "cleo"))
    asked = ("identify", *use, "new", "--threshold", "0.99")
    status, out, _ = said(*asked, "--format", "json", "--top", "2")
    rows = json.loads(out)
    assert [row["name"] for row in rows] == ["anna"] * 2 + ["ben"] * 2 + ["unknown"] * 2
    assert rows[0]["candidate_1"] == "anna" and rows[0]["score_1"] >= rows[0]["score_2"]
    status, out, _ = said("verify", *use, "--name", "ben", "new", "--threshold", "0.99")
    assert [line.split()[1] for line in out.splitlines()[1:]] == [
        *["no"] * 2,
        *["yes"] * 2,
        *["no"] * 2,
    ]
    assert said("remove", "--gallery", "g", "--image", "anna/3.png", "ben/1.png")[0] == 0
    _, out, _ = said("list", "--gallery", "g", "--images", "--format", "csv")
    assert out == "name,image\nanna,anna/1.png\nanna,anna/2.png\nben,ben/2.png\nsolo,solo/1.png\n"
    assert said("remove", "--gallery", "g", "ben")[1] == "done; 2 identities are enrolled\n"
    assert said("remove", "--gallery", "g")[0] == 0
    _, out, _ = said(*asked, "--format", "csv")
    assert out.splitlines()[3].split(",")[1] == "unknown"


def test_a_gallery_begun_with_mirror_images_goes_on_with_them(tmp_path, network, said):
    folders(tmp_path / "staff")
    use = ("--gallery", "g", "--run", network)
    assert said("enrol", *use, "--mirror", "staff/anna")[0] == 0
    assert said("enrol", *use, "staff/ben")[1] == "2 images of 1 name enrolled\n"
    plain = Embedder.load(network)
    mirrored = plain.as_in("g")
    assert mirrored.mirrored and mirrored.digest != plain.digest
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    both = np.float64(plain(images)) + plain(images[:, :, ::-1])
    expected = both / np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(mirrored(images), expected, atol=1e-6)
    np.testing.assert_allclose(mirrored(images), mirrored(images[:, :, ::-1]), atol=1e-6)
    status, out, _ = said("identify", *use, "staff", "--threshold", "0.99", "--format", "csv")
    assert status == 0 and [line.split(",")[1] for line in out.splitlines()[1:]] == [
        *["anna"] * 2,
        *["ben"] * 2,
    ]
    assert said("verify", *use, "--name", "ben", "staff/ben", "--threshold", "0.99")[0] == 0
    use = ("--gallery", "h", "--run", network)
    assert said("enrol", *use, "staff/anna")[0] == 0
    status, _, err = said("enrol", *use, "--mirror", "staff/ben")
    assert status == 2 and "begun without --mirror: leave it out, or begin another" in err
    for words in ("cropped by hand", '["mirrored"]', ""):
        with Gallery.create(tmp_path / f"of {words}", EmbeddingModel("d", 16, words)):
            pass
        assert not mirrored.as_in(tmp_path / f"of {words}").mirrored


def test_a_threshold_is_fitted_and_what_it_means_is_said(tmp_path, network, said):
    draw = np.random.default_rng(0)
    for k in range(7):
        picture(tmp_path / "shop" / f"item {k}" / "1.png", draw.uniform(0, 255, 3), (16, 16))
    picture(tmp_path / "shop" / "anna" / "1.png", COLOURS["anna"], (16, 16))
    use = ("--gallery", "g", "--run", network)
    said("enrol", *use, "shop")
    status, out, _ = said("threshold", *use, "--far", "0.75")
    assert status == 0 and "from 4 disjoint pairs" in out and "compared with 8 identities" in out
    assert "1 of them are in the network's data ('anna')" in out
    assert "threshold 0." in said("list", "--gallery", "g")[1]
    assert said("identify", *use, "shop")[1].split()[3:5] == ["shop/anna/1.png", "anna"]
    status, _, err = said("threshold", "--gallery", "g", "--far", "0.5")
    assert status == 2 and "6 are needed" in err


def test_what_goes_wrong_is_one_line_and_loses_nothing(tmp_path, network, said):
    folders(tmp_path / "staff")
    use = ("--gallery", "g", "--run", network)
    assert said("enrol", *use, "staff")[0] == 0
    (tmp_path / "none").mkdir()
    (tmp_path / "broken" / "dora").mkdir(parents=True)
    picture(tmp_path / "broken" / "carl" / "1.png", (9, 9, 9), (16, 16))
    (tmp_path / "broken" / "dora" / "1.png").write_bytes(b"no picture")
    folders(tmp_path / "twins" / "staff")
    exported(tmp_path / "other", seed=1)
    (tmp_path / "letter").write_text("dear")
    for words, text in [
        ((), "usage: cnn-jax gallery COMMAND"),
        (("sell",), "has no 'sell': it has enrol"),
        (("enrol", "--run", network, "staff"), "required: --gallery"),
        (("enrol", *use, "none"), "has no image files"),
        (("enrol", *use, "absent"), "does not exist"),
        (("enrol", *use, "staff", "twins"), "come from two folders of one name"),
        (("enrol", *use, "broken"), "1.png"),
        (("identify", *use, "staff"), "Fit a threshold"),
        (("identify", "--gallery", "gone", "--run", network, "staff"), "no gallery 'gone'"),
        (("identify", "--gallery", "g", "--run", "other", "staff"), "they do not compare"),
        (("enrol", "--gallery", "g", "--run", "other", "staff"), "they do not compare"),
        (("enrol", "--gallery", "letter", "--run", network, "staff"), "not a gallery"),
        (("enrol", "--gallery", "g", "--run", "staff", "staff"), "not a run folder"),
        (("verify", *use, "--name", "bob", "staff", "--threshold", "0"), "'bob' is not enrolled"),
        (("remove", "--gallery", "g", "anna", "zoe"), "'zoe' is not enrolled"),
        (
            ("remove", "--gallery", "g", "--image", "anna/1.png", "ben/9.png"),
            "'ben/9.png' is of nobody: nothing was removed",
        ),
        (("remove", "--gallery", "g", "ben", "--image", "anna/1.png"), "give names, or --image"),
    ]:
        status, out, err = said(*words)
        assert (status == 2) == bool(words) and text in (err if words else out)
    assert [line.split() for line in said("list", "--gallery", "g")[1].splitlines()[1:3]] == [
        ["anna", "2"], ["ben", "2"],
    ]  # fmt: skip
    asked = ("identify", *use, "broken", "--threshold", "-1", "--format", "csv")
    status, out, err = said(*asked)
    assert status == 1 and len(out.splitlines()) == 2 and "dora" in err


def test_images_are_removed_by_the_names_that_they_were_enrolled_with(tmp_path, said):
    vectors = np.eye(4, dtype=np.float32)
    with Gallery.create("own", EmbeddingModel("digest", 4, "{}")) as gallery:
        gallery.enrol(["a", "a", "b", "c"], vectors, sources=["/x/1.png", "2.png", "3", "3"])
    assert said("remove", "--gallery", "own", "--image", "/x/1.png", "3")[0] == 2  # whose 3?
    assert said("remove", "--gallery", "own", "--image", "/x/1.png")[0] == 0
    _, out, _ = said("list", "--gallery", "own", "--images", "--format", "csv")
    assert out == "name,image\na,2.png\nb,3\nc,3\n"


class Doubled(nn.Module):
    """Gives an `embedding`, and has a head that is not what makes it."""

    @nn.compact
    def __call__(self, image, *, train=False):
        mean = image.mean(axis=(1, 2))
        return {"logits": nn.Dense(2, name="head")(mean), "embedding": 2 * mean}


def test_the_embedding_of_the_outputs_comes_first_and_the_digest_is_of_weights(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    doubled = Embedder(exported(tmp_path / "a", options={}, model=Doubled()))
    mean = images.reshape(5, -1, 3).mean(axis=1) / 255
    np.testing.assert_allclose(doubled(images), 2 * (mean - 0.5) / 0.25, atol=1e-5)
    same = Embedder(Classifier.load(tmp_path / "a", model=Doubled()))
    assert same.digest == doubled.digest
    other = Embedder(exported(tmp_path / "b", seed=1, options={}, model=Doubled()))
    assert other.digest != doubled.digest

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            return nn.Dense(2)(image.mean(axis=(1, 2)))

    with pytest.raises(ModelError, match="no submodule 'head'"):
        Embedder(exported(tmp_path / "c", options={}, model=Plain()))(images)
