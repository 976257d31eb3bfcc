import pytest

from tests.sweep.project import prepared


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A prepared project, one for each module."""
    return prepared(tmp_path_factory.mktemp("sweep"))
