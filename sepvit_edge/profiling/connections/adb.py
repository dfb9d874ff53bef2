"""Android devices by adb: the package is copied there, the app measures, its document is read.

apps/README.md, "The benchmark from a computer", is the agreement between the two. In place of the
app a program that the user built can measure: `executor_runner`.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...errors import SepViTError
from ...files import file_sha256
from ...package.folder import Package
from ...package.manifest import MANIFEST
from ..devices import ADBConnection
from ..document import Profile
from .answers import read_answer, read_floats
from .interface import Step, missing_library

try:
    import adbutils
    from adbutils.errors import AdbConnectionError
except ModuleNotFoundError:
    raise missing_library("adbutils") from None

_OUTPUT = "from-computer"
_PIXELS = "pixels.u8"
_POLL_S = 2.0


def measure_by_adb(
    connection: ADBConnection,
    package: Package,
    *,
    name: str,
    threads: int | None,
    runs: int,
    sustained_s: float,
    step: Step,
) -> Profile:
    """Let the app on a device measure a package.

    Parameters
    ----------
    connection : ADBConnection
        The device and the app.
    package : Package
        Package; it is copied to the device unless the app has the same files.
    name : str
        Name of the device in the document.
    threads : int or None
        Threads of the runtime. Default: the app decides.
    runs, sustained_s : int, float
        Number of timed runs, and length of the sustained run.
    step : callable
        Called with the name of each step, for a progress display.

    Raises
    ------
    SepViTError
        If the device or the app is missing, or the app failed; the sentence says why.
    """
    with open_device(connection) as device:
        app = _App(device, connection, name, step)
        extras = ["--es", "package", app.place(package)]
        extras += ["--ei", "runs", str(runs), "--ei", "sustained", str(round(sustained_s))]
        if threads is not None:
            extras += ["--ei", "threads", str(threads)]
        app.start(connection.action, extras, "the benchmark")
        result = app.wait(
            "profiles", ".json", connection.run_timeout_s + sustained_s, "the app measures"
        )
    try:
        document = json.loads(result)
    except (ValueError, RecursionError):
        raise SepViTError(f"the app on {name} wrote no JSON document; update the app") from None
    if isinstance(document, dict) and isinstance(document.get("device"), dict):
        document["device"]["name"] = name  # the model's name stays in `model`
    return read_answer(document, package.manifest, "the app")


def outputs_by_adb(
    connection: ADBConnection,
    package: Package,
    pixels: np.ndarray,
    *,
    name: str,
    threads: int,
    step: Step,
) -> np.ndarray:
    """Let the app on a device run a classifier on images.

    Parameters
    ----------
    connection : ADBConnection
        The device and the app.
    package : Package
        Package; it is copied to the device unless the app has the same files.
    pixels : numpy.ndarray
        uint8 (N, image_size, image_size, 3).
    name : str
        Name of the device, for messages.
    threads : int
        Threads of the runtime.
    step : callable
        Called with the name of each step.

    Returns
    -------
    numpy.ndarray
        Logits, float32 (N, num_classes).

    Raises
    ------
    SepViTError
        If the device or the app is missing, or the app failed; the sentence says why.
    """
    with open_device(connection) as device:
        app = _App(device, connection, name, step)
        extras = ["--es", "package", app.place(package), "--ei", "threads", str(threads)]
        extras += ["--es", "digest", package.manifest.digest, "--es", "pixels", _PIXELS]
        with tempfile.TemporaryDirectory(prefix="sepvit-edge-") as scratch:
            file = Path(scratch) / _PIXELS
            file.write_bytes(pixels.tobytes())
            device.place({_PIXELS: file}, f"{app.files}/pixels")
        app.start(connection.outputs_action, extras, "the app on images")
        doing = f"the app runs {len(pixels)} images"
        found = app.wait("outputs", ".f32", connection.run_timeout_s, doing)
    return read_floats(found, len(pixels), package.manifest.model.num_classes)


@contextmanager
def open_device(connection: ADBConnection) -> Iterator[AndroidDevice]:
    """Open the device; an error while the block runs becomes one sentence."""
    with _sentences(connection):
        client = adbutils.AdbClient(
            host=connection.server_host,
            port=connection.server_port,
            socket_timeout=connection.timeout_s,
        )
        yield AndroidDevice(client.device(_choose(client, connection)), connection)


def package_files(package: Package) -> dict[str, Path]:
    """Return the files of a package by their names on a device."""
    paths = [package.path / MANIFEST]
    paths += [package.path / file.path for file in package.manifest.files]
    return {path.name: path for path in paths}


def _choose(client: adbutils.AdbClient, connection: ADBConnection) -> str:
    """Return the serial number of the device to use."""
    attached = {info.serial: info.state for info in client.list()}
    serial = connection.serial
    if serial is None:
        if len(attached) != 1:
            listed = ", ".join(sorted(attached)) or "none"
            raise SepViTError(
                f"one attached device is needed, there are {len(attached)} ({listed}); attach it "
                "with USB debugging on, or name its serial in the device's [connection]"
            )
        serial = next(iter(attached))
    if serial not in attached:
        raise SepViTError(f"no device {serial} is attached; adb devices lists those that are")
    if attached[serial] != "device":
        raise SepViTError(
            f"device {serial} is {attached[serial]}; unlock it and allow USB debugging"
        )
    return serial


class _App:
    """The app on a device: its folder of files, what starts it, and what it writes."""

    def __init__(
        self, device: AndroidDevice, connection: ADBConnection, name: str, step: Step
    ) -> None:
        step("looking for the app")
        if not device.run(f"pm path {connection.app}", check=False):
            raise SepViTError(
                f"{connection.app} is not installed on {name}; install the app (apps/android)"
            )
        self._device, self._connection, self._name, self._step = device, connection, name, step
        self.files = f"/sdcard/Android/data/{connection.app}/files"

    def place(self, package: Package) -> str:
        """Copy a package to the app, and return its name there."""
        folder = package.path.absolute().name
        if not re.fullmatch(r"[\w.-]+", folder):
            raise SepViTError(
                f"the app does not accept the folder name {folder!r}; rename the package's folder "
                "with letters, digits, dots, hyphens and underscores"
            )
        self._step("copying files to the device")
        self._device.place(package_files(package), f"{self.files}/packages/{folder}")
        return folder

    def start(self, action: str, extras: list[str], what: str) -> None:
        """Remove older results, stop the app, and start it with an intent."""
        self._device.run(f"rm -f {self.files}/*/{_OUTPUT}.*", check=False)
        component = f"{self._connection.app}/{self._connection.activity}"
        command = ["am", "start", "-W", "-S", "-n", component, "-a", action]
        said = self._device.run(shlex.join([*command, "--es", "output", _OUTPUT, *extras]))
        if "Error" in said:
            raise SepViTError(f"{self._name} cannot start {what}: {said.splitlines()[-1]}")

    def wait(self, folder: str, ending: str, timeout_s: float, doing: str) -> bytes:
        """Wait for the result, or for the sentence that says why it is missing."""
        stem, device, name = f"{self.files}/{folder}/{_OUTPUT}", self._device, self._name
        start = time.monotonic()
        while (passed := time.monotonic() - start) < timeout_s:
            self._step(f"{doing}: {passed:.0f} s")
            if device.exists(f"{stem}{ending}"):
                return device.fetch(f"{stem}{ending}")
            if device.exists(f"{stem}.error"):
                said = device.fetch(f"{stem}.error").decode(errors="replace").strip()
                raise SepViTError(f"the app on {name}: {said}")
            if passed > _POLL_S and not device.run(f"pidof {self._connection.app}", check=False):
                raise SepViTError(f"the app on {name} ended without a result; adb logcat tells why")
            time.sleep(_POLL_S)
        raise SepViTError(f"the app on {name} gave no result within {timeout_s:.0f} s")


class AndroidDevice:
    """Commands and files of one device."""

    def __init__(self, device: adbutils.AdbDevice, connection: ADBConnection) -> None:
        self._device, self._facts = device, connection

    def run(
        self, command: str, check: bool = True, what: str = "", timeout_s: float | None = None
    ) -> str:
        """Run a shell command and return its output; errors call the command `what`."""
        done = self._device.shell2(command, timeout=timeout_s or self._facts.timeout_s)
        if check and done.returncode != 0:
            said = (done.output.strip().splitlines() or ["no reason"])[-1]
            raise SepViTError(f"the device cannot run {what or command.split()[0]}: {said}")
        return str(done.output).strip() if done.returncode == 0 else ""

    def place(self, files: Mapping[str, Path], folder: str) -> None:
        """Copy the files that are missing or different on the device."""
        quoted = shlex.quote(folder)
        self.run(f"mkdir -p {quoted}")
        listed = self.run(f"cd {quoted} && sha256sum * 2>/dev/null", check=False)
        there = {line.split()[-1]: line.split()[0] for line in listed.splitlines() if " " in line}
        needed = {n: path for n, path in files.items() if there.get(n) != file_sha256(path)}
        size = sum(path.stat().st_size for path in needed.values())
        free = self.run(f"df -k {quoted} | tail -1", check=False).split()
        if len(free) > 3 and free[3].isdigit() and int(free[3]) * 1024 < size:
            raise SepViTError(
                f"the device's disk is full: {size / 1e6:.1f} MB are needed; free some space"
            )
        for name, path in needed.items():
            self._device.sync.push(path, f"{folder}/{name}")

    def exists(self, path: str) -> bool:
        """Return whether there is a file."""
        done = self._device.shell2(f"test -e {path}", timeout=self._facts.timeout_s)
        return bool(done.returncode == 0)

    def fetch(self, path: str) -> bytes:
        """Return the content of a file."""
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "file"
            self._device.sync.pull(path, target)
            return target.read_bytes()


@contextmanager
def _sentences(connection: ADBConnection) -> Iterator[None]:
    """Turn errors of adbutils into sentences."""
    where = f"{connection.server_host}:{connection.server_port}"
    try:
        yield
    except adbutils.AdbTimeout:
        raise SepViTError("the device did not answer in time; is it asleep?") from None
    except AdbConnectionError:
        raise SepViTError(f"there is no adb server at {where}; run: adb start-server") from None
    except (adbutils.AdbError, OSError, EOFError) as error:
        raise SepViTError(f"the device went away, or adb failed: {error}") from None
