"""Errors that reach FastAPI, as problems; for every app of the shim."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.http.problems import InternalError, MethodNotAllowed, problem
from tcd.errors import InvalidRequest, NotFound, TcdError

_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405


def handle_errors(app: FastAPI) -> None:
    """Answer this app's errors as problems; its requests carry their `RequestContext` in `scope["tcd"]`."""
    app.add_exception_handler(TcdError, _tcd_error)
    app.add_exception_handler(HTTPException, _http_error)
    # starlette would answer in plain text, and raises it again after this answer
    app.add_exception_handler(Exception, _defect)


def _response(request: Request, error: TcdError) -> Response:
    status, headers, body = problem(error, request.scope["tcd"])
    response = Response(body, status)
    response.raw_headers = headers
    return response


async def _tcd_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TcdError)  # noqa: S101 - for the type checker: registered for it
    return _response(request, error)


async def _defect(request: Request, error: Exception) -> Response:
    del error
    return _response(request, InternalError())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker: registered for it
    if error.status_code == _NOT_ALLOWED:
        return _response(request, MethodNotAllowed((error.headers or {}).get("Allow", "GET")))
    if 400 <= error.status_code < 500 and error.status_code != _NOT_FOUND:  # noqa: PLR2004
        return _response(request, InvalidRequest(str(error.detail)))
    msg = "no such path"
    return _response(request, NotFound(msg))
