"""AWS Signature Version 4 of a request, checked against one secret: what every AWS SDK sends, and no SDK has to be told."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

SCHEME = "AWS4-HMAC-SHA256"
#: As AWS allows: clocks differ.
MOST_SKEW_S = 15 * 60
#: Without these signed, a signature could be put under another request.
_MUST_BE_SIGNED = frozenset({"host", "x-amz-date", "x-amz-target"})

_AUTHORIZATION = re.compile(
    rf"{SCHEME}\s+Credential=([^/,\s]+)/(\d{{8}})/([\w-]+)/([\w-]+)/aws4_request\s*,"
    r"\s*SignedHeaders=([\w;-]+)\s*,\s*Signature=([0-9a-f]{64})"
)


class NotSigned(Exception):
    """A request is not signed as it must be: ``name`` as AWS calls it, and a sentence."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(name, sentence)
        self.name, self.sentence = name, sentence


def check_signature(
    secret: str,
    *,
    service: str,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body_sha256: str,
    now: float | None = None,
) -> None:
    """Return if the request was signed with ``secret``; the name of the access key is free.

    Args:
        path: as it was sent, percent-encoded.
        headers: names in lower case.
        body_sha256: hex digest of the body.

    Raises:
        NotSigned: it was not, or more than a quarter of an hour ago.
    """
    said = headers.get("authorization", "")
    if not said:
        raise NotSigned("MissingAuthenticationTokenException", "Request is missing an authentication token.")
    match = _AUTHORIZATION.fullmatch(said.strip())
    if match is None:
        raise NotSigned("IncompleteSignatureException", "The Authorization header is no AWS4-HMAC-SHA256 signature.")
    _, day, region, of_service, signed, signature = match.groups()
    names = signed.split(";")
    if missing := _MUST_BE_SIGNED - set(names):
        raise NotSigned("IncompleteSignatureException", f"These headers must be signed: {', '.join(sorted(missing))}.")
    at = headers.get("x-amz-date", "")
    scope = f"{day}/{region}/{of_service}/aws4_request"
    if not at.startswith(day) or of_service != service:
        raise NotSigned("InvalidSignatureException", f"The signature is for {scope}, not for {service} at {at[:20]}.")
    _check_age(at, time.time() if now is None else now)
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names]
    # Encoded once more, as every service but S3 has it.
    request = "\n".join((method, quote(path or "/", safe="/~"), _canonical_query(query), "".join(lines), signed, body_sha256))
    to_sign = "\n".join((SCHEME, at, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{secret}".encode()
    for part in (day, region, of_service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, to_sign.encode(), "sha256").hex(), signature):
        raise NotSigned(
            "InvalidSignatureException",
            "The request signature does not match: the secret access key must be the token of this service.",
        )


def _check_age(at: str, now: float) -> None:
    try:
        then = datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise NotSigned("IncompleteSignatureException", "X-Amz-Date must be written as 20260131T235959Z.") from None
    if abs(now - then) > MOST_SKEW_S:
        raise NotSigned("InvalidSignatureException", f"Signature expired: {at} is too far from the time of this service.")


def _canonical_query(query: str) -> str:
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in parse_qsl(query, True))
    return "&".join(f"{name}={value}" for name, value in pairs)
