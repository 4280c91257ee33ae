"""`python -m cnn_jax.bench.torch_process`: times PyTorch, asked by `served.Server`.

A process of its own, because the threads of two libraries in one would wait for each other.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from cnn_jax.bench import cases, torch_programs
from cnn_jax.bench.architecture import NETWORKS
from cnn_jax.bench.served import Server
from cnn_jax.kept_memory import keep_freed_memory


def serve(cores: int) -> Server:
    """Start the process with as many threads as jax has cores."""
    environment = {
        **os.environ,
        # Threads that wait sleep: spinning ones would slow whichever rival runs now.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(cores),
    }
    return Server([sys.executable, "-m", __name__], environment, name="PyTorch")


def operation_request(operation: cases.Operation, part: str) -> dict[str, Any]:
    """What to prepare for a part of an operation."""
    return {"operation": cases.as_plain(operation), "part": part}


def network_request(name: str, batch: int, part: str, compiled: bool) -> dict[str, Any]:
    """What to prepare for a network of `NETWORKS` at another batch size."""
    return {"network": name, "batch": batch, "part": part, "compiled": compiled}


def main() -> None:
    """Answer requests until stdin ends."""
    keep_freed_memory()  # as in the process of the other rivals
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    prepared: list[Callable[[], Any]] = []
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), prepared)
        except (RuntimeError, ValueError, ImportError) as error:
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: Mapping[str, Any], prepared: list[Callable[[], Any]]) -> dict[str, Any]:
    match request["do"]:
        case "prepare":
            prepared.append(_prepared(request))
            return {"id": len(prepared) - 1}
        case "time":
            return {"seconds": _seconds(prepared[request["id"]], request["repeats"])}
        case "release":
            prepared.clear()
            return {}
        case "cuda":
            import torch

            return {"cuda": int(torch.cuda.is_available())}
    raise ValueError(f"no request {request['do']!r}")


def _prepared(request: Mapping[str, Any]) -> Callable[[], Any]:
    import dataclasses

    part, dtype, device = request["part"], request["dtype"], request["device"]
    if "operation" in request:
        operation = cases.from_plain(request["operation"])
        return torch_programs.operation_call(operation, part, dtype, device)
    network = dataclasses.replace(NETWORKS[request["network"]], batch=request["batch"])
    return torch_programs.network_call(network, part, dtype, device, request["compiled"])


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
        wait()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
