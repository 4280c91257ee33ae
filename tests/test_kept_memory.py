"""Page faults of a compiled program, counted by the system in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="needs glibc"
)

# 40 MiB or more of working memory, which is 10,240 pages.
PROGRAM = """
import resource, sys
from cnn_jax.kept_memory import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
import jax
import jax.numpy as jnp
work = jax.jit(lambda x: jnp.fft.fft(x * 2)[:4])
x = jnp.ones((5 << 14, 64))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
# The median: memory grows in a few calls, where a small request has taken the edge of a block
# that was freed, so that the block no longer holds the next one of its own size.
print(sorted(faults() for _ in range(120))[60])
"""


def run(word, **variables):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "GLIBC_TUNABLES" and not name.startswith("MALLOC_")
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, word],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    *said, faults = done.stdout.splitlines()
    return said, int(faults)


@pytest.mark.heavy
def test_most_calls_take_no_page_anew():
    said, kept = run("keep")
    _, released = run("leave")
    assert said == [""]
    assert released > 8_000
    assert kept < 1_000


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CNN_JAX_KEEP_MEMORY": "off"}, "switched off by $CNN_JAX_KEEP_MEMORY"),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}, "left to $GLIBC_TUNABLES"),
        ({"MALLOC_ARENA_MAX": "8"}, "left to $MALLOC_ARENA_MAX"),
    ],
)
def test_what_the_user_has_set_stays(variables, reason):
    from cnn_jax.kept_memory import keep_freed_memory

    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name == "GLIBC_TUNABLES" or name.startswith("MALLOC_"):
                patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        assert keep_freed_memory() == reason
