"""Every command of README and docs is one; the walk-throughs in docs/uses run, page by page."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import fields
from cnn_jax.cli import main
from cnn_jax.cli.entry import COMMANDS
from cnn_jax.errors import CnnJaxError
from cnn_jax.recipe import Recipe

FOLDER = Path(__file__).parents[1] / "docs" / "uses"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
ROOT = FOLDER.parents[1]
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN += [
    path for path in sorted((ROOT / "docs").glob("*/*.md")) if path.parent.name != "generated"
]


def commands(page):
    """The lines of a page's blocks of shell."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def words_of(command):
    """Without the comment behind it."""
    return shlex.split(command, comments=True)


@pytest.fixture
def helped(capsys):
    """The help of a command, and of its own commands."""

    def text(name):
        capsys.readouterr()
        try:
            status = main([name, "--help"])
        except SystemExit as ended:  # where argparse prints it
            status = ended.code
        assert status == 0
        return capsys.readouterr().out

    return text


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_every_option_is_one(page, helped):
    for command in commands(page):
        program, name, *rest = [*words_of(command), "", ""]
        if program != "cnn-jax":
            assert page.parent != FOLDER, command  # walk-throughs are run line by line
            continue
        assert name in COMMANDS, command
        said = helped(name)
        for option in (word for word in rest if word.startswith("--")):
            if "." in option:
                try:
                    fields.get(Recipe(), option.removeprefix("--").removesuffix(".X"))
                except (AttributeError, CnnJaxError):
                    pytest.fail(f"{command}: there is no {option}")
            else:
                assert re.search(rf"{option}(?![\w-])", said), command


def test_every_link_of_every_page_leads_somewhere():
    for page in (*WRITTEN, *ROOT.glob("experiments/**/README.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


def test_there_is_a_page_for_each_use():
    index = FOLDER.with_suffix(".md").read_text("utf-8")
    assert PAGES == ["faces", "inspection", "inventory", "medical", "objects"]
    assert all(f"(uses/{page}.md)" in index for page in PAGES)


class Pictures:
    """Folders of made pictures: a pattern for each class, with noise."""

    def __init__(self, root):
        self.root, self.rng = Path(root), np.random.default_rng(0)

    def save(self, path, pixels):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)

    def classes(self, folder, names, count, *, side=24, channels=3):
        for k, name in enumerate(names):
            shape = (side, side, channels) if channels > 1 else (side, side)
            pattern = np.random.default_rng(100 + k).uniform(40, 215, shape)
            for n in range(count):
                self.save(f"{folder}/{name}/{n:03}.png", pattern + self.rng.normal(0, 40, shape))

    def objects(self):
        self.classes("birds", ("robin", "stork", "wren"), 60)
        self.classes("new", ("robin", "wren"), 3)
        table = "class,family\nrobin,song\nstork,wader\nwren,song\n"
        (self.root / "kinds.csv").write_text(table)

    def inventory(self):
        self.classes("products", ("apple", "milk", "tea"), 80)
        self.classes("shelf", ("apple", "milk", "tea", "new"), 5)
        self.classes("new-products", ("bread",), 1)

    def faces(self):
        self.classes("people", [f"person {n:02}" for n in range(34)], 6, channels=1)
        self.classes("staff", ("Person 36", "Person 37"), 3, channels=1)
        self.classes("door", ("a",), 3, channels=1)

    def medical(self):
        for part, count in (("train", 120), ("val", 45), ("test", 40)):
            self.classes(f"scans/{part}", ("normal", "pneumonia"), count, channels=1)
        self.classes("new", ("a", "b"), 2, channels=1)
        for n in range(60):
            pixels, mask = self.rng.normal(90, 15, (48, 48)), np.zeros((48, 48))
            if n % 3:
                mask[10 + n % 12 : 24 + n % 12, 8:22] = 255
            name = ("normal", "benign")[n % 3 > 0]
            self.save(f"lesions/{name}/{n}.png", pixels + 80 * (mask > 0))
            self.save(f"lesions/{name}/{n}_mask.png", mask)
        self.save("ultrasound/1.png", self.rng.normal(90, 15, (48, 48)))

    def inspection(self):
        def tile():
            wave = np.sin(np.linspace(0, 19, 48) + self.rng.uniform(0, 6))
            return 110 + 25 * wave + self.rng.normal(0, 6, (48, 48))

        for n in range(150):
            self.save(f"tiles/train/good/{n:03}.png", tile())
        for n in range(12):
            self.save(f"tiles/test/good/{n:03}.png", tile())
            self.save(f"new/{n:03}.png", tile())
            mask = np.zeros((48, 48))
            mask[20 : 20 + n % 4 + 2, 8:30] = 255
            black = np.zeros((48, 48))
            for name, image, marked in (
                ("good", tile(), black),
                ("crack", tile() - mask / 4, mask),
            ):
                self.save(f"defects/{name}/{n:03}.png", image)
                self.save(f"defects/{name}/{n:03}_mask.png", marked)
            for kind in ("crack", "hole"):
                self.save(f"tiles/test/{kind}/{n:03}.png", tile() - 60 * (mask > 0))
                self.save(f"tiles/ground_truth/{kind}/{n:03}_mask.png", mask)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    getattr(Pictures(tmp_path), page)()
    program = [sys.executable, "-m", "cnn_jax.cli"]
    for command in commands(FOLDER / f"{page}.md"):
        words = [*program, *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
