"""The CSV of labelled replies: read in order, and every mistake named by line."""

import pytest

from detoxlens.common.errors import UserError
from detoxlens.data.response_kinds import Labelled, read_response_kinds

HEADER = "text,kind,part,note\n"


def read(tmp_path, body):
    path = tmp_path / "kinds.csv"
    path.write_text(HEADER + body)
    return read_response_kinds(path, "kinds.csv")


def test_rows_come_in_the_files_order(tmp_path):
    assert read(tmp_path, "I can't help.,refusal,test,\nBread is baked.,answer,fit,plain\n") == [
        Labelled(text="I can't help.", kind="refusal", part="test", note=""),
        Labelled(text="Bread is baked.", kind="answer", part="fit", note="plain"),
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("Hello,greeting,fit,\n", "line 2: kind is 'greeting'; allowed are refusal, counter_speech, answer"),
        ("Hello,answer,train,\n", "line 2: part is 'train'; allowed are fit, test"),
        ("  ,answer,fit,\n", "line 2: the text is empty"),
        ("Hello,answer,test,\n", "has no row of kind answer and part fit"),
    ],
)
def test_a_mistake_is_named(tmp_path, body, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, body)
