"""`detoxlens repro` writes what was asked into params.yaml and nothing else; what a stage records in MLflow."""

import shutil
import socket
import subprocess

import pytest

from detoxlens import project
from detoxlens.config import load_params
from detoxlens.data.config import SplitsConfig
from detoxlens.errors import UserError
from detoxlens.models.config import GenerationConfig
from detoxlens.models.lora import LoraConfig
from detoxlens.project import apply_preset
from detoxlens.publish import comparable_key
from detoxlens.rl.config import PpoConfig
from detoxlens.run_stage import SECTIONS_OF, check_params, section_classes, stage_params
from detoxlens.sft.config import SftConfig
from tests.import_graph import ROOT


@pytest.fixture
def params_file(tmp_path):
    return shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")


def test_only_the_named_keys_change_and_comments_stay(params_file):
    before = params_file.read_text(encoding="utf-8").splitlines()
    project.change_run_section(params_file, {"models": ["redpajama-3b"], "seed": 7})
    after = params_file.read_text(encoding="utf-8").splitlines()
    changed = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a.split() != b.split()]
    assert changed == [("models: [tiny-neox, tiny-falcon]", "models: [redpajama-3b]"), ("seed: 0", "seed: 7")]
    check_params(load_params(params_file))


def test_a_deep_key_is_made_in_the_style_of_its_surroundings(params_file):
    path = ("variants", "rl", "overrides")
    project.change_params(params_file, {(*path, "lora", "r"): 8, (*path, "ppo", "kl", "coef"): 0.1234567890123456})
    written = params_file.read_text(encoding="utf-8")
    line = "  rl: {kind: rl, algorithm: ppo, overrides: {lora: {r: 8}, ppo: {kl: {coef: 0.1234567890123456}}}}\n"
    assert line in written
    assert load_params(params_file).variant("rl").overrides["ppo"]["kl"]["coef"] == 0.1234567890123456
    with pytest.raises(UserError, match=r"ppo\.kl\.coef=-1"):
        project.change_params(params_file, {(*path, "ppo", "kl", "coef"): -1})
    assert params_file.read_text(encoding="utf-8") == written


def test_the_lists_by_kind_follow_the_variants(params_file):
    assert project.variant_lists(load_params(params_file), ["it", "ft"]) == {
        "variants": ["it", "ft"], "sft_variants": ["ft"], "rl_variants": [], "rl_after_ft_variants": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"models": "tiny-nox"}, "Did you mean 'tiny-neox'"),
        ({"variants": "it,fff"}, "variants has no 'fff'"),
        ({"variants": "ft"}, "must contain 'it'"),
        ({"seed": "-1"}, "seed='-1' must be a whole number"),
    ],
)
def test_a_mistake_leaves_the_file_as_it_was(params_file, asked, told):
    before = params_file.read_bytes()
    with pytest.raises(UserError, match=told):
        project.repro(params_file.parent, params_file, **asked)
    assert params_file.read_bytes() == before


def test_repro_runs_dvc_with_this_interpreters_programs_on_the_path(params_file, monkeypatch):
    called = {}

    def run(command, *, cwd, env, check):
        called.update(command=command, path=env["PATH"].split(":")[0])
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(project.subprocess, "run", run)
    monkeypatch.setattr("detoxlens.tracking.finish_project_run", lambda store, keys: called.update(keys=keys))
    assert project.repro(params_file.parent, params_file, evaluate_only=True) == 3
    assert called["command"][1:] == [
        "-m", "dvc", "repro", "--single-item", "generate", "score", "attribute", "report",
    ]  # fmt: skip
    assert (project.Path(called["path"]) / "detoxlens").exists()
    assert len(set(called["keys"])) == 6  # two models, three variants


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port} on 127.0.0.1 cannot be used"):
            project.ui(tmp_path, host="127.0.0.1", port=port)


def test_a_server_shows_its_pages_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@mlflow.example:5000")
    monkeypatch.setattr("detoxlens.tracking.store.open_client", lambda store: (None, "7"))
    assert project.ui(tmp_path, host="127.0.0.1", port=5000) == 0
    told = capsys.readouterr().out
    assert "http://mlflow.example:5000/#/experiments/7/runs" in told and "secret" not in told


def test_every_section_is_validated_and_read_by_a_stage():
    params = load_params(ROOT / "params.yaml")
    assert set(section_classes()) == set(params.raw) - {"run", "models", "variants"}
    by_no_stage = {"sweep"}  # what `detoxlens sweep` reads
    assert {section for sections in SECTIONS_OF.values() for section in sections} == set(
        section_classes()
    ) - by_no_stage
    for name in SECTIONS_OF:
        stage_params(params, name, "tiny-neox", "ft")


def test_the_papers_models_are_valid_under_their_overrides():
    params = load_params(ROOT / "params.yaml")
    params.raw["run"]["models"] = ["redpajama-3b", "falcon-7b"]
    check_params(params)
    lora = stage_params(params, "finetune", "falcon-7b", "ft")["lora"]
    assert (lora["r"], lora["alpha"], lora["dropout"]) == (64, 32, 0.05)
    ppo = stage_params(params, "rl", "redpajama-3b", "rl")["ppo"]
    assert (ppo["learning_rate"], ppo["rollout_batch_size"], ppo["kl"]["control"]) == (5e-6, 64, "adaptive")


def test_the_key_follows_the_settings_and_the_data(tmp_path):
    params = load_params(ROOT / "params.yaml")
    key = comparable_key(ROOT, params, "tiny-neox", "rl")
    assert key == comparable_key(ROOT, params, "tiny-neox", "rl")
    params.raw["sweep"]["seed"] += 1  # what a sweep tries is no setting of a run
    assert key == comparable_key(ROOT, params, "tiny-neox", "rl")
    params.raw["ppo"]["learning_rate"] *= 2
    assert key != comparable_key(ROOT, params, "tiny-neox", "rl")


def test_a_setting_of_other_variants_or_of_the_report_does_not_change_the_key():
    def keys(**changes):
        params = load_params(ROOT / "params.yaml")
        for name, change in changes.items():
            params.raw[name] |= change
        return [comparable_key(ROOT, params, "tiny-neox", variant) for variant in ("it", "ft", "rl")]

    it, ft, rl = keys()
    assert keys(report={"num_examples": 3}) == [it, ft, rl]
    assert keys(ppo={"gamma": 0.9})[:2] == [it, ft] and keys(ppo={"gamma": 0.9})[2] != rl
    changed = keys(sft={"num_epochs": 1})
    assert changed[0] == it and changed[1] != ft and changed[2] == rl


def test_a_misspelt_override_of_a_model_that_does_not_run_is_found():
    params = load_params(ROOT / "params.yaml")
    params.raw["models"]["falcon-7b"]["overrides"]["sft"]["num_epoch"] = 3
    with pytest.raises(UserError, match="Did you mean 'num_epochs'"):
        check_params(params)


@pytest.mark.parametrize(
    ("algorithm", "overrides", "told"),
    [
        (
            "rloo",
            {"ppo": {"value_coef": 0.5}},
            r"overrides\.ppo\.value_coef has no effect on algorithm 'rloo': there is no",
        ),
        ("grpo", {"ppo": {"kl": {"coef": 0.1, "horizon": 9}}}, r"overrides\.ppo\.kl\.horizon .*'grpo'.* Remove it"),
        (
            "ppo",
            {"ppo": {"num_generations": 2}},
            r"overrides\.ppo\.num_generations .*read by rloo and grpo\. Remove it",
        ),
    ],
)
def test_an_override_that_a_variants_algorithm_does_not_read_is_refused(algorithm, overrides, told):
    params = load_params(ROOT / "params.yaml")
    params.raw["variants"]["other"] = {"kind": "rl", "algorithm": algorithm, "overrides": overrides}
    with pytest.raises(UserError, match=r"params\.yaml: variants\.other\." + told):
        check_params(params)
    params.raw["variants"]["other"]["overrides"] = {"ppo": {"kl": {"coef": 0.1}, "num_epochs": 1}}
    check_params(params)


def test_the_authors_preset_is_valid_keeps_comments_and_changes_nothing_twice(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    diff = apply_preset(tmp_path, tmp_path / "params.yaml", "authors")
    assert "+  models: [redpajama-3b, falcon-7b]" in diff and "+  missing: non_toxic" in diff
    params = load_params(tmp_path / "params.yaml")
    assert params.section("splits", SplitsConfig).by_name["authors_pc50"].text == "prompt+continuation"
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines():
        assert line.partition("#")[2] in (tmp_path / "params.yaml").read_text(encoding="utf-8")
    assert apply_preset(tmp_path, tmp_path / "params.yaml", "authors") == ""
    with pytest.raises(UserError, match=r"no preset 'author'\. Did you mean 'authors'"):
        apply_preset(tmp_path, tmp_path / "params.yaml", "author")


def test_the_authors_preset_decodes_and_trains_as_they_did():
    """Design, section 1: their hyperparameters, templates and loss, which are the models' own overrides."""
    params = load_params(ROOT / "params.yaml")
    redpajama, falcon = (params.model(m) for m in ("redpajama-3b", "falcon-7b"))
    assert redpajama.template.eval_user == '<human>: "{text}".\n' and redpajama.template.bot == "<bot>: "
    assert falcon.template.user == "### Question: {text}.\n"
    for model, top_k in (("redpajama-3b", 50), ("falcon-7b", 10)):
        decoding = params.section("generation", GenerationConfig, model=model)
        assert (decoding.max_new_tokens, decoding.min_new_tokens, decoding.top_k) == (70, 4, top_k)
        assert decoding.no_repeat_ngram_size == 2
        sft = params.section("sft", SftConfig, model=model)
        assert (sft.loss_on, sft.examples, sft.learning_rate, sft.warmup_steps) == ("all", "prefixes", 3e-4, 100)
        ppo = params.section("ppo", PpoConfig, model=model)
        assert (ppo.learning_rate, ppo.rollout_batch_size) == (5e-6, 64)
        lora = params.section("lora", LoraConfig, model=model)
        assert (lora.r, lora.alpha, lora.dropout) == (64, 32, 0.05)
