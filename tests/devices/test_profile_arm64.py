"""Numerics on arm64: the runner on an emulated Cortex-A72, whose times mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Exporter, mini_digits

from sepvit_edge.profiling.devices import LocalConnection, load_device
from sepvit_edge.profiling.measuring import Request, measure_packages

NAME = "emulated-cortex-a72"


def set_up() -> bool:
    connection = load_device(NAME)[1].connection
    assert isinstance(connection, LocalConnection)
    return Path(connection.python[0]).expanduser().with_name(".complete").exists()


pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(
        not set_up(), reason="there is no emulated board; run: scripts/emulated-cortex-a72.sh"
    ),
]


# Integers are the same everywhere; float operations between them may tip a last bit over.
LEAST_DB = {"fp32": 100, "int8": 28}


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["int8", pytest.param("fp32", marks=pytest.mark.slow)])
def test_golden_vectors_hold_on_a_cortex_a72(
    precision: str, target: str, exported: Exporter
) -> None:
    pytest.importorskip(target)
    package = exported(mini_digits(), target, precision, images=100)
    (profile,) = measure_packages([package], NAME, load_device(NAME)[1], Request())
    assert profile.complete and profile.emulated
    assert profile.device.architecture == "aarch64"
    assert profile.golden is not None and profile.golden.passed
    assert profile.golden.sqnr_db is not None
    assert profile.golden.sqnr_db >= LEAST_DB[precision]
    assert profile.golden.preprocessing_identical
