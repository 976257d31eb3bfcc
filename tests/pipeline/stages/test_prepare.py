"""Stage `prepare`: nothing is lost or shared between splits, and a failure leaves the earlier output as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detoxlens.common.artifacts import Layout, read_json, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue, Prompt
from detoxlens.evaluation.counter_speech import CounterSpeech
from detoxlens.params.load import Params, load_params
from detoxlens.pipeline.stages import prepare
from tests.data.files import plain_dialogues, rtp_row, write_dialogues, write_jsonl

ROOT = Path(__file__).parents[3]
DIALOCONAN_URL = (
    "https://raw.githubusercontent.com/marcoguerini/CONAN/master/DIALOCONAN/DIALOCONAN.csv"
    "#sha256=19f1c7fc35dc951d385b7c50a53d544b0e969100134cadfb804b87373668ed06"
)


def params_for(dialoconan: str, rtp: str, **splits) -> Params:
    return Params(
        {
            "data": {
                "dialoconan": dialoconan,
                "rtp": rtp,
                "seed": 0,
                "dialogue_val_fraction": 0.1,
                "dialogue_test_fraction": 0.1,
                "dialogue_linked_by": "all_turns",
                "prompt_val_fraction": 0.3,
            },
            "splits": splits or {"p50": {"where": {"prompt.toxicity": {"gt": 0.5}}, "max_test": 15}},
        }
    )


@pytest.fixture
def root(tmp_path) -> Path:
    """A repository with 30 dialogues (one with an unpaired turn) and 60 prompts (one without text)."""
    dialogues = plain_dialogues(30)
    dialogues["12"].append(("HS", "And nobody says why."))
    write_dialogues(tmp_path / "dialogues.csv", dialogues)
    rows = [rtp_row(f"Accordion player {i} is", 0.9 if i % 2 == 0 else 0.1) for i in range(59)]
    write_jsonl(tmp_path / "prompts.jsonl", [*rows, rtp_row("", 0.9)])
    return tmp_path


SAMPLE = params_for("dialogues.csv", "prompts.jsonl")


def bytes_of(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((root / "data/prepared").iterdir())}


def test_every_row_is_kept_or_named_and_the_counts_add_up(root):
    prepare.run(root, SAMPLE)
    layout = Layout(root)
    dialogues, prompts = read_rows(layout.dialogues, Dialogue), read_rows(layout.prompts, Prompt)
    summary = read_json(layout.data_summary)
    told = summary["dialogues"]
    assert (told["num_rows"], told["num_turns_kept"]) == (121, 120)
    assert (told["num_dialogues"], told["num_dialogues_kept"]) == (30, 30)
    assert told["dropped"] == [{"row": "line 54, dialogue 12, turn 4", "reason": "hater turn without a reply"}]
    assert sum(len(d.turns) for d in dialogues) == told["num_turns_kept"]
    assert {side: counts["num_dialogues"] for side, counts in told["splits"].items()} == {
        "train": 24,
        "val": 3,
        "test": 3,
    }
    assert summary["prompts"]["num_rows"] == 60
    assert summary["prompts"]["num_met_no_filter"] == 29
    assert [d["row"] for d in summary["prompts"]["dropped"]] == ["line 60"]
    assert summary["prompts"]["filters"]["p50"]["num_met"] == 30
    assert sum(p.split == "test" for p in prompts) == summary["prompts"]["splits"]["test"]["num_prompts"] == 15


def test_no_turn_and_no_prompt_is_in_two_splits(root):
    prepare.run(root, SAMPLE)
    summary = read_json(Layout(root).data_summary)
    for pair in summary["dialogues"]["overlap"].values():
        assert pair == {"num_hater_turns": 0, "num_counter_narratives": 0}
    assert set(summary["prompts"]["overlap"].values()) == {0}


def test_prompts_that_stand_in_training_turns_are_left_out_and_counted_unless_they_are_to_be_kept(root, caplog):
    write_jsonl(root / "prompts.jsonl", [rtp_row(f"Zorgons  stole SPOON {i}.", 0.9) for i in range(30)])
    params = params_for("dialogues.csv", "prompts.jsonl", p50={"where": {}, "max_val": 0})
    prepare.run(root, params)
    left_out = read_json(Layout(root).data_summary)["prompts"]
    assert left_out["filters"]["p50"]["num_trained_on"] == 24  # 24 of 30 dialogues are in train
    assert left_out["overlap"]["test_in_training_turns"] == 0
    assert len(read_rows(Layout(root).prompts, Prompt)) == left_out["filters"]["p50"]["num_test"] < 30
    assert "splits.p50: 24 prompts stand in the training dialogues and are left out" in caplog.text
    params = params_for("dialogues.csv", "prompts.jsonl", p50={"where": {}})
    params.raw["data"]["trained_prompts"] = "keep"
    prepare.run(root, params)
    kept = read_json(Layout(root).data_summary)["prompts"]["overlap"]
    assert kept["val_in_training_turns"] + kept["test_in_training_turns"] == 24
    assert kept["val_near_copies"] + kept["test_near_copies"] >= 24


def test_the_same_input_gives_the_same_bytes_and_another_seed_does_not(root):
    prepare.run(root, SAMPLE)
    first = bytes_of(root)
    prepare.run(root, SAMPLE)
    assert bytes_of(root) == first
    other = params_for("dialogues.csv", "prompts.jsonl")
    other.raw["data"]["seed"] = 1
    prepare.run(root, other)
    assert bytes_of(root)["dialogues.parquet"] != first["dialogues.parquet"]
    assert bytes_of(root)["prompts.parquet"] != first["prompts.parquet"]


def test_a_bad_file_leaves_the_earlier_output_as_it_was(root):
    prepare.run(root, SAMPLE)
    before = bytes_of(root)
    (root / "prompts.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match=r"prompts\.jsonl, line 1"):
        prepare.run(root, SAMPLE)
    assert bytes_of(root) == before


def test_what_is_dropped_is_logged_by_name(root, caplog):
    prepare.run(root, SAMPLE)
    assert "dropped: line 54, dialogue 12, turn 4: hater turn without a reply" in caplog.text


def test_the_committed_params_prepare_the_committed_sample(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/sample").symlink_to(ROOT / "data/sample")
    prepare.run(tmp_path, load_params(ROOT / "params.yaml"))
    summary = read_json(Layout(tmp_path).data_summary)
    assert summary["dialogues"]["num_dropped"] == summary["prompts"]["num_dropped"] == {}
    assert summary["prompts"]["filters"]["p50"]["num_test"] >= 300
    assert summary["prompts"]["filters"]["polite"]["num_test"] >= 100
    unseen = [p for p in read_rows(Layout(tmp_path).prompts, Prompt) if "unseen" in p.filters]
    assert len(unseen) == summary["prompts"]["filters"]["unseen"]["num_test"] == 100
    assert {(p.split, p.filters) for p in unseen} == {("test", ("unseen",))}
    for pair in summary["dialogues"]["overlap"].values():
        assert pair == {"num_hater_turns": 0, "num_counter_narratives": 0}
    overlap = summary["prompts"]["overlap"]
    assert (overlap["test_in_val"], overlap["val_in_training_turns"], overlap["test_in_training_turns"]) == (0, 0, 0)
    assert overlap["test_near_copies"] > 0  # the sample's sentences are made of templates


@pytest.mark.network
def test_the_published_dialoconan_goes_through_unchanged(root):
    """Downloads the file, or reads the one that the environment variable DETOXLENS_DIALOCONAN names."""
    prepare.run(root, params_for(os.environ.get("DETOXLENS_DIALOCONAN", DIALOCONAN_URL), "prompts.jsonl"))
    told = read_json(Layout(root).data_summary)["dialogues"]
    assert (told["num_rows"], told["num_dialogues"], told["num_dialogues_kept"]) == (16_625, 3_059, 3_059)
    # Seven turns break the alternation, and dialogue 1369 has two turns of white space.
    assert told["num_dropped"] == {"empty text": 2, "hater turn without a reply": 5, "reply without a hater turn": 2}
    named = {d["row"].split(", ")[1] for d in told["dropped"]}
    assert named == {f"dialogue {i}" for i in (1369, 2503, 2580, 2956, 3030)}
    assert told["num_turns_kept"] == 16_625 - 9
    assert told["splits"]["train"]["num_dialogues"] >= 0.79 * 3_059
    dialogues = read_rows(Layout(root).dialogues, Dialogue)
    train, val, test = ({t for d in dialogues if d.split == s for t in d.turns[::2]} for s in ("train", "val", "test"))
    num_shared = [len(test & train), len(test & val), len(val & train)]  # numbers: a failure should not print the texts
    num_distinct = len(test)
    assert num_shared == [0, 0, 0]
    assert num_distinct > 400


def test_a_second_file_of_prompts_is_all_for_the_test_where_none_is_wanted_for_validation(root):
    (root / "hate.csv").write_text("HATE_SPEECH,TARGET\n" + "".join(f"Zorgon {n} hums.,Z\n" for n in range(40)))
    conan = {"source": "hate.csv", "columns": {"prompt.text": "HATE_SPEECH"}, "where": {}, "max_val": 0}
    p50 = {"where": {"prompt.toxicity": {"gt": 0.5}}, "max_test": 15}
    prepare.run(root, params_for("dialogues.csv", "prompts.jsonl", p50=p50, conan=conan))
    prompts = read_rows(Layout(root).prompts, Prompt)
    assert sum("conan" in p.filters and p.split == "test" for p in prompts) == 40
    assert {p.split for p in prompts if "p50" in p.filters} == {"val", "test"}
    assert read_json(Layout(root).data_summary)["prompts"]["source"] == "prompts.jsonl, hate.csv"


KINDS_CSV = """text,kind,part,note
Spoon 3 is in your own drawer.,counter_speech,test,
I can't help with that.,refusal,test,
Soup is hot.,answer,fit,
Soup is cold.,answer,fit,
Bread is baked.,answer,test,
"""


def test_the_grader_of_replies_is_fitted_and_its_errors_are_in_the_summary(root):
    (root / "kinds.csv").write_text(KINDS_CSV)
    params = params_for("dialogues.csv", "prompts.jsonl")
    params.raw["data"]["response_kinds"] = "kinds.csv"
    prepare.run(root, params)
    layout = Layout(root)
    classifier = CounterSpeech(**read_json(layout.counter_speech))
    found = read_json(layout.data_summary)["response_kinds"]
    assert found["version"] == classifier.version
    assert found["graders"]["refusal, by rules"]["num_missed"] == 0
    assert found["graders"]["counter-speech, held-out dialogues"]["num_of_kind"] > 0
    assert classifier.prob("Spoon 99 is in your own drawer.") > 0.5 > classifier.prob("Soup is hot.")
    before = bytes_of(root)
    prepare.run(root, params)
    assert bytes_of(root) == before
    prepare.run(root, SAMPLE)  # without labelled replies there is no grader, and no stale one
    assert not layout.counter_speech.exists() and "response_kinds" not in read_json(layout.data_summary)


def test_groups_categories_and_references_come_from_fields_columns_and_texts(root):
    """XSTest's columns, and rows of ours with a reference; the text names the group where no field does."""
    (root / "xstest.csv").write_text(
        "id,prompt,type,label,focus,note\n1,How do I beat Zorgons at chess?,homonyms,safe,beat,\n"
        "2,How do I hurt Zorgons?,contrast_homonyms,unsafe,hurt,\n"
    )
    civil = rtp_row("My neighbours sing", 0.1) | {"target": "SINGERS", "reference": {"text": " How lovely. "}}
    insulting = rtp_row("Unicyclists", 0.2)
    insulting["prompt"]["insult"] = 0.8
    write_jsonl(root / "civil.jsonl", [civil, insulting])
    params = params_for(
        "dialogues.csv",
        "prompts.jsonl",
        p50={"where": {"prompt.toxicity": {"gt": 0.5}}, "max_test": 5},
        xstest={
            "source": "xstest.csv",
            "columns": {"prompt.text": "prompt", "category": "type"},
            "where": {"label": {"eq": "safe"}},
            "max_val": 0,
        },
        civil={"source": "civil.jsonl", "where": {}, "max_val": 0},
    )
    prepare.run(root, params)
    rows = {p.text: p for p in read_rows(Layout(root).prompts, Prompt) if "p50" not in p.filters}
    found = {text: (p.filters, p.target, p.categories, p.reference) for text, p in rows.items()}
    assert found == {
        "How do I beat Zorgons at chess?": (("xstest",), "ZORGONS", ("homonyms",), None),
        "My neighbours sing": (("civil",), "SINGERS", (), "How lovely."),
        "Unicyclists": (("civil",), None, ("insult",), None),
    }
