"""No password is shown, and nothing else is changed."""

import pytest

from detoxlens.common.urls import without_password, without_password_of


@pytest.mark.parametrize(
    "url, shown",
    [
        ("postgresql+psycopg://ada:s3cret@host:5432/runs", "postgresql+psycopg://host:5432/runs"),
        ("postgresql://ada:p@ss@host/runs", "postgresql://host/runs"),
        ("postgresql://ada:kQ2x/9abc+Zz=@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db"),
        ("postgresql:///runs?host=h&user=ada&password=s3cret", "postgresql:///runs?host=h&user=***&password=***"),
        ("postgresql://h/runs?PassWord=s3cret&sslmode=require", "postgresql://h/runs?PassWord=***&sslmode=require"),
        ("ssh://ada@host/folder", "ssh://host/folder"),
    ],
)
def test_user_name_and_password_are_taken_out(url, shown):
    assert without_password(url) == shown


def test_parts_of_a_password_in_a_message_are_taken_out():
    url = "postgresql://ada:kQ2x/9abc@zz@host:1/db"
    told = "could not be cast to integer value as 'kQ2x'; failed to resolve host 'zz@host'; " + url
    assert without_password_of(url, told) == (
        "could not be cast to integer value as '***'; failed to resolve host '***@host'; postgresql://host:1/db"
    )


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////home/ada/.detoxlens/mlflow.db",
        "sqlite:///:memory:",
        "http://host:5000",
        "journal:runs.log",
        "s3://bucket/path",
        "../backup",
    ],
)
def test_a_url_without_any_is_left_as_it_is(url):
    assert without_password(url) == url
