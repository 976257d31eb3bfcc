"""Panels of a figure: in rows and columns on a wide screen, one below the other on a narrow one, letters as large.

wide     title A   title B        narrow   title A        what a wide figure says once per row or column
y label  panel 1   panel 2                 panel 1        (title, axis labels, ticks) each panel says for itself
         x label   x label                 x label
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

NARROW_INCHES = 4.2
"""Width of a narrow figure: on a telephone of 390 px its 8 pt letters are 10 px high."""


def grid(
    num_rows: int,
    num_columns: int,
    size_inches: tuple[float, float],
    *,
    narrow: bool,
    share_x: Literal["none", "all", "col"] = "none",
    share_y: Literal["none", "row"] = "none",
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, np.ndarray]:
    """A figure and its panels, an array (rows, columns) in either layout.

    Args:
        num_rows: of the wide layout.
        num_columns: of the wide layout.
        size_inches: width and height of the wide layout; panels keep their height.
        narrow: row by row one below the other; call `say_everywhere` when all is drawn.
        share_x: which panels have one x axis.
        share_y: which panels have one y axis.
        height_ratios: of the rows.
    """
    if not narrow:
        figure = Figure(figsize=size_inches)
        return figure, figure.subplots(
            num_rows, num_columns, squeeze=False, sharex=share_x, sharey=share_y, height_ratios=height_ratios
        )
    figure = Figure(figsize=(NARROW_INCHES, size_inches[1] * num_columns))
    ratios = None if height_ratios is None else np.repeat(height_ratios, num_columns)
    panels = figure.subplots(num_rows * num_columns, 1, squeeze=False, height_ratios=ratios)
    panels = panels.reshape(num_rows, num_columns)
    for (row, column), panel in np.ndenumerate(panels):  # matplotlib's own sharing would hide the inner tick labels
        first_x = {"all": panels[0, 0], "col": panels[0, column]}.get(share_x, panel)
        first_y = {"row": panels[row, 0]}.get(share_y, panel)
        if first_x is not panel:
            panel.sharex(first_x)
        if first_y is not panel:
            panel.sharey(first_y)
    return figure, panels


def say_everywhere(panels: np.ndarray) -> None:
    """Puts the titles and axis labels that a wide figure has at its edges alone on every panel (rows, columns)."""
    for (row, column), panel in np.ndenumerate(panels):
        title, x, y = panels[0, column], panels[-1, column], panels[row, 0]
        if not (panel.get_title(loc="left") or panel.get_title()):
            panel.set_title(title.get_title(loc="left") or title.get_title())
        if not panel.get_xlabel():
            panel.set_xlabel(x.get_xlabel())
        if not panel.get_ylabel():
            panel.set_ylabel(y.get_ylabel(), fontweight=y.yaxis.label.get_fontweight())
