"""Searches, their figures and templates against plain loops and worked examples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    Searches,
    Templates,
    cmc,
    make_templates,
    open_set_metrics,
    ranks,
    search,
    unit_embeddings,
)
from cnn_jax.evaluation.intervals import Units, resampling_weights, widened


def searched(scores, subjects, gallery):
    ids = np.array([f"probe {i}" for i in range(len(subjects))])
    who, gallery = np.asarray(subjects, np.str_), np.asarray(gallery, np.str_)
    return Searches.of_scores(
        np.asarray(scores, np.float64), split="test", ids=ids, subjects=who, gallery=gallery
    )


def random_searches(seed, probes=40, gallery=6, unknown=5):
    """Scores with ties; people 0..5 are in the gallery, 6..10 are not."""
    generator = np.random.default_rng(seed)
    who = generator.integers(0, gallery + unknown, size=probes)
    who[:2] = 0, gallery
    scores = generator.normal(size=(probes, gallery)) + 1.5 * (who[:, None] == np.arange(gallery))
    names = [f"p{i:02d}" for i in range(gallery)]
    order = generator.permutation(gallery)
    scores = scores.round(1)[:, order]
    who = [f"p{i:02d}" for i in who]
    return searched(scores, who, np.array(names)[order]), scores, who, np.array(names)[order]


def plain_open_set(scores, who, gallery, fpir, rank=1):
    """DIR at the lowest threshold whose FPIR is at most `fpir`; ties of ranks are lost."""
    mated = [name in gallery for name in who]
    best = [row.max() for row, known in zip(scores, mated, strict=True) if not known]
    found = []
    for row, name, known in zip(scores, who, mated, strict=True):
        if known:
            mate = row[list(gallery).index(name)]
            place = 1 + sum(row > mate) + sum(row == mate) - 1
            found.append(mate if place <= rank else -np.inf)
    lines = [np.inf, *sorted(set(np.concatenate([scores.ravel(), best]).tolist()))]
    fine = [t for t in lines if np.mean(np.array(best) >= t) <= fpir + 1e-12]
    return max(np.mean(np.array(found) >= t) for t in fine)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_ranks_are_those_of_a_sort(seed):
    found, scores, who, gallery = random_searches(seed)
    by_policy = {ties: ranks(found, ties) for ties in ("pessimistic", "mean", "optimistic")}
    for i, (row, name) in enumerate(zip(scores, who, strict=True)):
        if name not in gallery:
            assert not found.mated[i] and found.scores[i] == row.max()
            assert np.isinf(by_policy["mean"][i])
            continue
        mate = row[gallery.tolist().index(name)]
        places = 1 + np.flatnonzero(np.sort(row)[::-1] == mate)
        assert found.mated[i] and found.scores[i] == mate
        assert by_policy["optimistic"][i] == places[0]
        assert by_policy["pessimistic"][i] == places[-1]
        assert by_policy["mean"][i] == places.mean()


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5]), st.integers(1, 3))
def test_figures_are_those_of_plain_loops(seed, fpir, rank):
    found, scores, who, gallery = random_searches(seed)
    unknown = int((~found.mated).sum())
    if fpir * unknown < 1:
        return
    figure = open_set_metrics(found, fpirs=[fpir], rank=rank, resamples=1)[f"dir_at_fpir_{fpir:g}"]
    assert figure.value == pytest.approx(plain_open_set(scores, who, gallery, fpir, rank))
    place = ranks(found)[found.mated]
    rates = [estimate.value for estimate in cmc(found, max_rank=4, resamples=1).rate]
    assert rates == pytest.approx([(place <= k).mean() for k in (1, 2, 3, 4)])


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_oscr_is_the_area_under_its_curve(seed, rank):
    """By the trapezium rule over every threshold, and as a share of pairs."""
    found, scores, _who, _gallery = random_searches(seed)
    figure = open_set_metrics(found, fpirs=[], rank=rank, resamples=1)["oscr"].value
    best = scores[~found.mated].max(axis=1)
    good = np.where(ranks(found) <= rank, found.scores, -np.inf)[found.mated]
    lines = np.array([np.inf, *np.unique(scores)[::-1], -1e9])
    fpir, rate = ((part >= lines[:, None]).mean(axis=1) for part in (best, good))
    assert figure == pytest.approx(np.trapezoid(rate, fpir))
    wins = (good[:, None] > best).mean() + (good[:, None] == best).mean() / 2
    assert figure == pytest.approx(wins)


def test_oscr_by_hand():
    """Three known, one of them taken for another, and two unknown."""
    scores = [[0.9, 0.1], [0.2, 0.6], [0.95, 0.3], [0.7, 0.1], [0.0, 0.5]]
    found = searched(scores, ["a", "b", "b", "y", "z"], ["a", "b"])
    # "a" at 0.9 beats both, "b" at 0.6 one of them, the mistaken one none: 3 of 6 pairs.
    figure = open_set_metrics(found, fpirs=[0.5])["oscr"]
    assert figure.value == 0.5 and figure.low < 0.5 < figure.high and figure.unit == "group"


def test_a_closed_set_by_hand():
    """Mates at rank 1, 2 (of three), and tied with one other at the top; a stranger left out."""
    scores = [[0.9, 0.1, 0.2], [0.8, 0.5, 0.2], [0.3, 0.7, 0.7], [0.99, 0.9, 0.9]]
    found = searched(scores, ["a", "b", "c", "z"], ["a", "b", "c"])
    assert found.mated.tolist() == [True, True, True, False]
    assert (found.above.tolist(), found.ties.tolist()) == ([0, 1, 0, 0], [0, 0, 1, 0])
    assert [e.value for e in cmc(found).rate] == pytest.approx([1 / 3, 1, 1])
    assert cmc(found, ties="optimistic", max_rank=1).rate[0].value == pytest.approx(2 / 3)
    assert cmc(found, ties="mean", max_rank=1).rate[0].value == pytest.approx(1 / 3)
    curve = cmc(found)
    assert curve.rank.tolist() == [1, 2, 3] and curve.ties == "pessimistic"
    assert [e.n for e in curve.rate] == [3, 3, 3] and curve.rate[2].low < 1


def test_a_network_that_says_the_same_of_everybody_finds_nobody():
    who = [f"{i}" for i in range(8)]
    found = searched(np.ones((8, 8)), who, who)
    assert cmc(found).rate[0].value == 0 and cmc(found).rate[7].value == 1
    assert cmc(found, ties="optimistic").rate[0].value == 1
    # Also where the equality is one of sums: templates of equal embeddings, a probe each.
    row = np.random.default_rng(0).normal(size=64)
    templates = make_templates(np.tile(row, (8, 1)) * np.arange(1, 9)[:, None], np.array(who))
    probes = np.random.default_rng(1).normal(size=(8, 64))
    found = search(probes, templates, split="test", ids=np.array(who), subjects=np.array(who[::-1]))
    assert found.ties.tolist() == [7] * 8


def test_a_search_is_that_of_a_score_matrix(monkeypatch):
    generator = np.random.default_rng(2)
    rows, who = generator.normal(size=(9, 5)), np.array(list("abcabcxyz"))
    templates = make_templates(generator.normal(size=(4, 5)), np.array(list("dcab")))
    ids = np.arange(9).astype(str)
    cosines = unit_embeddings(rows) @ templates.embeddings.T
    whole = Searches.of_scores(
        cosines.round(12), split="test", ids=ids, subjects=who, gallery=templates.names
    )
    monkeypatch.setattr("cnn_jax.evaluation.identification._SCORES_AT_ONCE", 8)
    found = search(rows, templates, split="test", ids=ids, subjects=who)
    for name in ("mated", "scores", "above", "ties"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert found.gallery == 4 and len(found) == 9


def test_intervals_are_those_of_a_loop_over_resampled_people():
    found, scores, who, gallery = random_searches(7, probes=30)
    ours = open_set_metrics(found, fpirs=[0.3], level=0.8, resamples=40, seed=3)["dir_at_fpir_0.3"]
    units = Units.of(30, found.subjects)
    values = []
    for times in np.concatenate(list(resampling_weights(units, 40, 3)), axis=1).T.astype(int):
        rows = np.repeat(np.arange(30), times)
        names = [who[i] for i in rows]
        if len({name in gallery for name in names}) == 2:
            values.append(plain_open_set(scores[rows], names, gallery, 0.3))
    ends = tuple(np.quantile(values, widened(0.8, units.count)))
    assert (ours.low, ours.high) == pytest.approx(ends, abs=1e-9)
    assert ours.unit == "group" and ours.percent and "threshold" in ours.method


def test_no_mistake_has_the_bound_of_people():
    who = list("abcxyz")
    scores = np.vstack([np.eye(3) + 0.1, np.full((3, 3), 0.2)])
    found = searched(np.repeat(scores, 2, axis=0), np.repeat(who, 2), list("abc"))
    figure = open_set_metrics(found, fpirs=[0.2])["dir_at_fpir_0.2"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((1, 0.025 ** (1 / 3), 1))
    assert "Clopper-Pearson of 3 subjects; threshold 1.1" in figure.method


def test_trap_a_threshold_from_wrong_templates_of_mated_probes_is_no_fpir():
    """Two mated probes with impostor scores 0.1 and 0.2, four strangers who look like somebody.

    insightface's ijb_1n takes the ceil(2 × 0.5) = 1st highest of 0.1 and 0.2 as threshold, and
    reports it as that of FPIR 0.5: every stranger, at 0.3 to 0.6, is above it.
    """
    scores = [[0.55, 0.1], [0.2, 0.35], [0.3, 0], [0.4, 0], [0, 0.5], [0.6, 0]]
    found = searched(scores, ["a", "b", *"wxyz"], ["a", "b"])
    ours = open_set_metrics(found, fpirs=[0.5], resamples=1)["dir_at_fpir_0.5"]
    assert ours.value == 0.5 and ours.method.endswith("threshold 0.5")
    impostors = np.array([0.1, 0.2])
    theirs = np.sort(impostors)[::-1][int(np.ceil(2 * 0.5)) - 1]
    assert theirs == 0.2
    assert (found.scores[found.mated] >= theirs).mean() == 1  # which flatters
    assert (found.scores[~found.mated] >= theirs).mean() == 1  # at a true FPIR of 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gallery": ["a", "a"]}, "one template for each of its subjects"),
        ({"gallery": []}, "one template for each of its subjects"),
        ({"scores": [[1.0, 2.0]]}, r"scores \[1, 2\] are not of 2 probes, 2 subjects and 2 temp"),
        ({"scores": [[1.0, np.nan], [1, 1]]}, "1 probes of 'test' have scores that are not finite"),
        ({"subjects": ["a"]}, "not of 1 probes"),
    ],
)
def test_scores_that_do_not_fit_are_refused(changes, message):
    fine = {"scores": [[1.0, 2.0], [3.0, 4.0]], "subjects": ["a", "b"], "gallery": ["a", "b"]}
    with pytest.raises(EvaluationError, match=message):
        searched(**{**fine, **changes})


def test_options_out_of_range_are_refused():
    found = searched([[1.0, 0], [0, 1], [0.5, 0]], ["a", "b", "z"], ["a", "b"])
    with pytest.raises(EvaluationError, match=r"1 non-mated probes cannot show a FPIR of 0\.1"):
        open_set_metrics(found)
    for some, which in ((found.mated, "non-mated"), (~found.mated, "mated")):
        part = replace(
            found,
            **{
                name: getattr(found, name)[some]
                for name in ("ids", "subjects", "mated", "scores", "above", "ties")
            },
        )
        with pytest.raises(EvaluationError, match=f"no {which} probe in 'test'"):
            open_set_metrics(part)
    with pytest.raises(EvaluationError, match="no probe of 'test' is of a subject"):
        cmc(part)
    for call in (lambda: cmc(found, max_rank=0), lambda: open_set_metrics(found, rank=0)):
        with pytest.raises(EvaluationError, match="ranks begin at 1"):
            call()
    with pytest.raises(EvaluationError, match="not 'random'"):
        cmc(found, ties="random")
    with pytest.raises(EvaluationError, match="as many subjects and ids"):
        replace(found, ids=np.array(["x", "x", "y"]))
    templates = Templates(np.array(["a"]), np.ones((1, 1)))
    for rows, names, message in (
        (np.ones((1, 2)), ["a"], "probes have 2 dimensions and templates 1"),
        (np.ones((2, 1)), ["a"], "as many subjects and ids"),
    ):
        with pytest.raises(EvaluationError, match=message):
            search(rows, templates, split="t", ids=np.array(names), subjects=np.array(names))


# Templates.


def test_a_template_is_the_normalised_weighted_sum():
    generator = np.random.default_rng(3)
    rows, who = generator.normal(size=(7, 4)), np.array(list("bababac"))
    quality = generator.random(7)
    plain = make_templates(rows, who)
    weighted = make_templates(rows, who, quality=quality)
    unit = make_templates(rows, who, quality=quality, unit_first=True)
    assert plain.names.tolist() == ["a", "b", "c"] and len(plain) == 3
    lengths = np.linalg.norm(rows, axis=1)[:, None]
    for made, values in (
        (plain, rows),
        (weighted, rows * quality[:, None]),
        (unit, rows / lengths * quality[:, None]),
    ):
        for name, template in zip(made.names, made.embeddings, strict=True):
            total = values[who == name].sum(axis=0)
            np.testing.assert_allclose(template, total / np.linalg.norm(total), atol=1e-12)
    assert not np.allclose(plain.embeddings, make_templates(rows, who, unit_first=True).embeddings)


def test_a_video_counts_as_one_picture():
    """IJB: nine frames (1, 0) and a picture (0, 1): (1, 1) / sqrt(2), not (9, 1) / sqrt(82)."""
    rows = np.array([[1.0, 0]] * 9 + [[0, 1.0]])
    who, media = np.full(10, "a"), np.array(["video"] * 9 + ["picture"])
    np.testing.assert_allclose(
        make_templates(rows, who, media=media).embeddings, [[0.5**0.5, 0.5**0.5]]
    )
    np.testing.assert_allclose(make_templates(rows, who).embeddings, [[9, 1] / np.sqrt(82)])
    two = make_templates(rows, np.array(["a"] * 5 + ["b"] * 5), media=np.full(10, "one"))
    np.testing.assert_allclose(two.embeddings, [[1, 0], [4 / 17**0.5, 1 / 17**0.5]], atol=1e-15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": np.array(["a"])}, "need as many subjects, qualities and media"),
        ({"quality": np.array([1.0, -1])}, "finite number of at least 0"),
        ({"quality": np.array([1.0, np.inf])}, "finite number of at least 0"),
        ({"quality": np.zeros(2)}, "embeddings of 'a' cancel or all have quality 0"),
        ({"embeddings": np.array([[1.0], [-1.0]])}, "embeddings of 'a' cancel"),
        ({"embeddings": np.array([[1.0], [np.nan]])}, "1 of 2 embeddings, such as row 1"),
    ],
)
def test_embeddings_that_make_no_template_are_refused(changes, message):
    fine = {"embeddings": np.ones((2, 1)), "subjects": np.array(["a", "a"])}
    with pytest.raises(EvaluationError, match=message):
        make_templates(**{**fine, **changes})
