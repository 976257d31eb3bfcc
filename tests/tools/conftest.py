"""The small project, run once for all tests of this folder."""

from pathlib import Path

import pytest

from tests.tools.project import clone, make_origin


@pytest.fixture(scope="session")
def origin(tmp_path_factory) -> Path:
    """Committed, its pipeline run; not to be changed."""
    return make_origin(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def project(origin, tmp_path) -> Path:
    """A clone of it with all results, of one test's own."""
    return clone(origin, tmp_path / "project")
