"""Which group a prompt speaks of, where its source does not say: the first of the dialogues' targets that it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from detoxlens.common.records import Prompt

NO_GROUP = frozenset({"OTHER", ""})
"""Targets of DialoCONAN that are no group's name."""


def with_targets(prompts: Sequence[Prompt], targets: Iterable[str]) -> list[Prompt]:
    """`prompts`, each that has no target with the one of `targets` that its text names, if it names one."""
    names = sorted(set(targets) - NO_GROUP, key=lambda name: (-len(name), name))
    if not names:
        return list(prompts)
    named = re.compile("|".join(rf"(?P<t{i}>\b{_stem(name)}s?(?!\w))" for i, name in enumerate(names)), re.IGNORECASE)

    def target_of(text: str) -> str | None:
        match = named.search(text)
        return names[int(match.lastgroup[1:])] if match else None

    return [prompt if prompt.target else replace(prompt, target=target_of(prompt.text)) for prompt in prompts]


def _stem(name: str) -> str:
    """MIGRANTS -> MIGRANT: singular and plural are one group."""
    return re.escape(name[:-1] if name.upper().endswith("S") and len(name) > 3 else name)
