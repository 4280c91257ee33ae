"""`cnn-jax principles`: the page holds what the functions of `principles` give."""

import dataclasses

import jax
import numpy as np
import pytest

from cnn_jax import data, measuring, nn, principles, train
from cnn_jax.cli import main
from cnn_jax.errors import RunError
from cnn_jax.measuring.representing import likeness_of
from cnn_jax.report.principles import render
from cnn_jax.training.progress import Silent

pytestmark = pytest.mark.heavy  # of one run, trained at first


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two hues under noise, and a few images of each shot."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 2
    pixels = rng.integers(0, 160, (240, 12, 12, 3)).astype(np.uint8)
    pixels[..., 0] += (30 * labels + rng.integers(0, 40, 240)).astype(np.uint8)[:, None, None]
    groups = np.array([f"shot {n // 4}" for n in range(240)])
    dataset = data.from_arrays(pixels, labels, groups=groups, name="hues")
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 3}
    place = tmp_path_factory.mktemp("runs") / "hues"
    return train(data=dataset, out=place, reporter=Silent(), **options)


@pytest.fixture(scope="module")
def page(run):
    return measuring.measure(run, images=24, train_images=100, command="measured")


def test_figures_are_those_of_the_functions(run, page):
    subject = measuring.Subject.of(run, images=24, train_images=100)
    images, labels = subject.test
    still = (run.classifier.logits(images)[1].argmax(axis=1) == labels).mean()
    shifts = page.translation.by_shift
    assert shifts.shape == (7, 7) and shifts[3, 3] == pytest.approx(still)
    assert page.translation.by_angle[0] == pytest.approx(still)
    wanted = principles.equivariance(run.model, run.variables, subject.seen(images), (1, 1))
    for name, one, _, _ in page.translation.layers:
        assert one == pytest.approx(wanted[name].error, rel=1e-4)
    fields = principles.receptive_fields(run.model, run.variables, (12, 12, 3))
    assert {row.path: row.size for row in page.fields} == {
        path: fields[path].size for path in ("stage1", "stage2", "head")
    }
    first = page.sharing[0]
    assert first.parameters == (3 * 3 * 3 * 4, 12 * 12 * 3 * 3 * 3 * 4, 12 * 12 * 3 * 12 * 12 * 4)
    found = page.hierarchy
    assert found.layers[0] == "pixels" and found.probes[0] == found.untrained[0]
    parts = [
        (x.astype(np.float64), labels)
        for x, labels in (subject.train, subject.validation, subject.test)
    ]
    probe = principles.linear_probe(*parts, cells=18, groups=subject.groups)
    assert found.probes[0] == probe.accuracy and probe.accuracy.unit == "group"
    np.testing.assert_allclose(np.diag(found.cka), 1, atol=1e-6)
    np.testing.assert_allclose(found.cka, found.cka.T, atol=1e-6)
    assert page.learning.error is not None and page.learning.error < 1e-6
    assert {len(unit.patches) for unit in found.units} == {5} and len(found.units) == 6


def test_parts_are_drawn_class_by_class_and_the_use_of_test_is_written_down(run, page):
    subject = measuring.Subject.of(run, images=20, train_images=50)
    assert np.bincount(subject.test[1]).tolist() == [10, 10] and len(subject.train[0]) == 50
    assert [use["command"] for use in run.test_uses].count("measured") == 1


def test_the_page_is_whole(page):
    text = render(page)
    for heading in (
        *("Parameter sharing", "Translation", "Receptive fields", "Hierarchy"),
        *("What units answer to", "Activation and learning", "How it was measured"),
    ):
        assert f"<h2>{heading}</h2>" in text
    assert "nan" not in text and "too small to be compared with Gabor" in text


def test_a_notebook_shows_a_part(page):
    shown = measuring.show(page, "translation")._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "Accuracy by shift" in shown
    assert "<script" not in shown and "Parameter sharing" not in shown
    with pytest.raises(RunError, match="no part 'colour'"):
        measuring.show(page, "colour")


def test_a_network_is_like_itself_and_less_like_another(run, page):
    mine = measuring.Subject.of(run, images=24, train_images=8)
    features = mine.features(mine.trained, mine.test[0], [layer.path for layer in mine.main])
    np.testing.assert_allclose(likeness_of(features, mine, mine.test[0]), page.hierarchy.cka)
    other = dataclasses.replace(mine, main=mine.main[:2])
    assert likeness_of(features, other, mine.test[0]).shape == (3, 2)


class NoMaps(nn.Module):
    """Nothing but a dense layer, and a scale of its own."""

    @nn.compact
    def __call__(self, image, *, train=False):
        scale = self.param("scale", nn.initializers.ones, (1,))
        return nn.Dense(2, name="head")(image.reshape(len(image), -1) * scale[None])


def test_a_network_without_maps_has_a_page(run, tmp_path):
    place = tmp_path / "dense"
    other = train(model=NoMaps(), data=run.dataset, out=place, epochs=1, reporter=Silent())
    page = measuring.measure(other, images=16, train_images=24)
    assert page.translation.poolings == {} and page.sharing == [] and page.hierarchy.units == []
    assert "Translation" in render(page)


def test_the_first_images_are_of_all_classes_though_folders_list_one_after_the_other(run):
    subject = measuring.Subject.of(run, images=24, train_images=100)
    assert 0.2 < subject.train[1][:32].mean() < 0.8 and 0 < subject.test[1][:12].mean() < 1


def test_as_initialised_is_as_the_run_was(run):
    subject = measuring.Subject.of(run, images=8, train_images=8)
    wanted = run.assembly.initial_state().params
    jax.tree.map(np.testing.assert_array_equal, subject.fresh["params"], wanted)


def test_what_cannot_be_measured(run, tmp_path):
    with pytest.raises(RunError, match="8 images of each part at least"):
        measuring.measure(run, images=4)
    options = {"model.options": {"widths": [4], "units": 1}, "epochs": 1}
    digits = train(data="digits", out=tmp_path / "digits", reporter=Silent(), **options)
    with pytest.raises(RunError, match=r"takes images \[8, 8, 1\]"):
        measuring.measure(run, beside=digits, images=16, train_images=16)


def test_the_command(run, page, capsys, tmp_path, monkeypatch):
    given = {}

    def measured(run, **options):
        given.update(options, path=run.path)
        return page

    monkeypatch.setattr(measuring, "measure", measured)
    place = tmp_path / "page.html"
    arguments = ["principles", str(run.path), "--images", "32", "--page", str(place)]
    assert main(arguments) == 0
    assert given["path"] == run.path and given["images"] == 32 and "train_images" not in given
    assert given["command"].startswith("cnn-jax principles") and given["beside"] is None
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["layer", "linear", "probe", "as", "initialised"]
    assert [line.split()[0] for line in out[1:5]] == ["pixels", "stage1", "stage2", "head"]
    assert place.read_text("utf-8") == render(page)
    assert main(arguments) == 2
    assert "is there already" in capsys.readouterr().err
