"""Memory that a process keeps between the calls of a compiled program.

On a CPU, XLA takes a program's working memory from the C library at each call and gives it
back at its end. glibc takes what is larger than 32 MiB from the system and returns it at once,
and so every page of it is handed out, and cleared, anew in each call: 64,000 page faults for
250 MB, a quarter of the time of a MobileNet's training step (the README has the command). Here
glibc is told to keep what is freed.
It computes the same numbers. The process stays as large as it ever was, and becomes larger than
it would: blocks are asked for with an alignment, a little more than they hold, so that one that
was freed is not always large enough for the next of its size. Growth ends after a few calls: of
training steps of a ResNet-18 at 1.3 to 1.7 times the memory.
"""

from __future__ import annotations

import ctypes
import os
import sys

VARIABLE = "CNN_JAX_KEEP_MEMORY"

_MALLOC = tuple(
    f"MALLOC_{name}"
    for name in ("ARENA_MAX", "MMAP_MAX_", "MMAP_THRESHOLD_", "TOP_PAD_", "TRIM_THRESHOLD_")
)

# Of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> str:
    """Let this process keep what it frees; call it before jax computes anything.

    It is a setting of the whole process. The command line makes it, the library never does
    by itself. Where the environment has settings of its own for glibc's malloc
    (`GLIBC_TUNABLES`, `MALLOC_...`), these stay; `CNN_JAX_KEEP_MEMORY=off` prevents it.

    Returns:
      Empty if it was done; else why it was not, in one line.
    """
    if os.environ.get(VARIABLE, "").lower() == "off":
        return f"switched off by ${VARIABLE}"
    own = [name for name in _MALLOC if name in os.environ]
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        own.append("GLIBC_TUNABLES")
    if own:
        return f"left to ${own[0]}"
    if not sys.platform.startswith("linux"):
        return "only on Linux"
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return "only with glibc"
    # One arena, for only the first of them grows without mapping anew; nothing mapped by itself;
    # nothing returned.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    done = [library.mallopt(parameter, value) for parameter, value in settings]
    return "" if all(done) else "glibc refuses it"
