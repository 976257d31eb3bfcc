"""`detoxlens bench seeds`: the verdict by hand, and all of it on a study of toy size, twice."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from detoxlens.bench import seeds as bench
from detoxlens.common.artifacts import write_json, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.params.load import Params, load_params
from tests.pipeline.stages.study import make_study, params_of
from tests.pipeline.stages.test_rl import PPO
from tests.root import ROOT

STAGES = "detoxlens.pipeline.stages."


@pytest.fixture
def params() -> Params:
    raw = params_of(generation={"max_new_tokens": 4, "num_samples": 1}).raw
    full = load_params(ROOT / "params.yaml").raw
    raw["variants"]["rl"] = {"kind": "rl", "algorithm": "ppo"}
    raw["lora"] = full["lora"] | {"target_modules": ["query_key_value"]}
    return Params(raw | {"ppo": PPO, "reward_model": full["reward_model"], "report": full["report"]})


def test_each_seed_is_a_variant_of_one_group(params):
    seeded = bench.with_seeds(params, "rl", 2)
    assert seeded.run.variants == ["it", "rl-s0", "rl-s1"] and seeded.run.rl_variants == ["rl-s0", "rl-s1"]
    assert seeded.variant("rl-s1").group == "rl" and seeded.training_seed("rl-s1") == 1
    assert params.run.variants == ["it", "ft"]  # as they were


def test_the_kept_adapter_is_the_least_toxic_within_the_budget():
    def row(step, toxicity, kl):
        return {"step": step, "ppo/val_toxicity": toxicity, "ppo/val_kl_nats_per_sequence": kl}

    history = [row(0, 0.6, 0.0), {"step": 1, "ppo/reward": 0.1}, row(2, 0.2, 2.9), row(3, 0.2, 1.0), row(4, 0.0, 3.1)]
    assert bench.kept_row(history, 3.0)["step"] == 2  # the first of equals; step 4 is beyond the budget
    assert bench.kept_row([row(4, 0.0, 3.1), row(5, 0.5, 4.0)], 3.0)["step"] == 4


def test_the_table_fits_a_terminal_and_shows_what_was_missed():
    one = bench.SeedOutcome(
        model="tiny-falcon",
        seed=0,
        it_val_rate=0.5,
        it_test_rate=0.623,
        val_rate=0.1,
        test_rate=0.1,
        kept_step=24,
        kl_nats_per_sequence=1.1,
        kl_budget=3.0,
        met=True,
    )
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(bench.table_of([one, dataclasses.replace(one, seed=1, met=False)]))
    text = console.export_text(styles=True)
    assert "62.3 -> 10.0" in text and "…" not in text and "budget 3" in text
    assert "\x1b[32mmet" in text and "\x1b[31mmissed" in text


def test_a_study_is_run_seed_by_seed_and_not_again(tmp_path, params, monkeypatch, capsys):
    layout = make_study(tmp_path)
    turns = [("Zorgons are fools.", "Zorgons mend the bridge."), ("Banjoists are clowns.", "Banjoists sing well.")] * 2
    rows = [
        Dialogue(dialogue_id=str(i), target="X", source="test", split="train", turns=(f"{n} {i}", reply))
        for i, (n, reply) in enumerate(turns)
    ]
    write_rows(layout.dialogues, rows, Dialogue)
    write_json(tmp_path / "params.yaml", params.raw)  # which is YAML too
    before = sorted(p for p in tmp_path.rglob("*") if ".detoxlens" not in p.parts)

    def run(num_seeds):
        ran = []
        real = bench.importlib.import_module

        def watched(name, *package):
            ran.extend([name.removeprefix(STAGES)] if name.startswith(STAGES) else [])
            return real(name, *package)

        with monkeypatch.context() as patch:
            patch.setattr(bench.importlib, "import_module", watched)
            bench.bench_seeds(tmp_path, tmp_path / "params.yaml", variant="rl", models=["m"], num_seeds=num_seeds)
        return ran

    assert run(1) == ["generate", "score", "rl", "generate", "score"]
    assert run(2) == ["rl", "generate", "score"]  # the second seed alone
    written = json.loads((tmp_path / "reports/bench/ppo_seeds.json").read_text(encoding="utf-8"))
    assert [o["seed"] for o in written["outcomes"]] == [0, 1]
    for o in written["outcomes"]:
        half = o["val_rate"] <= o["it_val_rate"] / 2 and o["test_rate"] <= o["it_test_rate"] / 2
        assert o["met"] == (half and o["kl_nats_per_sequence"] <= o["kl_budget"])
    assert written["met"] == all(o["met"] for o in written["outcomes"])
    assert "of 2: at most half as toxic" in capsys.readouterr().out
    changed = {p for p in tmp_path.rglob("*") if ".detoxlens" not in p.parts} - set(before)
    assert {p.relative_to(tmp_path).parts[0] for p in changed} == {"reports"}


def test_a_variant_that_ppo_does_not_train_is_refused(tmp_path, params):
    write_json(tmp_path / "params.yaml", params.raw)  # which is YAML too
    with pytest.raises(UserError, match=r"variants\.ft is another"):
        bench.bench_seeds(tmp_path, tmp_path / "params.yaml", variant="ft", models=[], num_seeds=1)
