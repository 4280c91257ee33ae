"""What is known of public sets beyond their files."""

import pytest

from cnn_jax.data import load
from cnn_jax.data.known import CANNOT_BE_TOLD, KNOWN

APART = {
    "brain_tumor_mri": "Patients",
    "breastmnist": "Patients",
    "busi": "Patients",
    "dermamnist": "Lesions",
}


def test_whose_images_cannot_be_told_apart_is_said_of_these_sets_alone():
    for name, known in KNOWN.items():
        said = known.notes(name)
        assert len(said) == (name in APART)
        if said:
            assert said[0].startswith(f"{APART[name]} {CANNOT_BE_TOLD} in {name}: test images")


@pytest.fixture
def pictures(tmp_path, write_image):
    for name in ("BUSI", "mine"):
        for kind in ("benign", "malignant"):
            for i in range(6):
                write_image(tmp_path / name / kind / f"{i}.png")
    return tmp_path


def test_it_is_a_note_of_the_data_but_not_of_other_data(pictures):
    (said,) = (note for note in load(str(pictures / "BUSI")).notes if "atient" in note)
    assert said.startswith(f"Patients {CANNOT_BE_TOLD} in busi")
    # Groups in a file may be near-copies: they do not say that patients are known.
    lines = [f"{kind}/{i}.png,{i}" for kind in ("benign", "malignant") for i in range(6)]
    (pictures / "BUSI" / "groups.csv").write_text("\n".join(["path,group", *lines]))
    assert said in load(str(pictures / "BUSI")).notes
    assert not any("atient" in note for note in load(str(pictures / "mine")).notes)


def test_a_column_of_groups_that_is_asked_for_tells_them_apart(pictures):
    lines = [f"BUSI/{k}/{i}.png,{k},p{i}" for k in ("benign", "malignant") for i in range(6)]
    table = pictures / "busi.csv"
    table.write_text("\n".join(["path,label,woman", *lines]))
    assert any("atient" in note for note in load(str(table), label="label").notes)
    told = load(str(table), label="label", group_column="woman")
    assert not any("atient" in note for note in told.notes)
