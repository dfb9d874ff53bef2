"""Connections to a device; whichever is used, the same document comes back.

`hosts.open_host` gives a place where Python runs: this machine, a board by SSH, or a place of a
labgrid laboratory. `run.run_on_host` puts the package and the runner there and follows the runner's
lines. A phone has no Python: there the app measures, and `adb` and `app_file` fetch its document.
"""
