"""Flax's own tests of convolution and pooling pass with ours in the place of theirs.

They are those of the source distribution of the Flax that is installed, fetched by pip, or
those in the folder `tests` that `$CNN_JAX_FLAX_TESTS` names.
"""

import json
import os
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import jax
import pytest

pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

# How many tests of each must at least run; Flax 0.12.8 has 606, 11 and 112.
FILES = {
    "linen/linen_linear_test.py": 400,
    "linen/linen_test.py": 8,
    "nnx/nn/conv_test.py": 80,
}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def flax_tests(tmp_path_factory):
    if folder := os.environ.get("CNN_JAX_FLAX_TESTS"):
        return Path(folder)
    place = tmp_path_factory.mktemp("flax")
    wanted = f"flax=={metadata.version('flax')}"
    fetched = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(place)),
            *("--no-deps", "--no-binary", ":all:", "--no-build-isolation", wanted),
        ],
        capture_output=True,
        text=True,
    )
    if fetched.returncode:
        pytest.skip(f"{wanted} cannot be fetched (or name $CNN_JAX_FLAX_TESTS): {fetched.stderr}")
    (archive,) = place.glob("flax-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(place, filter="data")
    return place / archive.name.removesuffix(".tar.gz") / "tests"


@pytest.mark.parametrize(("name", "at_least"), FILES.items(), ids=FILES)
def test_with_ours_in_place(flax_tests, tmp_path, name, at_least):
    results, calls = tmp_path / "results.xml", tmp_path / "calls.json"
    theirs = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-k", "conv or pool", "-p", "ours_for_theirs"),
            # Not the settings of a pyproject.toml, theirs or ours.
            *("-c", os.devnull, "--rootdir", str(flax_tests), "-p", "no:cacheprovider"),
            *(f"--junit-xml={results}", str(flax_tests / name)),
        ],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
            "CALLS": str(calls),
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        },
        capture_output=True,
        text=True,
    )
    assert theirs.returncode == 0, theirs.stdout[-4000:] + theirs.stderr[-2000:]
    (suite,) = ElementTree.parse(results).getroot()
    assert int(suite.get("tests")) - int(suite.get("skipped")) >= at_least
    called = json.loads(calls.read_text())
    assert called["conv_general_dilated"] > 0 or called["max_pool"] > 0
