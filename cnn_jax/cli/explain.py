"""`cnn-jax explain`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from cnn_jax.cli.arguments import Parser, UsageError, name_unreadable
from cnn_jax.errors import printable

_HELP = """\
usage: cnn-jax explain RUN IMAGE... --out DIR [options]

Where in a picture a network sees its class, and whether the method that says so
can be trusted on this network: do its maps change when the weights are drawn
anew, and does the answer hang on the pixels that it shows?

  RUN             folder of a finished run that tells classes of images apart
  IMAGE           image files, or folders of them
  --out DIR       writes page.html, audit.csv and maps/METHOD/*.png
  --method M,...  grad_cam (the default), hires_cam, saliency, smooth_grad,
                  gradient_times_input, integrated_gradients, layer_relevance,
                  guided_backpropagation, occlusion, rise; or all
  --class NAME    explain this class (the likeliest of each image)
  --images N      validation images of the audit, at most (48)
  --no-audit      leave it out
  --data DATA     where the data are, if they have moved

The exit status is 1 where an image could not be read, the others are explained.
example:
  cnn-jax explain runs/pets-compact-001 cat.jpg --out why --method all"""


def explain(arguments: list[str]) -> int:
    """Write maps of images by some methods, and what their audit found."""
    parser = Parser(prog="cnn-jax explain", text=_HELP)
    parser.add_argument("run")
    parser.add_argument("images", nargs="*")
    for name in ("out", "data"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--method", default="grad_cam")
    parser.add_argument("--class", dest="of_class")
    parser.add_argument("--images", dest="audit_images", type=int)
    parser.add_argument("--no-audit", action="store_true")
    options = parser.parse_args(arguments)
    if not options.images:
        raise UsageError("name the images to explain, or folders of them")
    if options.out is None:
        raise UsageError("give --out, a folder for the page and the maps")
    out = Path(options.out)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UsageError(f"{options.out!r} is there already: choose another --out")
    if options.no_audit and options.audit_images is not None:
        raise UsageError("--images is of the audit: leave it, or --no-audit, out")
    from cnn_jax import explaining, tables
    from cnn_jax.data import list_images
    from cnn_jax.data.files import of_readable
    from cnn_jax.explain import METHODS, method
    from cnn_jax.explained_page import write_explanations
    from cnn_jax.run import Run

    names = list(METHODS)
    if options.method != "all":
        names = list(dict.fromkeys(options.method.split(",")))
    for name in names:
        method(name)  # named before any work
    run = Run.load(options.run, data=options.data)
    out.mkdir(parents=True, exist_ok=True)  # refused now, and not after the work
    given = {} if options.audit_images is None else {"audit_images": options.audit_images}

    def of(images: list[Path]) -> tuple[list[explaining.Explained], dict[str, str]]:
        return explaining.explain_by(
            run,
            images,
            names,
            of_class=options.of_class,
            audited=not options.no_audit,
            reporter=lambda text: print(f"cnn-jax: {text}", file=sys.stderr, flush=True),
            **given,
        )

    (found, refused), _, bad = of_readable(list_images(options.images), of)
    page = write_explanations(
        run,
        found,
        refused,
        out,
        unread={str(path): why for path, why in bad.items()},
        command=shlex.join(["cnn-jax", "explain", *arguments]),
    )
    for name, why in refused.items():
        print(f"cnn-jax: {name}: {printable(why)}", file=sys.stderr)
    if found[0].audited_otherwise:
        print(
            f"cnn-jax: fewer than {explaining.FEWEST_AUDITED} validation images are of "
            f"{printable(options.of_class)!r}: the audit is of the class that the network holds "
            "likeliest",
            file=sys.stderr,
        )
    if text := tables.audits(found):
        print(text)
    print(printable(str(page)))
    return name_unreadable(bad)
