"""A stage's fingerprint changes with what its code does, however far away, and with nothing else."""

import pytest

from detoxlens.common.fingerprint import closure, fingerprint

FILES = {
    "__init__.py": '"""A package."""\n',
    "stage.py": "from detoxlens import near\n\n\ndef run():\n    return near.value()\n",
    "near.py": "def value():\n    from detoxlens.far import LIMIT\n\n    return LIMIT\n",
    "far.py": "from typing import TYPE_CHECKING\n\nfrom detoxlens.furthest import RATE\n\n"
    "if TYPE_CHECKING:\n    from detoxlens.annotated import Shape\n\nLIMIT: 'Shape' = RATE + 1\n",
    "furthest.py": "RATE = 0.5\n",
    "annotated.py": "class Shape: ...\n",
    "apart.py": "OTHER = 1\n",
}


@pytest.fixture
def source(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "detoxlens" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def found(source):
    return fingerprint("detoxlens.stage", source)


def edit(source, name, old, new):
    path = source / "detoxlens" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_imports_are_followed_into_functions_and_not_into_annotations(source):
    names = {"stage", "near", "far", "furthest"}
    assert closure("detoxlens.stage", source) == {f"detoxlens.{name}" for name in names}
    assert [line.split()[0] for line in found(source)] == [f"detoxlens/{name}.py" for name in sorted(names)]


def test_a_constant_three_imports_away_counts(source):
    before = found(source)
    edit(source, "furthest.py", "0.5", "0.25")
    changed = [line.split()[0] for line, old in zip(found(source), before, strict=True) if line != old]
    assert changed == ["detoxlens/furthest.py"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("furthest.py", "RATE = 0.5", "# half\nRATE = 0.5  # of all"),
        ("furthest.py", "RATE = 0.5", '"""The rates."""\n\nRATE = 0.5\n"""Half of all."""'),
        ("near.py", "def value():", 'def value():\n    """The limit."""'),
        ("far.py", "RATE + 1", "(\n    RATE\n    + 1\n)"),
        ("apart.py", "1", "2"),
        ("annotated.py", "...", "number = 1"),
    ],
)
def test_comments_docstrings_layout_and_what_is_not_imported_do_not_count(source, name, old, new):
    before = found(source)
    edit(source, name, old, new)
    assert found(source) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "None"),
        ("0.5", "0.5; RATE = -RATE"),
        ("0.5", "'0.5'"),
        ("RATE = 0.5", "def RATE():\n    return 0.5"),
        ("RATE = 0.5", "def RATE():\n    return\n"),
    ],
)
def test_every_other_edit_counts(source, old, new):
    before = found(source)
    edit(source, "furthest.py", old, new)
    assert found(source) != before
