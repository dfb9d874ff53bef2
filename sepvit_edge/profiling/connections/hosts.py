"""The table of connections to devices on which Python runs; each library is imported when used."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from ...errors import SepViTError
from ..devices import Connection, LabgridConnection, LocalConnection, SSHConnection
from .interface import Host


def open_host(connection: Connection) -> AbstractAsyncContextManager[Host]:
    """Connect to a device on which Python runs.

    Raises
    ------
    SepViTError
        If the device cannot be reached; the sentence says why.
    """
    if isinstance(connection, LocalConnection):
        from .local import LocalHost

        return LocalHost(connection)
    if isinstance(connection, SSHConnection):
        from .ssh import SSHHost

        return SSHHost(connection)
    if isinstance(connection, LabgridConnection):
        from .labgrid import LabgridHost

        return LabgridHost(connection)
    raise SepViTError(f"no Python runs on a device that is reached by {connection.kind}")
