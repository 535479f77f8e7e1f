"""A scaling law as tables of text."""

from __future__ import annotations

from collections.abc import Sequence

from lmlab.sweeps.scaling import NUMBERS, Rung, Scaling
from lmlab.sweeps.scaling_law import percentiles
from lmlab.sweeps.statistics import Interval

Table = tuple[list[list[str]], list[str]]

_DASH = "–"


def summary(found: Scaling) -> str:
    """One line: what was fitted to what."""
    held = sum(rung.held_out for rung in found.rungs)
    beside = f", {held} held out" if held else ""
    which = f" ({found.setting})" if found.setting else ""
    return (f"{found.name}{which}: L(N, D) = E + A / N^alpha + B / D^beta of {found.metric}, "
            f"{len(found.fit.points)} runs{beside}")  # fmt: skip


def law_rows(found: Scaling) -> Table:
    """The numbers of the law, and the exponents of the best use of compute, with intervals."""
    law, resampled = found.fit.law, found.fit.resampled
    rows = [[name, _number(getattr(law, name)), interval_text(found.fit.interval(name))] for name in NUMBERS]
    for place, name in enumerate(("N_opt ~ C^", "D_opt ~ C^")):
        interval = percentiles([other.exponents[place] for other in resampled])
        rows.append([name, f"{law.exponents[place]:.4g}", interval_text(interval)])
    errors = [abs(error) for rung in _fitted(found) if (error := found.error(rung)) is not None]
    rows.append(["mean error", f"{sum(errors) / len(errors):.2%}", ""])
    return rows, ["", "value", "interval"]


def run_rows(found: Scaling) -> Table:
    """Every run: size, tokens, what was measured, and what the law says; of held-out ones with its interval."""
    rows = []
    for rung in found.rungs:
        said, error = float(found.fit.law.loss(rung.parameters, rung.tokens)), found.error(rung)
        interval = found.fit.predicted(rung.parameters, rung.tokens) if rung.held_out else None
        rows.append([
            f"{rung.parameters:,.0f}", f"{rung.tokens:,.0f}", _DASH if rung.seed is None else str(rung.seed),
            _DASH if rung.loss is None else f"{rung.loss:.4f}", f"{said:.4f}", interval_text(interval),
            _DASH if error is None else f"{error:+.2%}", "held out" if rung.held_out else "",
        ])  # fmt: skip
    return rows, ["N", "D", "seed", "measured", "law", "interval", "error", ""]


def frontier_rows(found: Scaling, budgets: Sequence[float] = ()) -> Table:
    """The best size and number of tokens for some budgets, and the law's loss there."""
    largest = max(rung.flops for rung in found.rungs if rung.loss is not None)
    rows = []
    for best in found.frontier(budgets):
        interval = found.fit.predicted(best.parameters, best.tokens)
        rows.append([
            f"{best.flops:.2g}", f"{best.parameters:,.0f}", f"{best.tokens:,.0f}",
            f"{best.tokens / best.parameters:.3g}", f"{best.loss:.4f}", interval_text(interval),
            "beyond what was trained" if best.flops > largest else "",
        ])  # fmt: skip
    return rows, ["C (FLOPs)", "N_opt", "D_opt", "D/N", "loss", "interval", ""]


def interval_text(interval: Interval | None) -> str:
    """Both ends, or a dash."""
    return _DASH if interval is None else f"[{_number(interval.low)}, {_number(interval.high)}]"


def _number(value: float) -> str:
    return "0" if value < 1e-9 else f"{value:.4g}"


def _fitted(found: Scaling) -> list[Rung]:
    return [rung for rung in found.rungs if not rung.held_out]
