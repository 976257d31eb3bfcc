"""`detoxlens experiments`: what DVC says, at terminal width, and curves without a network."""

import io
import subprocess

import pytest
from rich.console import Console

from detoxlens.common.errors import UserError
from detoxlens.experiments.page import curves_of, page
from detoxlens.experiments.read import parse, show
from detoxlens.experiments.terminal import rows_of, view

BASE = {"toxic": 0.623, "toxic_vs_base": None, "entropy_bits_model_effect": None, "perplexity": 2.1}
RL = {"toxic": 0.0725, "toxic_vs_base": -0.55, "entropy_bits_model_effect": 0.0071, "perplexity": 2.08}


def state(rev, name, kl, rl=RL, **more):
    metrics = {"it": BASE, "rl": rl}
    return {
        "rev": rev,
        "name": name,
        "data": {
            "params": {"params.yaml": {"data": {"ppo": {"kl": {"coef": kl}}, "run": {"models": ["tiny-neox"]}}}},
            "metrics": {f"reports/headline/tiny-neox/{v}.json": {"data": m} for v, m in metrics.items()},
        },
        **more,
    }


LOW = state("b" * 40, "low-kl", 0.02, RL | {"toxic": 0.03, "toxic_vs_base": -0.593})
FAILED = {"rev": "c" * 40, "name": "broken", "data": None, "error": {"msg": "ppo.kl.coef=-1"}}
DVC = [
    state("workspace", None, 0.1),
    state(
        "a" * 40,
        "main",
        0.1,
        experiments=[{"revs": [LOW], "name": "low-kl"}, {"revs": [FAILED], "name": "broken"}],
    ),
]


def test_an_experiment_is_what_it_changed_and_the_numbers_that_moved():
    workspace, main, low, broken = parse(DVC)
    assert (workspace.name, workspace.changed, workspace.moved) == ("workspace", {}, frozenset())
    assert main.started_from is None and main.moved == {("tiny-neox", "it"), ("tiny-neox", "rl")}
    assert low.changed == {"ppo.kl.coef": (0.1, 0.02)} and low.moved == {("tiny-neox", "rl")}
    assert low.started_from == "main" and broken.error == "ppo.kl.coef=-1" and broken.changed == {}
    assert list(rows_of(low)) == [
        ("tiny-neox/rl", "3.0", "-59.3", "+0.007", "2.08"),
        ("1 more: as in main", "", "", "", ""),
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal_and_loses_no_number(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(view(list(parse(DVC))))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    assert {"low-kl", "tiny-neox/rl", "3.0", "-59.3", "+0.007", "failed:"} <= set(words)
    assert "…" not in text


def test_the_page_draws_a_dash_per_revision_and_a_colour_per_variant_and_loads_nothing():
    head = "model,variant,text,scope,measure,group,step,mean\n"
    curve = "".join(
        f"tiny-neox,{v},it,prompt,prompt_entropy_bits,{g},{t},{3 + t / 10}\n"
        for v in ("it", "rl")
        for g in ("toxic", "other", "all")
        for t in (2, 1)
    )
    curves = curves_of(head + curve + "tiny-neox,rl,rl,prompt,prompt_entropy_bits,toxic,1,9\n")
    assert curves["tiny-neox", "toxic", "rl"] == [3.1, 3.2] and len(curves) == 4  # not its own text, not all
    html = page(list(parse(DVC)), {"main": curves, "low-kl": curves})
    assert "http" not in html and "src=" not in html and "<script" not in html
    assert html.count('<svg class="chart"') == 2 and html.count("stroke-dasharray") == 4  # 2 panels x 2 variants
    assert "rl, low-kl</text>" in html and "base, main</text>" in html
    assert (
        "ppo.kl.coef 0.1 -&gt; 0.02" in html and "Without curves, which `dvc pull` may have: workspace, broken." in html
    )


def test_an_unknown_experiment_is_named(monkeypatch, tmp_path):
    import json

    done = subprocess.CompletedProcess([], 0, stdout=json.dumps(DVC), stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert [revision.name for revision in show(tmp_path, ["low-kl"])] == ["low-kl"]
    with pytest.raises(UserError, match=r"no experiment 'low'.* There are: workspace, main, low-kl, broken"):
        show(tmp_path, ["low"])


def test_a_folder_that_dvc_does_not_know_is_an_error_with_dvcs_reason(monkeypatch, tmp_path):
    done = subprocess.CompletedProcess([], 253, stdout="", stderr="ERROR: you are not inside of a DVC repository\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UserError, match="not inside of a DVC repository"):
        show(tmp_path)
