"""Random-weight checkpoints of the paper's architectures, and the preset that takes them through every stage."""

import importlib
import shutil

import pytest
import torch
import transformers as hf

from benchmarks.random_weights import CONFIGS, FOLDER, filled, write_checkpoint
from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.records import Attribution, Completion
from detoxlens.models import tiny
from detoxlens.models.footprint import weights_of
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params, load_params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.presets import apply_preset
from detoxlens.params.reads import MEASURE, STAGES
from detoxlens.params.sft import SftConfig
from tests.root import ROOT

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1100}
FULL = {
    "redpajama-3b": {"hidden_size": 2560, "num_hidden_layers": 32, "intermediate_size": 10_240},
    "falcon-7b": {"hidden_size": 4544, "num_hidden_layers": 32},
}


@pytest.fixture
def project(tmp_path):
    for name in ("presets", "data/sample"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_they_are_a_tenth_with_the_published_heads_and_vocabulary():
    for model, config in CONFIGS.items():
        ratio = weights_of({**config, **FULL[model]}).num_parameters / weights_of(config).num_parameters
        assert ratio == pytest.approx(10, rel=0.05)
    assert weights_of({**CONFIGS["falcon-7b"], **FULL["falcon-7b"]}).num_parameters == 6_921_720_704
    shape = hf.AutoConfig.for_model(**CONFIGS["redpajama-3b"])
    assert shape.rope_parameters["partial_rotary_factor"] == 1.0 and not shape.use_parallel_residual


def test_made_up_words_fill_a_vocabulary_and_no_text_has_them():
    learnt = tiny.train_tokenizer(["Zorgons hum. ~ ~300 ~301"], 300)
    tokenizer = filled(learnt, 400)
    assert len(tokenizer) == 400 and tokenizer.eos_token_id == learnt.eos_token_id
    text = "Zorgons hum ~300 ~350."
    assert tokenizer(text).input_ids == learnt(text).input_ids
    assert tokenizer.decode([350, 399]) == " ~350 ~399"


def test_a_checkpoint_is_one_that_the_pipeline_loads(tmp_path):
    config = {**CONFIGS["falcon-7b"], **TINY}
    write_checkpoint(config, tmp_path)
    network = hf.AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=True)
    assert network.num_parameters() == weights_of(config).num_parameters
    assert network.dtype == torch.bfloat16 and len(hf.AutoTokenizer.from_pretrained(tmp_path)) == 1100


def test_the_preset_keeps_the_authors_settings(project):
    committed = load_params(project / "params.yaml")
    assert apply_preset(project, project / "params.yaml", "tenth")
    small = load_params(project / "params.yaml")
    assert list(small.run.models) == list(CONFIGS)
    for model in CONFIGS:
        assert small.model(model).source == str(FOLDER / model)
        assert small.model(model).template == committed.model(model).template
        for section, cls in (("lora", LoraConfig), ("generation", GenerationConfig)):
            assert small.section(section, cls, model=model) == committed.section(section, cls, model=model)
        sft = small.section("sft", SftConfig, model=model)
        assert (sft.loss_on, sft.examples, sft.max_length, sft.batch_size) == ("all", "prefixes", 512, 4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # see console.NOISE
def test_the_preset_goes_through_every_stage(project):
    apply_preset(project, project / "params.yaml", "tenth")
    raw = load_params(project / "params.yaml").raw
    raw["run"]["models"] = ["redpajama-3b"]
    raw["reward_model"]["tiny"] |= {"num_steps": 2, "num_examples": 100}
    raw["models"]["redpajama-3b"]["overrides"]["generation"]["max_new_tokens"] = 6
    write_checkpoint({**CONFIGS["redpajama-3b"], **TINY}, project / FOLDER / "redpajama-3b")
    params, layout = Params(raw, project / "params.yaml"), Layout(project)
    variants = {"base": [None], "finetune": ["ft"], "rl": ["rl"]} | {key: ["it", "ft", "rl"] for key in MEASURE}
    for stage in STAGES:
        run = importlib.import_module(f"detoxlens.pipeline.stages.{stage}").run
        if stage in ("prepare", "reward_model", "report"):
            run(project, params)
            continue
        for variant in variants.get(stage, []):
            run(project, params, model="redpajama-3b", **({"variant": variant} if variant else {}))
    for variant in ("it", "ft", "rl"):
        assert len(read_rows(layout.completions("redpajama-3b", variant), Completion)) == 5  # 1 + 3 of p50, 1 polite
        found = read_rows(layout.attributions("redpajama-3b", variant), Attribution)
        cells = {("it", "it")} if variant == "it" else {(variant, variant), (variant, "it"), ("it", variant)}
        assert {(a.reader, a.text_source) for a in found} == cells and {a.status for a in found} == {"ok"}
    assert (layout.reports / "table1.md").exists()
