"""Three nodes with a sealed and a plain share set, made once; each test works on copies of their disks."""

from pathlib import Path

import pytest
import trio

from tests.daemon.custody.committee import Committee, copy_committee, keygen, make_committee, prepare

PLAIN = """
[[custodian.plain]]
protocol = "gg18-v2"
parties = ["alice-server", "bob-server", "carol-server"]
keygen = true
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Committee:
    directory = tmp_path_factory.mktemp("committee")

    async def make() -> Committee:
        committee = await make_committee(directory / "made", "alice", "bob", "carol", tables=PLAIN)
        async with committee.up() as custodians:
            for name, custodian in custodians.items():
                committee.prepared[name] = [await prepare(custodian, "gg18-v2") for _ in range(2)]
        # On copies, so that the pre-parameters, which take long to find, are unspent on what the tests copy.
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
