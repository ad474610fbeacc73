import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from grover_dist.errors import UserError
from grover_dist.training.ranks import Ranks, usable_ranks

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_plain_process_is_a_gang_of_one(one_rank):
    assert (one_rank.rank, one_rank.world, one_rank.is_main) == (0, 1, True)
    assert one_rank.sum([1, 2.5]) == [1.0, 2.5]
    assert one_rank.gather("x") == ["x"]
    assert one_rank.on_main(lambda: 7) == 7
    one_rank.barrier()
    assert torch.distributed.get_world_size() == 1 and os.environ["LOCAL_RANK"] == "0"


def test_joining_again_takes_the_group_that_exists(one_rank):
    group = torch.distributed.group.WORLD
    assert Ranks.join(threads=1) == one_rank and torch.distributed.group.WORLD is group
    assert torch.get_num_threads() == 1


def test_what_the_main_rank_raises_is_raised(one_rank):
    def fault():
        raise UserError("no such thing", where="here")

    with pytest.raises(UserError, match="no such thing"):
        one_rank.on_main(fault)


def start(code: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASTER")} | variables
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.distributed
def test_half_of_the_launchers_variables_is_an_error():
    output, _ = start("from grover_dist.training.ranks import Ranks; Ranks.join()", RANK="0", WORLD_SIZE="2").communicate(timeout=120)
    assert "UserError" in output and "MASTER_ADDR" in output


@pytest.mark.distributed
def test_ranks_know_their_place_from_open_mpis_variables():
    code = (
        "import os; from grover_dist.training.ranks import Ranks\n"
        "ranks = Ranks.join(30); print(ranks.rank, ranks.sum([ranks.rank + 1]), os.environ['LOCAL_RANK'])"
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1]), "PYTHONPATH": str(REPOSITORY)}
    names = {"RANK": None, "SIZE": 2, "LOCAL_RANK": None, "LOCAL_SIZE": 2}
    ranks = [
        start(code, **{f"OMPI_COMM_WORLD_{name}": str(rank if value is None else value) for name, value in names.items()}, **address)
        for rank in range(2)
    ]
    for rank, output in enumerate(process.communicate(timeout=120)[0] for process in ranks):
        assert f"{rank} [3.0] {rank}" in output, output


@pytest.mark.distributed
def test_a_rank_of_other_code_is_named(tmp_path):
    """Two ranks without a launcher; the second imports a copy of the product in which one comment is new."""
    shutil.copytree(REPOSITORY / "grover_dist", tmp_path / "grover_dist", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "grover_dist" / "errors.py", "a") as handle:
        handle.write("# mended on one host only\n")
    code = "from grover_dist.training.ranks import Ranks, code_version\nRanks.join(30).agree({'settings': 1, 'code': code_version()})"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1]), "WORLD_SIZE": "2"}
    folders = (REPOSITORY, tmp_path)
    ranks = [start(code, folder, RANK=str(rank), PYTHONPATH=str(folder), **address) for rank, folder in enumerate(folders)]
    for output in [process.communicate(timeout=120)[0] for process in ranks]:
        assert "not given the same work" in output and "rank 1 on " in output and "code 0." in output, output


def test_ranks_that_can_take_an_even_share():
    assert [usable_ranks(world, [64, 32]) for world in (1, 2, 3, 4, 7, 8)] == [1, 2, 2, 4, 4, 8]
    assert usable_ranks(5, [60, 45]) == 5 and usable_ranks(4, [7]) == 1
