"""The API of a running tssd, from the caller's side: httpx over its Unix socket, refusals as errors with a remedy."""

from __future__ import annotations

import errno
import json
import time
from typing import TYPE_CHECKING, Any, Final

import httpx

from daemon.errors import DaemonError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ANSWER_SECONDS: Final = 60.0
"""For one answer; between two signs of life in a stream, of which tssd gives one every 15 s."""
RECONNECT_SECONDS: Final = 30.0
"""How long a stream that broke is tried again: tssd restarts in three."""
RETRY_SECONDS: Final = 0.25
PROBLEM: Final = "application/problem+json"
PROBLEM_TYPE: Final = "urn:tssd:problem:"
FINAL_STEPS: Final = frozenset({"completed", "failed", "timeout"})
PAGE: Final = 1000

Json = Any
"""What `json.loads` gives."""


class NotListening(DaemonError):
    """Nobody answers on the socket."""

    kind = "not-listening"


class Answered(DaemonError):
    """tssd refused, with a problem document (RFC 9457)."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        super().__init__(str(document.get("detail", "")), str(document.get("remedy", "")))
        self.kind = str(document.get("type", "")).removeprefix(PROBLEM_TYPE)
        self.document = document


class Tssd:
    """One tssd. Connects with each call, so it can be made before anybody listens."""

    def __init__(self, socket: Path, token_file: Path | None = None) -> None:
        """token_file: holds the bearer token, for a tssd that asks for one (`[jwt]` in config.toml)."""
        self._socket = socket
        self._token_file = token_file

    def get(self, path: str, **query: str | int | None) -> Json:
        """Ask a route for its answer. A query's None is left out.

        Raises:
            NotListening: Nobody is there.
            Answered: It was refused.
        """
        return _content(self._ask("GET", path, query=query))

    def post(self, path: str, body: Mapping[str, Json] | None = None) -> Json:
        """Have something done; raises as `get`."""
        return _content(self._ask("POST", path, body=body))

    def text(self, path: str) -> str:
        """An answer that is not JSON; raises as `get`."""
        return self._ask("GET", path).text

    def pages(
        self, path: str, key: str, cursor: tuple[str, str], most: int | None, **query: str | int | None
    ) -> list[Json]:
        """What a list route has, page by page; raises as `get`.

        Args:
            path: The route.
            key: Where the answer has the list.
            cursor: The query that asks for what follows, and the field of the last entry that it takes.
            most: So many entries are enough; None: all.
            query: What else to ask.
        """
        name, field = cursor
        entries: list[Json] = []
        while True:
            size = PAGE if most is None else min(PAGE, most - len(entries))
            page = self.get(path, limit=size, **query)[key]
            entries += page
            if len(page) < size or len(entries) == most:
                return entries
            query[name] = page[-1][field]

    def steps(self, session_id: str, party_id: str | None = None) -> Iterator[Json]:
        """A session's journal, live, up to the step that ends it; outlasts a restart of tssd.

        Raises:
            NotListening: Nobody is there, or not again within half a minute.
            Answered: There is no such session.
        """
        after, patience_ends = 0, 0.0
        while True:
            gone = NotListening(f"tssd on {self._socket} ended a stream before its end", "its log says why")
            try:
                for step in self._stream(session_id, party_id, after):
                    yield step
                    after, patience_ends = step["number"], 0.0
                    if step["step"] in FINAL_STEPS:
                        return
            except NotListening as error:
                gone = error
            patience_ends = patience_ends or time.monotonic() + RECONNECT_SECONDS
            if after == 0 or time.monotonic() > patience_ends:
                raise gone
            time.sleep(RETRY_SECONDS)

    def _stream(self, session_id: str, party_id: str | None, after: int) -> Iterator[Json]:
        path = f"/mpc-party/sessions/{session_id}/events"
        query = {} if party_id is None else {"partyId": party_id}
        headers = {"Last-Event-ID": str(after)}
        try:
            with self._client() as client, client.stream("GET", path, params=query, headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    _refused(answer)
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
        except httpx.TransportError as error:
            raise self._away(error) from None

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Json] | None = None,
    ) -> httpx.Response:
        wanted = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            with self._client() as client:
                answer = client.request(method, path, params=wanted, json=body)
        except httpx.TransportError as error:
            raise self._away(error) from None
        _refused(answer)
        return answer

    def _client(self) -> httpx.Client:
        headers = {}
        if self._token_file is not None:
            try:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            except OSError as error:
                raise Refused(f"{self._token_file}: {error.strerror}", "see --token-file") from None
        transport = httpx.HTTPTransport(uds=str(self._socket))
        return httpx.Client(transport=transport, base_url="http://tssd", headers=headers, timeout=ANSWER_SECONDS)

    def _away(self, error: httpx.TransportError) -> NotListening:
        if isinstance(error, httpx.TimeoutException):
            return NotListening(f"tssd on {self._socket} does not answer", "look at its log: journalctl -u tssd")
        if not isinstance(error, httpx.ConnectError):
            return NotListening(f"tssd on {self._socket} hung up before it answered", "its log says why")
        if _number(error) in {errno.EACCES, errno.EPERM}:
            return NotListening(
                f"you may not connect to {self._socket}", "its group may; `ls -l` shows which, `id` shows yours"
            )
        return NotListening(
            f"tssd is not listening on {self._socket}; is the service running?",
            "systemctl status tssd.socket tssd.service; --socket names another place",
        )


def _refused(answer: httpx.Response) -> None:
    """Raise what a problem document says."""
    if answer.headers.get("content-type", "") == PROBLEM:
        raise Answered(answer.json())


def _content(answer: httpx.Response) -> Json:
    """The JSON of an answer; /ready has one with status 503, too."""
    try:
        return answer.json()
    except ValueError:
        raise NotListening("what answers on this socket is not tssd", "--socket names another place") from None


def _number(error: BaseException | None) -> int | None:
    """The errno somewhere below an error of httpx."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None
