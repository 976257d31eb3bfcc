"""A small project for the checks of outputs, cache and remote."""

import json

import pytest

from detoxlens.doctor.results import Output, Project


def store(folder, md5, content=b"x"):
    """Puts an object where DVC's cache or a folder remote keeps it."""
    path = folder / "files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def project(tmp_path):
    """An adapter folder of two files and a table kept by git; all in the workspace, all in the cache."""
    (tmp_path / "adapters/ft").mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/table1.md").write_text("x")
    cache = tmp_path / ".dvc/cache"
    store(cache, "aa11.dir", json.dumps([{"md5": "bb22"}, {"md5": "cc33"}]).encode())
    store(cache, "bb22")
    store(cache, "cc33")
    outputs = [
        Output(path="adapters/ft", md5="aa11.dir", cached=True),
        Output(path="reports/table1.md", md5="dd44", cached=False),
    ]
    return Project(root=tmp_path, outputs=outputs, cache=cache / "files/md5", remote_name=None, remote_url=None)
