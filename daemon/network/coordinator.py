"""Client of the session coordinator: join, report, status.

One call is one attempt: whoever calls knows how long trying again makes sense. Answers are bounded before they are
parsed; fields that we do not know are left alone, missing or wrong ones are `Misspoken`. What an error repeats of an
answer never holds the join token, even where the coordinator repeats it: errors are logged, stored and shown.
"""

from __future__ import annotations

import re
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import httpx
import msgspec
import trio

from daemon.errors import Declined, InvalidValue, Misspoken, Unreachable
from daemon.network.connection import Reach, tls_context, why
from daemon.session import SessionType
from daemon.values import COMMITTEE_MAX, MessageHash, PartyId, PublicKey, SessionId, Threshold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daemon.settings import CoordinatorSettings
    from daemon.values import JoinToken

T = TypeVar("T")

ANSWER_MAX: Final = 256 * 1024
"""Bytes of an answer; a session of 32 parties has less than 8 KiB."""
TRY_AGAIN: Final = frozenset({408, 425, 429})
"""Client errors that pass."""
TOKEN_FIELD: Final = "join_token"  # noqa: S105  a field's name
SAID_MAX: Final = 200
"""Characters of the coordinator's words that an error repeats."""
LOOK_MAX: Final = 8 * 1024
"""Characters of its answer that are looked at for that."""
TOKEN_PIECE: Final = 8
"""So many characters of a join token in a row are not repeated either; fewer give nothing away."""
ESCAPED_MAX: Final = 6
"""Characters that one of the token can have become."""
HIDDEN: Final = "[join token]"
_LETTER: Final = re.compile(r"\\u00([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})|\\(.)|.", re.DOTALL)
"""One character of a text, as it is or escaped: by JSON's rules, or as in an address."""


class _Member(msgspec.Struct):
    party_id: str
    party_index: Annotated[int, msgspec.Meta(ge=0, lt=0xFFFF)]


class _SessionInfo(msgspec.Struct):
    session_id: str
    session_type: str
    threshold_n: int
    threshold_t: int
    public_key: str | None = None
    message_hash: str | None = None


class _Joined(msgspec.Struct):
    session_info: _SessionInfo
    other_parties: Annotated[list[_Member], msgspec.Meta(max_length=COMMITTEE_MAX)]
    party_index: Annotated[int, msgspec.Meta(ge=0, lt=0xFFFF)] | None = None


class _Status(msgspec.Struct):
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The coordinator's word on a session; nothing of it is believed before it is compared.

    others: index by party id, without us. index: ours, None where it was not stated. Indices are zero-based.
    """

    session_id: SessionId
    type: SessionType
    threshold: Threshold
    public_key: PublicKey | None
    message_hash: MessageHash | None
    others: dict[PartyId, int]
    index: int | None


class _Body(httpx.AsyncByteStream):
    """A request's body, whole. httpx's own is an asynchronous generator, which a cancelled request leaves open."""

    def __init__(self, octets: bytes) -> None:
        self._pieces = iter((octets,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class Coordinator:
    """See the module. Made by `open_coordinator`; every method may be called by many tasks at once.

    Attributes:
        reach: Whether it was well when it was last asked.
    """

    def __init__(self, client: httpx.AsyncClient, timeout_seconds: float) -> None:
        self.reach = Reach()
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def join(self, session_id: SessionId, party_id: PartyId, token: JoinToken) -> Joined:
        """Take our seat. Asking again with the same token is harmless.

        Raises:
            Unreachable: No answer, or one that tells to try again.
            Declined: The coordinator will not have us.
            Misspoken: Its answer is not one.
        """
        body = {"session_id": str(session_id), "party_id": str(party_id), TOKEN_FIELD: token.reveal()}
        answer = await self._ask("POST", "/sessions/join", _Joined, body)
        try:
            joined = _parse(answer)
        except (InvalidValue, ValueError) as error:
            told = words(str(error), token.reveal())
            raise Misspoken(f"the coordinator's session does not read: {told}") from None
        if joined.session_id != session_id:
            raise Misspoken(f"the coordinator answered with session {joined.session_id}")
        return joined

    async def report(self, session_id: SessionId, party_id: PartyId, outcome: dict[str, str]) -> None:
        """Report what came of a session. Reporting the same again is harmless.

        Args:
            session_id: The session.
            party_id: Our party in it.
            outcome: `public_key`, `signature` or, where the coordinator takes failures, `error`.

        Raises:
            Unreachable, Declined, Misspoken: As for `join`.
        """
        body = {"session_id": str(session_id), "party_id": str(party_id), **outcome}
        await self._exchange("POST", "/sessions/report-completion", body)  # whatever it says beside yes

    async def status(self, session_id: SessionId) -> str:
        """The coordinator's own word for where a session stands.

        Raises:
            Unreachable, Declined, Misspoken: As for `join`.
        """
        return (await self._ask("GET", f"/sessions/{session_id}/status", _Status)).status

    async def _ask(self, method: str, path: str, expect: type[T], body: dict[str, str] | None = None) -> T:
        """One request whose answer matters."""
        answer = await self._exchange(method, path, body)
        try:
            return msgspec.json.decode(answer, type=expect)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            told = words(str(error), (body or {}).get(TOKEN_FIELD, ""))
            raise Misspoken(f"the coordinator's answer does not read: {told}") from None

    async def _exchange(self, method: str, path: str, body: dict[str, str] | None) -> bytes:
        """One request, and how it went remembered."""
        try:
            answer = await self._try(method, path, body)
        except Unreachable as error:
            self.reach.failed(error.message)
            raise
        except Declined:
            self.reach.succeeded()
            raise
        self.reach.succeeded()
        return answer

    async def _try(self, method: str, path: str, body: dict[str, str] | None) -> bytes:
        """One request. What a refusal says is the coordinator's text: it goes into our message by way of `words`."""
        token = (body or {}).get(TOKEN_FIELD, "")
        try:
            request = self._client.build_request(method, path)
            if body is not None:
                octets = msgspec.json.encode(body)
                request.headers.update({"Content-Type": "application/json", "Content-Length": str(len(octets))})
                request.stream = _Body(octets)  # what is given as `content` is put into a generator of httpx's again
            with trio.fail_after(self._timeout_seconds):
                async with aclosing(await self._client.send(request, stream=True)) as response:
                    answer = await _bounded(response)
        except trio.TooSlowError:
            raise Unreachable(f"the coordinator did not answer within {self._timeout_seconds:g} s") from None
        except httpx.InvalidURL as error:
            raise Misspoken(f"the coordinator's address cannot be used: {error}") from None
        except httpx.HTTPError as error:
            told = words(why(error), token)  # where it spoke no HTTP, that has its words too
            raise Unreachable(f"the coordinator cannot be reached: {told}") from None
        if response.is_success:
            return answer
        message = f"the coordinator answered {response.status_code}: {words(answer.decode(errors='replace'), token)}"
        if response.is_server_error or response.status_code in TRY_AGAIN:
            raise Unreachable(message)
        raise Declined(message, response.status_code)


@asynccontextmanager
async def open_coordinator(settings: CoordinatorSettings) -> AsyncIterator[Coordinator]:
    """A client for as long as the block lasts.

    Raises:
        SettingsRefused: The TLS files cannot be used.
    """
    context = tls_context(settings.tls)
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=8)
    # Time is kept in `_ask` alone: httpx's own clocks start anew with each piece of an answer.
    # trust_env off: a proxy variable in the environment must not decide who sees join tokens.
    async with httpx.AsyncClient(
        base_url=settings.url,
        verify=context,
        timeout=None,  # noqa: S113  see above
        limits=limits,
        trust_env=False,
    ) as client:
        yield Coordinator(client, settings.timeout_seconds)


async def _bounded(response: httpx.Response) -> bytes:
    """The raw body; compressed ones are refused, for their size says nothing."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Misspoken("the coordinator's answer is compressed")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > ANSWER_MAX:
            raise Misspoken(f"the coordinator's answer has more than {ANSWER_MAX} bytes")
    return bytes(body)


def words(said: str, token: str) -> str:
    """What the coordinator said, for an error: printable, short, and without the join token or a piece of it.

    Pieces count: whoever repeats a token may have cut it before us. Escaped, it is the token all the same.

    Args:
        said: Its text, whole: it is cut only after the token is out of it.
        token: The join token that it was sent; empty where none was.
    """
    near = said[:LOOK_MAX]
    plain = [(at, at + 1, letter) for at, letter in enumerate(near)]
    escaped = [(match.start(), match.end(), _unescaped(match)) for match in _LETTER.finditer(near)]
    hidden = _places(token, plain) | _places(token, escaped)
    told: list[str] = []
    for at, letter in enumerate(near if near == said else near[: -TOKEN_PIECE * ESCAPED_MAX]):
        if len(told) >= SAID_MAX:
            break
        if at not in hidden:
            told.append(letter if letter.isprintable() else " ")
        elif at - 1 not in hidden:
            told.extend(HIDDEN)
    return "".join(told)[:SAID_MAX]


def _unescaped(match: re.Match[str]) -> str:
    number = match[1] or match[2]
    return chr(int(number, 16)) if number else match[3] or match[0]


def _places(token: str, letters: list[tuple[int, int, str]]) -> set[int]:
    """Where a text has pieces of the token. letters: its characters, each with where it is written from and to."""
    length = min(TOKEN_PIECE, len(token))
    pieces = {token[at : at + length] for at in range(len(token) - length + 1)} - {""}
    text = "".join(letter for _, _, letter in letters)
    found: set[int] = set()
    for at in range(len(text) - length + 1 if pieces else 0):
        if text[at : at + length] in pieces:
            found.update(range(letters[at][0], letters[at + length - 1][1]))
    return found


def _parse(answer: _Joined) -> Joined:
    info = answer.session_info
    others = {PartyId(member.party_id): member.party_index for member in answer.other_parties}
    if len(others) != len(answer.other_parties):
        raise InvalidValue("a party appears twice")
    return Joined(
        session_id=SessionId(info.session_id),
        type=SessionType(info.session_type),
        threshold=Threshold(info.threshold_t, info.threshold_n),
        public_key=None if info.public_key is None else PublicKey.parse(info.public_key),
        message_hash=None if info.message_hash is None else MessageHash.parse(info.message_hash),
        others=others,
        index=answer.party_index,
    )
