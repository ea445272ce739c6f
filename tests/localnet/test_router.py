from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, wrap_client_stream

from localnet import router
from localnet.router import Delivery, Frame, Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import WebSocketConnection

SESSION = "0b1c2d3e-0000-4000-8000-000000000001"


def frame(sender: str, payload: bytes, to: list[str] | None = None, round_number: int = 1) -> dict[str, object]:
    body: dict[str, object] = {
        "from_party": sender,
        "round_number": round_number,
        "payload": base64.b64encode(payload).decode(),
    }
    return body if to is None else body | {"to_parties": to}


@asynccontextmanager
async def stream(url: str, party: str) -> AsyncIterator[WebSocketConnection]:
    host, port = url.removeprefix("http://").split(":")
    # Over a TCP stream of our own: trio-websocket leaves its own to the garbage collector where the server refuses,
    # or is the first to say goodbye.
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(host, int(port)) as tcp, trio.open_nursery() as nursery:
            yield await wrap_client_stream(nursery, tcp, host, f"/sessions/{SESSION}/messages?party_id={party}")
            nursery.cancel_scope.cancel()


async def received(socket: WebSocketConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.get_message())
    message["payload"] = base64.b64decode(message["payload"])
    return message


async def test_broadcasts_reach_everybody_else_and_latecomers() -> None:
    async with Router().serving() as url, stream(url, "a-x") as a, stream(url, "b-x") as b:
        await a.send_message(json.dumps(frame("a-x", b"hello")))
        expected = {"from_party": "a-x", "round_number": 1, "payload": b"hello", "is_broadcast": True}
        assert await received(b) == expected
        async with stream(url, "c-x") as c:
            assert await received(c) == expected
        await b.send_message(json.dumps(frame("b-x", b"echo")))
        assert (await received(a))["payload"] == b"echo"


async def test_posted_frames_wait_for_their_receiver_in_order() -> None:
    async with Router().serving() as url, httpx.AsyncClient(base_url=url) as client:
        for index in range(5):
            body = frame("a-x", bytes([index]), ["b-x"], index)
            posted = await client.post(f"/sessions/{SESSION.upper()}/messages", json=body)
            assert posted.status_code == 202
        async with stream(url, "b-x") as b:
            got = [await received(b) for _ in range(5)]
        assert [message["round_number"] for message in got] == [0, 1, 2, 3, 4]
        assert not any(message["is_broadcast"] for message in got)


async def test_a_cut_stream_loses_nothing_that_waits() -> None:
    reference = Router()
    async with reference.serving() as url:
        async with stream(url, "b-x") as b:
            reference.disconnect(SESSION, "b-x")
            with pytest.raises(ConnectionClosed):
                await b.get_message()
        reference.take(SESSION, Frame("a-x", 1, b"later", ("b-x",)))
        async with stream(url, "b-x") as b:
            assert (await received(b))["payload"] == b"later"
            reference.replays = True
        async with stream(url, "b-x") as b:
            reference.take(SESSION, Frame("a-x", 1, b"again", ("b-x",)))
            assert (await received(b))["payload"] == b"again"
        async with stream(url, "b-x") as b:
            assert (await received(b))["payload"] == b"again"


async def test_refuses_strangers_malformed_frames_and_unknown_sessions() -> None:
    reference = Router()
    async with reference.serving() as url, httpx.AsyncClient(base_url=url) as client:
        path = f"/sessions/{SESSION}/messages"
        assert (await client.post(path, content=b"{")).status_code == 400
        assert (await client.post(path, json=frame("a-x", b"") | {"payload": "%"})).status_code == 400
        assert (await client.post(path, json=frame("a-x", bytes(router.FRAME_MAX)))).status_code == 413
        async with stream(url, "a-x") as a:
            await a.send_message(json.dumps(frame("b-x", b"not mine")))
            with pytest.raises(ConnectionClosed) as closed:
                await a.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == router.POLICY_VIOLATION
        reference.admitted = set()
        assert (await client.post(path, json=frame("a-x", b""))).status_code == 404
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected, check=lambda each: each.status_code == 404)):
            async with stream(url, "a-x"):
                pass
        reference.down = True
        assert (await client.post(path, json=frame("a-x", b""))).status_code == 503


def delivery(payload: bytes = b"payload") -> Delivery:
    return Delivery(
        session_id=SESSION, to_party="b-x", from_party="a-x", round_number=1, payload=payload, is_broadcast=False
    )


def test_mischief_does_what_it_says() -> None:
    one = delivery()
    assert list(router.drop(Random(1), 1)(one)) == []
    assert list(router.drop(Random(1), 0)(one)) == [one]
    assert [each.delay for each in router.repeat(Random(1), 1, 0.5)(one)] == [0, 0.5]
    assert [each.delay for each in router.reorder(Random(1), 1, 2)(one)] == [2]
    (late,) = router.delay(Random(1), 3)(one)
    assert 0 < late.delay <= 3
    (flipped,) = router.corrupt(Random(1), 1)(one)
    difference = int.from_bytes(flipped.payload, "big") ^ int.from_bytes(one.payload, "big")
    assert difference.bit_count() == 1
    chained = router.chain(router.repeat(Random(1), 1), router.repeat(Random(1), 1))(one)
    assert len(list(chained)) == 4


async def test_held_back_frames_are_overtaken() -> None:
    reference = Router(mischief=lambda each: (replace(each, delay=0.05 if each.payload == b"slow" else 0),))
    async with reference.serving() as url, stream(url, "b-x") as b:
        for payload in (b"slow", b"fast"):
            reference.take(SESSION, Frame("a-x", 1, payload, ("b-x",)))
        assert [(await received(b))["payload"] for _ in range(2)] == [b"fast", b"slow"]
        assert reference.traffic.delivered == 2
