"""Vectors of RFC 9421: the signatures of a request, by the library that admin requests are verified with."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tcd.conformance.findings import Finding, compare

Data = Mapping[str, Any]


@dataclass(frozen=True)
class _Request:
    method: str
    url: str
    headers: dict[str, str]


def is_request(data: Data) -> bool:
    """Whether this is a request with its signatures."""
    return "request" in data and "keys" in data and "cases" in data


def check_request(data: Data) -> list[Finding]:
    """Compare that each signature verifies, and that none does once a signed header was changed."""
    try:
        import http_message_signatures as library  # noqa: PLC0415 - an extra
    except ImportError:
        return [Finding("RFC 9421", "not compared", note="needs http-message-signatures")]
    ed25519, hmac = data["keys"]["ed25519_public_pem"].encode(), base64.b64decode(data["keys"]["hmac_b64"])
    algorithms = {"ed25519": library.algorithms.ED25519, "hmac-sha256": library.algorithms.HMAC_SHA256}

    class Keys(library.HTTPSignatureKeyResolver):
        def resolve_public_key(self, key_id: str) -> bytes:
            return ed25519 if key_id == "test-key-ed25519" else hmac

    def verifies(case: Data, **changed: str) -> bool:
        request = data["request"]
        lines = {"Signature-Input": case["signature_input"], "Signature": case["signature"]}
        message = _Request(request["method"], request["url"], {**request["headers"], **lines, **changed})
        verifier = library.HTTPMessageVerifier(signature_algorithm=algorithms[case["alg"]], key_resolver=Keys())
        try:
            verifier.verify(message, max_age=None)
        except library.InvalidSignature:
            return False
        return True

    good = [verifies(case) for case in data["cases"]]
    other = [not verifies(case, **{"Content-Type": "text/plain"}) for case in data["cases"]]
    return [
        compare("signatures", [0.0] * len(good), wrong=good.count(False)),
        compare("a changed header", [0.0] * len(other), wrong=other.count(False)),
    ]
