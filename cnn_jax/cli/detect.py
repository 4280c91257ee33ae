"""`cnn-jax detect`."""

from __future__ import annotations

import shlex

from cnn_jax.cli.arguments import Parser, UsageError, take_dotted
from cnn_jax.errors import printable

_HELP = """\
usage: cnn-jax detect --data NAME|PATH --normal CLASS [options]

Find what is not normal with a detector that has seen normal images only. Its
alarm is drawn on normal images of the validation part, with a promise: at most
the given share of normal images raises it.

  --normal CLASS     the class that is normal; all others are not
  --method M         neighbours, mahalanobis, pca, padim, patchcore, autoencoder
  --features F       pixels; what a network learns from the normal images without
                     labels: rotation, cutpaste, contrastive; or a run folder
  --false-alarm A    share of normal images that may raise the alarm (0.05)
  --confidence C     how surely, over calibrations (0.95); both need 59 normal
                     images or groups, and are refused with fewer
  --data-dir DIR     where named data sets lie
  --out DIR          write scores and figures there
  --format F         table or json
  --GROUP.FIELD V    any field of the recipe by which a network learns
example:
  cnn-jax detect --data pneumoniamnist --data-dir ~/sets --normal normal"""


def detect(arguments: list[str]) -> int:
    """Print what a detector of anomalies does on the test part."""
    parser = Parser(prog="cnn-jax detect", text=_HELP)
    known = []
    for name in ("data", "normal", "method", "features", "data-dir", "out", "format"):
        parser.add_argument(f"--{name}")
        known.append(f"--{name}")
    for name in ("false-alarm", "confidence"):
        parser.add_argument(f"--{name}", type=float)
        known.append(f"--{name}")
    rest, dotted = take_dotted(arguments, [*known, "-h", "--help"])
    options = parser.parse_args(rest)
    if options.data is None or options.normal is None:
        raise UsageError("give --data, and --normal with the class that is normal")
    if options.format not in (None, "table", "json"):
        raise UsageError(f"--format is table or json, not {options.format!r}")
    from cnn_jax import detecting, tables
    from cnn_jax.recipe import resolve
    from cnn_jax.run_data import load_data, resolve_data
    from cnn_jax.training.progress import Silent

    named = {"data": options.data, **dotted}
    if options.data_dir is not None:
        named["data_dir"] = options.data_dir
    recipe = resolve(None, named)
    if options.out is not None:
        detecting.check_new(options.out)
    given = {
        name: value
        for name in ("method", "features", "false_alarm", "confidence")
        if (value := getattr(options, name)) is not None
    }
    if options.format == "json":  # nothing else belongs on stdout
        given["reporter"] = Silent()
    found = detecting.detect(
        resolve_data(recipe, load_data(recipe)), options.normal, recipe=recipe, **given
    )
    print(tables.detection(found, options.format or "table"))
    if options.out is not None:
        found.save(options.out, shlex.join(["cnn-jax", "detect", *arguments]))
        if options.format != "json":
            print(f"scores and figures in {printable(options.out)}")
    return 0
