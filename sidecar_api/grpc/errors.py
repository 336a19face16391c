"""Errors as gRPC statuses: the code by the table of `tcd.errors`, the details as google.rpc messages."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from sidecar_api.grpc import translate
from sidecar_api.http.problems import problem_of
from tcd.errors import TcdError

#: Where gRPC carries a google.rpc.Status.
DETAILS: Final = "grpc-status-details-bin"
_DOMAIN: Final = "tcd"


def code_of(error: TcdError) -> grpc.StatusCode:
    """The status code of an error."""
    code: grpc.StatusCode = grpc.StatusCode[error.grpc_status]
    return code


def status_details(error: TcdError, request_id: str) -> bytes:
    """A serialized google.rpc.Status: ErrorInfo, RequestInfo, the problem, BadRequest, RetryInfo."""
    details = [
        error_details_pb2.ErrorInfo(reason=error.code, domain=_DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
        translate.problem(problem_of(error, request_id)),
    ]
    if error.pointer is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.pointer, description=error.detail)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    status = status_pb2.Status(code=code_of(error).value[0], message=error.detail, details=packed)
    raw: bytes = status.SerializeToString()
    return raw
