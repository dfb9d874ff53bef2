"""Cost without noise: instructions of Lite's packages on the emulated Cortex-A76."""

from __future__ import annotations

import socket
from pathlib import Path

import instructions
import pytest

from sepvit_edge.profiling.devices import SSHConnection, load_device


def board_runs() -> bool:
    connection = load_device(instructions.BOARD)[1].connection
    assert isinstance(connection, SSHConnection)
    with socket.socket() as probe:
        return probe.connect_ex((connection.host, connection.port or 22)) == 0


pytestmark = [
    pytest.mark.arm64,
    pytest.mark.slow,
    pytest.mark.skipif(
        not board_runs(), reason="the board does not run; start it: scripts/emulated-cortex-a76.sh"
    ),
]


@pytest.mark.parametrize("recipe", sorted(instructions.baseline()))
def test_a_package_takes_no_more_instructions(recipe: str, tmp_path: Path) -> None:
    pytest.importorskip(recipe.split("-")[0])
    found = instructions.measure(recipe, tmp_path, naive=False)
    kept = instructions.baseline()[recipe]
    assert found["edge"] <= kept["edge"] * (1 + instructions.MOST_GROWTH), (
        f"{recipe}: {found['edge']:,} instructions with {found['runtime']}, "
        f"{kept['edge']:,} were kept with {kept['runtime']}; if the growth is meant, run: "
        f"python benchmarks/instructions.py --recipe {recipe} --write"
    )
