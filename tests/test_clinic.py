"""The page for a clinician of tiny runs: from files on the command line, and from arrays."""

import dataclasses
import json
import shutil

import flax.linen as linen
import numpy as np
import pytest
from PIL import Image

import cnn_jax
from cnn_jax import clinic, clinic_pictures, data, deciding
from cnn_jax.cli import main
from cnn_jax.data.known import KNOWN
from cnn_jax.errors import RunError

SICK, WELL = '<i>sick & "x"', "well"


def pictures(n, seed=0, side=16):
    """Noise, and in the second half of them a bright square."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (n, side, side)).astype(np.uint8)
    images[n // 2 :, 4:10, 5:11] += generator.integers(30, 130, (n - n // 2, 1, 1), np.uint8)
    return images


def reference(number):
    """A mask whose place tells the number of its image."""
    mask = np.zeros((16, 16), np.uint8)
    mask[2 + number % 7 : 7 + number % 7, 3 + number % 5 : 9 + number % 5] = 255
    return mask


def run(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on files, some of whose names are hostile."""
    place = tmp_path_factory.mktemp("clinic")
    for i, image in enumerate(pictures(160)):
        folder = place / "scans" / (SICK if i >= 80 else WELL)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"<script>alert({i})<&.png")
        if i >= 90:  # some images have a mask
            Image.fromarray(reference(i)).save(folder / f"<script>alert({i})<&_mask.png")
    cnn_jax.train(
        data=str(place / "scans"),
        model="compact",
        out=place / "run",
        epochs=2,
        batch_size=16,
        **{"model.options.widths": [4, 8], "model.options.units": 1},
    )
    return place


def decided(capsys, place, page, *more):
    options = ("--positive", SICK, "--sensitivity", "0.9", "--prevalence", "0.1", *more)
    return run(capsys, "decide", str(place / "run"), "--page", str(page), *options)


def test_the_page_holds_what_is_printed_and_nothing_unescaped(capsys, trained, tmp_path):
    page = tmp_path / "page.html"
    status, out, _ = decided(capsys, trained, page)
    assert status == 0 and out.splitlines()[-1] == f"page {page}"
    text = page.read_text("utf-8")
    options = ("--positive", SICK, "--sensitivity", "0.9", "--prevalence", "0.1")
    _, found, _ = run(capsys, "decide", str(trained / "run"), *options, "--format", "json")
    found = json.loads(found)
    for part in ("validation", "test", "elsewhere"):
        for name in ("sensitivity", "specificity", "ppv", "npv", "accuracy"):
            value = found[part][name]["value"]
            if value is not None and np.isfinite(value):
                assert f"{100 * value:.2f}\u00a0%" in text
    assert f"{found['probability']:.4f}" in text
    assert "<script" not in text and "<i>" not in text and "&lt;script&gt;alert(" in text
    assert "&lt;i&gt;sick &amp; &quot;x&quot;" in text
    assert "no medical device" in text and "Grad-CAM" in text and "heat map of" in text
    assert "The data name no further property" in text and "cnn-jax decide" in text
    assert "none stated" in text  # the licence
    assert "heat map and outline of" in text and "outline of the reference" in text
    top = text.partition("At the line")[0]
    assert "No groups were given: if a patient has several images, test images may" in top


def test_the_reference_is_that_of_each_case(trained, monkeypatch):
    monkeypatch.setattr(clinic_pictures, "_heat", lambda *_: ({}, "none"))
    loaded = cnn_jax.Run.load(trained / "run")
    page = clinic.make_clinic_page(loaded, deciding.decide(loaded, positive=SICK))
    with_mask = 0
    for case in (*page.highest, *page.missed, *page.alarms):
        number = int(case.id.partition("(")[2].partition(")")[0])
        assert (case.given is None) == (number < 90)
        if case.given is not None:
            np.testing.assert_array_equal(case.given * 255, reference(number))
            with_mask += 1
    assert with_mask and "the network never saw it" in page.heat_note
    first = next(name for name in loaded.ids("test") if int(name.split("(")[1].split(")")[0]) >= 90)
    mask = trained / "scans" / f"{first.removesuffix('.png')}_mask.png"
    sound = mask.read_bytes()
    mask.write_bytes(b"no picture")
    try:
        given, missing = clinic_pictures._reference(
            loaded, np.array([first]), {0: np.zeros((16, 16, 1), np.uint8)}
        )
    finally:
        mask.write_bytes(sound)
    assert given == {} and "masks beside the images could not be read" in missing


def test_what_the_files_do_not_tell_apart_stands_beside_the_figure(trained, tmp_path):
    copy = shutil.copytree(trained / "run", tmp_path / "run")
    described = json.loads((copy / "run.json").read_text())
    assert "the network had not seen." in (copy / "report.html").read_text("utf-8")
    described["data"]["notes"] += KNOWN["busi"].notes("busi")
    (copy / "run.json").write_text(json.dumps(described))
    text = cnn_jax.Run.load(copy).report().read_text("utf-8")
    assert (
        "images the network had not seen, some perhaps of patients with other images in train "
        "(patients cannot be told apart): the figure is optimistic. Of intervals"
    ) in text


def test_nothing_is_written_over_and_no_use_is_logged(capsys, trained, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    before = (trained / "run" / "test_use.csv").read_text()
    status, out, err = decided(capsys, trained, page)
    assert status == 2 and out == "" and "is there already" in err and len(err.splitlines()) == 1
    assert page.read_text() == "mine"
    assert (trained / "run" / "test_use.csv").read_text() == before
    status, _, err = run(capsys, "decide", str(trained / "run"), "--data", "x")
    assert status == 2 and "--page" in err


def test_without_images_there_is_a_page_that_says_so(capsys, trained, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(trained / "scans", moved)
    try:
        status, _, _ = decided(capsys, trained, tmp_path / "a.html")
        text = (tmp_path / "a.html").read_text("utf-8")
        assert status == 0 and "<img" not in text
        assert "The images could not be read, so there are no pictures." in text
        assert "The data could not be read" in text
        status, _, _ = decided(capsys, trained, tmp_path / "b.html", "--data", str(moved))
        assert status == 0 and "<img" in (tmp_path / "b.html").read_text("utf-8")
        status, _, err = decided(capsys, trained, tmp_path / "c.html", "--data", "nowhere")
        assert status == 2 and len(err.splitlines()) == 1 and not (tmp_path / "c.html").exists()
    finally:
        shutil.move(moved, trained / "scans")


class Flat(linen.Module):
    """No maps: one linear layer."""

    @linen.compact
    def __call__(self, image, *, train=False):
        return linen.Dense(2)(image.reshape(image.shape[0], -1))


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """A run of a model without maps, on arrays with further targets."""
    images = pictures(160, seed=1, side=12)[..., np.newaxis]
    dataset = data.from_arrays(images, (np.arange(160) >= 80).astype(np.int32), name="arrays")
    generator = np.random.default_rng(2)
    splits = {}
    for part, split in dataset.splits.items():
        sex = generator.integers(0, 2, len(split)).astype(np.int32)
        signs = generator.random((len(split), 2)).round().astype(np.float32)
        signs[:, 1] = split.targets["label"] == 1
        splits[part] = data.Split(
            split.images, {**split.targets, "sex": sex, "signs": signs}, split.ids
        )
    dataset = dataset.replace(
        splits=splits,
        classes={**dataset.classes, "sex": ("f", "m"), "signs": ("cough", "fever")},
        kinds={**dataset.kinds, "sex": "class", "signs": "multilabel"},
    )
    place = tmp_path_factory.mktemp("flat") / "run"
    return cnn_jax.train(model=Flat(), data=dataset, out=place, epochs=1, batch_size=16)


def test_subgroups_are_those_of_the_further_targets(flat):
    decision = deciding.decide(flat, positive="1")
    page = clinic.make_clinic_page(flat, decision)
    test, split = flat.predictions("test"), flat.dataset.splits["test"]
    flagged, sick = decision.threshold.flags(test), test.labels() == 1
    order = [split.ids.tolist().index(name) for name in test.ids]
    groups = {(group.target, group.name): group for group in page.subgroups}
    assert set(groups) == {("sex", "f"), ("sex", "m"), ("signs", "cough"), ("signs", "fever")}
    for k, name in enumerate("fm"):
        inside = split.targets["sex"][order] == k
        group = groups["sex", name]
        assert group.n == inside.sum()
        assert group.sensitivity.value == flagged[inside & sick].mean()
        assert group.specificity.value == (~flagged)[inside & ~sick].mean()
    assert groups["signs", "fever"].specificity is None  # all of them are sick
    assert "Of properties that they do not name nothing is known" in page.subgroups_note


def test_cases_are_in_the_order_of_risk_and_the_failures_are_all(flat):
    decision = deciding.decide(flat, positive="1", specificity=0.5)
    page = clinic.make_clinic_page(flat, decision)
    test = flat.predictions("test")
    risk = test.probabilities(flat.temperature)[:, 1]
    np.testing.assert_allclose(
        [case.risk for case in page.highest], np.sort(risk)[::-1][: clinic.SHOWN_HIGHEST]
    )
    _, alarms, missed, _ = decision.on_test.counts
    assert len(page.missed) == min(missed, 12) and len(page.alarms) == min(alarms, 12)
    assert all(case.positive and not case.flagged for case in page.missed)
    assert all(case.flagged and not case.positive for case in page.alarms)
    assert [case.risk for case in page.missed] == sorted(case.risk for case in page.missed)
    images = dict(zip(test.ids.tolist(), flat.dataset.splits["test"].images, strict=True))
    for case in page.highest:
        np.testing.assert_array_equal(case.image, images[case.id])


@pytest.mark.heavy
def test_a_model_without_maps_is_seen_by_occlusion(flat, tmp_path):
    decision = deciding.decide(flat, positive="1")
    page = clinic.make_clinic_page(flat, decision)
    assert "occlusion" in page.heat_note
    assert all(case.heat.shape == (12, 12) and case.heat.min() >= 0 for case in page.highest)
    path = clinic.write_clinic_page(flat, decision, tmp_path / "new" / "page.html")
    assert "(occlusion)" in path.read_text("utf-8")
    with pytest.raises(RunError, match="is there already"):
        clinic.write_clinic_page(flat, decision, path)
    with pytest.raises(RunError, match="cannot write"):
        clinic.write_clinic_page(flat, decision, path / "below a file.html")
    # Loaded without its module, the run has figures and images of nothing.
    again = cnn_jax.Run.load(flat.path, data=flat.dataset)
    page = clinic.make_clinic_page(again, decision)
    assert "The network could not be loaded" in page.heat_note
    assert all(case.image is not None and case.heat is None for case in page.highest)
    assert any("No groups were given" in note for note in page.notes)
    # Patients are groups of other names than images have; copies make groups named by an image.
    pairs = np.arange(len(decision.test)) // 2
    for groups, known in ((pairs.astype(str), True), (decision.test.ids[2 * pairs], False)):
        grouped = dataclasses.replace(decision.test, groups=groups)
        page = clinic.make_clinic_page(again, dataclasses.replace(decision, test=grouped))
        assert any("No groups were given" in note for note in page.notes) != known
