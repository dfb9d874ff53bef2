"""An attended runner ends when the computer that started it goes away."""

from __future__ import annotations

import os
import subprocess
import threading
import time

SILENCE_S = 30.0  # an attended runner that hears nothing for this long ends
EXIT_STATUS = 3

# The process of a phase that runs now; it is killed with the runner.
child: subprocess.Popen | None = None


def leave_when_alone() -> None:
    """End this process when standard input ends or falls silent: nobody waits for the result.

    The computer that started the runner sends a byte every few seconds. Without that, a runner
    would keep running after its network connection broke.
    """
    heard = [time.monotonic()]

    def listen() -> None:
        try:
            while os.read(0, 64):
                heard[0] = time.monotonic()
        except OSError:
            pass
        leave()

    def watch() -> None:
        while time.monotonic() - heard[0] < SILENCE_S:
            time.sleep(1)
        leave()

    def leave() -> None:
        if child is not None:
            child.kill()
        os._exit(EXIT_STATUS)

    for function in (listen, watch):
        threading.Thread(target=function, daemon=True).start()
