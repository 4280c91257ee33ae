"""What jax finds on this machine, and why it may be slower than it could be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cnn_jax import environment
from cnn_jax.kept_memory import keep_freed_memory


def examine() -> str:
    """Versions, devices, precision, caches, and advice, as text."""
    import jax

    from cnn_jax.data.decoded import cache_folder
    from cnn_jax.ops.native.library import unavailable

    found = environment.devices()
    cache = environment.compile_cache()
    lines = [f"{name:18}{version}" for name, version in environment.versions().items()]
    setting = jax.config.values["jax_default_matmul_precision"]
    lines += [
        f"{'devices':18}{found['count']} x {found['kind']} ({found['platform']})",
        f"{'processor':18}{found['processor']}, {found['cores']} cores",
        f"{'precision':18}{_precision(found['platform'], setting)}",
        f"{'compile cache':18}{_cache(cache)}",
        f"{'decoded images':18}{_cache(str(cache_folder() or ''))}",
        f"{'freed memory':18}{keep_freed_memory() or 'kept between steps'}",
        f"{'onednn':18}{unavailable() or 'can be used'}",
    ]
    commit = environment.commit()
    if commit:
        lines.append(f"{'commit':18}{commit}")
    advice = cpu_fallback(found["platform"], os.environ, _accelerators())
    return "\n".join([*lines, *(f"! {a}" for a in advice)])


def cpu_fallback(
    platform: str, variables: Mapping[str, str], accelerators: Mapping[str, bool]
) -> list[str]:
    """Why jax runs on the CPU although there is something faster; empty if it does not.

    Args:
      platform: what jax uses.
      variables: the environment.
      accelerators: `nvidia`, `tpu`: whether the machine seems to have one.
    """
    if platform != "cpu":
        return []
    chosen = variables.get("JAX_PLATFORMS", "")
    advice = []
    for name, extra in (("nvidia", "cuda"), ("tpu", "tpu")):
        if not accelerators.get(name):
            continue
        if "cpu" in chosen:
            advice.append(f"an accelerator is here ({name}), but JAX_PLATFORMS={chosen}: unset it")
        else:
            advice.append(
                f"an accelerator is here ({name}), but this jaxlib cannot use it: "
                f"pip install 'cnn_jax[{extra}]'"
            )
    return advice


def _accelerators() -> dict[str, bool]:
    return {
        "nvidia": Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None,
        "tpu": any(Path("/dev").glob("accel[0-9]*")) or Path("/dev/vfio/0").exists(),
    }


def _precision(platform: str, setting: str | None) -> str:
    meaning = {
        "cpu": "float32 is float32",
        "gpu": "float32 may be computed as TF32; --train.precision highest prevents it",
        "tpu": "float32 may be computed as bfloat16; --train.precision highest prevents it",
    }
    return f"{setting or 'default'} ({meaning.get(platform, platform)})"


def _cache(folder: str) -> str:
    if not folder:
        return "off"
    path = Path(folder)
    if not path.exists():
        return f"{folder} (empty)"
    files = [f for f in path.rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 2**20
    return f"{folder} ({len(files)} files, {size:.0f} MiB)"
