"""The same panels in rows and columns, or one below the other with every label said again."""

import itertools

import pytest

from detoxlens.reporting.panels import NARROW_INCHES, grid, say_everywhere


def drawn(*, narrow):
    """2 rows x 3 columns: column titles above, x labels below, row names at the left, as the figures of the report."""
    figure, panels = grid(2, 3, (9.0, 4.0), narrow=narrow, share_x="col", share_y="row", height_ratios=(2, 1))
    for column in range(3):
        panels[0, column].set_title(f"title {column}", loc="left")
        panels[1, column].set_xlabel(f"x {column}")
    for row in range(2):
        panels[row, 0].set_ylabel(f"row {row}", fontweight="bold")
    panels[1, 2].plot([0, 7], [0, 5])
    return figure, panels


def test_a_narrow_figure_says_on_each_panel_what_a_wide_one_says_at_its_edges():
    figure, panels = drawn(narrow=True)
    say_everywhere(panels)
    assert tuple(figure.get_size_inches()) == (NARROW_INCHES, 12.0)  # 3 columns: three times as high
    assert [p.get_title(loc="left") or p.get_title() for p in panels[1]] == ["title 0", "title 1", "title 2"]
    assert [p.get_xlabel() for p in panels[0]] == ["x 0", "x 1", "x 2"]
    assert [p.get_ylabel() for p in panels[1]] == ["row 1"] * 3
    assert panels[1, 2].yaxis.label.get_fontweight() == "bold"
    places = [panel.get_position() for panel in panels.flat]
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(places))
    assert places[0].height == pytest.approx(2 * places[3].height)


def test_axes_are_shared_in_either_layout_and_ticks_are_named_on_every_narrow_panel():
    for narrow in (False, True):
        figure, panels = drawn(narrow=narrow)
        figure.draw_without_rendering()
        assert panels[0, 2].get_xlim() == panels[1, 2].get_xlim() != panels[0, 1].get_xlim()
        assert panels[1, 0].get_ylim() == panels[1, 2].get_ylim() != panels[0, 0].get_ylim()
        named = [label.get_visible() for label in panels[0, 2].get_xticklabels()]
        assert any(named) is narrow
