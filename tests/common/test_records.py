"""Prompt identifiers."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from detoxlens.common.records import ModelRef, prompt_ids_of


def test_a_prompt_id_is_the_head_of_the_texts_sha256():
    assert prompt_ids_of(["test"]) == ["9f86d081884c7d65"]  # sha256("test") = 9f86d081884c7d659a2f...
    assert prompt_ids_of(["ünïcode"]) == [hashlib.sha256("ünïcode".encode()).hexdigest()[:16]]


def test_repetitions_are_numbered_in_order():
    assert prompt_ids_of(["test", "a", "test", "test"]) == [
        "9f86d081884c7d65",
        "ca978112ca1bbdca",
        "9f86d081884c7d65-1",
        "9f86d081884c7d65-2",
    ]


def test_records_are_frozen_and_named():
    ref = ModelRef(base="models/a/base", revision="r", adapter=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ref.base = "elsewhere"
    with pytest.raises(TypeError):
        ModelRef("models/a/base", "r", None)
