from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import h11
import httpx
import msgspec
import pytest
import trio
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daemon.errors import Declined, Misspoken, SettingsRefused, Unreachable
from daemon.network import coordinator as client
from daemon.network.connection import delays, tls_context
from daemon.network.coordinator import ANSWER_MAX, Joined, open_coordinator
from daemon.session import SessionType
from daemon.settings import CoordinatorSettings, TlsSettings
from daemon.values import JoinToken, MessageHash, PartyId, PublicKey, SessionId, Threshold
from localnet.coordinator import Coordinator as Reference
from tests.daemon.network.authority import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

# httpx leaves its generators to the collector where a request ends early; trio closes them.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

SESSION = SessionId("0b1c2d3e-0000-4000-8000-000000000001")
ME = PartyId("a-x")
TOKEN = JoinToken("planted.join.token")
KEY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
ANSWER: dict[str, Any] = {
    "session_info": {
        "session_id": str(SESSION),
        "session_type": "sign",
        "threshold_n": 3,
        "threshold_t": 2,
        "public_key": KEY,
        "message_hash": "11" * 32,
        "a_field_of_tomorrow": {"x": 1},
    },
    "other_parties": [{"party_id": "b-x", "party_index": 1, "colour": "blue"}],
    "extra": [],
}


@asynccontextmanager
async def answering(
    status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives one answer to everything; its address and the bodies it was sent."""
    bodies: list[bytes] = []

    async def serve(stream: trio.abc.Stream) -> None:
        async with stream if context is None else trio.SSLStream(stream, context, server_side=True) as carrier:
            http = h11.Connection(h11.SERVER)
            body_in = b""
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    try:
                        http.receive_data(bytes(await carrier.receive_some()))
                    except trio.BrokenResourceError:
                        return
                elif isinstance(event, h11.Data):
                    body_in += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif not isinstance(event, h11.Request):
                    return
            bodies.append(body_in)
            length = ("content-length", str(len(body)))
            answer = h11.Response(status_code=status, headers=[length, ("connection", "close"), *headers])
            for piece in (answer, h11.Data(data=body), h11.EndOfMessage()):
                try:
                    await carrier.send_all(http.send(piece) or b"")
                except trio.BrokenResourceError:  # it has read enough
                    return

    async with listening(serve) as port:
        scheme = "http" if context is None else "https"
        yield f"{scheme}://127.0.0.1:{port}", bodies


@asynccontextmanager
async def listening(serve: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncIterator[int]:
    """A server on 127.0.0.1; its port. What the block raises leaves as it was."""
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        try:
            yield listeners[0].socket.getsockname()[1]
        except Exception as raised:  # noqa: BLE001  it is raised again below
            error = raised
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def joined(body: object, status: int = 200) -> Joined:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with trio.fail_after(5):
        async with answering(status, raw) as (url, _), open_coordinator(CoordinatorSettings(url=url)) as coordinator:
            return await coordinator.join(SESSION, ME, TOKEN)


async def test_the_exact_json_is_spoken() -> None:
    async with (
        answering(200, json.dumps(ANSWER).encode()) as (url, bodies),
        open_coordinator(CoordinatorSettings(url=url)) as coordinator,
    ):
        answer = await coordinator.join(SESSION, ME, TOKEN)
        await coordinator.report(SESSION, ME, {"signature": "ab"})
    assert answer == Joined(
        session_id=SESSION,
        type=SessionType.SIGN,
        threshold=Threshold(2, 3),
        public_key=PublicKey.parse(KEY),
        message_hash=MessageHash(b"\x11" * 32),
        others={PartyId("b-x"): 1},
        index=None,
    )
    assert [json.loads(body) for body in bodies] == [
        {"session_id": str(SESSION), "party_id": "a-x", "join_token": "planted.join.token"},
        {"session_id": str(SESSION), "party_id": "a-x", "signature": "ab"},
    ]


async def test_the_reference_coordinator_is_understood() -> None:
    reference = Reference()
    made = reference.create_keygen(["a-x", "b-x", "c-x"], 2)
    session = SessionId(made.session_id)
    async with reference.serving() as url, open_coordinator(CoordinatorSettings(url=url)) as coordinator:
        answer = await coordinator.join(session, ME, JoinToken(made.join_tokens["a-x"]))
        assert (answer.index, answer.others) == (0, {PartyId("b-x"): 1, PartyId("c-x"): 2})
        assert await coordinator.status(session) == "in_progress"
        await coordinator.report(session, ME, {"public_key": KEY})
        with pytest.raises(Declined, match="401") as declined:
            await coordinator.join(session, ME, TOKEN)
        assert declined.value.status == 401
        reference.down = True
        with pytest.raises(Unreachable, match="503"):
            await coordinator.join(session, ME, TOKEN)


def altered(**changes: object) -> dict[str, Any]:
    """The answer with fields of session_info changed, or removed where None."""
    info = {name: value for name, value in (ANSWER["session_info"] | changes).items() if value is not None}
    return ANSWER | {"session_info": info}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 5000,
        {},
        ANSWER | {"other_parties": None},
        ANSWER | {"other_parties": [{"party_id": "b-x"}]},
        ANSWER | {"other_parties": [{"party_id": "b x", "party_index": 1}]},
        ANSWER | {"other_parties": [{"party_id": "b-x", "party_index": -1}]},
        ANSWER | {"other_parties": [{"party_id": "b-x", "party_index": 1}] * 2},
        ANSWER | {"other_parties": [{"party_id": f"p{k}-x", "party_index": k} for k in range(33)]},
        ANSWER | {"party_index": "0"},
        altered(session_id="0b1c2d3e-0000-4000-8000-000000000002"),
        altered(session_id="x"),
        altered(session_type="party"),
        altered(session_type=None),
        altered(threshold_t=1),
        altered(threshold_t=4),
        altered(threshold_n=None),
        altered(threshold_n=2.5),
        altered(public_key="02" + "00" * 32),
        altered(message_hash="11"),
    ],
)
async def test_an_answer_that_does_not_read_is_a_typed_error(body: object) -> None:
    with pytest.raises(Misspoken, match="coordinator"):
        await joined(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_answer_is_more_than_a_typed_error(data: st.DataObject) -> None:
    """Parsing alone, as `join` does it, over answers with some fields replaced by anything."""
    body = json.loads(json.dumps(ANSWER))
    for name in data.draw(st.lists(st.sampled_from(sorted(body["session_info"])), max_size=3)):
        body["session_info"][name] = data.draw(json_values)
    if data.draw(st.booleans()):
        body["other_parties"] = data.draw(json_values)
    try:
        answer = client._parse(msgspec.json.decode(json.dumps(body).encode(), type=client._Joined))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return
    assert answer.threshold.t <= answer.threshold.n


class Body(httpx.AsyncByteStream):
    """An answer's body, unread."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._octets


@given(
    status=st.sampled_from([200, 201, 204, 302, 400, 404, 409, 429, 500, 503]),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "content-encoding", "x-any"]), st.sampled_from(["", "br"])
    ),
    body=st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()),
)
@settings(max_examples=700, deadline=None)
def test_whatever_is_answered_is_typed(status: int, headers: dict[str, str], body: bytes) -> None:
    """Every call, over any status, headers and body."""

    async def ask() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, stream=Body(body)))
        async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as answering:
            coordinator = client.Coordinator(answering, 5)
            for call in (
                lambda: coordinator.join(SESSION, ME, TOKEN),
                lambda: coordinator.status(SESSION),
                lambda: coordinator.report(SESSION, ME, {"public_key": KEY}),
            ):
                with suppress(Declined, Misspoken, Unreachable):
                    await call()

    trio.run(ask)


async def test_an_endless_answer_is_cut_short() -> None:
    with pytest.raises(Misspoken, match="more than"):
        await joined(b" " * (ANSWER_MAX + 1))


async def test_a_compressed_answer_is_refused() -> None:
    async with (
        answering(200, b"x", (("content-encoding", "gzip"),)) as (url, _),
        open_coordinator(CoordinatorSettings(url=url)) as coordinator,
    ):
        with pytest.raises(Misspoken, match="compressed"):
            await coordinator.join(SESSION, ME, TOKEN)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
async def test_answers_that_pass(status: int) -> None:
    with pytest.raises(Unreachable, match=str(status)):
        await joined(b"later", status)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 422])
async def test_answers_that_stay(status: int) -> None:
    with pytest.raises(Declined) as declined:
        await joined(b"no\x1b[31m\n" + b"x" * 10000, status)
    assert declined.value.status == status
    assert declined.value.message.isprintable()
    assert len(declined.value.message) < 300


async def test_nobody_there() -> None:
    async with answering(200, b"") as (url, _):
        pass
    async with open_coordinator(CoordinatorSettings(url=url)) as coordinator:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await coordinator.join(SESSION, ME, TOKEN)


async def test_silence_ends_at_the_timeout() -> None:
    async def silent(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with (
        listening(silent) as port,
        open_coordinator(CoordinatorSettings(url=f"http://127.0.0.1:{port}", timeout_seconds=0.05)) as coordinator,
    ):
        with pytest.raises(Unreachable, match=r"within 0\.05 s"), trio.fail_after(5):
            await coordinator.join(SESSION, ME, TOKEN)


async def test_the_token_is_in_no_error() -> None:
    for status in (400, 503):
        with pytest.raises((Declined, Unreachable)) as raised:
            await joined(b"", status)
        assert "planted" not in repr(raised.value) + str(raised.value.__context__)


LONG_TOKEN = "eyJhbGciOiJIUzI1NiJ9." + "/".join(f"claim{number:04}+" for number in range(60)) + '."quoted"'
PIECES = [LONG_TOKEN[at : at + 8] for at in range(len(LONG_TOKEN) - 7)]


def every(letter_as: str) -> str:
    return "".join(letter_as.format(ord(letter)) for letter in LONG_TOKEN)


ECHOES = {
    "as it is": LONG_TOKEN,
    "in JSON": json.dumps({"error": "no such token", "join_token": LONG_TOKEN}),
    "in JSON, slashes escaped": json.dumps({"join_token": LONG_TOKEN}).replace("/", "\\/"),
    "in JSON, by numbers": every("\\u{:04x}"),
    "in an address": f"/sessions/join?token={quote(LONG_TOKEN, safe='')}",
    "in an address, small letters": quote(LONG_TOKEN, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "in an address, all of it": every("%{:02X}"),
    "its beginning": LONG_TOKEN[:40] + "...",
    "its end": "..." + LONG_TOKEN[-30:],
    "across the cut": "x" * 190 + LONG_TOKEN,
    "across what is looked at": LONG_TOKEN * 20,
    "between others": f"token '{LONG_TOKEN}' is not {LONG_TOKEN[::-1]}",
}


def holds_a_piece(text: str) -> bool:
    plain = unquote(text).replace("\\", "")
    return any(piece in text or piece in plain for piece in PIECES) or "u0065" in text


@pytest.mark.parametrize("how", ECHOES)
@pytest.mark.parametrize("status", [401, 503])
async def test_a_refusal_that_repeats_the_token_is_told_without_it(how: str, status: int) -> None:
    async with (
        answering(status, ECHOES[how].encode()) as (url, _),
        open_coordinator(CoordinatorSettings(url=url)) as coordinator,
    ):
        with pytest.raises((Declined, Unreachable), match=str(status)) as raised:
            await coordinator.join(SESSION, ME, JoinToken(LONG_TOKEN))
    assert not holds_a_piece(raised.value.message), raised.value.message
    assert "[join token]"[: 10 if how == "across the cut" else None] in raised.value.message
    assert len(raised.value.message) < 300


async def test_an_answer_that_repeats_the_token_elsewhere_is_told_without_it() -> None:
    """In a field that should not hold it; in place of HTTP."""
    body = json.dumps(altered(session_type=LONG_TOKEN)).encode()
    async with answering(200, body) as (url, _), open_coordinator(CoordinatorSettings(url=url)) as coordinator:
        with pytest.raises(Misspoken, match="does not read") as misspoken:
            await coordinator.join(SESSION, ME, JoinToken(LONG_TOKEN))
    assert not holds_a_piece(misspoken.value.message)

    async def no_http(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(LONG_TOKEN.encode() + b"\r\n\r\n")
        await stream.aclose()

    async with (
        listening(no_http) as port,
        open_coordinator(CoordinatorSettings(url=f"http://127.0.0.1:{port}")) as coordinator,
    ):
        with pytest.raises(Unreachable, match="cannot be reached") as unreachable:
            await coordinator.join(SESSION, ME, JoinToken(LONG_TOKEN))
    assert not holds_a_piece(unreachable.value.message), unreachable.value.message


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=40), st.data())
def test_whatever_stands_around_a_token_it_is_out(token: str, data: st.DataObject) -> None:
    assume(token not in client.HIDDEN)
    around = [data.draw(st.text(max_size=400)) for _ in range(2)]
    told = client.words(token.join(around), token)
    assert token not in told
    assert len(told) <= client.SAID_MAX
    assert told.isprintable()


def test_what_holds_no_token_is_told_as_it_is() -> None:
    assert client.words("try again\nlater", "planted.join.token") == "try again later"
    assert client.words("try again later", "") == "try again later"
    assert client.words("a token, but a short one", "a b") == "a token, but a short one"
    assert client.words("<a b>", "a b") == "<[join token]>"


async def test_only_the_pinned_authority_is_believed(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    body = json.dumps(ANSWER).encode()
    async with answering(200, body, context=ours.server()) as (url, _):
        pinned = CoordinatorSettings(url=url, tls=TlsSettings(ca_file=ours.ca_file))
        async with open_coordinator(pinned) as coordinator:
            assert (await coordinator.join(SESSION, ME, TOKEN)).session_id == SESSION
        for tls in (TlsSettings(ca_file=other.ca_file), TlsSettings()):
            async with open_coordinator(CoordinatorSettings(url=url, tls=tls)) as coordinator:
                with pytest.raises(Unreachable, match="certificate"):
                    await coordinator.join(SESSION, ME, TOKEN)


async def test_a_client_certificate_is_shown_where_one_is_set(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.client("tssd")
    async with answering(200, json.dumps(ANSWER).encode(), context=authority.server(clients=True)) as (url, _):
        tls = TlsSettings(ca_file=authority.ca_file, certificate_file=certificate, key_file=key)
        async with open_coordinator(CoordinatorSettings(url=url, tls=tls)) as coordinator:
            assert (await coordinator.join(SESSION, ME, TOKEN)).session_id == SESSION
        tls = TlsSettings(ca_file=authority.ca_file)
        async with open_coordinator(CoordinatorSettings(url=url, tls=tls)) as coordinator:
            with pytest.raises(Unreachable):
                await coordinator.join(SESSION, ME, TOKEN)


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "rubbish.pem").write_text("rubbish")
    for file in (tmp_path / "none.pem", tmp_path / "rubbish.pem"):
        with pytest.raises(SettingsRefused, match="tls") as refused:
            tls_context(TlsSettings(ca_file=file))
        assert str(file) in refused.value.remedy


def test_waits_grow_to_a_bound_and_differ() -> None:
    waits = delays(first=1, longest=8)
    found = [next(waits) for _ in range(200)]
    for wait, bound in zip(found, [1, 2, 4] + [8] * 197, strict=True):
        assert bound / 2 <= wait <= bound
    assert len(set(found)) > 190
