"""Remote scorers against a service that misbehaves: each text is scored once, none is lost, no key leaks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detoxlens.common.errors import UserError
from detoxlens.scorers import export_scores, make_scorer, score_cache
from detoxlens.scorers.cache import ScoreCache
from detoxlens.scorers.openai_moderation import openai_moderation_service
from detoxlens.scorers.perspective import perspective_service
from detoxlens.scorers.remote import RemoteScorer
from tests.scorers.fake_service import FakeService, error, toxicity_of

KEY = "zorgon-key-0123456789"
TEXTS = [f"Zorgon number {n} plays the accordion." for n in range(12)]
ROOT = Path(__file__).parents[2]


class Clock:
    """Time that passes only in `sleep`."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)


def scorer_of(service, folder, *, clock=None, key=KEY, language="en", **settings):
    clock = clock or Clock()
    return RemoteScorer(
        perspective_service(language, endpoint=service.url),
        key=key,
        cache=ScoreCache(folder / "scores.sqlite"),
        sleep=clock.sleep,
        clock=clock,
        **settings,
    )


def everything_written(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_each_text_is_asked_once_and_the_second_time_not_at_all(tmp_path):
    with FakeService() as service:
        scored = scorer_of(service, tmp_path).score([*TEXTS, TEXTS[0], " "])
        again = scorer_of(service, tmp_path).score(TEXTS)
    assert [s.toxicity for s in scored] == [*map(toxicity_of, TEXTS), toxicity_of(TEXTS[0]), None]
    assert [s.status for s in scored[-2:]] == ["ok", "empty"]
    assert again == scored[:12]
    assert service.asked == dict.fromkeys(TEXTS, 1)
    assert service.bodies[0]["languages"] == ["en"] and service.bodies[0]["doNotStore"] is True


def test_queries_keep_to_the_rate(tmp_path):
    clock = Clock()
    with FakeService() as service:
        scorer_of(service, tmp_path, clock=clock, queries_per_second=2.0).score(TEXTS[:5])
    assert clock.slept == [0.5] * 4  # the first at once, then one every half second


def test_bursts_errors_silence_and_nonsense_lose_no_text_and_score_none_twice(tmp_path):
    """Text n meets trouble of kind n % 5 at its first attempts, then an answer."""
    kinds = [
        lambda attempt: None,
        lambda attempt: error(429, "Quota exceeded") if attempt <= 3 else None,
        lambda attempt: error(503, "try later") if attempt <= 2 else None,
        lambda attempt: {1: (200, b"{not json"), 2: (200, b'{"attributeScores": {}}')}.get(attempt),
        lambda attempt: 0.4 if attempt == 1 else None,
    ]
    with FakeService(lambda text, attempt: kinds[TEXTS.index(text) % 5](attempt)) as service:
        scored = scorer_of(service, tmp_path, timeout_seconds=0.1).score(TEXTS)
    assert [s.toxicity for s in scored] == list(map(toxicity_of, TEXTS))
    assert [service.asked[text] for text in TEXTS[:5]] == [1, 4, 3, 3, 2]


def test_waits_double_with_jitter_and_stay_below_a_minute(tmp_path):
    clock = Clock()
    with FakeService(lambda text, attempt: error(500, "no")) as service:
        scorer = scorer_of(service, tmp_path, clock=clock, queries_per_second=1e9, max_attempts=9)
        (scored,) = scorer.score(["x"])
    waits = [s for s in clock.slept if s > 1e-6]
    assert len(waits) == 8 and all(w <= min(60, 2**n) for n, w in enumerate(waits))
    assert (scored.status, scored.toxicity) == ("failed", None)
    assert scored.error == "HTTP 500: no after 9 attempts"


def test_a_service_that_is_down_stops_the_run_instead_of_failing_every_text(tmp_path):
    up = True
    with FakeService(lambda text, attempt: None if up else error(503, "down")) as service:
        scorer = scorer_of(service, tmp_path, max_attempts=2)
        scorer.score(TEXTS[:2])
        up = False
        with pytest.raises(UserError, match=r"HTTP 503: down after 2 attempts, 3 times in a row\. 2 text\(s\) are"):
            scorer.score(TEXTS)
        assert sum(service.asked.values()) == 2 + 3 * 2


def test_a_refused_text_fails_alone_and_is_not_asked_again_but_a_broken_answer_is(tmp_path):
    def trouble(text, attempt):
        if text == TEXTS[1]:
            return error(400, "Attribute TOXICITY does not support request languages: eo")
        return error(500, "no") if text == TEXTS[2] and attempt <= 2 else None

    with FakeService(trouble) as service:
        first = scorer_of(service, tmp_path, max_attempts=2, language="auto").score(TEXTS[:4])
        second = scorer_of(service, tmp_path, max_attempts=2, language="auto").score(TEXTS[:4])
    assert [s.status for s in first] == ["ok", "failed", "failed", "ok"]
    assert "does not support request languages: eo" in first[1].error
    assert [s.status for s in second] == ["ok", "failed", "ok", "ok"]
    assert [service.asked[text] for text in TEXTS[:4]] == [1, 1, 3, 1]
    assert "languages" not in service.bodies[0]


def test_a_restart_of_the_service_in_the_middle_is_waited_for(tmp_path):
    with FakeService() as service:
        clock = Clock()

        def sleep(seconds):
            clock.sleep(seconds)
            if sum(service.answered.values()) == 5 and not restarted:
                restarted.append("down")
                service.stop()
            elif restarted == ["down"] and len(clock.slept) > 8:
                restarted.append("up")
                service.start()

        restarted = []
        scorer = scorer_of(service, tmp_path, clock=clock)
        scorer._sleep = sleep
        scored = scorer.score(TEXTS)
    assert restarted == ["down", "up"]
    assert [s.toxicity for s in scored] == list(map(toxicity_of, TEXTS))
    assert service.answered == dict.fromkeys(TEXTS, 1)


def test_an_exhausted_quota_stops_in_one_paragraph_and_what_was_scored_is_kept(tmp_path):
    with FakeService(lambda text, attempt: error(429, "Quota exceeded") if text == TEXTS[3] else None) as service:
        with pytest.raises(UserError, match=r"perspective: HTTP 429: Quota exceeded after 3 attempts\. 3 text") as e:
            scorer_of(service, tmp_path, max_attempts=3).score(TEXTS)
        service.trouble = lambda text, attempt: None
        assert {s.status for s in scorer_of(service, tmp_path).score(TEXTS)} == {"ok"}
    assert "\n" not in str(e.value) and "recorded:FILE" in str(e.value)
    assert service.answered == dict.fromkeys(TEXTS, 1)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error(400, f"API key not valid: {KEY}. Pass a valid one."), "refused the key in PERSPECTIVE_API_KEY"),
        (error(403, f"{KEY} has no access"), "refused the key in PERSPECTIVE_API_KEY"),
        (error(404, f"gone, {KEY}"), "is not at http://127"),
        ((302, KEY.encode()), "is not at http://127"),
    ],
)
def test_a_wrong_key_or_address_stops_at_once_and_the_key_is_nowhere(tmp_path, capfd, caplog, answer, told):
    with FakeService(lambda text, attempt: answer) as service, pytest.raises(UserError, match=told) as e:
        scorer_of(service, tmp_path).score(TEXTS)
    assert sum(service.asked.values()) == 1
    assert service.keys == {KEY} and service.paths == {"/analyze"}  # in the header, not in the address
    out = capfd.readouterr()
    for written in (str(e.value), out.out, out.err, caplog.text, repr(vars(e.value))):
        assert KEY not in written


def test_the_key_is_in_no_verdict_and_in_no_file(tmp_path):
    page = f"<html>{'x' * 110}{KEY}"  # cut in the middle of the key, were it cut first
    answers = {0: error(400, f"{KEY} may not ask this"), 1: (200, page.encode()), 2: error(500, KEY)}
    with FakeService(lambda text, attempt: answers.get(TEXTS.index(text))) as service:
        scored = scorer_of(service, tmp_path, max_attempts=2).score(TEXTS)
    assert [s.status for s in scored[:3]] == ["failed"] * 3
    assert KEY[:6] not in repr(scored) and "<key>" in scored[0].error
    assert KEY.encode() not in everything_written(tmp_path)


def test_a_missing_or_impossible_key_is_told_without_showing_it(tmp_path):
    with FakeService() as service:
        with pytest.raises(UserError, match="needs a key in the environment variable PERSPECTIVE_API_KEY for 12 text"):
            scorer_of(service, tmp_path, key="").score(TEXTS)
        for bad in ("two words", "line\nbreak", "ключ"):
            with pytest.raises(UserError, match="characters that no key has") as e:
                scorer_of(service, tmp_path, key=bad)
            assert bad not in str(e.value)
        scorer_of(service, tmp_path, key=KEY + "\n").score(TEXTS)  # a file's last line break is no part of the key
        assert scorer_of(service, tmp_path, key="").score(TEXTS)[0].status == "ok"  # the cache needs no key
    assert service.keys == {KEY}


def test_an_unreachable_service_is_told(tmp_path):
    with FakeService() as service:
        scorer = scorer_of(service, tmp_path, max_attempts=2)
    with pytest.raises(UserError, match=r"cannot be reached .* after 2 attempts\. 0 text"):
        scorer.score(TEXTS)


SCRIPT = """
import sys, time
from pathlib import Path
from detoxlens.scorers.cache import ScoreCache
from detoxlens.scorers.perspective import perspective_service
from detoxlens.scorers.remote import RemoteScorer
url, cache, num_texts, key = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.stdin.read()
scorer = RemoteScorer(
    perspective_service("en", endpoint=url), key=key, cache=ScoreCache(cache), queries_per_second=1e6,
    timeout_seconds=0.5, max_attempts=50, sleep=lambda seconds: time.sleep(min(seconds, 0.02)),
)
scored = scorer.score([f"text {n}" for n in range(num_texts)])
print(sum(s.status == "ok" for s in scored), sum("support request languages" in s.error for s in scored))
"""


def troubled(text, attempt):
    """Of a hundred texts some meet a 429 burst, a 500, silence, nonsense; one in a thousand is refused for good."""
    n = int(text.split()[1])
    if n % 1000 == 7:
        return error(400, "Attribute TOXICITY does not support request languages: eo")
    if attempt > 2:
        return None
    if n % 1000 == 500:
        return 1.0  # longer than the scorer waits
    return {11: error(429, "Quota exceeded"), 23: error(500, "no"), 37: (200, b"{not json")}.get(n % 100)


@pytest.mark.parametrize("num_texts", [120, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_run_killed_in_the_middle_goes_on_without_asking_again(tmp_path, num_texts):
    """Through bursts, errors, silence, nonsense, refusals, a kill -9 and a restart of the service."""

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, service.url, str(tmp_path / "c.sqlite"), str(num_texts)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdin.write(KEY)
        process.stdin.close()
        process.stdin = None
        return process

    def wait_for(share):
        while sum(service.answered.values()) < num_texts * share:
            time.sleep(0.002)

    with FakeService(troubled) as service:
        process = start()
        wait_for(1 / 3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start()
        wait_for(1 / 2)
        service.stop()
        time.sleep(0.1)
        service.start()
        out, err = process.communicate(timeout=300)
    texts = [f"text {n}" for n in range(num_texts)]
    refused = {f"text {n}" for n in range(7, num_texts, 1000)}
    assert out.split() == [str(num_texts - len(refused)), str(len(refused))], err
    assert KEY not in out + err
    silent = {f"text {n}" for n in range(500, num_texts, 1000)}
    # Silence ends in a late answer to a query that was given up: the service counts it, the cache has one.
    answered = {text: times for text, times in service.answered.items() if text in set(texts) - silent}
    assert answered.keys() == set(texts) - refused - silent
    twice = [text for text, times in answered.items() if times > 1]
    assert len(twice) <= 2  # whose answer was on its way at the kill, or at the restart
    assert all(service.asked[text] <= 2 for text in refused)
    rows = ScoreCache(tmp_path / "c.sqlite").rows()
    assert len(rows) == num_texts == len({row["text_sha256"] for row in rows})


def test_a_service_that_takes_lists_is_asked_in_batches_and_a_bad_text_fails_alone(tmp_path):
    texts = [f"text {n}" for n in range(70)]

    def trouble(text, attempt):
        if text == "text 40":
            return error(400, "too odd")
        return (200, b'{"results": []}') if text == "text 66" and attempt == 1 else None

    def scorer():
        return RemoteScorer(
            openai_moderation_service("m", endpoint=service.url),
            key=KEY,
            cache=ScoreCache(tmp_path / "c.sqlite"),
            sleep=clock.sleep,
            clock=clock,
        )

    clock = Clock()
    with FakeService(trouble) as service:
        scored = scorer().score(texts)
        sizes = [len(body["input"]) for body in service.bodies]
        assert sizes == [32, 32, *[1] * 32, 6, 6]  # the second list holds the bad text; the last was answered badly
        assert scorer().score(texts) == scored and len(service.bodies) == len(sizes)
    assert [s.toxicity for s in scored] == [None if n == 40 else toxicity_of(t) for n, t in enumerate(texts)]
    assert "too odd" in scored[40].error and service.keys == {f"Bearer {KEY}"}


def test_exported_scores_are_read_back_without_the_service(tmp_path):
    cache = score_cache(tmp_path)
    with FakeService() as service:
        scored = RemoteScorer(
            perspective_service("en", endpoint=service.url), key=KEY, cache=cache, queries_per_second=1e6
        ).score(TEXTS)
    with pytest.raises(UserError, match="no scores by 'perspektive'; it has scores by: perspective"):
        export_scores(tmp_path, tmp_path / "scores.jsonl", "perspektive")
    assert export_scores(tmp_path, tmp_path / "scores.jsonl", "perspective") == 12
    recorded = make_scorer("recorded:scores.jsonl", root=tmp_path)
    assert recorded.score(TEXTS) == scored
    assert TEXTS[0] not in (tmp_path / "scores.jsonl").read_text()  # hashes only


def test_a_damaged_cache_is_told(tmp_path):
    (tmp_path / "scores.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="the score cache cannot be used"):
        ScoreCache(tmp_path / "scores.sqlite")


def test_the_registry_takes_keys_from_the_environment_and_checks_the_language(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    scorer = make_scorer("perspective", root=tmp_path)
    assert (scorer.name, scorer.version, scorer.label, scorer._interval_seconds) == (
        "perspective",
        "v1alpha1",
        "TOXICITY",
        1.0,
    )
    assert make_scorer("perspective:de", root=tmp_path).name == "perspective:de"
    with pytest.raises(UserError, match="'perspective:German!': a language such as en"):
        make_scorer("perspective:German!", root=tmp_path)
    assert make_scorer("openai_moderation", root=tmp_path).version == "omni-moderation-2024-09-26"
    assert KEY not in repr(vars(scorer)["_service"]) and "PERSPECTIVE_API_KEY" in os.environ


def test_openai_moderation_reads_the_larger_of_its_two_categories():
    service = openai_moderation_service("omni-moderation-2024-09-26")
    scores = {"harassment": 0.25, "hate": 0.75, "violence": 0.99}
    assert service.read({"results": [{"category_scores": scores}] * 2}) == [0.75, 0.75]
    assert service.body(["hi", "ho"]) == {"model": "omni-moderation-2024-09-26", "input": ["hi", "ho"]}
    assert service.key_header("k") == {"Authorization": "Bearer k"}


def test_a_server_of_ones_own_is_asked_at_its_address_and_never_sent_the_services_key(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", KEY)
    with FakeService() as service:
        scorer = make_scorer(f"perspective:en@{service.url}", root=tmp_path)
        assert [s.toxicity for s in scorer.score(TEXTS)] == [*map(toxicity_of, TEXTS)]
        assert service.keys == {None}
    assert scorer.name == f"perspective:en@{service.url}"
    again = make_scorer(f"perspective:en@{service.url}", root=tmp_path)  # the server is gone, its answers are kept
    assert [s.toxicity for s in again.score(TEXTS)] == [*map(toxicity_of, TEXTS)]


@pytest.mark.parametrize("endpoint", ["localhost:8000", "ftp://host/x", "http://", "http://me:secret@host/x"])
def test_an_endpoint_that_is_no_servers_address_is_refused_without_its_password(tmp_path, endpoint):
    with pytest.raises(UserError, match=r"behind the @ stands the http\(s\) address") as error:
        make_scorer(f"perspective:en@{endpoint}", root=tmp_path)
    assert "secret" not in str(error.value)
