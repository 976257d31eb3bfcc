"""Fixtures that the stages' tests share."""

from pathlib import Path

import pytest

from tests.pipeline.stages.project import make_project


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A project root with data, a base model and a reward classifier, as the earlier stages leave it."""
    return make_project(tmp_path_factory.mktemp("project"))
