"""The whole study in one process on a very small scale: embedded models, and checkpoints on disk of the paper's two
architectures with the paper's templates, adapters, loss and decoding. Every stage does its real work.
"""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from ruamel.yaml import YAML

from detoxlens.common.artifacts import Layout, read_history, read_json, read_model_ref, read_rows, write_text
from detoxlens.common.records import Attribution, Completion, Score
from detoxlens.models.tiny import build, train_tokenizer
from detoxlens.params.check import check_params
from detoxlens.params.load import Params
from detoxlens.params.reads import STAGES
from detoxlens.params.tiny import TinyConfig
from tests.root import ROOT

pytestmark = pytest.mark.filterwarnings("default")  # third-party noise is another test's business
SMALL = {"vocab_size": 400, "hidden_size": 16, "num_layers": 1, "num_heads": 2}


def raw_params():
    return YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def shrink(raw, models):
    """The committed params with everything small, for `models`."""
    raw = copy.deepcopy(raw)
    raw["run"] |= {"models": models, "num_threads": 1}
    raw["tiny"] |= SMALL | {"num_examples": 200, "num_steps": 3, "batch_size": 8}
    raw["reward_model"]["tiny"] |= SMALL | {"num_examples": 100, "num_steps": 3, "batch_size": 8}
    for split in raw["splits"].values():
        split |= {"max_val": min(4, split["max_val"]), "max_test": 12}
    sft = {"num_epochs": 0.1, "eval_every": 1, "warmup_steps": 0, "batch_size": 8, "max_length": 96}
    decoding = {"max_new_tokens": 8, "min_new_tokens": 2}
    raw["sft"] |= sft
    raw["generation"] |= decoding
    batches = {"minibatch_size": 4, "micro_batch_size": 4, "num_epochs": 1, "max_prompt_tokens": 192}
    raw["ppo"] |= {"num_steps": 2, "rollout_batch_size": 8} | batches
    raw["ppo"]["validation"] |= {"every": 1, "num_prompts": 4}
    raw["attribution"] |= {"max_sequences": 6}
    raw["report"]["bootstrap"] |= {"num_resamples": 100}
    raw["report"] |= {"min_sequences_per_step": 2}
    for model in raw["models"].values():
        overrides = model.setdefault("overrides", {})
        overrides.setdefault("sft", {}).update(sft)
        overrides.setdefault("generation", {}).update(decoding)
        overrides.setdefault("ppo", {}).update(batches)
        overrides.setdefault("lora", {})["r"] = 2
    return raw


def run_all(root, params):
    """Every stage in the order of dvc.yaml."""
    import importlib

    stage = {name: importlib.import_module(f"detoxlens.pipeline.stages.{name}") for name in STAGES}
    run = params.run
    check_params(params)
    stage["prepare"].run(root, params)
    stage["reward_model"].run(root, params)
    for model in run.models:
        stage["base"].run(root, params, model=model)
        for variant in run.sft_variants:
            stage["finetune"].run(root, params, model=model, variant=variant)
        for variant in run.rl_variants + run.rl_after_ft_variants:
            stage["rl"].run(root, params, model=model, variant=variant)
        for name in ("generate", "score", "attribute"):
            for variant in run.variants:
                stage[name].run(root, params, model=model, variant=variant)
    stage["report"].run(root, params)


def new_root(path):
    (path / "data").mkdir(parents=True)
    (path / "data/sample").symlink_to(ROOT / "data/sample")
    return path


def checkpoint(folder, architecture):
    """A random-weight checkpoint with a tokenizer, as a hub download leaves it."""
    torch.manual_seed(0)
    config = TinyConfig(**(raw_params()["tiny"] | SMALL | {"context_length": 256}))
    build(architecture, config, vocab_size=400).save_pretrained(folder)
    tokenizer = train_tokenizer([(ROOT / "data/sample/dialogues.csv").read_text(encoding="utf-8")], 400)
    tokenizer.save_pretrained(folder)


def papers_models(root):
    """Params for checkpoints on disk of the paper's two architectures, with random weights."""
    raw = shrink(raw_params(), ["redpajama-3b", "falcon-7b"])
    for model, architecture in (("redpajama-3b", "gpt_neox"), ("falcon-7b", "falcon")):
        checkpoint(root / "checkpoints" / model, architecture)
        raw["models"][model] |= {"source": f"checkpoints/{model}", "dtype": "float32"}
    return raw


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The paper's two models and `rl` after `ft`, all stages run."""
    root = new_root(tmp_path_factory.mktemp("study"))
    raw = papers_models(root)
    raw["variants"]["ftrl"] = {"kind": "rl", "algorithm": "ppo", "init_from": "ft"}
    raw["run"] |= {"variants": ["it", "ft", "rl", "ftrl"], "rl_after_ft_variants": ["ftrl"]}
    params = Params(raw)
    run_all(root, params)
    return root, params


def test_every_variant_of_the_papers_models_has_its_tables(study):
    root, params = study
    layout = Layout(root)
    for model in params.run.models:
        ids = None
        for variant in params.run.variants:
            completions = read_rows(layout.completions(model, variant), Completion)
            keys = [(c.prompt_id, c.sample_index) for c in completions]
            ids = ids or keys
            assert keys == ids  # the same prompts for every variant
            assert [(s.prompt_id, s.sample_index) for s in read_rows(layout.scores(model, variant), Score)] == keys
            attributions = read_rows(layout.attributions(model, variant), Attribution)
            cells = {(a.reader, a.text_source) for a in attributions if a.status == "ok"}
            of_variant = {(variant, variant), (variant, "it"), ("it", variant)}
            assert cells == ({("it", "it")} if variant == "it" else of_variant)
            for a in attributions:
                for t, row in enumerate(a.scores or ()):
                    assert len(row) == len(a.prompt_ids) + t and abs(sum(row) - 1) < 1e-5


def test_prompts_are_written_in_the_papers_template(study):
    root, _ = study
    row = read_rows(Layout(root).completions("redpajama-3b", "it"), Completion)[0]
    from transformers import AutoTokenizer

    text = AutoTokenizer.from_pretrained(root / "checkpoints/redpajama-3b").decode(row.prompt_ids)
    assert text == f'<human>: "{row.prompt}".\n<bot>: '


def test_adapters_have_the_papers_shape_and_load_with_plain_peft(study):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    root, params = study
    config = read_json(Layout(root).adapter("falcon-7b", "ft") / "adapter_config.json")
    assert config["target_modules"] == ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]
    assert (config["lora_alpha"], config["lora_dropout"]) == (32, 0.05)
    for model in params.run.models:
        for variant in ("ft", "rl", "ftrl"):
            folder = Layout(root).adapter(model, variant)
            base = AutoModelForCausalLM.from_pretrained(root / "checkpoints" / model)
            PeftModel.from_pretrained(base, folder)
            assert read_history(folder)
            assert read_model_ref(folder).adapter == f"adapters/{model}/{variant}"
            assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))


def test_metrics_hold_every_model_variant_and_split(study):
    root, params = study
    metrics = read_json(Layout(root).reports / "metrics.json")
    for model in params.run.models:
        for variant in params.run.variants:
            toxicity = metrics[model][variant]["toxicity"]
            assert {"p50", "polite", "val"} <= set(toxicity)
            counted = toxicity["p50"]
            assert counted["num_scored"] + counted["num_empty"] + counted["num_failed"] == 12


def test_the_report_stands_alone_and_escapes_what_models_wrote(study):
    root, _ = study
    page = (Layout(root).reports / "index.html").read_text(encoding="utf-8")
    assert "<human>" not in page and "<|endoftext|>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


SAME = ("adapters/*/*/adapter_model.safetensors", "adapters/*/*/adapter_config.json", "outputs/*/*/*", "reports/*.*")


def _digest(root):
    import hashlib

    files = sorted(f for pattern in SAME for f in root.glob(pattern) if f.is_file())
    assert len(files) > 15
    return {f.relative_to(root).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.slow
@pytest.mark.parametrize("quantization, frugal", [("4bit", False), ("8bit", False), ("8bit", True)])
def test_every_stage_runs_on_quantized_weights(tmp_path, quantization, frugal):
    """On a CPU, by bitsandbytes itself (extra quant): trained, sampled from, graded and attributed.

    Frugal: placed by accelerate, activations computed twice, no adapter on the layers that Falcon writes into.
    """
    pytest.importorskip("bitsandbytes")
    root = new_root(tmp_path)
    raw = papers_models(root)
    raw["attribution"]["precision_check"] = True
    for model in raw["run"]["models"]:
        raw["models"][model]["quantization"] = quantization
        if frugal:
            raw["models"][model]["device_map"] = "auto"
            overrides = raw["models"][model]["overrides"]
            overrides["lora"]["target_modules"] = ["query_key_value"]
            for section in ("sft", "ppo"):
                overrides[section]["gradient_checkpointing"] = True
    run_all(root, Params(raw))
    layout = Layout(root)
    for model in raw["run"]["models"]:
        for variant in raw["run"]["variants"]:
            rows = read_rows(layout.attributions(model, variant), Attribution)
            assert rows and {row.status for row in rows} <= {"ok", "empty"}
        deviation = read_json(layout.faithfulness(model, "ft"))["precision"]
        assert deviation["dtype"] == quantization and 0 < deviation["score"]["max"] < 0.5


@pytest.mark.slow
def test_same_seed_same_bytes_across_hash_seeds_and_another_seed_does_not(tmp_path):
    digests = []
    for number, (hash_seed, seed) in enumerate((("1", 0), ("2", 0), ("1", 1))):
        root = new_root(tmp_path / str(number))
        raw = shrink(raw_params(), ["tiny-neox"])
        raw["run"]["seed"] = seed
        write_text(root / "params.json", json.dumps(raw))
        code = (
            "import json, sys; from pathlib import Path; from detoxlens.params.load import Params\n"
            "from tests.pipeline.test_pipeline import run_all\n"
            "root = Path(sys.argv[1]); run_all(root, Params(json.loads((root / 'params.json').read_text())))"
        )
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", code, str(root)], cwd=ROOT, env=environment, check=True, timeout=600)
        digests.append(_digest(root))
    assert digests[0] == digests[1]
    trained = [name for name in digests[0] if name.endswith(("adapter_model.safetensors", "completions.parquet"))]
    assert all(digests[0][name] != digests[2][name] for name in trained)
