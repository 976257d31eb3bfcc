"""A project on disk in which a policy can be trained: dialogues, prompts, a base model, a reward classifier."""

from pathlib import Path

import torch

from detoxlens.common.artifacts import Layout, write_model_ref, write_rows
from detoxlens.common.records import Dialogue, ModelRef, Prompt
from detoxlens.models import tiny
from detoxlens.models.loading import weights_sha256
from detoxlens.params.load import load_params

TURNS = [
    ("Zorgons are fools.", "Zorgons mend the bridge.", "Still fools.", "They are kind neighbours."),
    ("Banjoists are clowns.", "Banjoists sing well."),
    ("Jugglers drop it all.", "Jugglers help at the market."),
]


def dialogue(index: int, turns: tuple[str, ...], split: str = "train") -> Dialogue:
    return Dialogue(dialogue_id=str(index), target="X", source="test", split=split, turns=turns)


def prompt(index: int, text: str, split: str = "val") -> Prompt:
    return Prompt(prompt_id=str(index), split=split, filters=("p50",), text=text, toxicity=0.9)


def make_project(root: Path) -> Path:
    """A project root with data, a base model and a reward classifier, as the earlier stages leave it."""
    layout = Layout(root)
    write_rows(layout.dialogues, [dialogue(i, t) for i, t in enumerate(TURNS)], Dialogue)
    write_rows(layout.prompts, [prompt(i, t[0]) for i, t in enumerate(TURNS)], Prompt)
    sizes = load_params(Path(__file__).parents[3] / "params.yaml").raw["tiny"]
    small = tiny.TinyConfig(**sizes | {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "context_length": 96})
    tokenizer = tiny.train_tokenizer([t for turns in TURNS for t in turns], 300)
    for architecture, folder in (("gpt_neox", layout.base("tiny-neox")), ("roberta", layout.reward_model)):
        torch.manual_seed(0)
        tiny.build(architecture, small, vocab_size=len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        ref = ModelRef(base=folder.relative_to(root).as_posix(), revision=weights_sha256(folder), adapter=None)
        write_model_ref(layout.adapter("tiny-neox", "it") if architecture == "gpt_neox" else folder, ref)
    return root
