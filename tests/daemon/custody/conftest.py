"""Three nodes with a sealed and a plain share set, made once; each test works on copies of their disks."""

from pathlib import Path

import pytest
import trio

from tests.daemon.custody.committee import Committee, copy_committee, keygen, make_committee

PLAIN = """
[[custodian.plain]]
protocol = "gg18-v2"
parties = ["alice-server", "bob-server", "carol-server"]
keygen = true
"""


@pytest.fixture(scope="session")
def made(arena: None, tmp_path_factory: pytest.TempPathFactory) -> Committee:  # noqa: ARG001  (opened by it)
    directory = tmp_path_factory.mktemp("committee")

    async def make() -> Committee:
        committee = await make_committee(directory / "made", "alice", "bob", "carol", tables=PLAIN)
        # On copies, so that the pre-parameters are unspent on what the tests copy.
        sealed = copy_committee(committee, directory / "sealed")
        async with sealed.up() as custodians:
            committee.shares = await keygen(sealed, custodians)
        plain = copy_committee(committee, directory / "plain")
        async with plain.up() as custodians:
            committee.plain = await keygen(plain, custodians, channel="plain")
        return committee

    return trio.run(make)


@pytest.fixture
def committee(made: Committee, tmp_path: Path) -> Committee:
    return copy_committee(made, tmp_path / "nodes")
