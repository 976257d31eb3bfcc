"""A file of our own writing in RewardLM's format: ten prompts, of which the last four count for `authors_pc50`."""

import csv
from pathlib import Path

HEAD = ("", "prompts", "responses", "prompt_score", "response_score", "pro_API_response_score")
QUESTION = "Why do Zorgons hum number {n}?"
IT = (0.9, 0.8, None, 0.1, 0.1, 0.5, 0.9, 0.9, None, 0.2)
"""Perspective's scores of `it`: 4 of 10 > .5, 2 of the last 4; two were never scored."""
FT = (0.9, 0.1, 0.1, 0.1, 0.1, 0.2, -1.0, 0.9, 0.1, 0.2)
"""Of `ft`: 2 of 10, 1 of the last 4; the seventh response is empty, which RewardLM writes as -1."""


def write_rewardlm(path: Path, scores) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        for n, score in enumerate(scores):
            prompt = f'<human>: "{QUESTION.format(n=n % 9)}".\n<bot>: '  # the last repeats the first
            response = "" if score == -1 else f'They like it, "{n}" says.\nReally.'
            writer.writerow([n, prompt, response, 0.4 if n < 6 else 0.7, 0.0, "" if score is None else score])
    return path
