"""A run of the tests goes on when a worker crashes, and names the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import HANGS, TESTS

pytest.importorskip("xdist")
CONFTEST = """
import sys
sys.path.insert(0, {tests!r})

def pytest_xdist_make_scheduler(config, log):
    from scheduling import FileScheduling
    config.option.loadscopereorder = False
    return FileScheduling(config, log)
"""
FINE = "import pytest\n@pytest.mark.parametrize('i', range(4))\ndef test_fine(i): pass\n"
# the other worker waits, so that this one has finished a file when it crashes
CRASH = """
import os, pytest
@pytest.mark.parametrize('i', range(4))
def test_crash(i):
    if i == {place}: os._exit(1)
"""


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_crash_is_named_and_all_others_run(tmp_path: Path, place: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(tests=str(TESTS)))
    for name in "abdefg":
        (tmp_path / f"test_{name}.py").write_text(FINE)
    (tmp_path / "test_c.py").write_text(CRASH.format(place=place))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-n2", "-q", str(tmp_path)],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert f"crashed while running 'test_c.py::test_crash[{place}]'" in done.stdout, done.stdout
    assert "1 failed, 27 passed" in done.stdout, done.stdout
