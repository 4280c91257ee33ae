"""The strictest settings jax has, for every test.

Two CPU devices, rank promotion an error, dtype promotion strict, warnings errors (in
pyproject.toml). XLA optimises less hard and emits loops the plain way: less waiting.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# A core of its own for each worker, where there are no more: two pools of threads on the same
# cores wait for each other. Before anything makes such a pool.
_worker, _workers = (os.environ.get(f"PYTEST_XDIST_WORKER{end}", "") for end in ("", "_COUNT"))
if _worker and hasattr(os, "sched_getaffinity"):
    _cores = sorted(os.sched_getaffinity(0))
    if len(_cores) == int(_workers):
        os.sched_setaffinity(0, {_cores[int(_worker.removeprefix("gw"))]})

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_flags = ["--xla_force_host_platform_device_count=2", "--xla_backend_optimization_level=1"]
if [int(part) for part in version("jaxlib").split(".")[:2]] < [0, 11]:
    _flags.append("--xla_cpu_use_fusion_emitters=false")  # later compilers refuse the name
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_flags]).strip()

import jax  # noqa: E402
import pytest  # noqa: E402

from cnn_jax import environment  # noqa: E402

# Tracing makes very many objects and little garbage, in which the collector searches for long.
gc.freeze()
gc.set_threshold(100_000, 20, 20)

environment.enable_compile_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path, monkeypatch):
    """Each test runs in its own folder, so that nothing lands in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def real():
    """A function from the name of an entry in $CNN_JAX_DATA to its path."""
    folder = os.environ.get("CNN_JAX_DATA")
    if not folder:
        pytest.skip("CNN_JAX_DATA is not set")

    def entry(name):
        path = Path(folder) / name
        assert path.exists(), f"CNN_JAX_DATA is set but has no {name}"
        return path

    return entry
