"""`cnn-jax explain`: maps are those of the methods, and what they are worth is said."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data, explain, explaining, train
from cnn_jax.cli import main
from cnn_jax.errors import ModelError, RunError
from cnn_jax.evaluation import Estimate
from cnn_jax.report.explanations import overlaid
from cnn_jax.training.progress import Silent

pytestmark = pytest.mark.heavy  # of one run, trained at first


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A bright square in one of two corners tells the class; noise everywhere else."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    pixels = rng.integers(0, 100, (300, 12, 12, 3)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        corner = 1 if label else 7
        image[corner : corner + 4, corner : corner + 4] = 220
    dataset = data.from_arrays(pixels, labels, classes=("low", "high"), name="corners")
    options = {"model.options": {"widths": [8, 16], "units": 1}, "epochs": 6}
    options |= {"augment.translate": 0, "augment.flip": False}
    place = tmp_path_factory.mktemp("runs") / "corners"
    return train(data=dataset, out=place, reporter=Silent(), **options)


def test_maps_are_those_of_the_method_and_of_the_likeliest_class(run):
    pixels = run.dataset.splits["test"].read_images(np.arange(19))
    found = explaining.explain_run(run, pixels, method="saliency", audited=False)
    assert found.maps.shape == (19, 12, 12) and found.audit is None
    x = run.classifier.preprocess(pixels)
    logits = run.model.apply(run.variables, x, train=False)
    target = np.asarray(logits).argmax(axis=1)
    wanted = explain.saliency(lambda x: run.model.apply(run.variables, x), x, target)
    np.testing.assert_allclose(found.maps, wanted, rtol=1e-3, atol=1e-6)
    assert list(found.classes) == [run.classifier.classes[k] for k in target]
    other = explaining.explain_run(run, pixels, method="occlusion", of_class="low", audited=False)
    assert set(other.classes) == {"low"}
    both = np.where(target == 0, found.probabilities, 1 - found.probabilities)
    np.testing.assert_allclose(other.probabilities, both, atol=1e-4)
    assert "not audited" in repr(found)


@pytest.fixture(scope="module")
def audit(run):
    return explaining.audit_method(run, "gradient_times_input", explaining.Controls.of(run, 24))


def test_an_audit_is_of_its_parts(run, audit):
    assert audit.images == 24 and audit.randomisation.layers == ("head", "stage2", "stage1")
    assert audit.deletion.n == 24 and len(run.dataset.splits["validation"]) >= 24


def _estimate(low, high):
    return Estimate((low + high) / 2, low, high, 24, "bootstrap (percentile)")


def test_what_is_wrong_is_said(audit):
    def with_(retained, **gains):
        randomisation = dataclasses.replace(audit.randomisation, retained=_estimate(*retained))
        good = dict.fromkeys(("deletion", "insertion", "road", "deletion_edges"), (0.1, 0.2))
        estimates = {name: _estimate(*ends) for name, ends in {**good, **gains}.items()}
        return dataclasses.replace(audit, randomisation=randomisation, **estimates)

    assert with_((-0.1, 0.1)).failures == () and with_((-0.1, 0.1)).weights == "passes"
    assert "90 % of its maps is left" in with_((0.8, 1.0)).failures[0]
    assert "cannot be told by 24 images" in with_((0.1, 0.5)).failures[0]
    assert with_((-0.1, 0.1), deletion=(-0.1, 0.1), road=(-0.2, 0.2)).failures == (
        "by deletion and ROAD it is not surely better than a random order",
    )
    edge = with_((-0.1, 0.1), deletion_edges=(-0.1, 0.1))
    assert "an edge detector" in edge.failures[0]
    incomplete = dataclasses.replace(with_((-0.1, 0.1)), gap=0.2)
    assert "do not add up to the answer: 20 % are missing" in incomplete.failures[0]
    assert dataclasses.replace(incomplete, gap=0.01).failures == ()
    flat = dataclasses.replace(audit.randomisation, flat=24)
    assert (
        "24 of 24 maps are the same everywhere"
        in dataclasses.replace(audit, randomisation=flat).failures[0]
    )


def test_what_a_network_does_not_allow_is_told_apart(run, tmp_path):
    options = {"model": "lenet5", "epochs": 1}
    other = train(data=run.dataset, out=tmp_path / "tanh", reporter=Silent(), **options)
    pixels = run.dataset.splits["test"].read_images(np.arange(3))
    found, refused = explaining.explain_by(
        other, pixels, ("saliency", "guided_backpropagation"), audited=False
    )
    assert [one.method for one in found] == ["saliency"]
    assert "no ReLU" in refused["guided_backpropagation"]
    with pytest.raises(ModelError, match="no ReLU"):
        explaining.explain_by(other, pixels, ("guided_backpropagation",), audited=False)


def test_every_method_gives_a_map_for_each_image(run):
    pixels = run.dataset.splits["test"].read_images(np.arange(16))
    target = np.zeros(16, int)
    for name in explain.METHODS:
        maps = explaining.maps_of(run, name, run.variables, pixels, target)
        assert maps.shape == (16, 12, 12) and np.isfinite(maps).all(), name
        if not explain.METHODS[name].signed:
            assert maps.min() >= 0, name


def test_a_map_does_not_depend_on_what_is_beside_it(run):
    pixels = run.dataset.splits["test"].read_images(np.arange(4))
    pixels[0] = pixels[0] // 8 + 100  # of little contrast
    target = np.zeros(4, int)
    for name in ("smooth_grad", "integrated_gradients", "rise"):
        together = explaining.maps_of(run, name, run.variables, pixels, target)
        alone = explaining.maps_of(run, name, run.variables, pixels[:1], target[:1])
        np.testing.assert_allclose(alone[0], together[0], rtol=2e-3, atol=2e-4, err_msg=name)


def test_what_cannot_be_explained(run):
    pixels = run.dataset.splits["test"].read_images(np.arange(2))
    with pytest.raises(ModelError, match="no method 'magic': choose one of grad_cam"):
        explaining.explain_run(run, pixels, method="magic")
    with pytest.raises(ModelError, match="no class 'middle'"):
        explaining.explain_run(run, pixels, of_class="middle")
    for names, options, message in [
        (("saliency", "magic"), {}, "no method 'magic'"),
        (("saliency", "rise"), {"of_class": "middle"}, "no class 'middle'"),
    ]:
        with pytest.raises(ModelError, match=message):
            explaining.explain_by(run, pixels, names, **options)
    with pytest.raises(RunError, match="8 validation images"):
        explaining.Controls.of(run, 4)
    with pytest.raises(ModelError, match="no class 'middle'"):
        explaining.Controls.of(run, of_class="middle")


def test_what_is_missing_of_the_sum_is_measured(run, monkeypatch):
    """Of whole maps next to nothing; of halves half."""
    controls = explaining.Controls.of(run, 16)
    whole = explaining.audit_method(run, "integrated_gradients", controls)
    assert 0 <= whole.gap < 0.05
    maps_of = explaining.maps_of
    monkeypatch.setattr(explaining.audit, "maps_of", lambda *a, **k: 0.5 * maps_of(*a, **k))
    half = explaining.audit_method(run, "integrated_gradients", controls)
    assert half.gap == pytest.approx(0.5, abs=0.05)
    assert explaining.audit_method(run, "saliency", controls).gap is None


def test_controls_are_measured_once_for_all_methods(run, audit, monkeypatch):
    made = []
    of = explaining.Controls.of.__func__
    monkeypatch.setattr(
        explaining.Controls, "of", classmethod(lambda *given: made.append(given) or of(*given))
    )
    pixels = run.dataset.splits["test"].read_images(np.arange(2))
    names = ("saliency", "gradient_times_input")
    found, _ = explaining.explain_by(run, pixels, names, audit_images=24)
    assert len(made) == 1
    assert found[1].audit.deletion == audit.deletion and found[1].audit.road == audit.road
    alone = explaining.explain_run(run, pixels, method="saliency", audit_images=24)
    assert alone.audit.insertion == found[0].audit.insertion and len(made) == 2
    np.testing.assert_array_equal(alone.maps, found[0].maps)


def test_the_audit_of_a_class_is_on_images_of_it(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(type(run), "load", lambda *_, **__: run)  # its data are arrays
    validation = run.dataset.splits["validation"]
    labels = validation.targets["label"]
    low = explaining.Controls.of(run, 12, 0, "low")
    assert low.of_class == "low" and (low.target == 0).all() and len(low.pixels) == 12
    own = {image.tobytes() for image in validation.images[labels == 0]}
    assert {image.tobytes() for image in low.pixels} <= own
    assert explaining.audit_method(run, "saliency", low).of_class == "low"
    picture = tmp_path / "one.png"
    Image.fromarray(run.dataset.splits["test"].images[0]).save(picture)
    command = ["explain", str(run.path), str(picture), "--method", "saliency", "--class", "low"]
    assert main([*command, "--out", str(tmp_path / "why"), "--images", "12"]) == 0
    assert "fewer than" not in capsys.readouterr().err
    assert "low&#x27;, of this class" in (tmp_path / "why" / "page.html").read_text("utf-8")
    with open(tmp_path / "why" / "audit.csv", newline="") as file:
        assert [row["of_class"] for row in csv.DictReader(file)] == ["low"]


def test_a_class_of_too_few_images_is_audited_by_the_likeliest(run, tmp_path, capsys, monkeypatch):
    labels = run.dataset.splits["validation"].targets["label"]
    few = np.where(np.cumsum(labels == 1) <= 7, labels, 0)  # seven of "high" are left
    split = dataclasses.replace(run.dataset.splits["validation"], targets={"label": few})
    splits = {**run.dataset.splits, "validation": split}
    monkeypatch.setattr(run, "dataset", run.dataset.replace(splits=splits))
    monkeypatch.setattr(type(run), "load", lambda *_, **__: run)  # its data are arrays
    controls = explaining.Controls.of(run, 16, 0, "high")
    assert controls.of_class is None and len(controls.pixels) == 16
    np.testing.assert_array_equal(
        controls.target, run.classifier.logits(controls.pixels)[1].argmax(axis=1)
    )
    audit = explaining.audit_method(run, "saliency", controls)
    monkeypatch.setattr(explaining.explained, "audit_method", lambda *_, **__: audit)
    picture = tmp_path / "one.png"
    Image.fromarray(run.dataset.splits["test"].images[0]).save(picture)
    command = ["explain", str(run.path), str(picture), "--method", "saliency", "--class", "high"]
    assert main([*command, "--out", str(tmp_path / "why"), "--images", "16"]) == 0
    assert "fewer than 8 validation images are of 'high'" in capsys.readouterr().err
    page = (tmp_path / "why" / "page.html").read_text("utf-8")
    assert "holds likeliest, since too few are of &#x27;high" in page
    why = explaining.explain_run(run, [picture], method="saliency", of_class="high")
    assert "which is not of 'high': too few images" in repr(why)


def test_a_map_on_a_picture():
    picture = np.full((4, 4, 3), 100, np.uint8)
    plain = overlaid(picture, np.full((4, 4), 0.7), 4)  # the same everywhere
    np.testing.assert_array_equal(plain, picture)
    np.testing.assert_array_equal(overlaid(picture, -np.eye(4), 4), picture)
    marked = overlaid(picture, np.eye(4) - 0.5, 4)
    assert (np.ptp(marked, axis=-1) > 0)[np.eye(4, dtype=bool)].all()


def test_the_command(run, tmp_path, capsys):
    pictures = tmp_path / "new"
    pictures.mkdir()
    for i, pixels in enumerate(run.dataset.splits["test"].read_images(np.arange(2))):
        Image.fromarray(pixels).save(pictures / f"{i}.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "why"
    arguments = ["explain", str(run.path), str(pictures), "--out", str(out), "--no-audit"]
    assert main([*arguments, "--method", "saliency,grad_cam"]) == 1
    said = capsys.readouterr()
    assert "broken.png" in said.err and said.out.strip() == str(out / "page.html")
    assert sorted(path.name for path in (out / "maps" / "saliency").iterdir()) == [
        "0.png", "1.png",
    ]  # fmt: skip
    text = (out / "page.html").read_text("utf-8")
    assert "Not audited" in text and "broken.png" in text
    assert not (out / "audit.csv").exists()
    assert main(arguments) == 2 and "is there already" in capsys.readouterr().err
    for wrong, message in [
        (["--out", str(tmp_path / "other"), "--method", "magic"], "no method 'magic'"),
        (["--out", str(tmp_path / "other"), "--images", "20"], "--images is of the audit"),
    ]:
        assert main(["explain", str(run.path), str(pictures), "--no-audit", *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["explain", str(run.path), "--out", "x"]) == 2


def test_the_command_with_an_audit(run, audit, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(explaining.explained, "audit_method", lambda *_, **__: audit)
    monkeypatch.setattr(explaining.Controls, "of", lambda *_: None)
    picture = tmp_path / "one.png"
    Image.fromarray(run.dataset.splits["test"].read_images(np.arange(1))[0]).save(picture)
    out = tmp_path / "why"
    command = ["explain", str(run.path), str(picture), "--out", str(out), "--images", "24"]
    assert main([*command, "--method", "gradient_times_input"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "method",
        "weights",
        "left",
        "deletion",
        "insertion",
        "ROAD",
        "edges",
    ]
    with open(out / "audit.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["weights"] == audit.weights
    assert float(row["road"]) == pytest.approx(audit.road.value)
    assert "Can they be trusted here?" in (out / "page.html").read_text("utf-8")
