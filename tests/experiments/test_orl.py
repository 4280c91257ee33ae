"""The three protocols of ORL, on made faces."""

import csv

import numpy as np
import pytest
from PIL import Image

from experiments.face_recognition import orl

PEOPLE, EACH = 8, 34  # so many that 100 images are of strangers, as a rate of 1 % takes


@pytest.fixture
def folder(tmp_path):
    """Eight people, a pattern each, and noisy images of it."""
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        pattern = rng.uniform(40, 215, (24, 24))
        (tmp_path / "orl_faces" / f"s{person}").mkdir(parents=True)
        for n in range(EACH):
            pixels = rng.normal(pattern, 25).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "orl_faces" / f"s{person}" / f"{n}.pgm")
    return tmp_path


@pytest.mark.heavy
@pytest.mark.parametrize("protocol", orl.PROTOCOLS)
def test_rows_of_a_protocol(protocol, folder, monkeypatch, tmp_path):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(orl, "PATH", path)
    monkeypatch.setattr(orl, "ENROLLED", 3)
    small = {"widths": (4, 8), "units": 1, "embedding_size": 8}
    short = {"data.image_size": 24, "model.options": small, "train.epochs": 2}
    monkeypatch.setattr(orl, "RECIPE", {**orl.RECIPE, **short})
    unseen = {"data.unseen_identities": 3} if protocol != "closed" else {}
    shots = {"data.shots": 3} if protocol == "open" else {}
    own = {**orl.PROTOCOLS[protocol], **unseen, **shots, "train.batch_size": 6}
    monkeypatch.setattr(orl, "PROTOCOLS", {**orl.PROTOCOLS, protocol: own})
    arguments = [protocol, "--data-dir", str(folder), "--splits", "2"]
    seen = []
    for _ in range(2):  # given again, it adds nothing
        assert orl.main([*arguments, "--out", str(tmp_path / "runs")]) == 0
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        seen.append(len(rows))
    assert seen[0] == seen[1]
    value = {(row["experiment"], row["metric"]): float(row["value"]) for row in rows}
    for (of, metric), gain in value.items():
        if of.startswith("network") and of.endswith(", minus pixels"):
            ours = of.removesuffix(", minus pixels")
            beside = ours.replace("network", "pixels")
            assert gain == pytest.approx(value[ours, metric] - value[beside, metric])
    assert any(of.endswith("minus pixels") for of, _ in value)
    assert (("logistic regression", "rank-1 accuracy") in value) == (protocol == "closed")
