import pytest

from grover_dist.training.ranks import Ranks


@pytest.fixture(scope="session")
def one_rank() -> Ranks:
    return Ranks.join()
