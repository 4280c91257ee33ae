"""Accuracy under corruptions of a run's images."""

import numpy as np
import pytest

from cnn_jax import data, train
from cnn_jax.augment.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cnn_jax.cli import main
from cnn_jax.corrupting import corruption_metrics
from cnn_jax.errors import RunError
from cnn_jax.training.progress import Silent

pytestmark = pytest.mark.heavy  # of one run, trained at first


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two hues under noise, and a few images of each shot."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    pixels = rng.integers(0, 160, (200, 12, 12, 3)).astype(np.uint8)
    pixels[..., 0] += (30 * labels + rng.integers(0, 40, 200)).astype(np.uint8)[:, None, None]
    groups = np.array([f"shot {n // 5}" for n in range(200)])
    dataset = data.from_arrays(pixels, labels, groups=groups, name="hues")
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 4}
    place = tmp_path_factory.mktemp("runs") / "hues"
    return train(data=dataset, out=place, reporter=Silent(), **options)


def test_figures_are_those_of_a_plain_loop(run, monkeypatch):
    split = run.dataset.splits["test"]
    told = []
    found = corruption_metrics(run, reporter=told.append)
    assert list(found) == ["clean", "mean_corrupted", *CORRUPTIONS] and len(told) == 15
    assert found["clean"].value == run.metrics["test"]["accuracy"].value
    shares = {}
    for name in CORRUPTIONS:
        shares[name] = np.mean(
            [
                run.classifier.logits(corrupt(split.images, name, severity))[1].argmax(1)
                == split.targets["label"]
                for severity in SEVERITIES
            ]
        )
        assert found[name].value == pytest.approx(shares[name])
        assert found[name].n == len(split) and found[name].unit == "group"
        assert found[name].percent and found[name].low <= shares[name] <= found[name].high
    assert found["mean_corrupted"].value == pytest.approx(np.mean(list(shares.values())))
    # Working through the images part by part draws anew for each part, and is reproducible.
    monkeypatch.setattr("cnn_jax.corrupting._ROWS", 16)
    first, again = corruption_metrics(run), corruption_metrics(run)
    assert first == again and first["clean"] == found["clean"]


def test_the_command(tmp_path, capsys):
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 1}
    digits = train(data="digits", out=tmp_path / "run", reporter=Silent(), **options)
    arguments = ["evaluate", str(digits.path), "--figures", "corruptions", "--format", "csv"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 17 and lines[2].startswith("mean_corrupted,")
    assert main([*arguments, "--split", "extra"]) == 2
    assert "no part 'extra'" in capsys.readouterr().err


def test_a_run_that_segments_is_refused(tmp_path):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 255, (24, 12, 12, 3)).astype(np.uint8)
    masks = (images[..., 0] > 120).astype(np.uint8)
    dataset = data.from_arrays(images, np.arange(24) % 2, masks=masks)
    options = {"model": "unet", "model.options": {"widths": [4, 8], "units": 1}, "epochs": 1}
    segments = train(data=dataset, out=tmp_path / "run", reporter=Silent(), **options)
    with pytest.raises(RunError, match="does not tell classes of images apart"):
        corruption_metrics(segments)
