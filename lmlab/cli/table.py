"""Tables for people: drawn by rich on a terminal, aligned plain columns in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str] = (), numbers: bool = False) -> None:
    """Prints rows of text.

    Args:
      numbers: where the terminal is too narrow, the first and the last column give way, and what stands between them is
        never cut. Without it, the first one is never broken.
    """
    if sys.stdout.isatty():
        _drawn(rows, header, numbers)
        return
    lines = [*([header] if header else []), *rows]
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(len(lines[0]) if lines else 0)]
    for line in lines:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def print_heading(text: str) -> None:
    """Prints a line above a table, bold on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False).print(Text(text, style="bold"))
    else:
        print(text)


def _drawn(rows: Sequence[Sequence[str]], header: Sequence[str], numbers: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=bool(header), pad_edge=False, padding=(0, 2, 0, 0))
    columns = len(header or (rows[0] if rows else ()))
    for column in range(columns):
        whole = 0 < column < columns - 1 if numbers else column == 0
        table.add_column(
            header[column] if header else "", no_wrap=whole, overflow="fold" if numbers and not whole else "ellipsis",
            style="cyan" if column == 0 else None,
        )  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a cell's [brackets] are no markup
    Console(highlight=False).print(table)  # honours NO_COLOR
