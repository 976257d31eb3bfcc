"""dvc.yaml agrees with what the stages import and read, and each stage runs the code of the checkout it stands in."""

import ast
import configparser
import re

import pytest
from ruamel.yaml import YAML

from detoxlens.common.artifacts import Layout
from detoxlens.common.fingerprint import fingerprint
from detoxlens.models.interventions import METHODS
from detoxlens.params.reads import READS, STAGES, module_of
from detoxlens.pipeline.publish import outputs_of
from tests.root import ROOT

DVC_YAML = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PIPELINE = DVC_YAML["stages"]
MODULE_OF = {"rl_after_ft": "rl", "finetune_placebo": "finetune", "rl_placebo": "rl"} | dict.fromkeys(
    METHODS, "intervene"
)
SHARED = {"run", "models", "variants"}


def stages_of_dvc():
    return [stage for stage in PIPELINE if stage != "code"]


def test_a_run_leads_to_every_output_of_the_stages_before_the_report():
    outs = [out for stage in stages_of_dvc() if stage != "report" for out in PIPELINE[stage]["outs"]]
    of_one = {o.replace("${item.model}", "m").replace("${item.variant}", "v") for o in outs}
    found = {path.relative_to(ROOT).as_posix() for path in outputs_of(Layout(ROOT), "m", "v")}
    assert of_one - found == set()  # `detoxlens doctor` asks for each


def test_every_stage_depends_on_its_own_code_and_only_the_first_stage_on_the_source():
    for stage in stages_of_dvc():
        deps = PIPELINE[stage]["deps"]
        assert [d for d in deps if d.startswith("code/")] == [f"code/{MODULE_OF.get(stage, stage)}.txt"]
        assert not [d for d in deps if d.startswith("src")]
    assert PIPELINE["code"]["deps"] == ["src/detoxlens"]
    assert PIPELINE["code"]["params"] == [{"params.yaml": None}]  # checks all of them before any output is deleted
    assert [path for out in PIPELINE["code"]["outs"] for path in out] == [f"code/{stage}.txt" for stage in STAGES]


def test_the_stages_stand_in_their_order():
    assert list(dict.fromkeys(MODULE_OF.get(stage, stage) for stage in stages_of_dvc())) == list(STAGES)


@pytest.mark.parametrize("stage", stages_of_dvc())
def test_dvc_notices_every_section_that_a_stage_reads(stage):
    reads = READS[MODULE_OF.get(stage, stage)]
    noticed = {str(param).partition(".")[0] for param in PIPELINE[stage]["params"]}
    assert noticed - SHARED == set(reads)


def test_a_method_without_training_reads_the_section_of_its_name():
    assert tuple(METHODS) == READS["intervene"]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "intervene"])
def test_a_stage_reads_the_sections_that_are_listed(stage):
    """By the literal names in its module's `params.section("<name>", ...)`."""
    tree = ast.parse((ROOT / "src" / (module_of(stage).replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asked = {c.args[0].value for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "section"}
    assert asked == set(READS[stage])


def test_what_trains_by_examples_does_not_depend_on_what_trains_by_reward():
    files = [line.split()[0] for line in fingerprint(module_of("finetune"))]
    assert "detoxlens/sft/train.py" in files
    assert not [file for file in files if re.match(r"detoxlens/(rl|pipeline/run_stage|tracking|sweep)", file)]


def test_a_plot_has_a_name_that_is_no_syntax_error_in_the_page_that_dvc_writes():  # as an apostrophe was
    names = [plot if isinstance(plot, str) else next(iter(plot)) for plot in DVC_YAML["plots"]]
    assert [name for name in names if not re.fullmatch(r"[\w ./-]+", name)] == []


def test_dvcs_page_of_plots_loads_nothing():
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    page = (ROOT / ".dvc" / config["plots"]["html_template"]).read_text(encoding="utf-8")
    markup = re.sub(r"(<script>).*?(</script>)", r"\1\2", page, flags=re.DOTALL)
    assert markup.count("<script>") == page.count("@5.") + page.count("vega-embed@6.") == 3
    assert "{plot_divs}" in markup and "{scripts}" not in page  # DVC's own scripts, from the network
    assert re.findall(r"(?:src|href)=", markup) == []


def test_the_metrics_that_dvc_prints_are_the_few_of_the_headline():
    metrics = [path for stage in PIPELINE.values() for metric in stage.get("metrics", ()) for path in metric]
    assert metrics == ["reports/headline"]
