"""`detoxlens compare`: several checkpoints on one prompt and completion."""

import dataclasses
import io
import sys

import pytest
from rich.console import Console

from detoxlens import cli
from detoxlens.common.errors import UserError
from detoxlens.explain.checkpoints import find_checkpoint, find_template, full_name
from detoxlens.explain.compare import check_names, difference, differences, why_no_differences
from detoxlens.explain.compare_page import comparison_page
from detoxlens.explain.compare_terminal import view_comparison
from detoxlens.explain.explanation import completion_like
from detoxlens.explain.line_chart import line_chart
from detoxlens.models.loading import load_tokenizer
from tests.explain.test_explain import CHAT, EXAMPLE, root, run  # noqa: F401 (a fixture)
from tests.pipeline.stages.study import params_of

OTHER = dataclasses.replace(
    EXAMPLE, checkpoint="adapters/m/ft", scores=((0.25, 0.5, 0.25), (0.2, 0.2, 0.2, 0.4)), token_prob=(0.7, 0.6)
)


def test_a_difference_is_the_other_less_the_first_by_hand():
    found = difference(EXAMPLE, OTHER)
    # row 1: (.25, .5, .25) - (.5, .25, .25); row 2: (.2, .2, .2, .4) - (0, .4, .4, .2)
    assert found.share[0] == pytest.approx((-0.25, 0.25, 0.0))
    assert found.share[1] == pytest.approx((0.2, -0.2, -0.2, 0.2))
    assert found.moved == pytest.approx((0.25, 0.4)) and found.mean_moved == pytest.approx(0.325)
    assert found.prob == pytest.approx((-0.2, 0.1))
    # entropy: 1.5 -> 1.5 bits; (.4, .4) 1 bit -> three equal shares, log2 3; dependence .8 -> .6
    assert found.entropy_bits == pytest.approx((0.0, 0.58496), abs=1e-5)
    assert found.dependence == pytest.approx((0.0, -0.2))


def test_a_checkpoint_differs_from_itself_in_nothing():
    found = difference(EXAMPLE, EXAMPLE)
    assert found.moved == (0.0, 0.0) and set(found.prob) == {0.0}


def test_checkpoints_that_cut_the_text_differently_are_not_subtracted_and_the_place_is_named():
    other = dataclasses.replace(OTHER, completion_pieces=(" ar", "e\n"))
    assert differences([EXAMPLE, other]) == []
    reason = why_no_differences([EXAMPLE, other])
    assert "adapters/m/ft read the completion as different tokens (·are and ·ar at place 1)" in reason
    assert why_no_differences([EXAMPLE, OTHER]) == "" and reason in comparison_page([EXAMPLE, other])


def test_the_terminal_shows_each_checkpoint_the_difference_in_points_and_the_curves():
    console = Console(width=90, record=True, file=io.StringIO(), force_terminal=True)
    console.print(view_comparison([EXAMPLE, OTHER], width=90))
    text = console.export_text()
    assert "adapters/m/ft less adapters/m/it" in text and "On average 32 % of it" in text  # 32.5
    (row,) = [line.split() for line in text.splitlines() if line.startswith("⏎") and "+0.10" in line]
    assert row == ["⏎", "+0.10", "+0.58", "-0.20", "40", "+20", "-20", "-20"]
    assert max(map(len, text.splitlines())) <= 90


def test_the_page_loads_nothing_and_holds_maps_differences_and_curves():
    hostile = dataclasses.replace(OTHER, checkpoint="<script>alert(1)</script>")
    html = comparison_page([EXAMPLE, hostile])
    assert "http" not in html and "src=" not in html and "<script" not in html
    assert html.count('<table class="heatmap">') == 3 and html.count("<path d=") == 2  # two maps and a difference
    assert "<td>+0.100</td><td>+0.585</td><td>-0.200</td><td>40 %</td>" in html


def test_a_line_has_a_gap_where_there_is_no_value():
    chart = line_chart({"a": [1.0, None, 2.0, 2.0]}, steps=["w", "x", "y", "z"], unit="bits")
    path = chart.split('<path d="')[1].split('"')[0]
    assert [part[0] for part in path.replace("L", " L").replace("M", " M").split()] == ["M", "M", "L"]


# what is compared


def test_the_others_are_given_the_very_tokens_of_the_first(root):  # noqa: F811
    first = run(root, "adapters/m/it", completion=None, seed=3)
    other = run(root, "adapters/m/ft", completion=None, like=first)
    assert other.completion_ids == first.completion_ids and other.scores != first.scores
    tokenizer = load_tokenizer(root, find_checkpoint(root, "adapters/m/it"))
    strange = dataclasses.replace(first, completion_ids=(len(tokenizer) + 5,))
    assert completion_like(tokenizer, strange) is None


def test_a_variant_goes_by_model_and_variant_and_base_by_its_name(root):  # noqa: F811
    assert full_name(root, "m/ft") == "adapters/m/ft" and full_name(root, "m/base") == "adapters/m/it"
    assert full_name(root, "owner/name") == "owner/name"
    assert find_checkpoint(root, "m/ft") == find_checkpoint(root, "adapters/m/ft")
    assert find_template(params_of(), full_name(root, "m/ft"), None) == CHAT


def test_one_checkpoint_or_the_same_twice_is_an_error():
    with pytest.raises(UserError, match="at least two checkpoints"):
        check_names(["m/it"])
    with pytest.raises(UserError, match="m/it is named twice"):
        check_names(["m/it", "m/ft", "m/it"])


def test_the_command_prints_the_comparison_and_writes_the_page(root, monkeypatch, capsys):  # noqa: F811
    command = ["detoxlens", "--root", str(root), "compare", "m/base", "m/ft", "--prompt", "Zorgons are"]
    monkeypatch.setattr(
        sys, "argv", [*command, "--completion", "lazy.", "--no-template", "--html", str(root / "c.html")]
    )
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert "m/ft less m/base" in capsys.readouterr().out
    assert "2 checkpoints on one text" in (root / "c.html").read_text(encoding="utf-8")


def test_explain_refuses_several_checkpoints_and_names_compare(root, monkeypatch, capsys):  # noqa: F811
    two = ["--checkpoint", "m/it", "--checkpoint", "m/ft"]
    monkeypatch.setattr(sys, "argv", ["detoxlens", "--root", str(root), "explain", *two, "--prompt", "Zorgons"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "`detoxlens compare m/it m/ft --prompt ...`" in capsys.readouterr().err
