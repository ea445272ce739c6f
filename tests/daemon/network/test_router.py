from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import Declined
from daemon.network.router import FRAME_MAX, PAYLOAD_MAX, Incoming, open_router, read_frame, write_frame
from daemon.settings import RouterSettings, TlsSettings
from daemon.values import PartyId, SessionId
from localnet.router import Frame
from localnet.router import Router as Reference
from tests.daemon.network.authority import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from daemon.network.router import Router
    from localnet.router import Delivery

SESSION = SessionId("0b1c2d3e-0000-4000-8000-000000000001")
A, B = PartyId("a-x"), PartyId("b-x")


def encoded(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def test_the_exact_json_is_written() -> None:
    assert json.loads(write_frame(A, None, 3, b"\0\xff")) == {"from_party": "a-x", "round_number": 3, "payload": "AP8="}
    assert json.loads(write_frame(A, "b-x", 0, b"x"))["to_parties"] == ["b-x"]


def test_unknown_fields_are_left_alone_and_hints_may_be_missing() -> None:
    text = json.dumps({"from_party": "a-x", "payload": "AP8=", "priority": 7, "is_broadcast": True})
    assert read_frame(text) == Incoming("a-x", b"\0\xff", broadcast=True)
    assert read_frame(json.dumps({"from_party": "a-x", "payload": "eA==", "round_number": 2})) == Incoming(
        "a-x", b"x", broadcast=False
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"from_party": "a-x"}',
        '{"from_party": 1, "payload": "eA=="}',
        '{"from_party": "a-x", "payload": ""}',
        '{"from_party": "a-x", "payload": "e"}',
        '{"from_party": "a-x", "payload": "e A=="}',
        '{"from_party": "a-x", "payload": "eA==", "is_broadcast": "yes"}',
        '{"from_party": "%s", "payload": "eA=="}' % ("x" * 129),
        b"\xff\xfe",
        "[" * 100000,
        '{"from_party": "a-x", "payload": "%s"}' % encoded(bytes(PAYLOAD_MAX + 1)),  # noqa: UP031  braces
    ],
)
def test_what_does_not_read_is_dropped(text: str | bytes) -> None:
    assert read_frame(text) is None


@given(st.text() | st.binary())
@settings(max_examples=500)
def test_nothing_raises(text: str | bytes) -> None:
    read_frame(text)


@given(
    st.fixed_dictionaries(
        {"from_party": st.text() | st.integers(), "payload": st.text() | st.binary().map(encoded) | st.none()},
        optional={"round_number": st.integers() | st.text(), "is_broadcast": st.booleans() | st.none()},
    )
)
@settings(max_examples=500)
def test_nothing_raises_for_what_looks_like_a_frame(frame: dict[str, object]) -> None:
    read = read_frame(json.dumps(frame))
    assert read is None or 0 < len(read.payload) <= PAYLOAD_MAX


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 20))
def test_what_is_written_reads(payload: bytes, round_number: int) -> None:
    assert read_frame(write_frame(A, None, round_number, payload)) == Incoming("a-x", payload, broadcast=False)


def test_the_largest_payload_fits_into_a_frame() -> None:
    assert len(write_frame(PartyId("p" * 126 + "-x"), "q" * 126 + "-x", 10**6, bytes(256 * 1024))) <= FRAME_MAX


async def test_frames_go_both_ways() -> None:
    async with Reference().serving() as url, open_router(RouterSettings(url=url)) as router:
        with trio.fail_after(5):
            async with router.open(SESSION, A) as a, router.open(SESSION, B) as b:
                await a.send(None, 1, b"to all")
                assert await b.receive() == Incoming("a-x", b"to all", broadcast=True)
                await b.send("a-x", 1, bytes(256 * 1024))
                assert (await a.receive()).payload == bytes(256 * 1024)


async def test_a_router_that_does_not_know_the_session_yet_is_tried_again() -> None:
    reference = Reference()
    reference.admitted = set()
    asked = trio.Event()

    async with (
        reference.serving() as url,
        open_router(RouterSettings(url=url)) as router,
        trio.open_nursery() as nursery,
    ):
        opened = trio.Event()

        async def open_it() -> None:
            async with router.open(SESSION, A):
                opened.set()

        nursery.start_soon(open_it)
        with trio.move_on_after(0.3):
            await asked.wait()
        assert not opened.is_set()
        reference.admitted.add(str(SESSION))
        with trio.fail_after(5):
            await opened.wait()


async def test_a_router_that_is_down_is_waited_for() -> None:
    reference = Reference()
    reference.down = True
    async with reference.serving() as url, open_router(RouterSettings(url=url)) as router:
        with trio.move_on_after(0.3) as scope:
            async with router.open(SESSION, A):
                pass
        assert scope.cancelled_caught
        reference.down = False
        with trio.fail_after(5):
            async with router.open(SESSION, A) as stream:
                assert stream.connections == 1


async def test_a_router_that_says_no_ends_the_try() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with open_router(RouterSettings(url=url)) as router:
            with pytest.raises(Declined, match="403"), trio.fail_after(5):
                async with router.open(SESSION, A):
                    pytest.fail("it must not open")
        nursery.cancel_scope.cancel()


async def test_the_last_word_of_a_cancelled_block_still_goes() -> None:
    reference = Reference()
    async with reference.serving() as url, open_router(RouterSettings(url=url)) as router:
        with trio.fail_after(5):
            async with router.open(SESSION, B) as b:
                with trio.CancelScope() as scope:
                    async with router.open(SESSION, A) as a:
                        try:
                            scope.cancel()
                            await trio.sleep_forever()
                        finally:
                            with trio.CancelScope(shield=True):
                                await a.send(None, 1, b"farewell")
                assert (await b.receive()).payload == b"farewell"


async def test_a_lost_connection_comes_back_and_loses_no_frame_that_waits() -> None:
    reference = Reference()
    lost: list[int] = []
    async with (
        reference.serving() as url,
        open_router(RouterSettings(url=url), lambda: lost.append(1)) as router,
    ):
        with trio.fail_after(10):
            async with router.open(SESSION, A) as a, router.open(SESSION, B) as b:
                for number in range(5):
                    reference.disconnect(str(SESSION), "b-x")
                    await a.send("b-x", number, b"%d" % number)
                    assert (await b.receive()).payload == b"%d" % number
                assert b.connections >= 2
                assert lost


@pytest.mark.parametrize("brings", [True, False])
async def test_delays_start_anew_after_a_connection_that_was_of_use(
    monkeypatch: pytest.MonkeyPatch, *, brings: bool
) -> None:
    begun: list[Iterator[float]] = []

    def delays(**_: float) -> Iterator[float]:
        begun.append(repeat(0.0))
        return begun[-1]

    monkeypatch.setattr("daemon.network.router.delays", delays)
    reference = Reference()
    async with reference.serving() as url, open_router(RouterSettings(url=url)) as router:
        with trio.fail_after(10):
            async with router.open(SESSION, A) as a:
                for number in range(1, 6):
                    if brings:
                        reference.take(str(SESSION), Frame(from_party="b-x", round_number=1, payload=b"x"))
                        await a.receive()
                    reference.disconnect(str(SESSION), "a-x")
                    while a.connections <= number:  # noqa: ASYNC110  a stream tells nobody when it is back
                        await trio.sleep(0.01)
                assert len(begun) == (6 if brings else 1)


async def test_bare_messages_are_sent_again_on_a_new_connection() -> None:
    reference = Reference()
    async with reference.serving() as url, open_router(RouterSettings(url=url)) as router:
        with trio.fail_after(10):
            async with router.open(SESSION, A) as a, router.open(SESSION, B) as b:
                a.keep_sent()
                await a.send(None, 1, b"one")
                await a.send("b-x", 1, b"two")
                assert {(await b.receive()).payload for _ in range(2)} == {b"one", b"two"}
                reference.disconnect(str(SESSION), "a-x")
                assert {(await b.receive()).payload for _ in range(2)} == {b"one", b"two"}


async def test_garbage_is_counted_and_the_rest_arrives() -> None:
    reference = Reference()

    def spoil(delivery: Delivery) -> list[Delivery]:
        return [replace(delivery, payload=b""), delivery]

    reference.mischief = spoil
    async with reference.serving() as url, open_router(RouterSettings(url=url)) as router:
        with trio.fail_after(5):
            async with router.open(SESSION, A) as a, router.open(SESSION, B) as b:
                await a.send(None, 1, b"good")
                assert (await b.receive()).payload == b"good"
                assert b.dropped == 1


async def test_an_oversize_frame_costs_the_connection_not_the_session() -> None:
    reference = Reference()
    async with reference.serving() as url, open_router(RouterSettings(url=url)) as router:
        with trio.fail_after(10):
            async with router.open(SESSION, A) as a, router.open(SESSION, B) as b:
                too_long = Frame(from_party="a-x", round_number=1, payload=bytes(FRAME_MAX))
                reference.take(str(SESSION), too_long)
                while b.connections < 2:  # noqa: ASYNC110  a stream tells nobody when it is back
                    await trio.sleep(0.01)
                await a.send("b-x", 1, b"after")
                assert (await b.receive()).payload == b"after"


@dataclass
class Door:
    """TLS in front of a router. refused: set when enough handshakes have failed."""

    url: str = ""
    refusals: int = 0
    refused: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def tls_before(url: str, context: ssl.SSLContext, refusals: int = 1) -> AsyncIterator[Door]:
    door, port = Door(), urlsplit(url).port
    assert port is not None

    async def carry(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.do_handshake()
            async with await trio.open_tcp_stream("127.0.0.1", port) as inner, trio.open_nursery() as nursery:
                nursery.start_soon(copy, stream, inner)
                await copy(inner, stream)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            door.refusals += 1
            if door.refusals == refusals:
                door.refused.set()

    async def copy(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
        while received := await source.receive_some(65536):
            await target.send_all(received)

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, carry, 0, context, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        door.url = f"https://127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
        yield door
        nursery.cancel_scope.cancel()


async def test_over_tls_with_a_pinned_authority_and_a_client_certificate(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    certificate, key = ours.client("tssd")
    good = TlsSettings(ca_file=ours.ca_file, certificate_file=certificate, key_file=key)
    async with Reference().serving() as url:
        with trio.fail_after(20):
            async with (
                tls_before(url, ours.server(clients=True)) as door,
                open_router(RouterSettings(url=door.url, tls=good)) as router,
                router.open(SESSION, A) as a,
                router.open(SESSION, B) as b,
            ):
                await a.send("b-x", 1, b"sealed twice")
                assert (await b.receive()).payload == b"sealed twice"
            for tls, refusals in (
                (TlsSettings(ca_file=other.ca_file, certificate_file=certificate, key_file=key), 2),
                (TlsSettings(), 2),
                (TlsSettings(ca_file=ours.ca_file), 1),
            ):
                async with (
                    tls_before(url, ours.server(clients=True), refusals) as door,
                    open_router(RouterSettings(url=door.url, tls=tls)) as router,
                    trio.open_nursery() as nursery,
                ):

                    async def enter(router: Router = router) -> None:
                        async with router.open(SESSION, A):
                            raise AssertionError("a router that cannot be believed was")

                    nursery.start_soon(enter)
                    await door.refused.wait()
                    nursery.cancel_scope.cancel()
