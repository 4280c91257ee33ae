"""A benchmark from options to printed lines and files; what is measured is kept at once."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from cnn_jax import environment
from cnn_jax.bench import baseline, benchmarks, picture, results, text, torch_process
from cnn_jax.bench.baseline import Change
from cnn_jax.bench.benchmarks import Setting
from cnn_jax.bench.results import Row
from cnn_jax.bench.timing import MEASUREMENT_SECONDS
from cnn_jax.bench.trials import Comparison, Trial, run_trial
from cnn_jax.errors import BenchmarkError
from cnn_jax.whole_files import write_whole

QUICK_EXAMPLES = 4
QUICK_SECONDS = 0.002


@dataclass(frozen=True)
class Options:
    """What is measured, how long, and where it goes.

    Attributes:
      benchmark: one of `benchmarks.BENCHMARKS`.
      command: as it was typed, for the results.
      pairs: rounds, at least `statistics.FEWEST_PAIRS`.
      dtype: `float32` or `bfloat16`.
      quick: small batches and short measurements: a trial of the benchmark itself.
      filter: words that the case and part must contain.
      out: folder of results.csv, results.json and the picture, or None.
      overwrite: replace comparisons that `out` already holds.
      resume: measure only trials of which `out` does not hold every comparison.
      baseline: a saved results.csv, or None.
      torch, torch_compiled: whether PyTorch is a rival, and its compiler.
    """

    benchmark: str
    command: str
    pairs: int
    dtype: str = "float32"
    quick: bool = False
    filter: str = ""
    out: Path | None = None
    overwrite: bool = False
    resume: bool = False
    baseline: Path | None = None
    torch: bool = True
    torch_compiled: bool = False


def run(options: Options, say: Callable[[str], None]) -> list[Change]:
    """Measure, and tell each line when it is known; returns the changes since the baseline.

    With `options.out` the rows are on disk as soon as a trial ends, so that an interrupt keeps
    all that was measured.

    Raises:
      BenchmarkError: nothing matches the filter, results would be overwritten, the baseline
        cannot be read, or PyTorch's process failed.
    """
    before = results.read(options.baseline) if options.baseline else []
    present = _present(options.out)
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        setting = _setting(options, stack, say)
        chosen = _chosen(options, setting)
        held = {row.identity for row in present}
        if options.resume:
            chosen = [trial for trial in chosen if not all(_held(options, trial, held))]
            if not chosen:
                say(f"{options.out}/results.csv holds all of it")
                return []
        elif not options.overwrite:
            _check_new(options, chosen, held)
        facts = _facts(options, with_torch=setting.torch is not None)
        say(_title(options, facts))
        if options.out:
            stack.callback(_write_pages, options, options.out, present, rows)
        _measure(options, chosen, facts, present, rows, say)
    say(text.summary(rows))
    if options.baseline is None:
        return []
    changes = baseline.changes(before, rows)
    say(text.compared(changes, str(options.baseline)))
    return changes


def _measure(
    options: Options,
    chosen: Sequence[Trial],
    facts: Mapping[str, Any],
    present: Sequence[Row],
    rows: list[Row],
    say: Callable[[str], None],
) -> None:
    """Run the trials; `rows` and results.csv grow by whole trials."""
    case = None
    for trial in chosen:
        if trial.case != case:
            case = trial.case
            say(case)
        comparisons = run_trial(
            trial,
            pairs=options.pairs,
            measurement_seconds=QUICK_SECONDS if options.quick else MEASUREMENT_SECONDS,
        )
        new = [_row(options, comparison, facts) for comparison in comparisons]
        rows += new
        if options.out:
            results.write(options.out / "results.csv", results.replaced(present, rows))
        for row in new:
            say(text.line(row))


def _present(out: Path | None) -> list[Row]:
    path = out / "results.csv" if out else None
    return results.read(path) if path and path.exists() else []


def _held(options: Options, trial: Trial, present: Collection[tuple[str, ...]]) -> list[bool]:
    """Whether each comparison of the trial is among those present."""
    head = (options.benchmark, trial.case, trial.part, options.dtype)
    return [(*head, *rivals) in present for rivals in trial.comparisons]


def _check_new(
    options: Options, chosen: Sequence[Trial], present: Collection[tuple[str, ...]]
) -> None:
    for trial in chosen:
        if any(_held(options, trial, present)):
            raise BenchmarkError(
                f"{options.out}/results.csv already holds {trial.case!r}, {trial.part}: "
                "--overwrite replaces it, --resume measures the rest, another --out keeps both"
            )


def _setting(options: Options, stack: contextlib.ExitStack, say: Callable[[str], None]) -> Setting:
    setting = Setting(
        dtype=options.dtype,
        most_examples=QUICK_EXAMPLES if options.quick else None,
        torch_compiled=options.torch_compiled,
    )
    if not options.torch or options.benchmark not in benchmarks.WITH_TORCH:
        return setting
    platform = jax.default_backend()
    if importlib.util.find_spec("torch") is None:
        say("PyTorch is not installed: measured without it")
        return setting
    server = stack.enter_context(torch_process.serve(environment.devices()["cores"]))
    if platform == "cpu":
        return replace(setting, torch=server)
    if platform == "gpu" and server.ask({"do": "cuda"}, "cuda"):
        return replace(setting, torch=server, torch_device="cuda")
    say(f"this PyTorch does not run on the {platform}: measured without it")
    return setting


def _chosen(options: Options, setting: Setting) -> list[Trial]:
    words = options.filter.lower().split()
    chosen = [
        trial
        for trial in benchmarks.trials(options.benchmark, setting)
        if all(word in f"{trial.case} {trial.part}".lower() for word in words)
    ]
    if not chosen:
        raise BenchmarkError(
            f"no case of {options.benchmark!r} has all words of {options.filter!r}"
        )
    return chosen


def _facts(options: Options, *, with_torch: bool) -> dict[str, Any]:
    """The columns that say where, when and with what."""
    versions = environment.versions()
    return {
        "hardware": environment.hardware(),
        "cores": environment.devices()["cores"],
        **{name: versions[name] for name in ("jax", "jaxlib", "python")},
        "torch": metadata.version("torch") if with_torch else "",
        "commit": environment.commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": options.command,
    }


def _title(options: Options, facts: Mapping[str, Any]) -> str:
    torch = f", PyTorch {facts['torch']}" if facts["torch"] else ""
    return (
        f"{options.benchmark}, {options.dtype}, {options.pairs} pairs: {facts['hardware']}\n"
        f"jax {facts['jax']}, jaxlib {facts['jaxlib']}, Python {facts['python']}{torch}\n"
        f"{text.HEAD}"
    )


def _row(options: Options, comparison: Comparison, facts: Mapping[str, Any]) -> Row:
    trial, timed = comparison.trial, comparison.ratio
    return Row(
        benchmark=options.benchmark,
        case=trial.case,
        part=trial.part,
        dtype=options.dtype,
        rival=comparison.rival,
        reference=comparison.reference,
        ratio=timed.ratio,
        low=timed.low,
        high=timed.high,
        ms=1e3 * timed.seconds,
        reference_ms=1e3 * timed.reference_seconds,
        pairs=timed.pairs,
        flops=trial.flops,
        bytes=trial.bytes_moved,
        gflops_per_second=trial.flops / timed.seconds / 1e9,
        memory_mib=comparison.compiled.memory_bytes / 2**20,
        reference_memory_mib=comparison.reference_compiled.memory_bytes / 2**20,
        compile_seconds=comparison.compiled.seconds,
        reference_compile_seconds=comparison.reference_compiled.seconds,
        **facts,
    )


def _write_pages(options: Options, out: Path, present: Sequence[Row], rows: Sequence[Row]) -> None:
    """What is written once, at the end or when interrupted: all that `out` holds of a benchmark."""
    if not rows:
        return
    benchmark = options.benchmark
    whole = [row for row in results.replaced(present, rows) if row.benchmark == benchmark]
    drawn = [row for row in whole if row.dtype == options.dtype]
    write_whole(out / f"{benchmark}.json", json.dumps([asdict(row) for row in whole], indent=1))
    write_whole(out / f"{benchmark}.svg", picture.ratios(drawn))
