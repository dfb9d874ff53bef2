"""Which worker runs which test file (pytest-xdist)."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling


class FileScheduling(LoadFileScheduling):
    """Give a whole file to a worker, and go on when a worker crashes.

    xdist hands all files of a crashed worker on, also those that it had finished. For these the
    next worker has nothing to report, so it is never given more, and the run hangs. The test that
    crashed would run again and take the next worker with it.
    """

    def remove_node(self, node: Any) -> str | None:
        """Take a worker away; return the test that it crashed in, if any."""
        files = self.assigned_work[node]
        for file in [file for file, tests in files.items() if all(tests.values())]:
            del files[file]
        if not files:
            return super().remove_node(node)
        crashed = next(test for tests in files.values() for test, done in tests.items() if not done)
        first = next(iter(files.values()))
        first[crashed] = True
        if all(first.values()):
            del files[next(iter(files))]
        super().remove_node(node)
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
