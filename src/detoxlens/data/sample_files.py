"""The files of data/sample: a function of the seed makes each."""

from __future__ import annotations

from detoxlens.data.sample import dialogues_csv, prompts_jsonl, unseen_jsonl
from detoxlens.data.sample_civil import civil_jsonl, lookalike_jsonl, response_kinds_csv


def sample_files(seed: int) -> dict[str, str]:
    """{file name: text} of data/sample; the committed files are those of seed 0."""
    return {
        "dialogues.csv": dialogues_csv(seed),
        "prompts.jsonl": prompts_jsonl(seed),
        "unseen.jsonl": unseen_jsonl(seed),
        "civil.jsonl": civil_jsonl(seed),
        "lookalike.jsonl": lookalike_jsonl(seed),
        "response_kinds.csv": response_kinds_csv(seed),
    }
