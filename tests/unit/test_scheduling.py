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

def pytest_terminal_summary(terminalreporter):
    for sentence in terminalreporter.config.pluginmanager.get_plugin("dsession").sched.crashes:
        terminalreporter.line(sentence)
"""
FINE = "import pytest\n@pytest.mark.parametrize('i', range(4))\ndef test_fine(i): pass\n"
# the other worker waits, so that this one has finished a file when it crashes
CRASH = """
import os, pathlib, pytest, signal
@pytest.mark.parametrize('i', range(4))
def test_crash(i):
    before = pathlib.Path(__file__).with_name('before')
    if i == {place} and not ({once} and before.exists()):
        before.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_crash_is_named_and_all_others_run(tmp_path: Path, place: int, once: bool) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(tests=str(TESTS)))
    for name in "abdefg":
        (tmp_path / f"test_{name}.py").write_text(FINE)
    (tmp_path / "test_c.py").write_text(CRASH.format(place=place, once=once))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-n2", "-q", str(tmp_path)],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    crash = f"ended with SIGKILL in test_c.py::test_crash[{place}]"
    assert done.stdout.count(crash) == (1 if once else 2), done.stdout
    if once:
        assert done.returncode == 0 and "28 passed" in done.stdout, done.stdout
    else:
        assert f"crashed while running 'test_c.py::test_crash[{place}]'" in done.stdout, done.stdout
        assert "1 failed, 27 passed" in done.stdout, done.stdout
