import os
import subprocess
import sys

import pytest
import torch

from grover_dist.errors import UserError
from grover_dist.training.ranks import Ranks


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


@pytest.mark.distributed
def test_half_of_the_launchers_variables_is_an_error():
    code = "from grover_dist.training.ranks import Ranks; Ranks.join()"
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    environment = {name: value for name, value in environment.items() if not name.startswith("MASTER")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "UserError" in done.stderr and "MASTER_ADDR" in done.stderr
