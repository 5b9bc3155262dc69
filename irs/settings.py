"""Every setting once: ``IRS_*``, its unit, default and meaning. Read once, at start; frozen.

The table in README.md is made from this class, and a test compares them.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from irs.errors import SetupError


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "irs"


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(env_prefix="IRS_", frozen=True, extra="ignore", populate_by_name=True)

    # Where
    stack: str = Field("irs", pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="prefix of all buckets, queues and topics")
    endpoint_url: str = Field(
        "",
        validation_alias=AliasChoices("IRS_ENDPOINT_URL", "AWS_ENDPOINT_URL"),
        description="one endpoint for S3, SQS and SNS; empty means AWS",
    )
    region: str = Field(
        "us-east-1",
        validation_alias=AliasChoices("IRS_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
        description="AWS region",
    )
    home: Path = Field(default_factory=_state_folder, description="folder of the embedded cloud's state")
    input_bucket: str = Field("", description="bucket of the images; empty: `{stack}-input`")
    output_bucket: str = Field("", description="bucket of the records; empty: `{stack}-output`")
    models_bucket: str = Field("", description="bucket of shared models; empty: `{stack}-models`")
    requests_queue: str = Field("", description="queue of the tasks; empty: `{stack}-requests`")
    responses_queue: str = Field("", description="queue of the news; empty: `{stack}-responses`")
    readable_buckets: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="buckets, separated by commas, that `s3://` images may come from besides the input bucket"
    )

    # What is accepted
    max_bytes: int = Field(20 * 2**20, ge=1, description="bytes of one image")
    max_pixels: int = Field(100_000_000, ge=1, description="pixels of one image, told from its header")

    # How the queue is used
    visibility_seconds: int = Field(30, ge=2, le=43_200, description="hold on one message, renewed when under 60 % is left")
    wait_seconds: int = Field(20, ge=0, le=20, description="length of one long poll")
    max_receives: int = Field(5, ge=1, le=1000, description="receives of one message before the dead-letter queue")
    max_lease_seconds: int = Field(900, ge=1, le=43_000, description="longest hold on one message, renewals included")
    pollers: int = Field(2, ge=1, le=32, description="polling threads of a worker")
    cut_polls: bool = Field(
        False,
        description="break running long polls off at a drain; only where an abandoned poll is handed no message, as by `irs up`",
    )
    ack_batch_seconds: float = Field(0.2, ge=0, le=5, description="longest wait to fill a batch of deletes")

    # How a worker works
    model: str = Field("", description="model directory or torchvision architecture by name")
    slots: int = Field(32, ge=1, le=1024, description="images a worker has in work at once")
    batch_size: int = Field(8, ge=1, le=256, description="most images in one model call")
    batch_wait_seconds: float = Field(0.003, ge=0, le=1, description="longest wait for a batch to fill while others are fetched")
    compute_threads: int = Field(0, ge=0, le=256, description="threads that decode and run the model; 0: one a core")
    bytes_budget: int = Field(256 * 2**20, ge=1, description="bytes of images a worker holds at once")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the model runs; auto: CUDA when there is one")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the CPU has it and labels stay equal"
    )
    cache_entries: int = Field(10_000, ge=0, description="answers kept for images whose bytes come again")
    fetch_seconds: float = Field(15.0, gt=0, description="longest time to fetch or store one object")
    compute_seconds: float = Field(60.0, gt=0, description="longest wait of one image for its answer from the model")
    drain_seconds: float = Field(25.0, ge=0, description="time to finish what is held after SIGTERM")
    news_seconds: float = Field(0.2, ge=0, le=5, description="longest wait to fill a message of news")
    instance_id: str = Field("", description="name of the worker; empty: host name and process id")
    health_port: int = Field(
        -1, ge=-1, le=65535, description="port of `/healthz` and `/readyz` on 127.0.0.1; 0: a free one, -1: none"
    )

    log_json: bool = Field(False, description="log lines of a worker as JSON")

    # How long things are kept
    input_days: int = Field(7, ge=1, description="days until images expire")
    output_days: int = Field(30, ge=1, description="days until records expire")

    @field_validator("readable_buckets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Fill in the names that follow from the stack, and check what must fit together."""
        for name, suffix in (
            ("input_bucket", "input"),
            ("output_bucket", "output"),
            ("models_bucket", "models"),
            ("requests_queue", "requests"),
            ("responses_queue", "responses"),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, f"{self.stack}-{suffix}")
        if not self.instance_id:
            object.__setattr__(self, "instance_id", f"{socket.gethostname().split('.')[0][:40]}-{os.getpid()}")
        if self.batch_wait_seconds >= self.visibility_seconds / 2:
            raise ValueError("IRS_BATCH_WAIT_SECONDS must be under half of IRS_VISIBILITY_SECONDS")
        if self.bytes_budget < self.max_bytes:
            raise ValueError("IRS_BYTES_BUDGET must be at least IRS_MAX_BYTES")
        return self

    @property
    def requests_dead_queue(self) -> str:
        """Name of the dead-letter queue of the tasks."""
        return f"{self.requests_queue}-dead"

    @property
    def allowed_buckets(self) -> frozenset[str]:
        """Buckets a task may name in ``s3://bucket/key``."""
        return frozenset((self.input_bucket, *self.readable_buckets))


def read_settings(**overrides: object) -> Settings:
    """Return the settings of the environment, with ``overrides`` on top.

    Raises:
        SetupError: the first wrong setting, in one sentence.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper().removeprefix("IRS_") if first["loc"] else ""
        said = first["msg"].removeprefix("Value error, ")
        raise SetupError(f"IRS_{name}: {said}." if name else f"{said}.") from None


@cache
def get_settings() -> Settings:
    """Return the settings of this process, read from the environment at the first call."""
    return read_settings()


def table() -> str:
    """Return all settings as a Markdown table: name, default, meaning."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory else field.default
        shown = f"`{','.join(default) if isinstance(default, tuple) else default}`" if default not in ("", ()) else ""
        rows.append(f"| `IRS_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())  # noqa: T201
