"""What a run ran on: versions, devices, commit; and the compile cache."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("cnn_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def devices() -> dict[str, Any]:
    """Platform, kind and number of the devices jax uses, and the processor's name."""
    import jax

    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": jax.device_count(),
        "processor": processor(),
        "cores": usable_cores(),
    }


def hardware() -> str:
    """One phrase for tables: `2 CPU cores (...)` or `1 x NVIDIA H200`."""
    found = devices()
    if found["platform"] == "cpu":
        return f"{found['cores']} CPU cores ({found['processor']})"
    return f"{found['count']} x {found['kind']}"


def usable_cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def commit() -> str:
    """Commit of the checkout this package lies in, `+` appended if it was changed; or empty."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return ""
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def free_memory() -> int | None:
    """Bytes that a program could still take on the first device; None if it is not known."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(available[0]) if available else None


def compile_cache() -> str:
    """Folder of XLA's persistent compile cache; empty if it is switched off.

    `JAX_COMPILATION_CACHE_DIR` names another; `CNN_JAX_COMPILE_CACHE=off` switches it off.
    """
    if os.environ.get("CNN_JAX_COMPILE_CACHE", "").lower() == "off":
        return ""
    if named := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return named
    caches = user_cache()
    return "" if caches is None else str(caches / "xla")


def user_cache() -> Path | None:
    """Where what can be computed again is kept: `$XDG_CACHE_HOME/cnn_jax`, else
    `~/.cache/cnn_jax`; None for a user without a home.
    """
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(caches) / "cnn_jax"


def enable_compile_cache() -> None:
    """Let XLA keep compiled programs on disk, so that a second start is fast.

    A folder that the user has set in jax's configuration stays.
    """
    import jax

    folder = compile_cache()
    if folder and not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
