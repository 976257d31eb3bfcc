"""Files in columns of any name: exchanges to train on, prompts to evaluate on, two prompt files as one."""

import pytest

from detoxlens.common.errors import UserError
from detoxlens.data.dialoconan import read_pairs
from detoxlens.data.realtoxicityprompts import merged, read_prompts
from detoxlens.params.data import PairColumns
from detoxlens.params.splits import SplitConfig, SplitsConfig

CONAN = PairColumns(hater="hateSpeech", counter="counterSpeech", target="hsSubType")
HEAD = "cn_id,hateSpeech,counterSpeech,hsSubType\n"
MULTITARGET = "INDEX,HATE_SPEECH,COUNTER_NARRATIVE,TARGET\n"
COLUMNS = {"prompt.text": "HATE_SPEECH"}


def test_each_row_of_conan_is_a_conversation_of_two_turns(tmp_path):
    file = tmp_path / "conan.csv"
    file.write_text(
        f'{HEAD}1,"Zorgons hum, always.", They like it. ,crimes\n2,Zorgons nap.,So do you.,\n'
        '3,"Zorgons hum, always.",They like it.,crimes\n4,Zorgons sing.,,x\n'
    )
    found = read_pairs(file, CONAN)
    assert [c.turns for c in found.conversations] == [
        ("Zorgons hum, always.", "They like it."),
        ("Zorgons nap.", "So do you."),
    ]
    assert [(c.target, c.dialogue_id) for c in found.conversations] == [("crimes", "2"), ("", "3")]
    assert [(d.row, d.reason) for d in found.dropped] == [
        ("line 4", "the exchange of an earlier row again"),
        ("line 5", "empty text"),
    ]
    assert (found.num_rows, found.num_trimmed) == (4, 1)


def test_a_column_that_is_not_there_is_told(tmp_path):
    file = tmp_path / "conan.csv"
    file.write_text("hateSpeach,counterSpeech,hsSubType\na,b,c\n")
    with pytest.raises(UserError, match=r"lacks the column 'hateSpeech'\. Did you mean 'hateSpeach'"):
        read_pairs(file, CONAN)
    file.write_text(HEAD + "1, ,b,c\n")
    with pytest.raises(UserError, match="no row with text in both 'hateSpeech' and 'counterSpeech'"):
        read_pairs(file, CONAN)


def split_of(**changes):
    return SplitConfig(**{"source": "m.csv", "columns": COLUMNS, "where": {}, "max_val": 0} | changes)


def test_every_column_of_a_csv_can_be_filtered_on_and_repeated_prompts_count_once(tmp_path):
    file = tmp_path / "m.csv"
    file.write_text(MULTITARGET + "0,Zorgons hum.,a,ZORGONS\n1,Zorgons hum.,b,ZORGONS\n2,Bakers nap. ,c,BAKERS\n")
    splits = {"all": split_of(), "late": split_of(where={"INDEX": {"ge": 2}, "TARGET": {"eq": "BAKERS"}})}
    found = read_prompts(file, splits, val_fraction=1e-6, seed=0, columns=COLUMNS)
    assert [(p.text, p.filters, p.toxicity) for p in found.prompts] == [
        ("Zorgons hum.", ("all",), None),
        ("Bakers nap.", ("all", "late"), None),
    ]
    assert (found.filters["all"].num_met, found.filters["all"].num_duplicates) == (3, 1)


def test_two_files_are_one_table_with_ids_that_do_not_depend_on_the_other(tmp_path):
    (tmp_path / "a.csv").write_text("t\none\ntwo\n")
    (tmp_path / "b.csv").write_text("t\nthree\ntwo\n")
    files = [
        read_prompts(tmp_path / f"{n}.csv", {n: split_of()}, val_fraction=1e-6, seed=0, columns={"prompt.text": "t"})
        for n in "ab"
    ]
    found = merged(files)
    assert {p.text: p.filters for p in found.prompts} == {"one": ("a",), "two": ("a", "b"), "three": ("b",)}
    assert {p.prompt_id for p in found.prompts} == {p.prompt_id for file in files for p in file.prompts}
    assert (found.num_rows, set(found.filters)) == (4, {"a", "b"})


def test_splits_are_read_by_source_and_columns_belong_to_csv_files():
    raw = {
        "conan": {"source": "m.csv", "columns": COLUMNS, "where": {}},
        "p50": {"where": {}},
        "mild": {"source": "m.csv", "columns": COLUMNS, "where": {}},
    }
    sources = SplitsConfig(**raw).by_source("rtp.jsonl")
    assert [(source, list(splits)) for (source, _), splits in sources.items()] == [
        ("rtp.jsonl", ["p50"]),
        ("m.csv", ["conan", "mild"]),
    ]
    for wrong in ({"source": "m.csv"}, {"columns": COLUMNS}, {"source": "m.csv", "columns": {"prompt.toxicity": "t"}}):
        with pytest.raises(ValueError, match=r"conan: source=.* a \.csv file needs columns"):
            SplitsConfig(conan={"where": {}, **wrong})


@pytest.mark.slow
def test_a_hundred_thousand_prompts_take_less_than_a_minute_and_a_gigabyte(tmp_path):
    """As many rows as RTP has, through the reader alone in a process of its own; `resource` counts its memory."""
    import json
    import subprocess
    import sys

    program = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from detoxlens.params.splits import SplitConfig\n"
        "from detoxlens.data.realtoxicityprompts import read_prompts\n"
        "started = time.perf_counter()\n"
        "split = SplitConfig(where={'prompt.toxicity': {'gt': 0.5}})\n"
        "found = read_prompts(Path(sys.argv[1]), {'p50': split}, val_fraction=0.2, seed=0)\n"
        "print(found.num_rows, len(found.prompts), time.perf_counter() - started,\n"
        "      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
    )
    scores = dict.fromkeys(("severe_toxicity", "profanity", "insult", "identity_attack", "threat"), 0.123456789)
    with (tmp_path / "rtp.jsonl").open("w") as file:
        for n in range(100_000):
            part = {"text": f"Zorgon {n} hums and " + "hums " * 12, "toxicity": n % 10 / 10, **scores}
            row = {"filename": f"{n}.txt", "begin": 0, "end": 90, "challenging": False, "prompt": part}
            file.write(json.dumps(row | {"continuation": part}) + "\n")
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "rtp.jsonl")], capture_output=True, text=True, check=True
    ).stdout
    num_rows, num_prompts, seconds, gib = map(float, out.split())
    assert (num_rows, num_prompts) == (100_000, 40_000)
    assert seconds < 60 and gib < 1, out
