"""config.toml as frozen settings: every key with its default, unit and range; whatever is not known here is refused.

config.toml at the root of the repository is the manual; this module is what it describes. A refusal names file, line,
key and what to do. `load` only reads: names of users and groups are looked up, no file but the configuration is opened.
"""

from __future__ import annotations

import grp
import pwd
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from daemon.custody.policy import CONFIG_MAX, AbsolutePath, Count, CustodianPolicy, Flag
from daemon.errors import SettingsRefused
from daemon.values import Protocol, ShareType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails


def _number(value: object) -> object:
    """A whole or broken number; pydantic's lax mode, which takes 20 for 20.0, would take "20" and true as well."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")  # noqa: TRY004  pydantic's protocol
    return value


CALL_MARGIN_SECONDS: Final = 2.0
"""A call to the custodian lasts so much longer than one of its own to the HSM, at least: it is to end that itself."""

Number = Annotated[float, BeforeValidator(_number)]
Seconds = Annotated[Number, Field(gt=0)]


def _contradiction(key: str, message: str) -> PydanticCustomError:
    """Settings that cannot stand together. key: the one whose line is told, dotted, as seen from the table."""
    return PydanticCustomError("contradiction", "{message}", {"message": message, "key": key})


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Principal(_Table):
    """A user or group, looked up when the configuration is read."""

    kind: Literal["uid", "gid"]
    number: Annotated[int, Field(ge=0, le=0xFFFFFFFE)]

    @classmethod
    def parse(cls, text: str) -> Principal:
        """`uid:1000`, `gid:1000`, `user:wallet` or `group:wallet`."""
        kind, _, name = text.partition(":")
        try:
            match kind:
                case "uid" | "gid":
                    return cls(kind=kind, number=int(name))
                case "user":
                    return cls(kind="uid", number=pwd.getpwnam(name).pw_uid)
                case "group":
                    return cls(kind="gid", number=grp.getgrnam(name).gr_gid)
        except KeyError:
            raise ValueError(f"this host has no {kind} '{name}'") from None
        raise ValueError(f"'{text}' is not one of uid:N, gid:N, user:NAME, group:NAME")


def _principals(value: object) -> object:
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple(Principal.parse(entry) for entry in value)
    raise ValueError("must be a list of texts such as 'user:wallet'")


class ServiceSettings(_Table):
    """`[service]`: where the daemon lives."""

    socket: AbsolutePath = Path("/run/tssd/tssd.sock")
    """Not used under systemd's socket activation."""
    group: Annotated[str, Field(min_length=1)] | None = None
    """Group that may connect; mode 0660. None: the daemon's own."""
    state_directory: AbsolutePath = Path("/var/lib/tssd")
    drain_seconds: Annotated[Seconds, Field(le=600)] = 20.0
    """How long ceremonies may go on after a stop signal."""

    @property
    def database(self) -> Path:
        """The share store."""
        return self.state_directory / "tssd.db"


class TlsSettings(_Table):
    """`[coordinator.tls]`, `[router.tls]`: whom we believe to be the other side, and who we are."""

    ca_file: AbsolutePath | None = None
    """PEM. The only authority believed; None: the host's public trust."""
    certificate_file: AbsolutePath | None = None
    """PEM, our client certificate with its chain."""
    key_file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _whole(self) -> TlsSettings:
        if (self.certificate_file is None) != (self.key_file is None):
            there = "key_file" if self.certificate_file is None else "certificate_file"
            raise _contradiction(there, "certificate_file and key_file come together or not at all")
        return self


_LOOPBACK: Final = re.compile(r"https?://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?(/.*)?")
_HTTP_URL: Final = re.compile(r"https?://[^/?#@\s]+(/[^?#\s]*)?")


def _url(text: str) -> str:
    if _HTTP_URL.fullmatch(text) is None:
        raise ValueError("must be an address such as https://host/path, without user, query or fragment")
    return text.rstrip("/")


class PeerServiceSettings(_Table):
    """What coordinator and router have in common."""

    url: str
    """http or https; the router's WebSocket is reached by the same address with ws or wss."""
    tls: TlsSettings = TlsSettings()
    allow_http: Flag = False
    """WARNING: http to another host lets anybody between read join tokens and answer in the other side's name."""

    _check_url = field_validator("url")(_url)

    @model_validator(mode="after")
    def _encrypted(self) -> PeerServiceSettings:
        if self.url.startswith("http://"):
            if self.tls != TlsSettings():
                raise _contradiction("tls", "tls is set but url is http; use https")
            if not self.allow_http and _LOOPBACK.fullmatch(self.url) is None:
                raise _contradiction(
                    "url", "http to another host is refused; use https, or set allow_http knowing what it costs"
                )
        return self


class CoordinatorSettings(PeerServiceSettings):
    """`[coordinator]`: who sits in a session, with which threshold, for which key."""

    timeout_seconds: Annotated[Seconds, Field(le=300)] = 30.0
    """For one request, answer included."""
    report_failures: Flag = False
    """Also report failed sessions, as {session_id, party_id, error}; only for a coordinator that takes them."""


class RouterSettings(PeerServiceSettings):
    """`[router]`: carries frames between the parties."""

    inbox_frames: Annotated[Count, Field(ge=64, le=65536)] = 1024
    """Frames of one session that may wait for us before the connection is slowed down."""
    ping_seconds: Annotated[Seconds, Field(le=300)] = 20.0
    """A connection without an answer for this long is replaced."""


class PolicySettings(_Table):
    """`[policy]`: what is admitted."""

    require_expectations: Flag = True
    """Refuse requests that do not say what they expect of the session.

    WARNING: false lets the coordinator alone choose key, threshold and committee for requests that leave them out.
    """


class LimitSettings(_Table):
    """`[limits]`: the clocks and the size of the house."""

    keygen_seconds: Annotated[Seconds, Field(le=3600)] = 300.0
    signing_seconds: Annotated[Seconds, Field(le=3600)] = 180.0
    stall_seconds: Annotated[Seconds, Field(le=3600)] = 60.0
    """Without protocol progress for this long, a session is given up."""
    sessions: Annotated[Count, Field(ge=1, le=1024)] = 64
    """Ceremonies at once; more are answered `busy`."""
    keygens: Annotated[Count, Field(ge=1, le=64)] = 4
    """Keygens among them."""
    linger_seconds: Annotated[Seconds, Field(le=86400)] = 600.0
    """How long confirmations of a finished keygen are sent again to parties that ask."""

    @model_validator(mode="after")
    def _consistent(self) -> LimitSettings:
        if self.keygens > self.sessions:
            raise _contradiction("keygens", f"must not be more than sessions = {self.sessions}")
        if self.stall_seconds > max(self.keygen_seconds, self.signing_seconds):
            raise _contradiction("stall_seconds", "beyond keygen_seconds and signing_seconds it would never count")
        return self


class KeygenSettings(_Table):
    """`[keygen]`: how keys are made."""

    protocol: Protocol = Protocol.GG18_V3
    """For sealed committees; all parties must have the same. Plain committees have theirs in `[custodian]`."""
    prepared: Annotated[Count, Field(ge=1, le=64)] = 2
    """Sets of pre-parameters kept ready; one is spent per keygen."""


class AccessSettings(_Table):
    """`[access]`: roles by what the kernel says of the caller. An operator may do all, a participant also look."""

    viewer: tuple[Principal, ...] = ()
    participant: tuple[Principal, ...] = ()
    operator: tuple[Principal, ...] = (Principal(kind="uid", number=0),)
    share_types: tuple[tuple[Principal, frozenset[ShareType]], ...] = ()
    """Narrows a participant to share types; who is not named here may use all."""

    _check_principals = field_validator("viewer", "participant", "operator", mode="before")(_principals)

    @field_validator("share_types", mode="before")
    @classmethod
    def _share_types(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError("must be a table such as {'user:wallet' = ['wallet']}")  # noqa: TRY004  pydantic's protocol
        return tuple((Principal.parse(name), types) for name, types in value.items())


class JwtSettings(_Table):
    """`[jwt]`: where this table is present, a bearer token is required on top of the caller's uid."""

    algorithm: Literal["HS256", "RS256", "ES256"]
    key_file: AbsolutePath
    """HS256: the secret, 32 bytes or more. RS256, ES256: the issuer's public key, PEM."""
    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)] = "tssd"
    leeway_seconds: Annotated[Number, Field(ge=0, le=300)] = 10.0
    role_claim: Annotated[str, Field(min_length=1)] | None = None
    """Claim that names the highest role of the token; None: the uid alone decides."""


class EventSettings(_Table):
    """`[events]`: where the domain events go, besides the `events` route."""

    file: AbsolutePath | None = None
    """JSON lines, appended and fsynced, each at least once; mode 0640."""


class AuditSettings(_Table):
    """`[audit]`: how often the custodian signs the head of the log."""

    checkpoint_rows: Annotated[Count, Field(ge=1, le=100_000)] = 100
    checkpoint_seconds: Annotated[Seconds, Field(le=86400)] = 600.0


class LogSettings(_Table):
    """`[log]`: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class CustodySettings(_Table):
    """`[custody]`: how tssd reaches its custodian. What the custodian believes stands in `[custodian]`."""

    start: Literal["spawn", "connect"] = "connect"
    """connect: to systemd's socket, as another user. spawn: as a child, the same user.

    WARNING: with spawn, whoever captures tssd's user owns the custodian's memory too; for trials and tests.
    """
    socket: AbsolutePath = Path("/run/tssd-custodian/custodian.sock")
    call_seconds: Annotated[Seconds, Field(le=120)] = 20.0
    """A call that takes longer ends the connection, and with it every ceremony."""


class Settings(_Table):
    """The whole of config.toml."""

    service: ServiceSettings = ServiceSettings()
    coordinator: CoordinatorSettings
    router: RouterSettings
    policy: PolicySettings = PolicySettings()
    limits: LimitSettings = LimitSettings()
    keygen: KeygenSettings = KeygenSettings()
    access: AccessSettings = AccessSettings()
    jwt: JwtSettings | None = None
    events: EventSettings = EventSettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()
    custody: CustodySettings = CustodySettings()
    custodian: CustodianPolicy

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        seats = self.custodian.arena_mib * 2  # a ceremony takes at most 512 KiB
        if self.limits.sessions > seats:
            raise _contradiction(
                "limits.sessions" if "sessions" in self.limits.model_fields_set else "custodian.arena_mib",
                f"limits.sessions = {self.limits.sessions} does not fit into custodian.arena_mib = "
                f"{self.custodian.arena_mib}, which has room for {seats}; lower the one or raise the other",
            )
        if self.service.state_directory == self.custodian.state_directory:
            raise _contradiction("custodian.state_directory", "must be another one than service.state_directory")
        if self.service.socket == self.custody.socket:
            raise _contradiction(
                "custody.socket" if "socket" in self.custody.model_fields_set else "service.socket",
                "service.socket and custody.socket are the same; one is the API, the other the custodian's",
            )
        self._check_custodian()
        return self

    def _check_custodian(self) -> None:
        custody, custodian = self.custody, self.custodian
        if custody.call_seconds < custodian.hsm_call_seconds + CALL_MARGIN_SECONDS:
            raise _contradiction(
                "custody.call_seconds" if "call_seconds" in custody.model_fields_set else "custodian.hsm_call_seconds",
                f"custody.call_seconds = {custody.call_seconds:g} leaves the custodian no time to find out that its HSM"
                f" hangs, with custodian.hsm_call_seconds = {custodian.hsm_call_seconds}; make it"
                f" {custodian.hsm_call_seconds + CALL_MARGIN_SECONDS:g} or more",
            )
        if custodian.signings_per_hour < custodian.signings_per_minute:
            hour = "signings_per_hour" in custodian.model_fields_set
            raise _contradiction(
                "custodian.signings_per_hour" if hour else "custodian.signings_per_minute",
                f"signings_per_minute = {custodian.signings_per_minute} would never count, with signings_per_hour = "
                f"{custodian.signings_per_hour}; lower the one or raise the other",
            )
        if custodian.pin.source == "credential" and custody.start == "spawn":
            raise _contradiction(
                "custodian.pin",
                'systemd gives the credential to the custodian\'s own unit, and with custody.start = "spawn" there is '
                'none; take { source = "file" } or { source = "prompt" }, or custody.start = "connect"',
            )


def load(path: Path) -> Settings:
    """Read and check config.toml.

    Raises:
        SettingsRefused: It cannot be read, or something in it is unknown, wrong or contradictory.
    """
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_MAX + 1)
    except OSError as error:
        raise SettingsRefused(f"{path}: {error.strerror}", "name the configuration with --config") from None
    if len(content) > CONFIG_MAX:
        raise SettingsRefused(f"{path}: more than {CONFIG_MAX} bytes")
    try:
        text = content.decode()
        tables = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsRefused(f"{path}: {error}", "the file must be TOML 1.0 in UTF-8") from None
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        problems = [f"{path}:{_problem(text, tables, detail)}" for detail in _telling(error.errors())]
        raise SettingsRefused("\n".join(problems), "config.toml describes every setting") from None


_WORDS: Final[dict[str, str]] = {
    "extra_forbidden": "is not a setting; remove it or correct its name",
    "missing": "is required and not there",
    "int_type": "must be a whole number, without quotes and point, such as 3",
    "bool_type": "must be true or false, without quotes",
    "string_type": "must be a text in quotes",
    "path_type": "must be a path in quotes",
    "tuple_type": 'must be a list, such as ["first", "second"]',
    "frozen_set_type": 'must be a list, such as ["first", "second"]',
    "too_short": "must have at least %(min_length)s of them",
    "dict_type": 'must be a table of names and texts, such as { NAME = "text" }',
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "union_tag_not_found": 'must be a table that says source = "credential", "file" or "prompt"',
    "union_tag_invalid": 'must be a table that says source = "credential", "file" or "prompt"',
}
"""What to write, where pydantic's own words would not say it; filled in from the context that it gives."""


def _telling(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without what pydantic says of a list only because something in it was refused: that it is too short."""
    places = [detail["loc"] for detail in details]
    return [
        detail
        for detail, place in zip(details, places, strict=True)
        if detail["type"] != "too_short" or not any(other[: len(place)] == place != other for other in places)
    ]


def _problem(text: str, tables: dict[str, object], detail: ErrorDetails) -> str:
    """One refusal: `line: key: what is wrong`."""
    place = detail["loc"]
    if detail["type"] == "contradiction":
        place += tuple(detail["ctx"]["key"].split("."))
    written: list[int | str] = []
    here: object = tables
    for part in place:
        try:
            here = here[part]  # type: ignore[index]  # a place leads through tables and lists, but for what is left out
        except (KeyError, IndexError, TypeError):
            continue  # not written, or the branch of a union, which pydantic names too
        written.append(part)
    named: Sequence[int | str] = written
    if detail["type"] == "contradiction":
        named = place
    elif detail["type"] == "missing":
        named = [*written, place[-1]]
    if detail["type"] in _WORDS:
        words = _WORDS[detail["type"]] % detail.get("ctx", {})
    else:
        words = detail["msg"].removeprefix("Value error, ")
    return f"{line_of(text, written)}: {'.'.join(map(str, named)) or 'the configuration'}: {words}"


_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_NAME: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY: Final = re.compile(rf"^\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*=")


def line_of(text: str, key: list[int | str]) -> int:
    """The line, from 1, where a key (or the nearest table above it) stands.

    TOML's parser does not keep lines. This walk knows headers and `key =` lines, which is how configurations are
    written; of what it does not know (a key inside an inline table) it gives the line of what encloses it.
    """
    wanted = [str(part) for part in key]
    best, best_depth = 1, 0
    table: list[str] = []
    arrays: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            names = _names(header[2])
            table = []
            for depth, name in enumerate(names):
                table.append(name)
                joined = ".".join(names[: depth + 1])
                if depth == len(names) - 1 and header[1] == "[[":
                    arrays[joined] = arrays.get(joined, -1) + 1
                if joined in arrays:
                    table.append(str(arrays[joined]))
            here = table
        elif match := _KEY.match(line):
            here = table + _names(match[1])
        else:
            continue
        if len(here) > best_depth and here == wanted[: len(here)]:
            best, best_depth = number, len(here)
    return best


def _names(dotted: str) -> list[str]:
    return [name.strip().strip("\"'") for name in re.findall(_NAME, dotted)]
