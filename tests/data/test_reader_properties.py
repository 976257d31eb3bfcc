"""Files of any text, whatever is wrong with them: read as they are, or a UserError of one paragraph; nothing else."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detoxlens.common.errors import UserError
from detoxlens.common.text import is_blank, match_key
from detoxlens.data.dialoconan import read_dialoconan, read_pairs
from detoxlens.data.realtoxicityprompts import read_prompts
from detoxlens.params.check import check_params
from detoxlens.params.data import PairColumns
from detoxlens.params.load import Params, load_params
from detoxlens.params.models import ModelConfig
from detoxlens.params.section import parse
from detoxlens.params.splits import SplitConfig
from detoxlens.recorded.completions import columns_of, read_completions
from detoxlens.recorded.scores import Recorded
from tests.root import ROOT

EXAMPLES = pytest.mark.parametrize("num_examples", [150, pytest.param(10_000, marks=pytest.mark.slow)])
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", " ", "nan", "a,b", 'say "hi"', "\u200b", "line\nline", "x\r\ny", "\ufeff"]
)
HALVES = TEXTS | st.just("half \udc80")
CELLS = TEXTS | st.sampled_from(["0", "1", "0.0", "1.0", "-1", "1e400", "true", "HS", "CN", "0.5"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | HALVES,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


def csv_bytes(header, rows):
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([header, *rows])
    return buffer.getvalue().encode("utf-8", "surrogatepass")


def one_paragraph(read):
    """What `read` gives, or None where it refuses in one paragraph."""
    try:
        return read()
    except UserError as e:
        assert str(e) and "\n\n" not in str(e)
        return None


@EXAMPLES
def test_any_dialogue_file(tmp_path, num_examples):
    path, header = tmp_path / "d.csv", ["text", "TARGET", "dialogue_id", "turn_id", "type", "source"]
    row = st.tuples(HALVES, TEXTS, CELLS, CELLS, CELLS, TEXTS)
    good = st.tuples(
        TEXTS, st.just("F"), st.sampled_from("12"), st.integers(0, 9), st.sampled_from(["HS", "CN"]), TEXTS
    )

    @settings(max_examples=num_examples)
    @given(st.lists(row, max_size=4) | st.lists(good, max_size=8, unique_by=lambda r: r[2:4]))
    def holds(rows):
        path.write_bytes(csv_bytes(header, rows))
        found = one_paragraph(lambda: read_dialoconan(path))
        if found is not None:
            kept = [turn for c in found.conversations for turn in c.turns]
            assert len(kept) + len(found.dropped) == found.num_rows == len(rows)
            assert set(kept) <= {row[0].strip() for row in rows} and not any(map(is_blank, kept))

    holds()


@EXAMPLES
def test_any_file_of_pairs(tmp_path, num_examples):
    path, ids = tmp_path / "p.csv", TEXTS | st.sampled_from(["EN1", "FR1T1", "IT2P3", "EN1T02P1"])

    @settings(max_examples=num_examples)
    @given(st.lists(st.tuples(ids, TEXTS, TEXTS), max_size=5), st.sampled_from([None, "EN"]), st.booleans())
    def holds(rows, language, names_ids):
        path.write_bytes(csv_bytes(["cn_id", "h", "c"], rows))
        columns = PairColumns(
            hater="h", counter="c", id="cn_id" if names_ids else None, language=language if names_ids else None
        )
        found = one_paragraph(lambda: read_pairs(path, columns))
        assert found is None or len(found.conversations) + len(found.dropped) == found.num_rows == len(rows)

    holds()


@EXAMPLES
def test_any_bytes_at_all(tmp_path, num_examples):
    paths = [tmp_path / f"any.{suffix}" for suffix in ("csv", "jsonl")]
    split = SplitConfig(where={})

    @settings(max_examples=num_examples)
    @given(st.binary(max_size=60) | st.text(":{}[]-,&*?!\n ab1'\"", max_size=30).map(str.encode))
    def holds(content):
        for path in paths:
            path.write_bytes(content)
            one_paragraph(lambda p=path: read_dialoconan(p))
            one_paragraph(lambda p=path: read_pairs(p, PairColumns(hater="a", counter="b")))
            one_paragraph(lambda p=path: read_prompts(p, {"all": split}, val_fraction=0.5, seed=0))
            one_paragraph(lambda p=path: Recorded(p.name, root=tmp_path))
            one_paragraph(lambda p=path: read_completions(p, columns=columns_of("plain", None), format="plain"))
        (tmp_path / "params.yaml").write_bytes(content)
        one_paragraph(lambda: load_params(tmp_path / "params.yaml"))

    holds()


@EXAMPLES
def test_any_prompts(tmp_path, num_examples):
    path, split = tmp_path / "p.jsonl", SplitConfig(where={}, max_val=None, max_test=None)
    prompt = st.fixed_dictionaries({"text": JSON, "toxicity": st.none() | st.floats(0, 1) | JSON})

    @settings(max_examples=num_examples)
    @given(st.lists(st.fixed_dictionaries({"prompt": prompt | JSON}) | JSON, max_size=4))
    def holds(rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = one_paragraph(lambda: read_prompts(path, {"all": split}, val_fraction=0.5, seed=0))
        if found is not None:
            assert {p.text for p in found.prompts} <= {r["prompt"]["text"] for r in rows if isinstance(r, dict)}
            assert not any(is_blank(p.text) for p in found.prompts)

    holds()


def is_given(score):
    """Is it a score: neither null nor a blank cell nor NaN, also as text? All but numbers the reader has refused."""
    return score is not None and str(score).strip() != "" and float(score) == float(score)


@EXAMPLES
def test_any_recorded_scores(tmp_path, num_examples):
    path = tmp_path / "s.jsonl"

    @settings(max_examples=num_examples)
    @given(st.lists(st.tuples(HALVES, st.none() | st.floats(0, 1) | JSON), min_size=1, max_size=4))
    def holds(rows):
        path.write_text("".join(json.dumps({"text": text, "toxicity": score}) + "\n" for text, score in rows))
        scorer = one_paragraph(lambda: Recorded(path.name, root=tmp_path))
        if scorer is None:
            return
        for asked in ([text for text, _ in rows], [f" {text}\r\n" for text, _ in rows]):
            found = one_paragraph(lambda texts=asked: scorer.score(texts))
            for (text, _), verdict in zip(rows, found or (), strict=False):
                alike = {float(s) for t, s in rows if match_key(t) == match_key(text) and is_given(s)}
                assert verdict.status == "empty" if is_blank(text) else verdict.toxicity in {*alike, None}
                if len(alike) == 1 and not is_blank(text):
                    assert verdict.toxicity in alike

    holds()


@EXAMPLES
def test_any_value_at_any_key_of_params(num_examples):
    raw = load_params(ROOT / "params.yaml").raw
    keys = [(section, key) for section in raw if isinstance(raw[section], dict) for key in raw[section]]
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | JSON

    @settings(max_examples=num_examples)
    @given(st.sampled_from(keys), values)
    def holds(place, value):
        section, key = place
        one_paragraph(lambda: check_params(Params(raw | {section: raw[section] | {key: value}})))

    holds()


@EXAMPLES
def test_any_template_in_params(num_examples):

    @settings(max_examples=num_examples)
    @given(
        st.dictionaries(st.sampled_from(["user", "bot", "reply", "end", "system", "sytem", "variables"]), JSON) | JSON
    )
    def holds(template):
        found = one_paragraph(lambda: parse(ModelConfig, {"source": "a/b", "template": template}, "models.m"))
        assert found is None or found.template is not None

    holds()
