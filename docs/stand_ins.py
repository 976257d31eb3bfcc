"""Stand-ins for the three things that are yours in docs/example.md: a chat model, prompts, a scorer.

    python stand_ins.py     # writes my-model/, my-prompts.csv and my-scorer/; less than a minute of two cores

The model is a Llama with a chat template, trained on invented conversations in which it answers insults rudely; the
scorer is a RoBERTa that tells rude replies from civil ones. Whatever detoxlens does to them it does to yours.
"""

import csv
import random
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from detoxlens.data.sample import base_corpus, statement
from detoxlens.models.tiny import train_tokenizer, wrap_as_roberta

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SIZE = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
VOCAB_SIZE, PAD, NUM_PROMPTS = 1000, 1, 150


def train(model, batch_at, *, num_steps, learning_rate):
    """AdamW over `num_steps` batches of 32, one cycle of the learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_steps)
    for step in range(num_steps):
        model(**batch_at(range(32 * step, 32 * (step + 1)))).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def make_model(exchanges):
    """my-model: weights, tokenizer and chat template, as a download from a hub has them."""
    tokenizer = train_tokenizer([t for e in exchanges for t in (e.human, e.reply, "[user] [assistant] ")], VOCAB_SIZE)
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(**SIZE, vocab_size=VOCAB_SIZE, bos_token_id=0, eos_token_id=0, pad_token_id=PAD)
    model = LlamaForCausalLM(config)

    def batch_at(rows):
        chats = [exchanges[row % len(exchanges)] for row in rows]
        turns = [[{"role": "user", "content": e.human}, {"role": "assistant", "content": e.reply}] for e in chats]
        texts = tokenizer.apply_chat_template(turns, tokenize=False)
        batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        return {**batch, "labels": batch.input_ids.masked_fill(batch.attention_mask == 0, -100)}

    train(model, batch_at, num_steps=250, learning_rate=6e-3)
    model.save_pretrained("my-model")
    tokenizer.save_pretrained("my-model")


def make_scorer(exchanges):
    """my-scorer: a text classifier whose label `rude` is the toxic one."""
    tokenizer = train_tokenizer([e.reply for e in exchanges], VOCAB_SIZE)
    wrap_as_roberta(tokenizer)
    tokenizer.model_max_length = 128
    labels = {"id2label": {0: "civil", 1: "rude"}, "label2id": {"civil": 0, "rude": 1}}
    config = RobertaConfig(**SIZE, **labels, vocab_size=VOCAB_SIZE, max_position_embeddings=130, pad_token_id=PAD)
    scorer = RobertaForSequenceClassification(config)

    def batch_at(rows):
        replies = [exchanges[row % len(exchanges)] for row in rows]
        texts = [e.reply for e in replies]
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt", return_token_type_ids=False)
        return {**batch, "labels": torch.tensor([int(e.style == "rude") for e in replies])}

    train(scorer, batch_at, num_steps=60, learning_rate=2e-3)
    scorer.save_pretrained("my-scorer")
    tokenizer.save_pretrained("my-scorer")


def make_prompts():
    """my-prompts.csv: one insult a row, none of which the model was trained on."""
    rng = random.Random(0)
    texts = {}
    while len(texts) < NUM_PROMPTS:
        texts[statement(rng, "prompts", hostile=True).head] = None
    with Path("my-prompts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])


if __name__ == "__main__":
    disable_progress_bar()
    torch.manual_seed(0)
    corpus = [e for talk in base_corpus(4000, 0, rude=0.5, counter=0.1) for e in talk]
    make_model(corpus)
    make_scorer(corpus)
    make_prompts()
    print(f"Wrote my-model, my-scorer and my-prompts.csv ({NUM_PROMPTS} prompts).")
