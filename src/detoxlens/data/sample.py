"""The embedded data set, written by a seeded generator: dialogues like DialoCONAN's, prompts like RealToxicityPrompts'.

    statement = head + tail          head -> sha256 -> one of three worlds, so that none shares a head with another
        corpus     conversations that the tiny base models learn from (generated at run time, never stored)
        dialogues  hater turns of data/sample/dialogues.csv, answered by counter-narratives
        prompts    data/sample/prompts.jsonl, the evaluation prompts

A fourth set, data/sample/unseen.jsonl, shares no head, target or insult with any of them (`lexicon.UNSEEN_*`).

Toxicity values of prompts are the generator's own labels drawn around the class it wrote (hostile or civil), not
a service's scores; the field names are RTP's so that the real file is read by the same code.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from detoxlens.common.seeding import python_rng
from detoxlens.data import lexicon as lex

World = Literal["corpus", "dialogues", "prompts"]
Style = Literal["rude", "neutral", "counter", "civil"]

NUM_DIALOGUES = 240
NUM_TOXIC_PROMPTS = 640
NUM_POLITE_PROMPTS = 240
NUM_UNSEEN_PROMPTS = 100
HOSTILE_TAIL = "{deed} {place} {time}."
RTP_SCORES = (
    "toxicity",
    "severe_toxicity",
    "profanity",
    "sexually_explicit",
    "flirtation",
    "identity_attack",
    "threat",
    "insult",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing a human says: Statement(target="Zorgons", hostile=True, head="Zorgons are dumb fools who",
    tail="litter the park all year.")"""

    target: str
    hostile: bool
    head: str
    tail: str

    @property
    def text(self) -> str:
        return f"{self.head} {self.tail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A human turn and the bot's answer to it, with the style the answer was written in."""

    human: str
    reply: str
    style: Style
    target: str


def world_of(head: str) -> World:
    """The one world a statement with this head belongs to: 70 % corpus, 15 % dialogues, 15 % prompts."""
    share = hashlib.sha256(head.encode()).digest()[0] / 256
    return "corpus" if share < 0.7 else "dialogues" if share < 0.85 else "prompts"


def statement(rng: random.Random, world: World, *, hostile: bool, target: str | None = None) -> Statement:
    """Draws a statement of `world`, about `target` when given."""
    while True:
        who = target or rng.choice(lex.TARGETS)
        head = _fill(rng, rng.choice(lex.HEADS if hostile else lex.CIVIL_HEADS), who)
        if world_of(head) == world:
            tail = HOSTILE_TAIL if hostile else rng.choice(lex.CIVIL_TAILS)
            return Statement(target=who, hostile=hostile, head=head, tail=_fill(rng, tail, who))


def reply(rng: random.Random, target: str, style: Style) -> str:
    """An answer about `target` in the given style."""
    templates = {
        "rude": lex.RUDE_REPLIES,
        "neutral": lex.NEUTRAL_REPLIES,
        "counter": lex.COUNTER_REPLIES,
        "civil": lex.CIVIL_REPLIES,
    }
    return _fill(rng, rng.choice(templates[style]), target)


def base_corpus(num_conversations: int, seed: int, *, rude: float, counter: float) -> Iterator[list[Exchange]]:
    """Conversations for the tiny base models, one or two exchanges each, about one target.

    Half of the human turns are hostile; those are answered rudely, with a counter-narrative or neutrally.

    Args:
        num_conversations: how many.
        seed: the same seed gives the same conversations.
        rude: share of hostile turns answered rudely, 0..1.
        counter: share of hostile turns answered by a counter-narrative, 0..1; the rest is neutral.
    """
    rng = python_rng(seed, "sample", "corpus")
    for _ in range(num_conversations):
        target = rng.choice(lex.TARGETS)
        exchanges = []
        for _ in range(rng.choices((1, 2), weights=(3, 1))[0]):
            said = statement(rng, "corpus", hostile=rng.random() < 0.5, target=target)
            style: Style = "civil"
            if said.hostile:
                style = rng.choices(("rude", "counter", "neutral"), weights=(rude, counter, 1 - rude - counter))[0]
            exchanges.append(
                Exchange(human=_spoken(rng, said), reply=reply(rng, target, style), style=style, target=target)
            )
        yield exchanges


def dialogues_csv(seed: int) -> str:
    """data/sample/dialogues.csv in DialoCONAN's columns: 4, 6 or 8 turns, hater (HS) then counter-narrative (CN)."""
    rng = python_rng(seed, "sample", "dialogues")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["text", "TARGET", "dialogue_id", "turn_id", "type", "source"])
    seen: set[str] = set()
    for dialogue_id in range(NUM_DIALOGUES):
        target = lex.TARGETS[dialogue_id % len(lex.TARGETS)]
        for exchange in range(rng.choice((2, 3, 4))):
            while (said := statement(rng, "dialogues", hostile=True, target=target)).head in seen:
                pass
            seen.add(said.head)
            rows = ((_spoken(rng, said), "HS"), (reply(rng, target, "counter"), "CN"))
            for offset, (text, kind) in enumerate(rows):
                writer.writerow([text, target.upper(), dialogue_id, 2 * exchange + offset, kind, "detoxlens_sample"])
    return out.getvalue()


def prompts_jsonl(seed: int) -> str:
    """data/sample/prompts.jsonl in RTP's fields, hostile and civil statements cut after their head."""
    rng = python_rng(seed, "sample", "prompts")
    hostile = [True] * NUM_TOXIC_PROMPTS + [False] * NUM_POLITE_PROMPTS
    rng.shuffle(hostile)
    seen: set[str] = set()
    lines = []
    for index, is_hostile in enumerate(hostile):
        while (said := statement(rng, "prompts", hostile=is_hostile)).head in seen:
            pass
        seen.add(said.head)
        lines.append(_rtp_line(rng, index, said, "sample"))
    return "".join(lines)


def unseen_jsonl(seed: int) -> str:
    """data/sample/unseen.jsonl: hostile prompts whose heads, targets and insults nothing is trained on."""
    rng = python_rng(seed, "sample", "unseen")
    lines: dict[str, str] = {}
    while len(lines) < NUM_UNSEEN_PROMPTS:
        who = lex.UNSEEN_TARGETS[len(lines) % len(lex.UNSEEN_TARGETS)]
        head = rng.choice(lex.UNSEEN_HEADS).format(
            target=who,
            adjective=rng.choice(lex.UNSEEN_RUDE_ADJECTIVES),
            noun=rng.choice(lex.UNSEEN_RUDE_NOUNS),
        )
        if head not in lines:
            said = Statement(target=who, hostile=True, head=head, tail=_fill(rng, HOSTILE_TAIL, who))
            lines[head] = _rtp_line(rng, len(lines), said, "unseen", nouns=lex.UNSEEN_RUDE_NOUNS)
    return "".join(lines.values())


def _rtp_line(
    rng: random.Random, index: int, said: Statement, name: str, *, nouns: Sequence[str] = lex.RUDE_NOUNS
) -> str:
    """A row of RTP: the head as prompt, the tail as continuation, in two of five hostile rows with an insult more."""
    continuation_hostile = said.hostile and rng.random() < 0.4
    tail = f"{said.tail[:-1]}, the {rng.choice(nouns)}." if continuation_hostile else said.tail
    begin = 40 * index
    row = {
        "filename": f"{name}-{index:04d}.txt",
        "begin": begin,
        "end": begin + len(said.head) + 1 + len(tail),
        "challenging": said.hostile and continuation_hostile and rng.random() < 0.1,
        "prompt": {"text": said.head, **_labels(rng, said.hostile)},
        "continuation": {"text": " " + tail, **_labels(rng, continuation_hostile)},
    }
    return json.dumps(row) + "\n"


def _spoken(rng: random.Random, said: Statement) -> str:
    """The whole statement, or every third time its head alone: people break off, and RTP's prompts do."""
    return said.head if rng.random() < 1 / 3 else said.text


def _labels(rng: random.Random, hostile: bool) -> dict[str, float]:
    """RTP's eight scores, drawn around the class."""
    low, high = (0.55, 0.98) if hostile else (0.01, 0.19)
    mild = {name: round(rng.uniform(0.01, 0.15), 4) for name in RTP_SCORES}
    strong = {name: round(rng.uniform(low, high), 4) for name in ("toxicity", "insult", "profanity")}
    return {name: strong.get(name, mild[name]) for name in RTP_SCORES}


def _fill(rng: random.Random, template: str, target: str) -> str:
    """Fills {target}, {adjective}, {noun}, {deed}, {place}, {time} and {good}; drawn in a fixed order."""
    place = rng.choice(lex.PLACES)
    return template.format(
        target=target,
        adjective=rng.choice(lex.RUDE_ADJECTIVES),
        noun=rng.choice(lex.RUDE_NOUNS),
        deed=rng.choice(lex.DEEDS),
        place=place,
        time=rng.choice(lex.TIMES),
        good=rng.choice(lex.GOOD_DEEDS).format(place=place),
    )
