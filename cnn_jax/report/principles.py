"""The page of the principles: what one network shares, keeps under shifts, sees and represents.

Each section is a function of its own part (`principles_parts`), and each figure one of
`principles_charts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnn_jax.report import pictures, principles_charts, wording
from cnn_jax.report.layout import NOTHING, facts_section, named, section, table
from cnn_jax.report.markup import Markup, element, name_of
from cnn_jax.report.principles_parts import (
    FieldOfLayer,
    Hierarchy,
    Learning,
    PrinciplesPage,
    SharedLayer,
    Translation,
    Unit,
)
from cnn_jax.report.render import document

_SQUARE = 96  # pixels of a patch


def render(page: PrinciplesPage) -> str:
    """The page as HTML; everything from outside is escaped."""
    parts = (
        _title(page),
        sharing(page.sharing),
        translation(page.translation),
        fields(page.fields),
        hierarchy(page.hierarchy),
        units(page.hierarchy.units),
        learning(page.learning),
        facts_section("How it was measured", page.facts, page.command),
    )
    return document(f"principles: {page.dataset}, {page.model}", parts)


def _title(page: PrinciplesPage) -> Markup:
    heading = element("h1", name_of(page.dataset), " ", element("span", name_of(page.model)))
    return element(
        "header",
        heading,
        element("p", page.headline, class_="sentence"),
        class_="title",
    )


def sharing(layers: Sequence[SharedLayer]) -> Markup:
    """Parameters of each convolution beside those of layers that do not share."""
    if not layers:
        return NOTHING
    totals = [sum(layer.parameters[i] for layer in layers) for i in range(3)]
    work = [sum(layer.multiply_adds[i] for layer in layers) for i in range(3)]
    rows = [
        (named(layer.path, layer.kernel), *(f"{each:,}" for each in layer.parameters),
         f"{layer.multiply_adds[0]:,}")
        for layer in layers
    ]  # fmt: skip
    rows.append(("all", *(f"{each:,}" for each in totals), f"{work[0]:,}"))
    return section(
        "Parameter sharing",
        f"A convolution uses one set of weights at every position. With weights of their own at "
        f"each position its layers would have {totals[1] / totals[0]:,.0f} times as many for the "
        f"same products; connected to everything, {totals[2] / totals[0]:,.0f} times as many, and "
        f"{work[2] / work[0]:,.0f} times the products.",
        table(
            ("layer", "parameters", "locally connected", "dense", "multiply-adds"),
            rows,
            ("name", "number", "number quiet", "number quiet", "number"),
        ),
    )


def translation(part: Translation) -> Markup:
    """Equivariance by layer, answers and accuracy under shifts and turns, aliasing, poolings."""
    by_layer = [
        (name_of(name), wording.number(one), wording.number(whole), wording.number(inside))
        for name, one, whole, inside in part.layers
    ]
    answers = [
        (element("span", f"{enters} enter{'s' if enters == 'the other side' else ''}"),
         wording.value(estimate), wording.interval(estimate))
        for enters, estimate in part.consistency.items()
    ]  # fmt: skip
    folded = [
        (name_of(name), str(stride), wording.percent(share))
        for name, stride, share in part.aliasing
    ]
    largest = len(part.outputs) - 1
    pooled = [
        (name, *(f"{each:.2f}" for each in distances)) for name, distances in part.poolings.items()
    ]
    pooled.append(
        (
            "the network's answer",
            *(wording.number(each) if np.isnan(each) else f"{each:.2f}" for each in part.outputs),
        )
    )
    pixels = [str(k) for k in range(largest + 1)]
    return section(
        "Translation",
        "If the image moves, the output of a convolution moves along: it is equivariant, and the "
        "answer can be invariant. Strides break this for shifts that they do not divide, zeros at "
        f"the border near it. On {part.images:,} test images.",
        element(
            "div",
            principles_charts.accuracy_by_shift(part.by_shift),
            principles_charts.accuracy_by_angle(part.degrees, part.by_angle),
            class_="charts",
        ),
        element("h3", f"The same answer after two shifts by up to {part.largest} pixels"),
        table(("what enters the image", "same", "interval"), answers,
              ("name", "number", "number quiet")),
        element("h3", "Equivariance error by layer"),
        element(
            "p",
            "How far the features of a moved image are from the moved features, as a share of "
            "their size, when the image moves down and right along a circle. Without positions "
            "(the answer) what is asked for is that nothing changes. Inside: positions that see "
            f"no border. Of {part.few:,} images, as all that follows.",
            class_="lead",
        ),
        table(("layer", "by 1 pixel", f"by {part.stride}", f"by {part.stride}, inside"), by_layer,
              ("name", "number", "number", "number quiet")),
        element("h3", "Aliasing") if folded else NOTHING,
        table(("maps of", "stride that follows", "energy too fine for it"), folded,
              ("name", "number", "number")) if folded else NOTHING,
        element("h3", "What poolings keep under small shifts"),
        element(
            "p",
            f"How far a shift along a circle moves what is pooled of the maps of {part.pooled}, "
            "where these are moved, and the answer, where the image is: 0 not at all, 1 as far as "
            "another image is. Positions are not moved back.",
            class_="lead",
        ),
        table(("pixels", *pixels), pooled, ("name", *("number",) * len(pixels))),
    )  # fmt: skip


def fields(layers: Sequence[FieldOfLayer]) -> Markup:
    """Receptive fields by layer, theoretical and effective."""
    rows = [
        (
            name_of(layer.path),
            _sides(layer.size),
            _sides(layer.stride),
            _widths(layer.untrained_sigma),
            _widths(layer.sigma),
            wording.number(layer.r2, digits=2),
        )
        for layer in layers
    ]
    shown = [layer for layer in layers if layer.influence is not None]
    return section(
        "Receptive fields",
        "Pixels that can change a feature, exactly, and the standard deviation in pixels of the "
        "Gaussian that fits how much each does, at the middle of the map, over 16 images.",
        table(
            ("layer", "field", "stride", "σ as initialised", "σ trained", "R²"),
            rows,
            ("name", "number", "number quiet", "number", "number", "number quiet"),
        ),
        element("div", *(principles_charts.influence(layer.path, layer.influence)
                         for layer in shown if layer.influence is not None), class_="hardest")
        if shown else NOTHING,
    )  # fmt: skip


def hierarchy(part: Hierarchy) -> Markup:
    """Probes by depth, likeness of layers, and the first filters."""
    rows = [
        (
            name_of(name),
            f"{part.inputs[k]:,}",
            wording.value(probe),
            wording.interval(probe),
            wording.value(untrained),
            _selective(None if k == 0 else part.selectivity[k - 1]),
        )
        for k, (name, probe, untrained) in enumerate(
            zip(part.layers, part.probes, part.untrained, strict=True)
        )
    ]
    train, test = part.examples
    figures = [
        principles_charts.probes(part.layers, part.probes, part.untrained),
        principles_charts.likeness(part.layers[1:], part.cka, part.cka_of),
    ]
    return section(
        "Hierarchy",
        f"A linear classifier on the features of each layer, learned from {train:,} train images: "
        "what later layers add shows as accuracy that the same layers do not have as initialised. "
        f"On {test:,} test images. Maps, and the pixels, are averaged over a grid so that no probe "
        "has more than 1,024 inputs. Selectivity: how far units prefer one class, beside that of "
        "classes dealt to the images anew. Likeness is of whole layers.",
        table(
            ("layer", "inputs", "probe", "interval", "as initialised", "selectivity"),
            rows,
            ("name", "number quiet", "number", "number quiet", "number", "number quiet"),
        ),
        element("div", *figures, class_="charts"),
        _first_filters(part),
    )


def _first_filters(part: Hierarchy) -> Markup:
    if part.filters is None:
        return NOTHING
    lead = "each on its own scale."
    if len(part.gabor_r2):
        median, noise = np.median(part.gabor_r2), np.median(part.noise_r2)
        above = float((part.gabor_r2 > np.quantile(part.noise_r2, 0.95)).mean())
        height, width = part.filters.shape[:2]
        lead += (
            f" A Gabor function (a wave under a Gaussian, as simple cells of the visual cortex) "
            f"explains {wording.percent(median, decimals=0)} of a filter's energy (median); of "
            f"noise of {height} × {width} pixels it explains {wording.percent(noise, decimals=0)}. "
            f"{wording.percent(above, decimals=0)} of the filters are above nineteen in twenty of "
            "the noise."
        )
    elif max(part.filters.shape[:2]) < 5:
        lead += " They are too small to be compared with Gabor functions: those fit noise as well."
    return element(
        "div",
        element("h3", "First filters"),
        element("p", f"{min(part.filters.shape[3], pictures.SHOWN_FILTERS)} filters, {lead}",
                class_="lead"),
        element(
            "img",
            src=pictures.data_uri(pictures.filter_grid(part.filters)),
            alt="first convolution kernels",
            class_="filters pixels",
        ),
    )  # fmt: skip


def units(shown: Sequence[Unit]) -> Markup:
    """The patches that some units answer to most, beside the image made for each."""
    if not shown:
        return NOTHING
    return section(
        "What units answer to",
        "The most selective units of some layers: first the image made for the unit by gradient "
        "ascent, then the parts of test images, as large as its receptive field, at which it is "
        "highest. What is made may move a unit far more than any image does, and may, where "
        "ascent ends on a lower hill, move it less.",
        element("ol", *(_unit(unit) for unit in shown), class_="class-errors"),
    )


def _unit(unit: Unit) -> Markup:
    made = element(
        "li",
        _picture(unit.made, f"made for {unit.name}"),
        element("small", f"made {wording.number(unit.value)}"),
    )
    patches = [
        element("li", _picture(patch, f"patch of {unit.name}"),
                element("small", wording.number(value)))
        for patch, value in zip(unit.patches, unit.values, strict=True)
    ]  # fmt: skip
    return element(
        "li",
        element("p", element("b", name_of(unit.name)),
                element("small", f"selectivity {wording.number(unit.selectivity, digits=2)}")),
        element("ol", made, *patches),
    )  # fmt: skip


def _picture(pixels: np.ndarray, alt: str) -> Markup:
    from cnn_jax.report.overlay import enlarged

    return element("img", src=pictures.data_uri(enlarged(pixels, _SQUARE)), alt=alt)


def learning(part: Learning) -> Markup:
    """Dead units, sizes of gradients, and backpropagation against differences."""
    worked = [
        (name_of(name), wording.percent(sparsity), f"{dead:,} of {count:,}")
        for name, sparsity, dead, count in part.activity
    ]
    reached = [
        (name_of(name), wording.number(before), wording.number(after))
        for name, before, after in part.gradients
    ]
    checked = "The network cannot compute in float64: backpropagation was not held against it."
    if part.error is not None:
        checked = (
            "Along random directions in the space of all parameters, backpropagation and central "
            f"differences in float64 differ by {wording.number(part.error, digits=2)} of the "
            "derivative."
        )
    return section(
        "Activation and learning",
        checked,
        element("h3", "Units at work") if worked else NOTHING,
        table(("after", "values that are 0", "units that never work"), worked,
              ("name", "number", "number")) if worked else NOTHING,
        element("h3", "Gradients by layer"),
        element(
            "p",
            "Norm of the gradient of the cross-entropy over that of the parameters, on the same "
            "training images.",
            class_="lead",
        ),
        table(("layer", "as initialised", "trained"), reached, ("name", "number", "number")),
    )  # fmt: skip


def _selective(pair: tuple[float, float] | None) -> str:
    return wording.MISSING if pair is None else f"{pair[0]:.2f} (chance {pair[1]:.2f})"


def _sides(pair: tuple[int, int] | None) -> str:
    if pair is None:
        return wording.MISSING
    if 0 in pair:
        return "everything"
    return f"{pair[0]:,} × {pair[1]:,}"


def _widths(pair: tuple[float, float] | None) -> str:
    return wording.MISSING if pair is None else f"{pair[0]:.1f} × {pair[1]:.1f}"
