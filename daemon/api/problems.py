"""Refusals as RFC 9457 problem documents: a stable `type`, what went wrong in the caller's words, what to do next.

What the caller sent is never repeated: it may hold a join token.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from daemon.errors import Broken, Busy, DaemonError, InvalidValue, Unauthenticated, answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request

MALFORMED: Final = "the body is not JSON in UTF-8"
MEDIA_TYPE: Final = "application/problem+json"
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class FieldError(BaseModel):
    """One field of a request that cannot be."""

    model_config = ConfigDict(extra="forbid")
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457. type: `urn:tssd:problem:` and a stable name. remedy: what to do next; may be empty."""

    model_config = ConfigDict(extra="forbid")
    type: str
    title: str
    status: int
    detail: str
    remedy: str
    errors: list[FieldError]


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {"4XX": {"model": Problem}, "5XX": {"model": Problem}}
"""For every route of the OpenAPI document."""


def described(application: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, in which refusals are problem documents and not FastAPI's own form."""
    document = application.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status in RESPONSES:
                schema = {"$ref": "#/components/schemas/Problem"}
                operation["responses"][status]["content"] = {MEDIA_TYPE: {"schema": schema}}
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    return document


def problem(
    status: int,
    kind: str,
    detail: str,
    *,
    remedy: str = "",
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem document. kind: the last part of its type, from which also its title is made."""
    body = Problem(
        type=f"urn:tssd:problem:{kind}",
        title=kind.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        remedy=remedy,
        errors=errors or [],
    )
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)


def install(application: FastAPI) -> None:
    """Make every refusal of the application a problem document."""
    application.add_exception_handler(DaemonError, _of_daemon)
    application.add_exception_handler(RequestValidationError, _of_validation)
    application.add_exception_handler(HTTPException, _of_http)
    application.add_exception_handler(Exception, _of_defect)


async def _of_daemon(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Broken) or not isinstance(error, DaemonError):
        raise error
    fields = [FieldError(field=error.field, message=error.message)] if isinstance(error, InvalidValue) else []
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return problem(answer(error), error.kind, error.message, remedy=error.remedy, errors=fields, headers=headers)


async def _of_validation(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        return problem(HTTPStatus.BAD_REQUEST, "malformed-json", MALFORMED)
    errors = [FieldError(field=_field(detail["loc"]), message=_words(detail)) for detail in details]
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        InvalidValue.kind,
        "; ".join(f"{each.field}: {each.message}" for each in errors),
        remedy="GET /openapi.json describes every request",
        errors=errors,
    )


def _field(place: tuple[int | str, ...]) -> str:
    """The field in the words of the caller: `body` and `query` are FastAPI's words."""
    return ".".join(str(part) for part in place[1:]) or "body"


def _words(detail: Mapping[str, object]) -> str:
    words = {"missing": "is required", "extra_forbidden": "is not a field of this request"}
    return words.get(str(detail["type"]), str(detail["msg"]).removeprefix("Value error, "))


async def _of_http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # FastAPI's word for a body that is not UTF-8
        return problem(status, "malformed-json", MALFORMED)
    kind = status.phrase.lower().replace(" ", "-")
    remedy = "GET /openapi.json describes every route"
    return problem(status, kind, status.description or status.phrase, remedy=remedy, headers=error.headers)


async def _of_defect(request: Request, error: Exception) -> JSONResponse:
    """Our own fault: logged with its trace, told without it."""
    log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(status, Broken.kind, "a defect of tssd; its log has the details", remedy="report it with the log")
