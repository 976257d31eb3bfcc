"""The benchmark at scale: on tiny shapes every stage runs as it would at full size, and a stopped run goes on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types

import pytest
import torch
import transformers as hf

from detoxlens.bench import scale
from detoxlens.bench.scale import PER_VARIANT, StageCost, Task, bench_scale, run_at, table_of, tasks_of
from detoxlens.bench.scale_sizes import SIZES, Size, check_fits, cut_down, falcon, neox, peak_bytes
from detoxlens.bench.scale_stage import filled, main, write_checkpoint
from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion
from detoxlens.models import tiny
from detoxlens.models.footprint import weights_of
from detoxlens.params.check import check_params
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import load_params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.sft import SftConfig
from tests.root import ROOT

TINY = Size(
    configs={
        "redpajama-3b": neox(32, 2, vocab=1100, heads=4),
        "falcon-7b": falcon(32, 2, vocab=1100, heads=4),
    },
    device="cpu",
    num_prompts=4,
    num_ppo_steps=1,
    sft_epochs=1e-3,
    max_batch=4,
    num_attributed=1,
)


def params_of(size, *, num_prompts=4, max_new_tokens=6):
    """The committed params cut down, in float32 (a tiny Falcon is slow in bfloat16), with a quick reward model."""
    params = load_params(ROOT / "params.yaml")
    params.raw["reward_model"]["tiny"] |= {"num_steps": 2, "num_examples": 100}
    params.raw["report"]["bootstrap"]["num_resamples"] = 100
    for model in size.configs:
        params.raw["models"][model]["dtype"] = "float32"
        params.raw["models"][model]["overrides"]["generation"]["max_new_tokens"] = max_new_tokens
        params.raw["models"][model]["overrides"]["lora"]["r"] = 2
    return cut_down(params, ROOT, size, num_prompts=num_prompts)


@pytest.mark.parametrize("name", SIZES)
def test_the_cut_down_params_are_valid_and_keep_the_authors_settings(name):
    committed = load_params(ROOT / "params.yaml")
    small = cut_down(committed, ROOT, SIZES[name], num_prompts=SIZES[name].num_prompts)
    check_params(small)
    test, val = small.raw["splits"]["p50"]["max_test"], small.raw["splits"]["selection"]["max_val"]
    assert test + val == SIZES[name].num_prompts and val >= 1
    for model in ("redpajama-3b", "falcon-7b"):
        for section, cls in (("lora", LoraConfig), ("generation", GenerationConfig)):
            assert small.section(section, cls, model=model) == committed.section(section, cls, model=model)
        sft = small.section("sft", SftConfig, model=model)
        assert (sft.loss_on, sft.examples, sft.max_length) == ("all", "prefixes", 512)
        assert small.model(model).template == committed.model(model).template


def test_a_tenth_is_a_tenth_with_the_published_heads_and_vocabulary():
    for model in ("redpajama-3b", "falcon-7b"):
        full, tenth = (SIZES[name].configs[model] for name in ("full", "tenth"))
        assert weights_of(full).num_parameters / weights_of(tenth).num_parameters == pytest.approx(10, rel=0.05)
        width = {"hidden_size", "num_hidden_layers", "intermediate_size"}
        assert {k: v for k, v in full.items() if k not in width} == {k: v for k, v in tenth.items() if k not in width}
    assert weights_of(SIZES["full"].configs["falcon-7b"]).num_parameters == 6_921_720_704
    shape = hf.AutoConfig.for_model(**SIZES["tenth"].configs["redpajama-3b"])
    assert shape.rope_parameters["partial_rotary_factor"] == 1.0 and not shape.use_parallel_residual


def test_made_up_words_fill_a_vocabulary_and_no_text_has_them():
    learnt = tiny.train_tokenizer(["Zorgons hum. ~ ~300 ~301"], 300)
    tokenizer = filled(learnt, 400)
    assert len(tokenizer) == 400 and tokenizer.eos_token_id == learnt.eos_token_id
    text = "Zorgons hum ~300 ~350."
    assert tokenizer(text).input_ids == learnt(text).input_ids
    assert tokenizer.decode([350, 399]) == " ~350 ~399"


def test_a_checkpoint_is_one_that_the_pipeline_loads(tmp_path):
    write_checkpoint(TINY.configs["falcon-7b"], tmp_path, device="cpu", dtype="bfloat16")
    network = hf.AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=True)
    assert network.num_parameters() == weights_of(TINY.configs["falcon-7b"]).num_parameters
    assert network.dtype == torch.bfloat16 and len(hf.AutoTokenizer.from_pretrained(tmp_path)) == 1100


def in_this_process(folder, task, size):
    order = {"folder": str(folder), "device": size.device, "config": size.configs.get(task.model)}
    main(order | dataclasses.asdict(task))
    return 0.5


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft's, see cli.app.NOISE
def test_every_stage_runs_at_a_tiny_shape(tmp_path):
    size = dataclasses.replace(TINY, configs={"redpajama-3b": TINY.configs["redpajama-3b"]})
    costs = run_at(tmp_path / "study", params_of(size), size, launch=in_this_process)
    assert [(c.stage, c.model, c.variant) for c in costs] == [
        (t.stage, t.model, t.variant) for t in tasks_of(["redpajama-3b"])
    ]
    assert costs[-1].stage == "report" and all(c.seconds > 0 and c.peak_gib == 0.5 for c in costs)
    assert all((c.tokens_per_second is not None) == (c.stage == "generate") for c in costs)
    layout = Layout(tmp_path / "study")
    for variant in PER_VARIANT:
        assert len(read_rows(layout.completions("redpajama-3b", variant), Completion)) == 4
        found = read_rows(layout.attributions("redpajama-3b", variant), Attribution)
        assert {(a.text_source, a.status) for a in found} == {("own", "ok"), ("it", "ok")} and len(found) == 2
    assert (layout.reports / "table1.md").exists()
    assert table_of(costs, title="t").row_count == len(costs)


def test_a_stopped_run_goes_on_behind_its_last_finished_stage_and_another_study_begins_anew(tmp_path, monkeypatch):
    ran, most = [], [2]

    def launch(folder, task, size):
        if len(ran) == most[0]:
            raise InterruptedError
        ran.append(task)
        scratch = Layout(folder).state / "scratch"
        assert not scratch.exists()  # what a stopped stage has left is not gone on from: it would be timed as half
        scratch.mkdir(parents=True)
        return 1.0

    tasks = [t for t in tasks_of(["redpajama-3b"]) if t.stage != "generate"]  # whose speed is read from its output
    monkeypatch.setattr(scale, "tasks_of", lambda models: iter(tasks))
    params = params_of(TINY)
    with pytest.raises(InterruptedError):
        run_at(tmp_path / "study", params, TINY, launch=launch)
    assert ran == tasks[:2]
    most[0] = len(tasks)
    costs = run_at(tmp_path / "study", params, TINY, launch=launch)
    assert ran == tasks and [c.stage for c in costs] == [t.stage for t in tasks]
    ran.clear()
    run_at(tmp_path / "study", params_of(TINY, num_prompts=8), TINY, launch=launch)
    assert ran == tasks


def test_what_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    from detoxlens.bench import scale_sizes

    params = cut_down(load_params(ROOT / "params.yaml"), ROOT, SIZES["tenth"], num_prompts=4)
    config = SIZES["tenth"].configs["falcon-7b"]
    # weights in bfloat16; 4 rows of a cache of 2 x 11 x 2272 numbers per token, and of logits
    text = 512 + 70
    expected = 2 * 717_206_784 + 4 * (2 * 11 * 2272 * text * 2 + 32 * 65_024)
    assert peak_bytes(config, params, "falcon-7b")["generate"] == expected
    monkeypatch.setattr(scale_sizes, "free_memory_gib", lambda: 4.0)
    with pytest.raises(UserError, match=r"of falcon-7b needs about [\d.]+ GiB of memory, and 4\.0 GiB of this machine"):
        check_fits(SIZES["tenth"], params, tmp_path / "not" / "yet")
    monkeypatch.setattr(scale_sizes, "free_memory_gib", lambda: 64.0)
    check_fits(SIZES["tenth"], params, tmp_path)
    monkeypatch.setattr(scale_sizes.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**30))
    with pytest.raises(UserError, match=r"the checkpoints take 1\.9 GiB of disk, and 1\.0 GiB are free"):
        check_fits(SIZES["tenth"], params, tmp_path)


def test_an_entry_is_written_beside_the_others(tmp_path, monkeypatch, capsys):
    path = tmp_path / "reports/bench/scale.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"full/cuda": {"stages": "a GPU's"}}))
    cost = StageCost(stage="rl", model="m", variant="rl", seconds=2.0, peak_gib=1.0, tokens_per_second=None)
    asked = []

    def run(folder, params, size):
        asked.append(folder)
        folder.mkdir(parents=True)
        return [cost]

    monkeypatch.setattr(scale, "run_at", run)
    bench_scale(tmp_path, ROOT / "params.yaml", name="small", size=TINY, num_prompts=4)
    found = json.loads(path.read_text())
    assert found["full/cuda"] == {"stages": "a GPU's"}
    assert found["small/cpu"]["stages"] == [dataclasses.asdict(cost)] and found["small/cpu"]["num_prompts"] == 4
    assert not asked[0].exists() and "Wrote reports/bench/scale.json" in capsys.readouterr().out


def test_without_a_gpu_the_full_size_says_so_and_records_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench_scale(tmp_path, ROOT / "params.yaml", name="full", size=SIZES["full"], num_prompts=64)
    assert "no GPU was found" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_fails_is_told_with_its_last_words(tmp_path):
    params = params_of(TINY)
    params.raw["data"]["rtp"] = "nowhere.jsonl"
    (tmp_path / "params.yaml").write_text(json.dumps(params.raw))
    with pytest.raises(UserError, match=r"bench scale: prepare ended with exit code 1 and said: .*nowhere\.jsonl"):
        scale.in_a_process(tmp_path, Task(stage="prepare"), TINY)


@pytest.mark.slow
def test_two_architectures_in_processes_of_their_own_and_ctrl_c(tmp_path):
    """Ctrl-C in the middle of a stage ends its process, and the same command goes on."""
    script = (
        "import sys; from pathlib import Path; from tests.bench.test_scale import TINY, params_of; "
        "from detoxlens.bench.scale import run_at; run_at(Path(sys.argv[1]), params_of(TINY), TINY)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "study")]
    first = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    while not (tmp_path / "study/done.jsonl").exists():
        time.sleep(0.1)
        assert first.poll() is None
    time.sleep(2)
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(timeout=30) != 0
    with pytest.raises(ProcessLookupError):
        os.killpg(first.pid, 0)
    costs = run_at(tmp_path / "study", params_of(TINY), TINY)
    assert [c.stage for c in costs] == [t.stage for t in tasks_of(list(TINY.configs))]
    assert all(0.05 < c.peak_gib < 8 for c in costs)


@pytest.mark.slow
def test_a_tenth_of_both_models_goes_through_all_stages(tmp_path):
    size = SIZES["tenth"]
    params = cut_down(load_params(ROOT / "params.yaml"), ROOT, size, num_prompts=size.num_prompts)
    check_fits(size, params, tmp_path)
    costs = run_at(tmp_path / "study", params, size)
    assert [c.stage for c in costs] == [t.stage for t in tasks_of(list(size.configs))]
    assert max(c.peak_gib for c in costs if c.model == "falcon-7b") > 2 * 717e6 / 2**30
