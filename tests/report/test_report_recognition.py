"""What the page says of people never seen, against plain loops; that its charts are drawn."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from cnn_jax import recognition_page
from cnn_jax.evaluation import embeddings_type, error_curve, recognition_pairs, verification_rates
from cnn_jax.report import Page, frame, render
from cnn_jax.report.recognition import PairShown, UnseenPeople
from cnn_jax.report.recognition_charts import det_chart, roc_chart, score_chart

NUMBER = r"-?\d+(?:\.\d+)?"


def people(count=5, each=4, noise=0.8, split="test", seed=0):
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(count), each)
    x = rng.normal(size=(count, 8))[who] + noise * rng.normal(size=(len(who), 8))
    return embeddings_type(split)(
        split=split,
        ids=np.array([f"{split} {i}" for i in range(len(who))]),
        subjects=np.array([f"{split} person {k}" for k in who]),
        embeddings=x.astype(np.float32),
    )


def unseen(threshold=0.5, **changes):
    test = people()
    pairs = recognition_pairs(test)
    lowest, highest = recognition_page._hardest(test, pairs, lambda rows: {})
    places, rows, explained = recognition_page._map(test)
    values = {
        "genuine": pairs.scores[pairs.same],
        "impostor": pairs.scores[~pairs.same],
        "curve": error_curve(pairs, resamples=20),
        "threshold": threshold,
        "chosen": "As it was.",
        "realised": verification_rates(pairs, threshold, resamples=20),
        "lowest": lowest,
        "highest": highest,
        "people": recognition_page._errors(test, pairs, threshold),
        "places": places,
        "names": tuple(test.subjects[rows].tolist()),
        "explained": explained,
    }
    return UnseenPeople(**{**values, **changes})


def test_errors_of_each_person_by_loops():
    test = people()
    unit = test.embeddings / np.linalg.norm(test.embeddings, axis=1, keepdims=True)
    cosine = unit @ unit.T
    found = {p.name: p for p in recognition_page._errors(test, recognition_pairs(test), 0.5)}
    for name in np.unique(test.subjects):
        mine = np.flatnonzero(test.subjects == name)
        others = np.flatnonzero(test.subjects != name)
        own = [cosine[i, j] for i in mine for j in mine if i < j]
        strange = [cosine[i, j] for i in mine for j in others]
        lost = [
            i for i in mine if max(cosine[i, others]) >= max(cosine[i, j] for j in mine if j != i)
        ]
        row = found[name]
        assert (row.images, row.genuine, row.impostor, row.lost) == (4, 6, 64, len(lost))
        assert row.rejected == sum(c < 0.5 for c in own)
        assert row.accepted == sum(c >= 0.5 for c in strange)
    errors = [p.rejected + p.accepted + p.lost for p in found.values()]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0


def test_the_threshold_is_of_validation_people_and_says_what_it_promises():
    few = recognition_pairs(people(split="validation"))
    threshold, chosen = recognition_page.threshold_of(few)
    impostors = few.scores[~few.same]
    assert (impostors >= threshold).mean() <= 0.01 and "No bound can be promised" in chosen
    many = recognition_pairs(people(count=70, each=2, split="validation"))
    threshold, chosen = recognition_page.threshold_of(many)
    far = (many.scores[~many.same] >= threshold).mean()
    assert 0.09 < far <= 0.1 and "true rate of new people is at most" in chosen


def test_errors_within_groups_of_people_by_loops():
    test = people(count=6)
    pairs = recognition_pairs(test)
    older = np.array([0, 0, 0, 1, 1, 1])
    person = np.repeat(np.arange(6), 4)
    order = np.random.default_rng(3).permutation(len(test))
    targets = {
        "label": person[order],
        "age": older[person][order],
        "glasses": (np.arange(24) % 2)[order],
        "marks": np.ones((24, 2), np.float32),
    }
    dataset = SimpleNamespace(
        splits={"test": SimpleNamespace(ids=test.ids[order], targets=targets)},
        kinds={"label": "class", "age": "class", "glasses": "class", "marks": "multilabel"},
        classes={"age": ("young", "old"), "glasses": ("no", "yes")},
    )
    found, note = recognition_page._subgroups(dataset, test, pairs, 0.5)
    assert list(found) == ["age"] and note.endswith("from image to image: glasses.")
    unit = test.embeddings / np.linalg.norm(test.embeddings, axis=1, keepdims=True)
    cosine = unit @ unit.T
    for row in found["age"]:
        inside = np.flatnonzero(older[person] == ("young", "old").index(row.name))
        own = [cosine[i, j] for i in inside for j in inside if i < j and person[i] == person[j]]
        strange = [cosine[i, j] for i in inside for j in inside if i < j and person[i] != person[j]]
        assert row.subjects == 3
        assert row.frr.value == pytest.approx(np.mean(np.array(own) < 0.5))
        assert row.far.value == pytest.approx(np.mean(np.array(strange) >= 0.5))
    text = render(Page("faces", "net", unseen=unseen(subgroups=found, subgroups_note=note)))
    assert "Groups of people" in text and "young" in text and "false rejects" in text
    del dataset.kinds["age"]
    assert "it may do far worse" in recognition_page._subgroups(dataset, test, pairs, 0.5)[1]
    assert "could not be read" in recognition_page._subgroups(None, test, pairs, 0.5)[1]


def test_the_hardest_pairs_are_of_different_people_each():
    test = people()
    pairs = recognition_pairs(test)
    images = {i: np.full((4, 4, 1), i, np.uint8) for i in range(len(test))}
    lowest, highest = recognition_page._hardest(test, pairs, lambda rows: images)
    assert lowest[0].score == pairs.scores[pairs.same].min()
    assert highest[0].score == pairs.scores[~pairs.same].max()
    assert len(lowest) == 5 and len({p.names for p in lowest}) == 5
    assert len(highest) == 9 == len({frozenset(p.names) for p in highest})
    for pair in (*lowest, *highest):
        assert pair.images is not None
        for i, image in zip(pair.ids, pair.images, strict=True):
            assert image[0, 0, 0] == test.ids.tolist().index(i)


def test_the_page_holds_all_sections_and_escapes_names():
    shown = unseen(lowest=(PairShown(0.1, ("<b>", "<b>"), ("1", "2")),))
    text = render(Page("faces", "net", unseen=shown))
    for words in ("Verification", "Hardest pairs", "Person by person", "Careful use", "As it was."):
        assert words in text
    assert "&lt;b&gt;" in text and "<b><bdi><b>" not in text and "nan" not in text.lower()
    assert text.count("there are no pictures") == 1
    far = shown.realised["far"].value
    assert f"{100 * (1 - (1 - far) ** 10):.1f}\N{NO-BREAK SPACE}%" in text


@pytest.mark.parametrize("threshold", [0.5, 2.0, -2.0])
def test_charts_are_drawn_within_their_frame(threshold):
    shown = unseen(threshold)
    point = shown.realised["far"].value, shown.realised["frr"].value
    charts = [score_chart(shown.genuine, shown.impostor, threshold)]
    charts += [roc_chart(shown.curve, point), det_chart(shown.curve, point)]
    for chart in charts:
        assert "nan" not in chart and "inf" not in chart
        paths = re.findall(r' d="([^"]+)"', chart)
        places = [pair for d in paths for pair in re.findall(rf"({NUMBER})[ ,]({NUMBER})", d)]
        places += re.findall(rf'<circle cx="({NUMBER})" cy="({NUMBER})"', chart)
        assert paths and len(places) >= 3
        for x, y in places:
            assert frame.LEFT <= float(x) <= frame.RIGHT, (x, y)
            assert frame.TOP <= float(y) <= frame.BASE, (x, y)
    assert ("the threshold" in charts[0]) == (threshold == 0.5)
    assert math.isfinite(shown.explained) and 0 < shown.explained <= 1
