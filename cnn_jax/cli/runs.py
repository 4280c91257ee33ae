"""Commands on a finished run: `evaluate`, `predict`, `report`, `export`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnn_jax.cli.arguments import Parser, UsageError, name_unreadable

if TYPE_CHECKING:
    from pathlib import Path

    from cnn_jax.evaluation import Hierarchy
    from cnn_jax.run import Run
    from cnn_jax.segmenter import Segmenter


# Name -> the function of `cnn_jax.evaluation` that makes them of predictions.
OF_PREDICTIONS = {"medmnist": "medmnist_figures", "ordinal": "ordinal_figures"}
FIGURES = ("usual", *OF_PREDICTIONS, "retrieval", "corruptions")
_EVALUATE = """\
usage: cnn-jax evaluate RUN [options]

Figures of a run, each with its interval. Of a population: those of its members
as one ensemble, beside the members' own, and their difference; of folds, and of
runs that segment or recognise people never seen, the mean.

  RUN               run folder, or that of a population
  --split S         test, validation or train (test)
  --figures F       usual; medmnist: AUC and ACC as in MedMNIST's tables;
                    ordinal: kappa and mean error of classes that are grades;
                    retrieval: of people or products never seen, how many of the
                    nearest images show the same; corruptions: accuracy under
                    fifteen common corruptions, each the mean of five severities
  --hierarchy H     a further target of the data, such as coarse; or a table of
                    what each class is, more and more generally, with lines
                    class,family,order: accuracy at each level, and how far off
                    mistakes are
  --data DATA       where the data are, if they have moved
  --format F        table, csv or json
example:
  cnn-jax evaluate runs/digits-compact-001 --figures corruptions"""


def evaluate(arguments: list[str]) -> int:
    """Print figures of a run, each with its interval."""
    parser = Parser(prog="cnn-jax evaluate", text=_EVALUATE)
    parser.add_argument("run")
    parser.add_argument("--split", default="test")
    parser.add_argument("--figures", choices=FIGURES, default="usual")
    parser.add_argument("--hierarchy")
    parser.add_argument("--data")
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    options = parser.parse_args(arguments)
    if options.hierarchy and options.figures != "usual":
        raise UsageError("--hierarchy has figures of its own: leave out --figures")
    from cnn_jax import evaluation, tables
    from cnn_jax.population.folder import PopulationFolder
    from cnn_jax.run import Run

    command = shlex.join(["cnn-jax", "evaluate", *arguments])
    if PopulationFolder.is_one(options.run):
        return _evaluate_population(options, command)
    run = Run.load(options.run, data=options.data)
    if options.figures == "corruptions":
        from cnn_jax.corrupting import corruption_metrics

        figures = corruption_metrics(run, options.split, command=command)
        print(tables.figures(figures, options.format))
        return 0
    # Before the part is used, and that is written down.
    hierarchy = _hierarchy(options.hierarchy, run) if options.hierarchy else None
    figures = run.evaluate(options.split, command=command)
    if hierarchy is not None:
        answers = run.predictions(options.split)
        figures = evaluation.hierarchy_metrics(answers, hierarchy, temperature=run.temperature)
    if options.figures == "retrieval":
        figures = evaluation.retrieval_metrics(run.embeddings(options.split))
    elif options.figures in OF_PREDICTIONS:
        of = getattr(evaluation, OF_PREDICTIONS[options.figures])
        if options.figures == "ordinal":
            order = " < ".join(run.info["data"]["classes"])
            print(f"cnn-jax: taken to be in this order: {order}", file=sys.stderr)
        figures = of(run.predictions(options.split))
    print(tables.figures(figures, options.format))
    return 0


def _hierarchy(named: str, run: Run) -> Hierarchy:
    """Of a table, or by a further target of the data."""
    from pathlib import Path

    from cnn_jax.data.hierarchy import parents
    from cnn_jax.evaluation import Hierarchy

    classes = tuple(run.info["data"]["classes"])
    if Path(named).is_file() or Path(named).suffix:
        return Hierarchy.read(named, classes)
    return Hierarchy(classes, (named,), tuple((name,) for name in parents(run.dataset, named)))


def _evaluate_population(options: argparse.Namespace, command: str) -> int:
    from cnn_jax import tables
    from cnn_jax.population import Population

    if options.split != "test" or options.data or options.figures != "usual" or options.hierarchy:
        raise UsageError(
            "a population is evaluated by what its runs predicted for the test part: name one of "
            "its runs for anything else"
        )
    population = Population.load(options.run)
    population.log_use(command)
    # Masks and embeddings have no ensemble.
    if population.folds or population.regions or population.recognises:
        print(tables.figures(population.cross_validated(), options.format))
    else:
        apart = float(population.disagreement().pairs.mean())
        print(tables.gains(population.gains(), apart, options.format))
    return 0


def predict(arguments: list[str]) -> int:
    """Print class and probability of images."""
    parser = Parser(
        prog="cnn-jax predict",
        description="Class and calibrated probability of images; of a run that segments, how much "
        "of each is marked. 'cnn-jax errors RUN' shows the hardest images of the data themselves.",
    )
    parser.add_argument("run", help="folder of a run or population, or one that export wrote")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument(
        "--labels",
        action="store_true",
        help="each file's folder names its class: compare, highest loss first",
    )
    parser.add_argument(
        "--coverage",
        type=float,
        metavar="C",
        help="also the set of classes that holds the true one this often, such as 0.95; where it "
        "is not a single class a human is to decide",
    )
    parser.add_argument(
        "--masks", metavar="DIR", help="of a run that segments: write the masks there"
    )
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    options = parser.parse_args(arguments)
    if options.labels and options.coverage is not None:
        raise UsageError("--labels compares single answers: leave out --coverage, or --labels")
    from cnn_jax import exported, tables
    from cnn_jax.classifier import Classified, Classifier
    from cnn_jax.data import list_images
    from cnn_jax.data.files import of_readable
    from cnn_jax.population import Population
    from cnn_jax.population.folder import PopulationFolder
    from cnn_jax.run import Run
    from cnn_jax.segmenter import Segmenter

    images = list_images(options.images)
    source: Classifier | Population | Run
    if exported.is_one(options.run):
        if exported.kind_of(options.run) == exported.MASKS:
            return _segment(Segmenter.load(options.run), images, options)
        source = Classifier.load(options.run)
        if options.coverage is not None:
            raise UsageError(
                "--coverage needs the validation predictions, which an exported network is "
                "without: name the run"
            )
    elif PopulationFolder.is_one(options.run):
        source = Population.load(options.run)
    else:
        source = Run.load(options.run)
        if source.regions:
            return _segment(source.segmenter, images, options)
    if isinstance(source, Population) and source.regions:
        raise UsageError(
            f"the members of {options.run!r} segment: name one, such as "
            f"{options.run}/{next(iter(source.members))}"
        )
    if options.masks:
        raise UsageError(f"--masks: {options.run!r} classifies, it has no masks to write")

    def predicted(images: list[Path]) -> Classified:
        if isinstance(source, Classifier):
            return source.predict(images)
        return source.predict(images, coverage=options.coverage)

    answers, readable, bad = of_readable(images, predicted)
    print((tables.compared if options.labels else tables.answers)(answers, options.format))
    if options.labels and not isinstance(source, Classifier):
        _say_what_was_learned_from(
            [source] if isinstance(source, Run) else [*source.members.values()], readable
        )
    return name_unreadable(bad)


def _say_what_was_learned_from(runs: Sequence[Run], images: list[Path]) -> None:
    """Say on stderr how many of the images a run has learned from, or was chosen by."""
    from cnn_jax.run_data import count_own_images

    # What one has learned from is known, though another may only have been chosen by it.
    ids = {part: {id_ for run in runs for id_ in run.ids(part)} for part in ("train", "validation")}
    ids["validation"] -= ids["train"]
    known = count_own_images(runs[0].recipe_here, ids, images)
    if known:
        which = " and ".join(f"{n:,} in {part}" for part, n in known.items())
        whose = "the run has" if len(runs) == 1 else "the members have"
        print(
            f"cnn-jax: of the {len(images):,} images {whose} {which}: the accuracy on them is not "
            "that on new images",
            file=sys.stderr,
        )


def _segment(segmenter: Segmenter, images: list[Path], options: argparse.Namespace) -> int:
    """Mark images, readable ones at least, and write the masks where that is wanted."""
    from cnn_jax import tables
    from cnn_jax.data.files import of_readable
    from cnn_jax.data.masks import masks_among
    from cnn_jax.data.reading import counted
    from cnn_jax.segmenter import mask_paths

    if options.labels or options.coverage is not None:
        raise UsageError("--labels and --coverage are of classes, and this network segments")
    if masks := set(masks_among(images)):
        images = [image for image in images if image not in masks]
        left_out = counted(len(masks), "file", "files")
        print(f"cnn-jax: {left_out} left out as masks of others", file=sys.stderr)
    if options.masks:
        mask_paths(options.masks, [str(image) for image in images])  # before any work
    found, _, bad = of_readable(images, segmenter.segment)
    paths = found.save(options.masks) if options.masks else []
    print(tables.segmented(found, paths, options.format))
    return name_unreadable(bad)


def report(arguments: list[str]) -> int:
    """Write the page of a run again."""
    parser = Parser(
        prog="cnn-jax report",
        description="Write report.html of a run again: figures, curves, hardest examples, "
        "errors by class. 'cnn-jax errors RUN' lists them and writes them to relabel.",
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("--data", help="where the data are, if they have moved")
    options = parser.parse_args(arguments)
    from cnn_jax.run import Run

    print(Run.load(options.run, data=options.data).report())
    return 0


def export(arguments: list[str]) -> int:
    """Write the weights with all that is needed to use them."""
    parser = Parser(prog="cnn-jax export", description="Write model.safetensors and model.json.")
    parser.add_argument("run", help="run folder")
    parser.add_argument("folder", help="where to write")
    options = parser.parse_args(arguments)
    from cnn_jax.run import Run

    weights = Run.load(options.run).export(options.folder)
    print(f"{weights} and {weights.with_suffix('.json')}")
    return 0
