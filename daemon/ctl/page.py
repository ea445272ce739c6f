"""What tssctl prints: tables and facts for people, JSON for programs.

On a terminal long values are cut or folded to fit; elsewhere every row is one line and whole. Nothing that came from
tssd is taken for markup.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNBOUNDED: Final = 100_000
"""Columns where no terminal limits them."""
CUT: Final = 18
"""Columns that a value gets on a terminal where the whole of it is for `show` and `--json`."""
COLOURS: Final = {
    **dict.fromkeys(("active", "completed", "ready", "passed", "yes", "whole"), "green"),
    **dict.fromkeys(("pending", "in_progress", "weak", "starting", "locked"), "yellow"),
    **dict.fromkeys(("failed", "timeout", "quarantined", "no", "broken", "token", "credential"), "red"),
    **dict.fromkeys(("rotated", "revoked", "skipped"), "dim"),
}
"""Words that mean the same wherever they stand alone."""


def console(*, error: bool = False) -> Console:
    """Standard output, or standard error, as it is now."""
    terminal = (sys.stderr if error else sys.stdout).isatty()
    return Console(stderr=error, highlight=False, width=None if terminal else UNBOUNDED)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, none: str, cut: Sequence[str] = ()) -> None:
    """Print rows under headings.

    Args:
        headings: One for each column; the first names a row and is never folded.
        rows: Cells, as many as headings.
        none: Said where there are no rows.
        cut: Headings whose values are cut on a terminal, not folded.
    """
    page = console()
    columns = [
        Column(heading, no_wrap=True, max_width=CUT if page.is_terminal else None)
        if heading in cut
        else Column(heading, overflow="fold", no_wrap=number == 0)
        for number, heading in enumerate(headings)
    ]
    grid = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        grid.add_row(*map(_cell, row))
    if grid.row_count:
        _lines(page, grid)
    else:
        page.print(Text(none, style="dim"))


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values; pairs without a value are left out. Values are never cut, so that they can be copied."""
    known = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        console().print(Text.assemble((name.ljust(width), "bold"), "  ", _cell(value)), soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """Print a sentence."""
    console().print(Text(text, style=style), soft_wrap=True)


def note(text: str) -> None:
    """Say something beside the answer, on standard error."""
    console(error=True).print(Text(text, style="dim"), soft_wrap=True)


def whole(value: Any) -> None:  # noqa: ANN401  whatever tssd answers
    """Print JSON for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def line(value: Any) -> None:  # noqa: ANN401  likewise
    """Print one line of JSON, at once: one of a stream."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)


def moment(text: str | None) -> str:
    """A time of the API's to the second, UTC; `-` for none."""
    return "-" if text is None else text[:19].replace("T", " ")


def spelled(fingerprint: str) -> str:
    """A fingerprint as people read it to each other: groups of four."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def _cell(text: str) -> Text:
    return Text(text, style=COLOURS.get(text.split(",", maxsplit=1)[0], ""))


def _lines(page: Console, grid: Table) -> None:
    """Print a grid; where nothing is cut, without blanks at the ends of lines."""
    if page.is_terminal:
        page.print(grid)
        return
    with page.capture() as captured:
        page.print(grid)
    for text in captured.get().splitlines():
        print(text.rstrip())
