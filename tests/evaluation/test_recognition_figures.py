"""Figures of embeddings of people never seen, against plain loops and those of pairs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from cnn_jax import evaluation
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    CalibrationEmbeddings,
    EmbeddingPredictions,
    leave_one_out,
    people_pairs,
    recognition_metrics,
    recognition_pairs,
    recognition_score,
    verification_metrics,
)
from cnn_jax.evaluation.measured import measures
from cnn_jax.evaluation.recognition import check_people


def people(sizes=(4, 3, 5, 1, 4), noise=0.6, seed=0, split="test", size=6):
    """Embeddings round a direction for each person, in a random order of the images."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(sizes), size))[who] + noise * rng.normal(size=(len(who), size))
    return evaluation.embeddings_type(split)(
        split=split,
        ids=np.array([f"image {i}" for i in range(len(who))]),
        subjects=np.array([f"person {k}" for k in who]),
        embeddings=x.astype(np.float32),
    )


def test_pairs_are_every_two_images_once():
    found = people()
    pairs = people_pairs(found.subjects)
    want = set(map(frozenset, itertools.combinations(range(len(found)), 2)))
    assert set(map(frozenset, pairs.ends.tolist())) == want and len(pairs.ends) == len(want)
    who = found.subjects[pairs.ends]
    np.testing.assert_array_equal(pairs.same, who[:, 0] == who[:, 1])
    assert pairs.impostors == (~pairs.same).sum() and pairs.note == ""


def test_of_many_impostor_pairs_a_fixed_random_subset_is_taken():
    subjects = people().subjects
    whole, some = people_pairs(subjects), people_pairs(subjects, most=40)
    np.testing.assert_array_equal(some.ends[some.same], whole.ends[whole.same])
    chosen = set(map(tuple, some.ends[~some.same].tolist()))
    assert len(chosen) == 40 and chosen < set(map(tuple, whole.ends[~whole.same].tolist()))
    assert some.note == "40 of 111 impostor pairs, drawn at random"
    np.testing.assert_array_equal(people_pairs(subjects, most=40).ends, some.ends)
    assert people_pairs(np.array(["a"] * 3)).impostors == 0


def test_of_many_genuine_pairs_a_random_subset_is_taken_too():
    subjects = people().subjects
    whole, some = people_pairs(subjects), people_pairs(subjects, most=7)
    assert (some.genuine, some.impostors) == (whole.same.sum(), (~whole.same).sum()) == (25, 111)
    for kind in (True, False):
        chosen = set(map(tuple, some.ends[some.same == kind].tolist()))
        assert len(chosen) == 7
        assert chosen < set(map(tuple, whole.ends[whole.same == kind].tolist()))
    assert some.note == "7 of 25 genuine pairs and 7 of 111 impostor pairs, drawn at random"
    lone = people_pairs(np.array(["a"] * 6 + ["b"]), most=7)
    assert lone.note == "7 of 15 genuine pairs, drawn at random"


def test_the_searches_are_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(
        "cnn_jax.evaluation.recognition.leave_one_out",
        lambda predictions: made.append(leave_one_out(predictions)) or made[-1],
    )
    recognition_metrics(people(), resamples=2)
    assert len(made) == 1


def test_the_nearest_other_image_decides_rank_1():
    found = people(noise=1.0)
    unit = found.embeddings / np.linalg.norm(found.embeddings, axis=1, keepdims=True)
    right = []
    for i, who in enumerate(found.subjects):
        if (found.subjects == who).sum() == 1:
            continue  # nobody to find
        others = [j for j in range(len(found)) if j != i]
        best = max(others, key=lambda j: float(unit[i] @ unit[j]))
        right.append(found.subjects[best] == who)
    rank1 = recognition_metrics(found, resamples=20)["rank1"]
    assert 0 < np.mean(right) < 1 and rank1.value == pytest.approx(np.mean(right))
    assert rank1.n == len(right) == 16
    alike = dataclasses.replace(found, embeddings=np.ones_like(found.embeddings))
    assert recognition_metrics(alike, resamples=20)["rank1"].value == 0  # ties are misses
    searches = leave_one_out(found)
    assert searches.gallery == 16 and (~searches.mated).sum() == 1


def test_figures_of_pairs_are_those_of_verification():
    found = people(sizes=(12,) * 10, noise=1.0)  # 6,480 impostor pairs
    figures = recognition_metrics(found, resamples=100)
    names = ["eer", "auroc", "tar_at_far_0.01", "tar_at_far_0.001"]
    assert list(figures) == [*names, "rank1"]
    of_pairs = verification_metrics(recognition_pairs(found), fars=(0.01, 0.001), resamples=100)
    assert {name: figures[name] for name in names} == {name: of_pairs[name] for name in names}
    assert {name: one.value for name, one in measures(found).items()} == {
        name: pytest.approx(one.value) for name, one in figures.items()
    }
    assert list(recognition_metrics(people(), resamples=20)) == [
        "eer",
        "auroc",
        "tar_at_far_0.01",
        "rank1",
    ]


def test_where_nobody_is_mistaken_the_bound_is_that_of_so_many_people():
    figures = recognition_metrics(people(noise=0.01, size=40), resamples=50)
    for name in ("tar_at_far_0.01", "rank1"):
        assert figures[name].value == 1 and figures[name].method.startswith("Clopper-Pearson")
        # One of the five has no second image, and so no part in a rank or a genuine pair.
        assert figures[name].low == pytest.approx(0.025 ** (1 / 4))


def test_what_a_choice_of_state_sees():
    found = people(split="validation", noise=1.0)
    scores = recognition_pairs(found)
    genuine, impostor = scores.scores[scores.same], scores.scores[~scores.same]
    score = recognition_score(found)
    eer = verification_metrics(scores, resamples=1)["eer"].value
    assert score["accuracy"] == pytest.approx(1 - eer)
    gap = (genuine.mean() - impostor.mean()) / (genuine.std() + impostor.std())
    assert score["loss"] == pytest.approx(norm.cdf(-gap))
    alike = dataclasses.replace(found, embeddings=np.ones_like(found.embeddings))
    assert recognition_score(alike) == {"loss": 0.5, "accuracy": 0.5}
    for named in (
        people(),
        EmbeddingPredictions("validation", found.ids, found.subjects, found.embeddings),
    ):  # by type
        with pytest.raises(EvaluationError, match="a choice of state sees the validation part"):
            recognition_score(named)


def test_paired_comparison_draws_people():
    a, b = people(sizes=(6,) * 8, noise=0.7), people(sizes=(6,) * 8, noise=2.0)
    found = evaluation.compare([a], [b], resamples=100)
    values = [verification_metrics(recognition_pairs(x), resamples=1)["eer"].value for x in (a, b)]
    assert (found.metric, found.answer) == ("eer", "better")
    assert found.difference.value == pytest.approx(values[0] - values[1])
    assert found.difference.unit == "group" and found.difference.high < 0
    shuffled = b.take(np.random.default_rng(0).permutation(len(b)))
    assert evaluation.compare([a], [shuffled], resamples=100).of_b == pytest.approx(values[1])
    plain = evaluation.paired_difference(a, b, resamples=20)
    assert (plain.value, plain.percent) == (found.difference.value, True)
    seeds = evaluation.mean_figure([a, b], "eer")
    assert seeds["seed"].value == pytest.approx(np.mean(values)) and seeds["both"].percent
    other = dataclasses.replace(b, subjects=b.subjects[::-1])
    with pytest.raises(EvaluationError, match="disagree on the subjects"):
        evaluation.compare([a], [other])


def test_embeddings_are_saved_as_they_are(tmp_path):
    found = people(split="validation")
    found.save(tmp_path / "a.npz")
    loaded = EmbeddingPredictions.load(tmp_path / "a.npz")
    assert isinstance(loaded, CalibrationEmbeddings)
    for name in ("ids", "subjects", "embeddings"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(found, name))
    people().save(tmp_path / "b.npz")
    assert type(EmbeddingPredictions.load(tmp_path / "b.npz")) is EmbeddingPredictions
    with pytest.raises(EvaluationError, match="cannot serve for calibration"):
        CalibrationEmbeddings.load(tmp_path / "b.npz")
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(EvaluationError, match="cannot read predictions"):
        EmbeddingPredictions.load(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": np.zeros((17, 3))}, "not float32"),
        ({"embeddings": np.full((17, 3), math.nan, np.float32)}, "17 of 17 embeddings"),
        ({"subjects": np.zeros(17)}, "need as many subjects"),
        ({"ids": np.array(["a"] * 17)}, "predicted twice"),
    ],
)
def test_what_are_no_embeddings(changes, message):
    with pytest.raises(EvaluationError, match=message):
        dataclasses.replace(people(), **changes)


def test_people_who_tell_nothing():
    with pytest.raises(EvaluationError, match="hold out more people"):
        check_people(np.array(["a", "b", "c"]), "test")
    with pytest.raises(EvaluationError, match="hold out more people"):
        check_people(np.array(["a", "a"]), "test")
    check_people(np.array(["a", "a", "b"]), "test")
