"""Toxic words of what `explain` and `compare` show: found by a scorer, carried to words, underlined and named."""

import dataclasses
import io
import sys

import pytest
from rich.console import Console

from detoxlens import cli
from detoxlens.common.errors import UserError
from detoxlens.explain.compare_page import comparison_page
from detoxlens.explain.compare_terminal import view_comparison
from detoxlens.explain.explanation import Explanation
from detoxlens.explain.page import page
from detoxlens.explain.terminal import view
from detoxlens.explain.toxic import Marker, marker
from detoxlens.explain.words import by_words
from tests.explain.test_explain import root  # noqa: F401 (a fixture)
from tests.pipeline.stages.study import params_of

PROMPT = "Zorgons are noodleheads"
EXAMPLE = Explanation(
    checkpoint="m/it",
    method="saliency",
    target="probability",
    prompt_pieces=("noodleheads:", " Zor", "gons", " are", " nood", "leheads"),
    completion_pieces=(" what", " nood", "leheads", "!"),
    is_template=(True, False, False, False, False, False),
    prompt_ids=(1, 2, 3, 4, 5, 6),
    completion_ids=(7, 8, 9, 10),
    scores=tuple((1 / n,) * n for n in (6, 7, 8, 9)),
    token_prob=(0.5,) * 4,
)


def judge(texts):
    return [0.9 if "noodleheads" in text else 0.1 for text in texts]


MARKED = Marker("a scorer", judge).marked(EXAMPLE, PROMPT)


def printed(view):
    console = Console(width=120, record=True, file=io.StringIO(), force_terminal=True)
    console.print(view)
    return console.export_text(styles=True)


def test_the_tokens_of_toxic_words_are_found_and_the_template_is_not_asked_about():
    assert MARKED.toxic_prompt == {4, 5} and MARKED.toxic_completion == {1, 2}
    assert MARKED.toxic == {4, 5, 7, 8}
    said = "words without which the text is not toxic to a scorer. prompt: “noodleheads”; completion: “noodleheads”"
    assert MARKED.toxic_summary() == said


def test_of_words_those_are_toxic_whose_tokens_are():
    found = by_words(MARKED)
    assert found.prompt_pieces[3] == " noodleheads" and found.toxic_prompt == {3}
    assert found.completion_pieces[1] == " noodleheads!" and found.toxic_completion == {1}


def test_the_pages_underline_them_in_the_texts_the_maps_and_the_tables():
    own, both = page(MARKED), comparison_page([MARKED, dataclasses.replace(MARKED, checkpoint="m/ft")])
    assert " <u>nood</u><u>leheads</u>" in own and own.count("<dt>Underlined</dt>") == 1
    # of ` nood`: prompt and completion as text; in the map two heads and a row; a row of the table
    assert own.count(" <u>nood</u>") == 6
    # two maps and one of the difference, one table
    assert both.count(" <u>nood</u>") == 2 + 3 * 3 + 1 and both.count("<dt>Underlined</dt>") == 1
    for html in (page(EXAMPLE), comparison_page([EXAMPLE, dataclasses.replace(EXAMPLE, checkpoint="m/ft")])):
        assert "<u>" not in html and "Underlined" not in html


def test_the_terminal_underlines_and_names_them():
    for shown in (view(MARKED, width=120), view_comparison([MARKED, MARKED], width=120)):
        text = printed(shown)
        assert "\x1b[4m·nood" in text and "Underlined: words without which" in text
    assert "\x1b[4m" not in printed(view(EXAMPLE, width=120)) and "Underlined" not in printed(view(EXAMPLE, width=120))


def test_a_text_that_is_not_toxic_has_none_and_says_so():
    harmless = Marker("a scorer", lambda texts: [0.1] * len(texts)).marked(EXAMPLE, PROMPT)
    assert harmless.toxic == frozenset() and harmless.toxic_summary().endswith("prompt: none; completion: none")


def test_the_projects_grader_marks_them_unless_it_is_a_service_or_cannot_be_loaded(tmp_path):
    service, missing = params_of(), params_of()
    service.raw["toxicity"] |= {"scorers": ["perspective"], "headline": "perspective"}
    assert marker(tmp_path, service) is None
    missing.raw["toxic_words"]["scorer"] = "onnx:nowhere.onnx#TOXIC"
    with pytest.raises(UserError, match=r"marked by onnx:nowhere.onnx#TOXIC: .*Or leave them: --no-toxic-words"):
        marker(tmp_path, missing).marked(EXAMPLE, PROMPT)


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_the_commands_mark_them_unless_told_not_to(root, monkeypatch, capsys, command):  # noqa: F811
    which = ["m/base", "m/ft"] if command == "compare" else ["--checkpoint", "m/base"]
    said = []
    for more in ([], ["--no-toxic-words"]):
        arguments = [*which, "--prompt", "You stupid idiots", "--completion", "lazy.", "--no-template", *more]
        monkeypatch.setattr(sys, "argv", ["detoxlens", "--root", str(root), command, *arguments])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        said.append(" ".join(capsys.readouterr().out.split()))
    assert "not toxic to profanity_check. prompt: “stupid”, “idiots”; completion: “lazy”" in said[0]
    assert "Underlined" not in said[1]
