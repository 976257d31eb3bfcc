"""DPO and KTO: the losses of TRL's own trainers and of the papers on the same tensors, resume, and what is refused."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from detoxlens.common.errors import UserError
from detoxlens.models.likelihood import completion_nll
from detoxlens.models.lora import add_adapter
from detoxlens.models.tiny import build, train_tokenizer
from detoxlens.params.lora import LoraConfig
from detoxlens.params.preference import PairsConfig, PreferenceConfig
from detoxlens.preference.pairs import Pair
from detoxlens.preference.train import dpo_rows, kto_rows, make_trainer, num_steps, tune
from tests.sft.test_train import TINY

CONFIG = PreferenceConfig(
    pairs=PairsConfig(source="best_of_n", num_samples=2, min_margin=0.0, max_context_turns=1),
    beta=0.3,
    num_epochs=4,
    learning_rate=0.02,
    weight_decay=0.0,
    warmup_steps=1,
    batch_size=4,
    gradient_accumulation_steps=1,
    max_length=64,
    gradient_checkpointing=False,
    eval_every=2,
)
LORA = LoraConfig(r=2, alpha=4, dropout=0.0, target_modules="all-linear")
TEXTS = [
    ("Zorgons are slow", " Zorgons are kind", " slow fools"),
    ("They hum", " so do I", " they are fools and they hum"),
    ("Knitters", " knit", " Knitters are slow"),
    ("Jugglers are slow", " they are kind to all of us", " fools"),
    ("I hear they hum", " kind", " slow"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([text for texts in TEXTS for text in texts] * 3, 300)


def network(tokenizer):
    torch.manual_seed(0)
    model = build("gpt_neox", TINY, vocab_size=len(tokenizer)).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform
    return model.requires_grad_(False)


def references(model, tokenizer):
    def of(prompts, answers):
        found = completion_nll(model, prompts, answers, batch_size=4, pad_token_id=tokenizer.pad_token_id)
        return [-nll for nll in found]

    return of


def pairs_of(model, tokenizer):
    prompts, chosen, rejected = (tokenizer([t[i] for t in TEXTS])["input_ids"] for i in range(3))
    chosen, rejected = ([[*ids, tokenizer.eos_token_id] for ids in answers] for answers in (chosen, rejected))
    reference = references(model, tokenizer)
    return [
        Pair(
            split="train",
            source="best_of_n",
            prompt=TEXTS[i][0],
            chosen=TEXTS[i][1],
            rejected=TEXTS[i][2],
            chosen_toxicity=0.1,
            rejected_toxicity=0.9,
            prompt_ids=tuple(prompts[i]),
            chosen_ids=tuple(chosen[i]),
            rejected_ids=tuple(rejected[i]),
            chosen_seed=1,
            rejected_seed=2,
            chosen_ref_nats=reference([prompts[i]], [chosen[i]])[0],
            rejected_ref_nats=reference([prompts[i]], [rejected[i]])[0],
        )
        for i in range(len(TEXTS))
    ]


def rows_of(algorithm, pairs, model, tokenizer):
    if algorithm == "dpo":
        return dpo_rows(pairs)
    return kto_rows(pairs, references(model, tokenizer), batch_size=CONFIG.batch_size, seed=0)


def moved(policy):
    """Every weight of the adapter drawn anew: a fresh one changes nothing."""
    torch.manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora" in name:
            parameter.data = torch.randn_like(parameter) * 0.3
    return policy


def log_ratio(policy, prompt, answer):
    """log p(answer | prompt) under the policy, minus under the base model: plain passes, one sequence at a time."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        one = policy(ids).logits[0, :-1].double().log_softmax(-1)
        with policy.disable_adapter():
            two = policy(ids).logits[0, :-1].double().log_softmax(-1)
    at = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
    return (one - two)[at, ids[0, 1:][at]].sum()


def by_hand(policy, algorithm, rows):
    """The papers' formulas."""
    if algorithm == "dpo":
        margins = [
            log_ratio(policy, r["prompt_ids"], r["chosen_ids"]) - log_ratio(policy, r["prompt_ids"], r["rejected_ids"])
            for r in rows
        ]
        return -F.logsigmoid(CONFIG.beta * torch.stack(margins)).mean()
    z = torch.stack([log_ratio(policy, r["prompt_ids"], r["KL_completion_ids"]) for r in rows]).mean().clamp(min=0)
    signs = torch.tensor([1.0 if r["label"] else -1.0 for r in rows])
    ratios = torch.stack([log_ratio(policy, r["prompt_ids"], r["completion_ids"]) for r in rows])
    return (1 - torch.sigmoid(CONFIG.beta * signs * (ratios - z))).mean()


def trls_own(algorithm, rows, tokenizer, folder):
    """TRL's trainer as TRL documents it: given texts, it tokenises, pairs and measures the reference by itself."""
    from peft import LoraConfig as PeftLoraConfig

    def text(ids):
        return tokenizer.decode(ids, skip_special_tokens=True)

    own_config, own_trainer = {"dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer)}[algorithm]
    names = ("prompt", "chosen", "rejected") if algorithm == "dpo" else ("prompt", "completion")
    texts = [{name: text(row[f"{name}_ids"]) for name in names} | {"label": row.get("label")} for row in rows]
    if algorithm == "dpo":
        texts = [{name: row[name] for name in names} for row in texts]
    return own_trainer(
        model=network(tokenizer),
        args=own_config(
            output_dir=str(folder),
            beta=CONFIG.beta,
            per_device_train_batch_size=CONFIG.batch_size,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
        peft_config=PeftLoraConfig(
            r=LORA.r,
            lora_alpha=LORA.alpha,
            target_modules=["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
            task_type="CAUSAL_LM",
        ),
    )


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_the_loss_is_trls_own_and_the_papers_on_the_same_tensors(tokenizer, tmp_path, algorithm):
    base = network(tokenizer)
    rows = rows_of(algorithm, pairs_of(base, tokenizer), base, tokenizer)[: CONFIG.batch_size]
    policy = moved(add_adapter(base, LORA))
    ours = make_trainer(
        policy,
        tokenizer,
        algorithm=algorithm,
        train=rows,
        validation=rows,
        config=CONFIG,
        seed=0,
        checkpoints=tmp_path / "ours",
        on_step=lambda *_: None,
    )
    theirs = trls_own(algorithm, rows, tokenizer, tmp_path / "theirs")
    moved(theirs.model)
    batches = [trainer.data_collator(list(trainer.train_dataset)) for trainer in (ours, theirs)]
    for name in ("input_ids", "completion_mask", "KL_input_ids"):
        if name in batches[0]:
            assert torch.equal(batches[0][name], batches[1][name])
    assert any(name.startswith("ref_") for name in batches[0]) and not any(n.startswith("ref_") for n in batches[1])
    losses = [t.compute_loss(t.model, batch) for t, batch in zip((ours, theirs), batches, strict=True)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    expected = by_hand(policy, algorithm, rows).float()
    torch.testing.assert_close(losses[0].detach(), expected, rtol=1e-5, atol=1e-6)
    losses[0].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for n, p in policy.named_parameters() if "lora_A" in n)


def test_at_the_first_step_policy_and_reference_are_one(tokenizer, tmp_path):
    base = network(tokenizer)
    rows = dpo_rows(pairs_of(base, tokenizer))
    history = train("dpo", rows, base, tokenizer, tmp_path)
    assert history[0]["preference/loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2


def test_ktos_batches_have_as_many_of_each_and_neighbours_answer_different_prompts(tokenizer):
    base = network(tokenizer)
    pairs = pairs_of(base, tokenizer)
    rows = kto_rows(pairs, references(base, tokenizer), batch_size=4, seed=3)
    assert len(rows) == 2 * len(pairs)
    assert [row["label"] for row in rows] == [True, False] * len(pairs)
    assert all(one["prompt_ids"] != two["prompt_ids"] for one, two in itertools.pairwise(rows))
    for start in (0, 4, 8):
        batch = rows[start : start + 4]
        assert [row["KL_completion_ids"] for row in batch[1:]] == [row["completion_ids"] for row in batch[:-1]]
        assert batch[0]["KL_completion_ids"] == batch[-1]["completion_ids"]
    one = rows[2]
    assert one["ref_KL_logps"] == pytest.approx(
        references(base, tokenizer)([one["prompt_ids"]], [one["KL_completion_ids"]])[0], rel=1e-5
    )
    assert rows == kto_rows(pairs, references(base, tokenizer), batch_size=4, seed=3)
    assert rows != kto_rows(pairs, references(base, tokenizer), batch_size=4, seed=4)


def train(algorithm, rows, base, tokenizer, folder, kill_at=None, **more):
    torch.manual_seed(7)
    policy = add_adapter(base, LORA)

    def on_step(num_new, num_done, row):
        if num_done == kill_at:
            raise KeyboardInterrupt

    history = tune(
        policy,
        tokenizer,
        algorithm=algorithm,
        train=rows,
        validation=rows,
        config=CONFIG.model_copy(update=more),
        seed=0,
        checkpoints=folder / "checkpoints",
        on_step=on_step,
    )
    weights = {n: p.detach().clone() for n, p in policy.named_parameters() if "lora" in n}
    assert not any(".ref." in name for name in weights) and "forward" not in policy.get_base_model().__dict__
    train.weights = weights
    return history


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_a_killed_run_ends_with_the_bytes_of_one_that_was_not(tokenizer, tmp_path, algorithm):
    def rows():
        base = network(tokenizer)
        return base, rows_of(algorithm, pairs_of(base, tokenizer), base, tokenizer)

    def run(folder, **more):
        base, found = rows()
        return train(algorithm, found, base, tokenizer, tmp_path / folder, **more)

    whole, weights = run("whole"), train.weights
    assert whole[-1]["step"] == num_steps(len(rows()[1]), CONFIG)
    losses = [row["preference/val_loss"] for row in whole if "preference/val_loss" in row]
    assert min(losses) < losses[0]  # it learns
    with pytest.raises(KeyboardInterrupt):
        run("killed", kill_at=5)
    resumed = run("killed")
    assert resumed == whole
    assert all(torch.equal(train.weights[name], weights[name]) for name in weights)


def test_an_adapter_on_the_output_layer_and_a_loss_that_is_no_number_are_refused(tokenizer, tmp_path):
    base = network(tokenizer)
    rows = dpo_rows(pairs_of(base, tokenizer))
    with pytest.raises(UserError, match=r"preference.learning_rate=1e\+20"):
        train("dpo", rows, base, tokenizer, tmp_path, learning_rate=1e20)
    policy = add_adapter(network(tokenizer), LORA.model_copy(update={"target_modules": ["lm_head"]}))
    with pytest.raises(UserError, match=r"dpo: lora\.target_modules has the output layer"):
        tune(
            policy,
            tokenizer,
            algorithm="dpo",
            train=rows,
            validation=rows,
            config=CONFIG,
            seed=0,
            checkpoints=tmp_path,
            on_step=lambda *_: None,
        )
