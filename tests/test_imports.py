"""The core imports with jax, flax, optax and numpy alone, and nothing heavy by accident."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What an accelerator image may lack. Blocking them shows that they are imported lazily.
OPTIONAL = [
    *("PIL", "orbax", "filelock", "safetensors", "tomli_w", "sklearn", "matplotlib", "grain"),
    *("tensorflow", "tensorflow_datasets", "array_record", "torch", "pydicom"),
]
ROOMS = [
    *("anomaly", "augment", "bench.session", "data", "decision", "evaluation", "explain"),
    *("gallery", "models", "nn", "ops", "report", "training"),
]

SCRIPT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
{body}
"""

TRAIN = """
import numpy as np, jax
from cnn_jax import data
from cnn_jax.assembly import assemble_run
from cnn_jax.recipe import Recipe
images = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1)).astype(np.uint8)
dataset = data.from_arrays(images, np.arange(40) % 2)
recipe = Recipe().override({"model.options.widths": [4], "train.batch_size": 7})
assembly = assemble_run(recipe, dataset)
state, feed = assembly.initial_state(), assembly.feeds["train"]
for chunk in feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=1):
    state, metrics = assembly.run_chunk(state, feed.resident, chunk)
figures = assembly.task.metrics(assembly.predict("test", state.variables))
assert figures["accuracy"].n == len(dataset.splits["test"])
"""


def python(body, blocked=()):
    code = SCRIPT.format(blocked=set(blocked) or "{''}", body=body)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_the_core_imports_with_jax_flax_optax_and_numpy_alone():
    body = "import cnn_jax, cnn_jax.run, cnn_jax.cli\n" + "\n".join(
        f"import cnn_jax.{room}" for room in ROOMS
    )
    done = python(body, OPTIONAL)
    assert done.returncode == 0, done.stderr


def test_arrays_are_trained_on_and_evaluated_without_the_rest():
    done = python(TRAIN, OPTIONAL)
    assert done.returncode == 0, done.stderr


def test_importing_cnn_jax_imports_nothing_heavy():
    done = python("import cnn_jax; assert not {'jax', 'numpy'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    body = (
        "import cnn_jax\n"
        "for name in cnn_jax.__all__: getattr(cnn_jax, name)\n"
        "assert set(dir(cnn_jax)) == set(cnn_jax.__all__)\n"
        "try: cnn_jax.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('no AttributeError')"
    )
    done = python(body)
    assert done.returncode == 0, done.stderr
