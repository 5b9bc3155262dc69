"""What tests of the cloud itself share: run on both implementations, catch a refusal, wait in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError


def on(*, embedded: str = "", moto: str = "") -> pytest.MarkDecorator:
    """Run on both; an argument says in which way one of them is known not to do what AWS does."""
    params = [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=reason) if reason else ())
        for name, reason in (("embedded", embedded), ("moto", moto))
    ]
    return pytest.mark.parametrize("aws", params, indirect=True)


both = on()


def refusal(call: Callable[[], object]) -> str:
    """The code with which a call is refused."""
    with pytest.raises(ClientError) as refused:
        call()
    return str(refused.value.response["Error"]["Code"]).rpartition(".")[2]


class Background:
    """A call in a thread; ``result()`` waits for it and says how long it took."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        self.value = self._call()
        self.took_s = time.monotonic() - begun

    def result(self) -> tuple[Any, float]:
        self._thread.join(30)
        return self.value, self.took_s
