"""Small files in the formats of DialoCONAN and RealToxicityPrompts, of our own writing: nobody real is insulted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

COLUMNS = ("text", "TARGET", "dialogue_id", "turn_id", "type", "source")
OTHER_SCORES = (
    "severe_toxicity",
    "profanity",
    "sexually_explicit",
    "flirtation",
    "identity_attack",
    "threat",
    "insult",
)


def write_dialogues(path: Path, dialogues: dict[str, list[tuple[str, str]]]) -> Path:
    """Writes {dialogue_id: [(type, text), ...]} as a DialoCONAN CSV; turn ids count from 0."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for dialogue_id, turns in dialogues.items():
            for turn_id, (speaker, text) in enumerate(turns):
                writer.writerow([text, "ZORGONS", dialogue_id, turn_id, speaker, "sample"])
    return path


def plain_dialogues(num: int) -> dict[str, list[tuple[str, str]]]:
    """`num` dialogues of four turns that share no text."""
    return {
        str(i): [
            ("HS", f"Zorgons stole spoon {i}."),
            ("CN", f"Spoon {i} is in your own drawer."),
            ("HS", f"Then they stole fork {i}."),
            ("CN", f"Fork {i} lies beside it."),
        ]
        for i in range(num)
    }


def rtp_row(text: str, toxicity: float | None, *, continuation: float | None = 0.1, challenging: bool = False) -> dict:
    """One row of RealToxicityPrompts with all its fields."""

    def part(text: str, toxicity: float | None) -> dict:
        return {"text": text, "toxicity": toxicity, **dict.fromkeys(OTHER_SCORES, 0.0)}

    return {
        "filename": "sample.txt",
        "begin": 0,
        "end": 40,
        "challenging": challenging,
        "prompt": part(text, toxicity),
        "continuation": part(" and so on.", continuation),
    }


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
