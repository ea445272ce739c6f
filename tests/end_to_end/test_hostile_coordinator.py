"""A coordinator that lies, to all or to each something else, repeats itself, talks without end or not at all.

What the caller or the stored share contradicts is refused by name, and nothing is asked of the peers. Where callers
were told the same lies as their daemons, the signed hellos differ: that ends it before a share is opened.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from starlette.responses import Response, StreamingResponse

from tests.end_to_end.hostile import Arena, Ends, arena_of, blames_nobody, hold, is_in_time, is_told, read_logs
from tests.end_to_end.prepared import uses
from tests.end_to_end.running import PARTIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localnet.coordinator import Script

    Lie = Callable[[str, dict[str, Any]], dict[str, Any] | Response]

HASH: Final = hashlib.sha256(b"pay Carol").hexdigest()
OTHER_HASH: Final = hashlib.sha256(b"pay Mallory").hexdigest()
OTHER_KEY: Final = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
LOW_KEY: Final = "04" + "11" * 64
TABLES: Final[dict[str, dict[str, object]]] = {
    "coordinator": {"timeout_seconds": 4},
    "limits": {"stall_seconds": 25},
}


class Endless:
    """One piece after the other, with so long a pause between them."""

    def __init__(self, piece: bytes, pause: float = 0.0) -> None:
        self._piece = piece
        self._pause = pause

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> bytes:
        await trio.sleep(self._pause)
        return self._piece


def info(**changes: object) -> Lie:
    """Another session than the one that was asked for."""
    return lambda _, body: body | {"session_info": body["session_info"] | changes}


def others(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Lie:
    """Other parties."""
    return lambda _, body: body | {"other_parties": change(body["other_parties"])}


def says(content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Lie:
    """Anything at all."""
    return lambda *_: Response(content, status, headers, media_type="application/json")


MALLORY: Final = {"party_id": "mallory-server", "party_index": 3}
DISAGREES, MISSPOKEN, DECLINED, OVERDUE = "session-disagrees", "misspoken", "declined", "overdue"
ABOUT_ANY: Final[dict[str, tuple[Lie, str, str]]] = {
    "a threshold below": (info(threshold_t=2), DISAGREES, "2-of-3"),
    "a threshold beyond": (info(threshold_t=4), MISSPOKEN, "does not read"),
    "another number of parties": (info(threshold_n=4), DISAGREES, ""),
    "a session id of another": (info(session_id=str(uuid.uuid4())), MISSPOKEN, "answered with session"),
    "no session id": (info(session_id="../../etc"), MISSPOKEN, "does not read"),
    "another type": (info(session_type="rotate"), DISAGREES, "is of type rotate"),
    "a type that is none": (info(session_type="steal"), MISSPOKEN, "does not read"),
    "a member added": (others(lambda known: [*known, MALLORY]), DISAGREES, ""),
    "a member replaced": (others(lambda known: [*known[1:], known[0] | {"party_id": "m-x"}]), DISAGREES, ""),
    "a member removed": (others(lambda known: known[1:]), DISAGREES, ""),
    "a member doubled": (others(lambda known: [*known, known[0]]), MISSPOKEN, "a party appears twice"),
    "ourselves among the others": (
        lambda party, body: body | {"other_parties": [*body["other_parties"], {"party_id": party, "party_index": 0}]},
        DISAGREES,
        "",
    ),
    "a party id that is none": (others(lambda known: [MALLORY | {"party_id": "x; rm -rf"}, *known]), MISSPOKEN, ""),
    "an index that is none": (others(lambda known: [known[0] | {"party_index": -1}, *known[1:]]), MISSPOKEN, ""),
}
"""What is told to all parties, the reason that each gives, and some of its words."""
MANNERS: Final[dict[str, tuple[Lie, str, str]]] = {
    "nothing": (says(b""), MISSPOKEN, "does not read"),
    "no JSON": (says(b"<html>welcome</html>"), MISSPOKEN, "does not read"),
    "no object": (says(b"[]"), MISSPOKEN, "does not read"),
    "wrong types": (says(b'{"session_info": 1, "other_parties": {}}'), MISSPOKEN, "does not read"),
    "a pit of brackets": (says(b'{"a":' * 20_000), MISSPOKEN, "does not read"),
    "a number without end": (says(b'{"party_index": ' + b"9" * 200_000 + b"}"), MISSPOKEN, "does not read"),
    "no text": (says(b'{"session_info": "\xff\xfe"}'), MISSPOKEN, "does not read"),
    "half a megabyte": (says(json.dumps({"x": "y" * 512 * 1024}).encode()), MISSPOKEN, "more than 262144 bytes"),
    "without end": (lambda *_: StreamingResponse(Endless(b"x" * 4096)), MISSPOKEN, "more than 262144 bytes"),
    "packed": (
        says(gzip.compress(bytes(10**7)), headers={"Content-Encoding": "gzip"}),
        MISSPOKEN,
        "is compressed",
    ),
    "elsewhere": (says(b"", 302, {"Location": "http://127.0.0.1:9/"}), DECLINED, "answered 302"),
    "no": (says(b"\x1b[2Jgo away", 403), DECLINED, "answered 403"),
    "later, always": (says(b"", 503), OVERDUE, "waiting for coordinator"),
    "drop by drop, always": (lambda *_: StreamingResponse(Endless(b" ", 1)), OVERDUE, "waiting for coordinator"),
}
"""How anything is told; before it is known what the session is about."""
ABOUT_SIGNINGS: Final[dict[str, tuple[Lie, str, str]]] = {
    "another hash": (info(message_hash=OTHER_HASH), DISAGREES, "message hash is not the one that was asked for"),
    "no hash": (info(message_hash=None), MISSPOKEN, "does not name public key and message hash"),
    "a hash that is none": (info(message_hash="00"), MISSPOKEN, "does not read"),
    "another key": (info(public_key=OTHER_KEY), DISAGREES, "public key is not the one that was asked for"),
    "no key": (info(public_key=None), MISSPOKEN, "does not name public key and message hash"),
    "a key off the curve": (info(public_key=LOW_KEY), MISSPOKEN, "does not read"),
    "a keygen": (info(session_type="keygen"), DISAGREES, "a signing was asked for"),
}
ABOUT_KEYGENS: Final[dict[str, tuple[Lie, str, str]]] = {
    "a signing": (info(session_type="sign"), DISAGREES, "a keygen was asked for"),
    "two with one index": (
        others(lambda known: [member | {"party_index": 1} for member in known]),
        MISSPOKEN,
        "not 0..n-1, each once",
    ),
}


SIGNINGS: Final = ABOUT_ANY | ABOUT_SIGNINGS | MANNERS
KEYGENS: Final = ABOUT_ANY | ABOUT_KEYGENS


@dataclass
class Lies:
    """How sessions ended, by the lie that was told in them."""

    signing: dict[str, Ends] = field(default_factory=dict)
    keygen: dict[str, Ends] = field(default_factory=dict)
    stories: dict[str, Ends] = field(default_factory=dict)

    def all(self) -> list[Ends]:
        return [*self.signing.values(), *self.keygen.values(), *self.stories.values()]


@pytest.fixture(scope="module")
def network(arena: None) -> Iterator[Arena]:  # noqa: ARG001  of the core that seals the recorded pre-parameters
    with arena_of(sets=6, tables=TABLES) as made:
        yield made


async def sign(network: Arena, script: Script, expected: dict[str, Any] | None = None) -> Ends:
    net = network.net
    made = net.coordinator.create_signing(network.public_key, PARTIES, HASH)
    net.coordinator.scripts[made.session_id] = script
    return await hold(net, made, "signing", expected or {"messageHash": HASH, "publicKey": network.public_key})


async def make_key(network: Arena, script: Script, expected: dict[str, Any] | None = None) -> Ends:
    net = network.net
    made = net.coordinator.create_keygen(PARTIES, 3)
    net.coordinator.scripts[made.session_id] = script
    usual = {"shareType": "wallet", "threshold": 3, "parties": list(PARTIES)}
    return await hold(net, made, "keygen", expected or usual)


FIRST: Final = PARTIES[0]
"""Who is told, and whose caller is told, another story than the rest."""


def told_first(lie: Lie) -> Lie:
    return lambda party, body: lie(party, body) if party == FIRST else body


def swapped(known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two others in each other's place."""
    first, second = known
    return [first | {"party_index": second["party_index"]}, second | {"party_index": first["party_index"]}]


def permuted(party: str, body: dict[str, Any]) -> dict[str, Any]:
    """Every index but one's own moved on by one place; consistent for the one who hears it."""
    turned = {name: (place + 1) % len(PARTIES) for place, name in enumerate(PARTIES)}
    known = [member | {"party_index": turned[member["party_id"]]} for member in body["other_parties"]]
    return body | {"other_parties": known, "party_index": turned[party]}


@pytest.fixture(scope="module")
def lies(network: Arena) -> Lies:
    """All lies at once, each in a session of its own."""
    found = Lies()
    signing = {"messageHash": HASH, "publicKey": network.public_key}
    other_hash = signing | {"messageHash": OTHER_HASH}
    keygen = {"shareType": "wallet", "threshold": 3, "parties": list(PARTIES)}

    async def run(many: dict[str, Ends], name: str, act: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401  whatever it takes
        async with limit:
            many[name] = await act(network, *arguments)

    async def tell() -> None:
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                for name, (lie, *_) in SIGNINGS.items():
                    nursery.start_soon(run, found.signing, name, sign, lie)
                for name, (lie, *_) in KEYGENS.items():
                    nursery.start_soon(run, found.keygen, name, make_key, lie)
                stories: dict[str, tuple[Callable[..., Any], Lie, dict[str, Any]]] = {
                    "message hash": (sign, info(message_hash=OTHER_HASH), signing | {FIRST: other_hash}),
                    "threshold": (make_key, info(threshold_t=2), keygen | {FIRST: keygen | {"threshold": 2}}),
                    "committee": (make_key, others(swapped), keygen),
                }
                for name, (act, lie, expected) in stories.items():
                    nursery.start_soon(run, found.stories, name, act, told_first(lie), expected)

    limit = trio.CapacityLimiter(14)
    network.running.call(tell)
    read_logs(network.net, found.all())
    return found


@pytest.mark.parametrize("name", SIGNINGS)
def test_a_lie_about_a_signing_is_refused_by_name(lies: Lies, name: str) -> None:
    _, reason, words = SIGNINGS[name]
    is_refused(lies.signing[name], "signing", reason, words)


@pytest.mark.parametrize("name", KEYGENS)
def test_a_lie_about_a_keygen_is_refused_by_name(lies: Lies, name: str) -> None:
    _, reason, words = KEYGENS[name]
    is_refused(lies.keygen[name], "keygen", reason, words)


def is_refused(ends: Ends, kind: str, reason: str, words: str) -> None:
    blames_nobody(ends)
    is_in_time(ends, kind)
    for end in ends.values():
        # A keygen's committee is told in full, so that a gap in it is a contradiction; a signing's is stored.
        assert end.reason in ({DISAGREES, MISSPOKEN} if reason == DISAGREES else {reason}), end.message
        assert words in end.message or kind == "keygen"
        assert "\x1b" not in end.message
        assert end.status == ("timeout" if reason == OVERDUE else "failed")
        assert "begun" not in end.names, "the peers have heard nothing of it"
        is_told(end)


@pytest.mark.parametrize("name", ["message hash", "threshold", "committee"])
def test_one_story_to_each_party_ends_by_the_hellos(lies: Lies, name: str) -> None:
    ends = lies.stories[name]
    blames_nobody(ends)
    for end in ends.values():
        # Who was told other seats cannot tell the others' notices from a stranger's, and waits in vain.
        assert end.reason in {"hello-differs", "aborted", *([OVERDUE] if name == "committee" else [])}
        assert (end.status, end.session["signature"]) == ("timeout" if end.reason == OVERDUE else "failed", None)
        assert not {"nonce_spent", "round", "pending"} & set(end.names)
        is_told(end)
    differing = [end.message for end in ends.values() if end.reason == "hello-differs"]
    assert differing
    assert all(name in message for message in differing), differing
    if name == "message hash":
        assert all(HASH in message and OTHER_HASH in message for message in differing)


def test_no_share_was_opened_for_a_lie(network: Arena, lies: Lies) -> None:
    sessions = {uuid.UUID(end.session["sessionId"]).bytes for ends in lies.all() for end in ends.values()}
    for party in network.net.parties.values():
        assert not sessions & uses(party)
    for session in sessions:
        assert network.net.coordinator.sessions[str(uuid.UUID(bytes=session))].reports == {}


def test_what_does_not_matter_or_passes_is_borne(network: Arena, lies: Lies) -> None:
    """A signing's seats are the stored ones, whatever the indices; and slow is not never."""
    del lies
    asked: set[str] = set()

    def late(party: str, body: dict[str, Any]) -> dict[str, Any] | Response:
        if party in asked:
            return body | {"news": ["unknown", "fields"], "session_info": body["session_info"] | {"mood": "good"}}
        asked.add(party)
        return StreamingResponse(Endless(b" ", 1)) if party == FIRST else Response(b"", 500)

    async def both() -> list[Ends]:
        ends: list[Ends] = []

        async def run(script: Script) -> None:
            ends.append(await sign(network, script))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, permuted)
            nursery.start_soon(run, late)
        return ends

    for ends in network.running.call(both):
        assert {end.status for end in ends.values()} == {"completed"}


def test_a_session_is_not_held_twice(network: Arena, lies: Lies) -> None:
    """The same invitation again is the same session; for something else it is refused, and nothing is opened anew."""
    del lies
    net = network.net
    made = net.coordinator.create_signing(network.public_key, PARTIES, HASH)
    expected = {"messageHash": HASH, "publicKey": network.public_key}

    async def twice() -> tuple[Ends, Ends]:
        return await hold(net, made, "signing", expected), await hold(net, made, "signing", expected)

    first, second = network.running.call(twice)
    for party in PARTIES:
        assert first[party].session == second[party].session
        assert first[party].steps == second[party].steps
        body = {"sessionId": made.session_id, "partyId": party, "joinToken": made.join_tokens[party], **expected}
        with network.running.client(party) as client:
            answer = client.post("/mpc-party/signing/participate", json=body | {"messageHash": OTHER_HASH})
            assert answer.status_code == 409
            assert answer.json()["type"].endswith("session-replayed")


def test_the_next_ceremony_works(network: Arena, lies: Lies) -> None:
    del lies
    network.signs()
