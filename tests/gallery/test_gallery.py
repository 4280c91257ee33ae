"""Enrol, identify, verify, remove: what a person is answered."""

import numpy as np
import pytest

from cnn_jax.errors import DataError, EvaluationError, ModelError
from cnn_jax.evaluation import CalibrationPairScores
from cnn_jax.gallery import EmbeddingModel, FittedThreshold, Gallery
from cnn_jax.gallery.threshold import enrolled_pairs

D = 32
DIGEST = "0" * 64


def people(seed, n, images=3, noise=0.1):
    """Embeddings [n, images, D] about n random directions, of lengths that differ."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((n, 1, D)) / np.sqrt(D)
    x = centres + noise * draw.standard_normal((n, images, D)) / np.sqrt(D)
    return (x * draw.lognormal(size=(n, images, 1))).astype(np.float32)


@pytest.fixture
def gallery(tmp_path):
    with Gallery.create(tmp_path / "people", EmbeddingModel(DIGEST, D)) as made:
        yield made


def enrol(gallery, embeddings, prefix="p", **options):
    n, images, _ = embeddings.shape
    names = [f"{prefix}{k:03d}" for k in range(n) for _ in range(images)]
    sources = [f"{i}.png" for _ in range(n) for i in range(images)]
    return gallery.enrol(names, embeddings.reshape(-1, D), sources=sources, **options)


def test_known_ones_are_named_and_strangers_are_not(gallery):
    known, strangers = people(0, 80), people(1, 50)
    assert enrol(gallery, known[:, :2]) == 160
    fitted = gallery.fit_threshold(0.1)
    assert gallery.threshold == fitted
    assert fitted.disjoint_pairs == 40 and fitted.genuine_pairs == fitted.accepted == 160
    found = gallery.identify(known[:, 2], top=3)
    assert found.names == [f"p{k:03d}" for k in range(80)]
    assert found.candidates.shape == (80, 3)
    # Of comparisons with one template a stranger passes 10 %; of 80 one will do.
    assert gallery.identify(strangers[:, 0], top=200).candidates.shape == (50, 80)
    scores = gallery.identify(strangers[:, 0], top=80).scores
    assert abs((scores >= fitted.score).mean() - 0.1) < 0.03
    strict = gallery.identify(strangers[:, 0], threshold=0.9)
    assert strict.names == ["unknown"] * 50
    assert fitted.false_alarm(80) == 1 and fitted.false_alarm(3) == pytest.approx(0.3)


def test_verifying_is_the_score_of_one_template(gallery):
    known = people(0, 5)
    enrol(gallery, known, quality=np.ones(15))
    asked = known[2, :2]
    found = gallery.verify("p002", asked, threshold=0.5)
    assert found.accepted.tolist() == [True, True]
    units = known[2].astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    mean = units.sum(axis=0) / np.linalg.norm(units.sum(axis=0))
    np.testing.assert_allclose(found.scores, units[:2] @ mean, atol=1e-6)
    assert gallery.identify(asked, threshold=0.5).scores[:, 0].tolist() == found.scores.tolist()
    assert not gallery.verify("p001", asked, threshold=0.9).accepted.any()


def test_adding_and_removing_need_no_training_and_others_see_them(gallery):
    known = people(0, 4)
    enrol(gallery, known[:3])
    with Gallery.open(gallery._storage.path, DIGEST, precision="float16") as other:
        assert other.identify(known[3], threshold=0.9).names == ["unknown"] * 3
        gallery.enrol(["late"], known[3, :1], sources=["1.png"])
        assert other.identify(known[3], threshold=0.8).names == ["late"] * 3
        before = other.verify("late", known[3, 1:2], threshold=0).scores[0]
        gallery.enrol(["late"], known[3, 1:2], sources=["2.png"])
        assert other.verify("late", known[3, 1:2], threshold=0).scores[0] > before
        index = other._index()[1]
        assert other._index()[1] is index  # nothing has changed: not loaded again
        gallery.remove("late", ["2.png"])
        assert other.verify("late", known[3, 1:2], threshold=0).scores[0] == before
        assert gallery.sources("late") == ("1.png",)
        gallery.remove("late", ["1.png"])
        assert list(gallery.counts()) == ["p000", "p001", "p002"]
        assert other.identify(known[3], threshold=0.9).names == ["unknown"] * 3
        other.remove("p001")
        assert gallery.identify(known[1], threshold=0.9).names == ["unknown"] * 3


def test_enrolling_again_changes_nothing_and_another_picture_is_refused(gallery):
    known = people(0, 2)
    assert enrol(gallery, known) == 6
    assert enrol(gallery, known * (1 + 1e-6)) == 0
    with pytest.raises(DataError, match=r"'0\.png' of 'p000' is enrolled already"):
        enrol(gallery, known[::-1])
    assert gallery.counts() == {"p000": 3, "p001": 3}


@pytest.mark.parametrize(
    ("names", "rows", "sources", "said"),
    [
        (["a"], [0, 1], ["1", "2"], "2 embeddings come with 1 names"),
        (["a", "a"], [0, 1], ["1", "1"], "given twice"),
        (["a", " "], [0, 1], ["1", "2"], "need a letter"),
        (["a", "b"], [0, 1], ["1", ""], "need a letter"),
        (["unknown"], [0], ["1"], "take another name"),
        (["a", "b"], [0, 1], ["1", "\udcff"], "no UTF-8"),
        (["a", "b", "b"], [0, 1, 2], ["1", "2", "3"], "images of 'b' point in opposite"),
    ],
)
def test_a_bad_enrolment_enrols_nobody(gallery, names, rows, sources, said):
    vectors = people(3, 1, 3)[0]
    vectors[2] = -2 * vectors[1]
    weights = np.ones(len(rows))
    with pytest.raises(DataError, match=said):
        gallery.enrol(names, vectors[rows], sources=sources, quality=weights)
    assert gallery.counts() == {}


def test_what_cannot_be_answered_is_said(gallery):
    known = people(0, 2)
    with pytest.raises(DataError, match="nobody is enrolled"):
        gallery.identify(known[0], threshold=0.5)
    with pytest.raises(EvaluationError, match="6 / FAR"):
        gallery.fit_threshold(0.1)
    enrol(gallery, known)
    with pytest.raises(EvaluationError, match="Fit a threshold"):
        gallery.identify(known[0])
    with pytest.raises(EvaluationError, match="between -1 and 1, not 42"):
        gallery.verify("p000", known[0], threshold=42)
    with pytest.raises(DataError, match="top = 0"):
        gallery.identify(known[0], top=0, threshold=0.5)
    with pytest.raises(DataError, match=r"'p00' is not enrolled.*did you mean 'p00"):
        gallery.verify("p00", known[0], threshold=0.5)
    for unknown in (gallery.remove, gallery.sources):
        with pytest.raises(DataError, match="not enrolled"):
            unknown("nobody")
    with pytest.raises(DataError, match=r"no image '9\.png': nothing was removed"):
        gallery.remove("p000", ["0.png", "9.png"])
    assert gallery.counts() == {"p000": 3, "p001": 3}
    with pytest.raises(EvaluationError, match=r"cannot show a false accept rate of 0\.1"):
        gallery.fit_threshold(0.1)
    assert gallery.threshold is None
    with Gallery.open(gallery._storage.path) as listing:
        assert listing.model.digest == DIGEST
        for call in (listing.identify, lambda x: listing.verify("p000", x)):
            with pytest.raises(ModelError, match="opened to list and remove"):
                call(known[0])


def test_images_that_are_left_must_have_a_mean(gallery):
    vectors = people(3, 1, 3)[0]
    vectors[2] = -vectors[1]
    gallery.enrol(["a"] * 3, vectors, sources=["0", "1", "2"], quality=[1, 1, 1])
    with pytest.raises(DataError, match="nothing was changed"):
        gallery.remove("a", ["0"])
    assert gallery.counts() == {"a": 3}


def test_pairs_of_the_enrolled_are_of_images_and_templates_without_them(gallery, monkeypatch):
    known = people(4, 5, 2, noise=0.5)
    enrol(gallery, known)
    gallery.enrol(["single"], people(5, 1, 1)[0], sources=["only"])
    enrolled = gallery._storage.read()
    pairs = enrolled_pairs(enrolled)
    assert (~pairs.same).sum() == 11 * 5 and pairs.same.sum() == 10
    x = enrolled.units.astype(np.float64)
    owner = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    for (image, template), score in zip(pairs.images, pairs.scores, strict=True):
        row, other = int(image.split()[1]), int(template.split()[1])
        used = np.flatnonzero((owner == other) & (np.arange(11) != row))
        mean = (enrolled.quality[used, None] * x[used]).sum(axis=0)
        assert score == pytest.approx(x[row] @ mean / np.linalg.norm(mean), abs=1e-6)
    monkeypatch.setattr("cnn_jax.gallery.threshold._PAIRS", 22)
    fewer = enrolled_pairs(enrolled)
    assert (~fewer.same).sum() == 22
    assert set(fewer.subjects[~fewer.same, 1]) == set(enrolled.names)


def test_a_threshold_from_given_pairs_is_kept_without_names(gallery):
    draw = np.random.default_rng(0)
    subjects = np.array([[f"Zoe-{i}", f"Max-{i}"] for i in range(100)] + [["Zoe-1", "Zoe-1"]])
    pairs = CalibrationPairScores(
        split="calibration",
        images=np.array([[f"{i}", f"{i}'"] for i in range(101)]),
        scores=np.append(draw.uniform(-1, 0.5, 100), 0.8),
        same=np.arange(101) == 100,
        subjects=subjects,
    )
    found = gallery.fit_threshold(0.05, pairs=pairs)
    assert (found.calibration_far, found.genuine_pairs, found.accepted) == (0.05, 1, 1)
    assert gallery.threshold == found
    assert b"Zoe" not in gallery._storage.path.read_bytes() and "Zoe" not in found.to_json()
    with pytest.raises(DataError, match="threshold of the gallery is damaged"):
        FittedThreshold.from_json("{}")
