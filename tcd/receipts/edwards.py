"""What OpenSSL does not check of Ed25519 keys and signatures: small order, canonical encoding, range of S.

Only public data is handled here, so nothing needs constant time.
"""

from __future__ import annotations

from typing import Final

P: Final = 2**255 - 19
#: Order of the prime subgroup.
L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, P - 2, P) % P
_SIZE: Final = 32
_SIGN: Final = 1 << 255
#: y of a point of order 8; the other is its negative.
_Y8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
#: y of every point whose order divides 8 (either sign of x).
SMALL_ORDER_Y: Final = frozenset({0, 1, P - 1, _Y8, P - _Y8})
#: Bytes 1..30 of all encodings that are refused as R, whatever the sign; others need no arithmetic.
_MIDDLE: Final = slice(1, 31)
_SUSPECT: Final = frozenset(y.to_bytes(_SIZE, "little")[_MIDDLE] for y in (*SMALL_ORDER_Y, P, _SIGN - 1))
#: L is a little over 2^252: a number whose highest byte is below this is below L.
_L_BYTE: Final = L >> 248


def point_problem(encoded: bytes) -> str:
    """Why 32 bytes are no safe public key or R, or an empty string.

    Args:
        encoded: RFC 8032 encoding of a point.
    """
    if len(encoded) != _SIZE:
        return "not 32 bytes"
    number = int.from_bytes(encoded, "little")
    y = number & (_SIGN - 1)
    if y >= P:
        return "not canonical"
    if y in SMALL_ORDER_Y:
        return "small order"
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    if pow(square, (P - 1) // 2, P) != 1:
        return "not on the curve"
    return ""


def signature_problem(signature: bytes) -> str:
    """Why 64 bytes cannot be an acceptable signature, or an empty string; the curve equation is not checked."""
    if len(signature) != 2 * _SIZE:
        return "not 64 bytes"
    if signature[-1] < _L_BYTE and signature[_MIDDLE] not in _SUSPECT:
        return ""
    if int.from_bytes(signature[_SIZE:], "little") >= L:
        return "S is not below the group order"
    y = int.from_bytes(signature[:_SIZE], "little") & (_SIGN - 1)
    if y >= P:
        return "R is not canonical"
    if y in SMALL_ORDER_Y:
        return "R has small order"
    return ""
