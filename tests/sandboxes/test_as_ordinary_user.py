"""Tests run by root test root's sandboxes; here the same tests run as somebody else."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandboxes.ordinary_user import ROOT, run_as_ordinary_user
from tests.sandboxes.workshop import HAS_BWRAP, IS_ROOT, NO_BWRAP

pytestmark = [
    pytest.mark.skipif(not IS_ROOT, reason="the tests are run by an ordinary user anyway"),
    pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP),
]


@pytest.fixture
def public_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ordinary-user-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder / "home")
    for place in folder.iterdir():
        place.rmdir()  # it was a mount point elsewhere, and never shall its contents be removed
    folder.rmdir()


FILES = sorted((ROOT / "tests/sandboxes").glob("test_*bubblewrap*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_sandboxes_of_an_ordinary_user(file: Path, public_folder: Path) -> None:
    name = str(file.relative_to(ROOT))

    done = run_as_ordinary_user(
        public_folder, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", name
    )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 1, done.stdout
