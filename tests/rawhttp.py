"""Requests to the embedded cloud byte by byte, as no client library would send them."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from irs.local import EmbeddedCloud


def authorization(cloud: EmbeddedCloud, service: str = "sqs") -> str:
    """The header of a signed request; the embedded cloud looks at its key alone."""
    key = cloud.environment["AWS_ACCESS_KEY_ID"]
    return f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"


def connect(cloud: EmbeddedCloud) -> http.client.HTTPConnection:
    address = urlsplit(cloud.endpoint)
    return http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)


def ask(cloud: EmbeddedCloud, method: str, path: str, **headers: str) -> tuple[int, str]:
    """Send one request; return status and body. ``a_b`` is the header ``a-b``."""
    connection = connect(cloud)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def begin(cloud: EmbeddedCloud, action: str, **data: Any) -> http.client.HTTPConnection:
    """Send a call to SQS, and leave its answer unread."""
    connection = connect(cloud)
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"AmazonSQS.{action}",
        "Authorization": authorization(cloud),
    }
    connection.request("POST", "/", body=json.dumps(data), headers=headers)
    return connection
