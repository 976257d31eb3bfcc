"""Stages generate and score by several processes: the same bytes as by one, and a service asked once for each text."""

from __future__ import annotations

import dataclasses

import pytest

from detoxlens.common.artifacts import read_rows, write_rows
from detoxlens.common.records import Completion, ModelRef
from detoxlens.jobs.shares import Share
from detoxlens.models import backends
from detoxlens.models.loading import load_tokenizer
from detoxlens.pipeline.stages import generate, score
from detoxlens.scorers.cache import ScoreCache
from detoxlens.scorers.perspective import perspective_service
from detoxlens.scorers.remote import RemoteScorer
from tests.models.checkpoints import save_classifier
from tests.pipeline.stages.study import make_study, params_of
from tests.scorers.fake_service import FakeService

JUDGED = {"scorers": ["profanity_check", "hf:judge"]}


@pytest.fixture
def layout(tmp_path):
    layout = make_study(tmp_path)
    save_classifier(tmp_path / "judge", seed=1)
    return layout


def run(layout, stage, share=None, **changes):
    stage.run(layout.root, params_of(**changes), model="m", variant="ft", share=share)


def logs(layout):
    return {p.name: p.read_bytes().count(b"\n") for p in layout.state.glob("scratch/*/*/*.jsonl")}


def said(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "detoxlens.jobs.batches"]


def write_completions(layout, texts):
    ids = load_tokenizer(layout.root, ModelRef(base="models/m/base", revision="", adapter=None))
    row = Completion(
        prompt_id="",
        sample_index=0,
        split="test",
        filters=("p50",),
        prompt="Zorgons?",
        prompt_ids=(5, 9),
        prompt_token_is_template=(True, False),
        completion="",
        completion_ids=(),
        finish_reason="eos",
        seed=0,
    )
    rows = [
        dataclasses.replace(
            row,
            prompt_id=f"{n:016x}",
            split="val" if n % 3 else "test",
            completion=text,
            completion_ids=tuple(ids(text)["input_ids"]),
        )
        for n, text in enumerate(texts)
    ]
    write_rows(layout.completions("m", "ft"), rows, Completion)


def test_generate_in_shares_gives_the_bytes_of_one_process_and_joins_them_without_a_model(layout, monkeypatch, caplog):
    caplog.set_level("INFO", "detoxlens.jobs.batches")
    run(layout, generate)
    whole = layout.completions("m", "ft").read_bytes()
    layout.completions("m", "ft").unlink()
    run(layout, generate, Share(1, 3))  # 14 rows: 2 batches of validation prompts, 2 of test prompts
    run(layout, generate, Share(0, 3))
    assert "share 1/3 is done; other shares have 12 completions left. Then the same command" in said(caplog)[0]
    assert logs(layout) == {"batches+share-0-of-3.jsonl": 2, "batches+share-1-of-3.jsonl": 1}
    run(layout, generate, Share(1, 2))  # another cut: of its batches 1 and 3, both are done
    assert logs(layout).get("batches+share-1-of-2.jsonl", 0) == 0
    assert not layout.completions("m", "ft").exists()
    sampled = []
    real = backends.sample_batch
    monkeypatch.setattr(backends, "sample_batch", lambda *a, **k: sampled.append(1) or real(*a, **k))
    run(layout, generate, Share(2, 3))
    assert sampled == [1] and "share 2/3 is done, and so are all others: the same command" in said(caplog)[-1]
    monkeypatch.setattr(generate, "load_backend", None)
    run(layout, generate)
    assert layout.completions("m", "ft").read_bytes() == whole
    assert not list(layout.state.glob("scratch/*/*"))


def test_score_in_shares_gives_the_bytes_of_one_process(layout, monkeypatch, caplog):
    caplog.set_level("INFO", "detoxlens.jobs.batches")
    monkeypatch.setattr(score, "BATCH_SIZE", 16)
    write_completions(layout, [f"Zorgons bake {'good ' * (n % 5)}bread." if n % 7 else "" for n in range(90)])
    files = [of("m", "ft") for of in (layout.scores, layout.fluency, layout.toxic_words)]
    run(layout, score, toxicity=JUDGED)
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    run(layout, score, Share(1, 2), toxicity=JUDGED)  # 60 val rows in 4 batches, 30 test rows in 2: three are its own
    assert logs(layout) == {
        f"{name}+share-1-of-2.jsonl": 3 for name in ("scores-0", "scores-1", "fluency", "toxic-words")
    }
    num_mine = 16 + 12 + 14
    assert f"other shares have {4 * (90 - num_mine)} verdicts left" in said(caplog)[-1]
    measured = []
    real = score.completion_nll
    monkeypatch.setattr(score, "completion_nll", lambda *a, **k: measured.append(len(a[1])) or real(*a, **k))
    run(layout, score, toxicity=JUDGED)
    assert sum(measured) == 90 - num_mine
    assert [file.read_bytes() for file in files] == whole
    assert not list(layout.state.glob("scratch/*/*"))


def test_shares_ask_a_service_about_texts_of_their_own_at_a_part_of_its_pace(layout, monkeypatch):
    write_completions(layout, [f"They hum {n % 10}." for n in range(24)])  # ten texts, some of them often
    waits = []

    def remote(names, *, root, device, normalize):
        assert normalize and len(names) == 1
        service = perspective_service("en", endpoint=fake.url)
        cache = ScoreCache(layout.score_cache)
        keywords = {"queries_per_second": 2.0, "sleep": waits.append, "clock": lambda: 0.0}
        return [RemoteScorer(service, key="k", cache=cache, **keywords)]

    monkeypatch.setattr(score, "make_scorers", remote)
    changes = {"toxicity": {"scorers": ["perspective"], "headline": "perspective"}}
    with FakeService() as fake:
        for index, num in enumerate((4, 3, 3)):
            waits.clear()
            run(layout, score, Share(index, 3), **changes)
            assert waits == pytest.approx([1.5 * (n + 1) for n in range(num - 1)])  # .5 s between queries, times three
        waits.clear()
        run(layout, score, **changes)
        assert waits == [] and set(fake.asked.values()) == {1} and len(fake.asked) == 10
    assert [c.completion for c in read_rows(layout.completions("m", "ft"), Completion)][10] == "They hum 0."
    assert layout.scores("m", "ft").exists()
