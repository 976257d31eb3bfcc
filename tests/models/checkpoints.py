"""Random-weight checkpoints for tests: a causal language model and a text classifier, each with its own tokenizer."""

from pathlib import Path

import torch
import transformers as hf
from tokenizers.processors import TemplateProcessing

from detoxlens.common.records import ModelRef
from detoxlens.models import tiny
from detoxlens.models.loading import weights_sha256

TEXTS = ["Zorgons are lazy.", "Accordion players are noisy.", "I like accordion players.", "Zorgons bake good bread."]
TEMPLATE = {"user": "<human>: {text}\n", "bot": "<bot>:", "reply": " {text}", "end": "\n"}


def save_language_model(
    folder: Path, architecture: str = "gpt_neox", *, seed: int = 0, context_length: int = 96, hidden_size: int = 32
) -> ModelRef:
    """A GPT-NeoX or Falcon with a byte-level tokenizer of 300 tokens, saved as `base` saves it."""
    tokenizer = tiny.train_tokenizer([*TEXTS, "<human>: <bot>:"], 300)
    torch.manual_seed(seed)
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": context_length,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "initializer_range": 0.2,
    }
    if architecture == "falcon":
        model = hf.FalconForCausalLM(hf.FalconConfig(**common, alibi=False))
    else:
        model = hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**common, intermediate_size=64))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelRef(base=folder.name, revision=weights_sha256(folder), adapter=None)


def save_classifier(
    folder: Path, *, labels=("nothate", "hate"), problem_type="single_label_classification", seed=0, num_positions=32
) -> hf.RobertaForSequenceClassification:
    """A RoBERTa classifier with random weights large enough that texts get different scores."""
    tokenizer = tiny.train_tokenizer(TEXTS, 300)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tiny.CLS} $A {tiny.SEP}",
        special_tokens=[(t, tokenizer.convert_tokens_to_ids(t)) for t in (tiny.CLS, tiny.SEP)],
    )
    torch.manual_seed(seed)
    model = hf.RobertaForSequenceClassification(
        hf.RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=num_positions + 2,
            type_vocab_size=1,
            initializer_range=0.5,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=3,
            id2label=dict(enumerate(labels)),
            problem_type=problem_type,
            label2id={label: i for i, label in enumerate(labels)},
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()
