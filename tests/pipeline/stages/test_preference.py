"""Stage preference, in-process, on random weights of the embedded architectures."""

import copy
import json
import shutil

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from detoxlens.common.artifacts import Layout, read_history, read_model_ref, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.models.generation import sample
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.load import Params, load_params
from detoxlens.pipeline.stages import preference
from detoxlens.preference.answers import answer_seed
from detoxlens.preference.pairs import Pair
from tests.pipeline.stages.project import TURNS, dialogue
from tests.root import ROOT

PREFERENCE = {
    "pairs": {"source": "counter_narrative", "num_samples": 3, "min_margin": 0.0, "max_context_turns": 1},
    "beta": 0.1,
    "num_epochs": 4,
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "max_length": 90,
    "gradient_checkpointing": False,
    "eval_every": 1,
}
FILES = ("adapter_model.safetensors", "adapter_config.json", "history.jsonl", "README.md", "pairs.parquet")


@pytest.fixture
def root(project, tmp_path):
    place = shutil.copytree(project, tmp_path / "project")
    rows = [dialogue(i, t) for i, t in enumerate(TURNS)] + [dialogue(9, t, split="val") for t in TURNS[:1]]
    write_rows(Layout(place).dialogues, rows, Dialogue)
    return place


def params_of(algorithm="dpo", **pairs) -> Params:
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["run"] |= {"num_threads": 1, "models": ["tiny-neox"], "variants": ["it", "p"], "preference_variants": ["p"]}
    raw["run"] |= {"sft_variants": [], "rl_variants": []}
    raw["variants"]["p"] = {"kind": "preference", "algorithm": algorithm}
    raw["preference"] = PREFERENCE | {"pairs": PREFERENCE["pairs"] | pairs}
    raw["generation"] |= {"max_new_tokens": 5, "min_new_tokens": 1}
    raw["lora"]["target_modules"] = ["query_key_value"]
    return Params(raw)


def made(root):
    return Layout(root).adapter("tiny-neox", "p")


@pytest.mark.parametrize(("algorithm", "source"), [("dpo", "counter_narrative"), ("kto", "best_of_n")])
def test_the_folder_holds_an_adapter_its_curves_its_card_and_the_pairs_the_same_bytes_after_a_kill(
    root, tmp_path, algorithm, source
):
    params = params_of(algorithm, source=source)
    other = shutil.copytree(root, tmp_path / "other")

    def kill(snapshot):
        if snapshot.fraction >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preference.run(root, params, model="tiny-neox", variant="p", callback=kill)
    assert not made(root).exists()
    for place in (root, other):
        preference.run(place, params, model="tiny-neox", variant="p")
    assert all((made(root) / name).read_bytes() == (made(other) / name).read_bytes() for name in FILES)
    assert read_model_ref(made(root)).adapter == "adapters/tiny-neox/p"
    assert json.loads((made(root) / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "models/tiny-neox/base"
    )
    assert {"preference/loss", "preference/val_loss"} <= {key for row in read_history(made(root)) for key in row}
    card = (made(root) / "README.md").read_text()
    assert f"trained by {algorithm.upper()}" in card and "pairs of 4 hater turns (train)" in card
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / "models/tiny-neox/base"), made(root))
    assert not [p for p in (root / ".detoxlens/scratch/preference@tiny-neox-p").iterdir() if p.is_dir()]


def test_pairs_are_drawn_again_from_their_seeds_and_say_what_the_reference_makes_of_them(root):
    params = params_of(source="best_of_n")
    preference.run(root, params, model="tiny-neox", variant="p")
    pairs = read_rows(made(root) / "pairs.parquet", Pair)
    assert {pair.split for pair in pairs} == {"train", "val"}
    ref = read_model_ref(Layout(root).adapter("tiny-neox", "it"))
    model, tokenizer = load_model(root, ref, params.model("tiny-neox"), device="cpu"), load_tokenizer(root, ref)
    decoding = params.section("generation", preference.GenerationConfig)
    for pair in pairs:
        assert pair.rejected_toxicity > pair.chosen_toxicity
        seeds = [answer_seed(0, pair.split, pair.prompt_ids, i) for i in range(3)]
        assert {pair.chosen_seed, pair.rejected_seed} <= set(seeds)
        for ids, seed in ((pair.chosen_ids, pair.chosen_seed), (pair.rejected_ids, pair.rejected_seed)):
            (again,) = sample(  # alone, not among the others
                model,
                [pair.prompt_ids],
                config=decoding,
                seeds=[seed],
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                batch_size=1,
            )
            assert again.token_ids[: len(ids)] == ids
        assert pair.chosen_ref_nats < 0 and pair.rejected_ref_nats < 0


def test_killed_while_it_draws_it_draws_the_rest_only(root, monkeypatch):
    import detoxlens.preference.answers as module

    monkeypatch.setattr(module, "BATCH_SIZE", 4)
    calls, plain = [], module.sample_batch

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(module, "sample_batch", killed)
    params = params_of()
    with pytest.raises(KeyboardInterrupt):
        preference.run(root, params, model="tiny-neox", variant="p")
    preference.run(root, params, model="tiny-neox", variant="p")
    assert len(calls) == 3 + 1 + 2  # 12 answers in 3 batches, the third again; then val's 6


def test_what_cannot_be_paired_is_refused_and_leaves_nothing(root):
    with pytest.raises(UserError, match=r"min_margin=0\.99: none of the 4 hater turns of the split 'train'"):
        preference.run(root, params_of(min_margin=0.99), model="tiny-neox", variant="p")
    blank = [dialogue(0, ("Zorgons are fools.", " ")), dialogue(1, ("Fools.", " "), split="val")]
    write_rows(Layout(root).dialogues, blank, Dialogue)
    with pytest.raises(UserError, match="source='counter_narrative': none of the 1 hater turns"):
        preference.run(root, params_of(), model="tiny-neox", variant="p")
    short = params_of()
    short.raw["preference"]["max_length"] = 8
    with pytest.raises(UserError, match=r"no hater turn of the split 'train' leaves room .* 1 need more than 8"):
        preference.run(root, short, model="tiny-neox", variant="p")
    assert not made(root).exists()


def test_the_grader_makes_no_pairs(root):
    params = params_of()
    params.raw["toxicity"] |= {"scorers": ["hf:models/reward"], "headline": "hf:models/reward"}
    with pytest.raises(UserError, match="headline='hf:models/reward' have the same weights"):
        preference.run(root, params, model="tiny-neox", variant="p")


def test_the_reward_model_and_not_the_grader_says_which_answer_is_chosen(root, monkeypatch):
    asked = []
    real = preference.make_scorer

    def make(name, **more):
        scorer = real(name, **more)
        monkeypatch.setattr(scorer, "score", lambda texts: asked.append(texts), raising=False)
        return scorer

    monkeypatch.setattr(preference, "make_scorer", make)
    preference.run(root, params_of(), model="tiny-neox", variant="p")
    assert asked == []
