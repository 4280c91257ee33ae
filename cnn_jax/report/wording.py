"""How numbers are worded on the page: one look for each kind, also for a missing one."""

from __future__ import annotations

import math

from cnn_jax.evaluation import COVERS, Estimate

MISSING = "—"


def number(value: float | None, *, digits: int = 3) -> str:
    """`value` to some significant digits; thousands are set apart, a missing value is a dash."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 7:
        return _power_of_ten(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - exponent)
    return _minus(f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}"))


def tick(value: float) -> str:
    """A round number beside an axis, as short as it can be: `0.25`, `6 000`, `5·10⁻⁴`."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return _minus(f"{value:,.6g}".replace(",", "\N{NARROW NO-BREAK SPACE}"))
    mantissa, power = f"{value:.3e}".split("e")
    return _power_of_ten(f"{float(mantissa):g}e{power}").removeprefix("1·")


def percent(fraction: float | None, *, decimals: int = 1) -> str:
    """A fraction as per cent; a missing value is a dash."""
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    return _minus(f"{100 * fraction:.{decimals}f}\N{NO-BREAK SPACE}%")


def value(estimate: Estimate) -> str:
    """The figure alone: `98.06 %` or `0.0712`."""
    if not math.isfinite(estimate.value):
        return MISSING
    if estimate.percent:
        return percent(estimate.value, decimals=2)
    return _minus(f"{estimate.value:.4f}")


def interval(estimate: Estimate) -> str:
    """The interval alone: `96.0 to 99.1`, or `no interval`."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "no interval"
    factor, decimals = (100, 1) if estimate.percent else (1, 4)
    low, high = (f"{factor * end:.{decimals}f}" for end in (estimate.low, estimate.high))
    return _minus(f"{low} to {high}")


def difference(estimate: Estimate) -> str:
    """A difference with its sign: `+4.17 points` for fractions, `+0.0712` otherwise."""
    if not math.isfinite(estimate.value):
        return MISSING
    if estimate.percent:
        return _minus(f"{100 * estimate.value:+.2f} points")
    return _minus(f"{estimate.value:+.4f}")


def origin(estimate: Estimate) -> str:
    """Where the figure and its interval come from: `n = 360, 95 % over test sets: Wilson`."""
    count = f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{estimate.n}"
    if estimate.n_seeds > 1:
        count += f", {estimate.n_seeds} seeds"
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{count}: {estimate.method}"
    level = f"{100 * estimate.level:g}\N{NO-BREAK SPACE}%"
    groups = ", groups resampled" if estimate.unit == "group" else ""
    return f"{count}, {level} over {COVERS[estimate.covers]}{groups}: {estimate.method}"


def shortened(text: str, length: int) -> str:
    """`text` on one line of at most `length` characters, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _power_of_ten(scientific: str) -> str:
    """`5.0e-04` as `5.0·10⁻⁴`."""
    mantissa, power = scientific.split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{_minus(mantissa)}·10{raised}"
