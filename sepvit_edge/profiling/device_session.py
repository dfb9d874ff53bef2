"""A package that runs on a device, and takes images as `PackageSession` does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import numpy as np

from ..errors import SepViTError
from ..package.folder import Package
from .connections.hosts import open_host
from .connections.interface import Host, Step
from .connections.run import Job, option_words, outputs_on_host
from .devices import ADBConnection, DeviceFile


def check_takes_images(name: str, device: DeviceFile) -> None:
    """Reject a device to which images cannot be sent.

    Raises
    ------
    SepViTError
        If the device only exports documents.
    """
    if device.connection.kind == "app-file":
        raise SepViTError(
            f"no computer reaches the app on {name}, so it takes no images; accuracy is measured "
            "on devices with Python (local, ssh, labgrid) and with the Android app (adb)"
        )


def open_on_device(
    package: Package,
    name: str,
    device: DeviceFile,
    threads: int = 1,
    bootstrap: bool = False,
    step: Step = lambda _: None,
) -> DeviceSession | AppSession:
    """Return what runs a classifier on a device; a context manager.

    Parameters
    ----------
    package : Package
        The package; it is copied to the device where it is missing.
    name : str
        Name of the device, for messages.
    device : DeviceFile
        The device's file in profiles/.
    threads : int
        Threads of the runtime there.
    bootstrap : bool
        Whether to make an environment with the runtime on the device.
    step : callable
        Called with the name of each step, for a progress display.

    Raises
    ------
    SepViTError
        If the device takes no images, the package is not a classifier, an environment is to be
        made beside an app, or, on entering, the device cannot be reached.
    """
    check_takes_images(name, device)
    if package.manifest.task != "classification":
        raise SepViTError(
            f"{package.path} is for {package.manifest.task}; on a device, accuracy is measured of "
            "classifiers"
        )
    if not isinstance(device.connection, ADBConnection):
        return DeviceSession(package, device, threads, bootstrap, step)
    if bootstrap:
        raise SepViTError(
            f"--bootstrap is for devices with Python; leave it out, the app on {name} has its "
            "own runtimes"
        )
    return AppSession(package, name, device.connection, threads, step)


class _Remote:
    """What sessions on devices have in common.

    Attributes
    ----------
    images_at_once : int
        Number of images that a start of the runner, or of the app, there is worth.
    """

    images_at_once = 256

    def run_on_cpu(self, pixels: np.ndarray) -> None:
        """Return None: the device computes in one way."""


class DeviceSession(_Remote):
    """A classifier on a device on which Python runs; see `open_on_device`."""

    def __init__(
        self, package: Package, device: DeviceFile, threads: int, bootstrap: bool, step: Step
    ) -> None:
        own = device.measuring
        options = {"--threads": threads, "--cores": own.cores, "--execution": own.execution}
        self.package = package
        self._connection, self._job = device.connection, Job(package, option_words(options))
        self._bootstrap, self._step = bootstrap, step
        self._loop = asyncio.new_event_loop()
        self._open = AsyncExitStack()
        self._host: Host

    def __enter__(self) -> DeviceSession:
        try:
            self._host = self._wait(self._open.enter_async_context(open_host(self._connection)))
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait(self._leave())
        finally:
            self._loop.close()

    def run_pixels(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run preprocessed pixels, uint8 (N, image_size, image_size, 3); return ``[logits]``.

        Raises
        ------
        SepViTError
            If the device went away, or sent something else.
        """
        run = outputs_on_host(self._host, self._job, pixels, self._bootstrap, self._step)
        logits = self._wait(run)
        self._bootstrap = False
        return [logits]

    async def _leave(self) -> None:
        """Close the connection; an interruption leaves tasks of the runner behind."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._open.aclose()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)


class AppSession(_Remote):
    """A classifier in the app on an Android device; see `open_on_device`.

    Each piece of the images starts the app anew.
    """

    def __init__(
        self, package: Package, name: str, connection: ADBConnection, threads: int, step: Step
    ) -> None:
        self.package, self._name, self._connection = package, name, connection
        self._threads, self._step = threads, step

    def __enter__(self) -> AppSession:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run_pixels(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run preprocessed pixels, uint8 (N, image_size, image_size, 3); return ``[logits]``.

        Raises
        ------
        SepViTError
            If the device or the app is missing or went away, or the app failed.
        """
        from .connections.adb import outputs_by_adb

        logits = outputs_by_adb(
            self._connection,
            self.package,
            pixels,
            name=self._name,
            threads=self._threads,
            step=self._step,
        )
        return [logits]
