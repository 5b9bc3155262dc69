"""Every setting once: ``IRS_*``, its unit, default and meaning. Read once, at start; frozen.

``docs/reference/settings.md`` is made from this class, and a test compares them.
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
    drops_queue: str = Field("", description="queue of S3's events about dropped files; empty: `{stack}-drops`")
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
    model_why: str = Field("", description="why this model serves, for the page to say; `irs up --model auto` sets it")
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
    launch: str = Field("", description="the scaler's name for the launch of this worker's instance; else its tag `irs:launch`")
    outlive_seconds: float = Field(
        900.0,
        ge=0,
        description="a worker that a scaler started ends after so long without a message and without a scaler; 0: never",
    )
    health_port: int = Field(
        -1, ge=-1, le=65535, description="port of a worker's `/metrics`, `/healthz`, `/readyz`; 0: a free one, -1: none"
    )

    log_json: bool = Field(False, description="log lines of a worker or the page as JSON")

    # The scaler
    scaler_policy: Literal["classic", "latency", "balanced", "eco"] = Field(
        "balanced", description="what the scaler goes by: counts (classic), or a price of waiting of 1, 0.5 or 0.03"
    )
    scaler_value: float = Field(
        0.0, ge=0, description="instance-seconds that one image-second of waiting is worth; 0: that of the policy"
    )
    scaler_cap: int = Field(19, ge=1, le=1000, description="instances at most")
    scaler_min_workers: int = Field(0, ge=0, le=1000, description="instances that always stand")
    scaler_period_seconds: float = Field(5.0, ge=1, le=60, description="time between two looks of the scaler")
    scaler_rate_per_second: float = Field(1.0, gt=0, description="images a second of one worker, until it is measured")
    scaler_boot_seconds: float = Field(60.0, gt=0, description="time from launch to ready, until it is measured")
    scaler_lease_seconds: float = Field(
        15.0,
        ge=3,
        le=600,
        description="life of the scaler's lease, at least three periods; a standby takes over within twice that",
    )
    scaler_pool: int = Field(0, ge=0, le=1000, description="instances that are stopped rather than ended, and started first")
    scaler_port: int = Field(
        -1,
        ge=-1,
        le=65535,
        description="port of the scaler's `/metrics`, `/healthz`, `/readyz`; 0: a free one, -1: none",
    )
    scaler_template: str = Field("", description="launch template of worker instances by name or id, a version after a colon")
    scaler_image: str = Field("", description="AMI of worker instances; empty: the template's")
    scaler_types: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="instance types, separated by commas, the best first; empty: the template's"
    )
    scaler_zones: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="availability zones, separated by commas; empty: those of the subnets, or EC2's choice"
    )
    scaler_subnets: Annotated[tuple[str, ...], NoDecode] = Field((), description="subnets, separated by commas, one a zone")
    scaler_markets: Annotated[tuple[Literal["spot", "on-demand"], ...], NoDecode] = Field(
        ("on-demand",), min_length=1, description="`on-demand`, `spot`, or both separated by a comma, the preferred first"
    )
    scaler_security_groups: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="ids of security groups, separated by commas; empty: the template's or the default one"
    )
    scaler_profile: str = Field("", description="instance profile of workers, by name or ARN; empty: the template's")
    scaler_user_data: Path | None = Field(None, description="file that an instance runs at its start; empty: the template's")
    scaler_prices: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="dollars of an hour by type, or by type and market, such as `c7i.large=0.09,c7i.large/spot=0.04`;"
        " a type without one costs as IRS_PRICE_PER_HOUR, in the ratio of list prices",
    )
    price_per_hour: float = Field(
        0.0, ge=0, description="dollars for one hour of one instance, of the first type where there are several; 0: unknown"
    )
    budget_per_day: float = Field(
        0.0, ge=0, description="dollars of instances a day after which none is launched, and what runs goes on; 0: no limit"
    )

    local_boot_seconds: float = Field(
        0.0, ge=0, description="how long an instance of the embedded cloud takes to boot, before its worker starts"
    )

    # The page
    web_host: str = Field("127.0.0.1", description="address the page binds; any but loopback needs `IRS_WEB_TOKEN`")
    web_port: int = Field(8000, ge=0, le=65535, description="port of the page; 0: a free one")
    web_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="host names, separated by commas, that the page answers to besides loopback and `IRS_WEB_HOST`"
    )
    web_token: str = Field(
        "", repr=False, description="secret, 32 characters or more, that opens the page; empty: no one is asked for one"
    )
    web_trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="addresses or networks, separated by commas, whose `Forwarded` or `X-Forwarded-*` the page believes"
    )
    web_root_path: str = Field("", pattern=r"^(/[\w.~-]+)*$", description="path under which a proxy offers the page")
    web_max_images: int = Field(2000, ge=1, le=1_000_000, description="images of one job of the page")
    web_bytes_budget: int = Field(64 * 2**20, ge=1, description="bytes of images the page holds at once")
    web_uploads: int = Field(32, ge=1, le=1000, description="images the page receives at once; more wait")
    web_streams: int = Field(500, ge=1, le=900, description="live streams of the page at once")
    web_jobs_per_minute: int = Field(20, ge=1, description="jobs one address may open on the page in a minute")
    web_stall_seconds: float = Field(60.0, gt=0, description="longest wait of the page for the next bytes of an upload")
    web_header_seconds: float = Field(10.0, gt=0, description="longest wait of the page for the head of a request")
    flower_url: str = Field("", description="address of Flower that the page links to")

    # Events, remote control, Flower, janitor
    monitoring: bool = Field(
        False, description="events and remote control over SNS: Flower, `celery inspect`, `celery control`; `irs up` sets it"
    )
    monitoring_lease_seconds: float = Field(
        900.0, ge=3, description="the janitor removes a process's own queues when it has not said for so long that it lives"
    )
    janitor_seconds: float = Field(300.0, ge=1, description="time between two rounds of the janitor")
    janitor_port: int = Field(
        -1, ge=-1, le=65535, description="port of the janitor's `/metrics`, `/healthz`, `/readyz`; 0: a free one, -1: none"
    )
    drops_port: int = Field(
        -1, ge=-1, le=65535, description="port of `/metrics`, `/healthz`, `/readyz` of `irs drops`; 0: a free one, -1: none"
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="address of `/metrics`, `/healthz`, `/readyz` of all but page and Flower; nobody is asked for a password",
    )
    flower_host: str = Field("127.0.0.1", description="address Flower binds; any but loopback needs `IRS_FLOWER_PASSWORD`")
    flower_port: int = Field(5555, ge=0, le=65535, description="port of Flower; 0: a free one")
    flower_password: str = Field(
        "", repr=False, description="password of Flower's user `irs`, 12 characters or more; empty: no one is asked for one"
    )

    # How long things are kept
    input_days: int = Field(7, ge=1, description="days until images expire")
    output_days: int = Field(30, ge=1, description="days until records expire")

    @field_validator(
        "readable_buckets",
        "web_hosts",
        "web_trusted_proxies",
        "scaler_types",
        "scaler_zones",
        "scaler_subnets",
        "scaler_markets",
        "scaler_prices",
        "scaler_security_groups",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("scaler_user_data", mode="before")
    @classmethod
    def _none_where_empty(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Fill in the names that follow from the stack, and check what must fit together."""
        for name, suffix in (
            ("input_bucket", "input"),
            ("output_bucket", "output"),
            ("models_bucket", "models"),
            ("requests_queue", "requests"),
            ("responses_queue", "responses"),
            ("drops_queue", "drops"),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, f"{self.stack}-{suffix}")
        if not self.instance_id:
            # Given and empty is not given.
            self.model_fields_set.discard("instance_id")
            object.__setattr__(self, "instance_id", f"{socket.gethostname().split('.')[0][:40]}-{os.getpid()}")
        if self.endpoint_url and not self.endpoint_url.startswith(("http://", "https://")):
            raise ValueError("IRS_ENDPOINT_URL must begin with http:// or https://; empty means AWS")
        if self.batch_wait_seconds >= self.visibility_seconds / 2:
            raise ValueError("IRS_BATCH_WAIT_SECONDS must be under half of IRS_VISIBILITY_SECONDS")
        if self.bytes_budget < self.max_bytes:
            raise ValueError("IRS_BYTES_BUDGET must be at least IRS_MAX_BYTES")
        if self.scaler_min_workers > self.scaler_cap:
            raise ValueError("IRS_SCALER_MIN_WORKERS must be at most IRS_SCALER_CAP")
        if self.scaler_pool > self.scaler_cap:
            raise ValueError("IRS_SCALER_POOL must be at most IRS_SCALER_CAP")
        if self.budget_per_day and not self.price_per_hour and not self.scaler_prices:
            raise ValueError(
                "IRS_BUDGET_PER_DAY needs IRS_PRICE_PER_HOUR, the dollars for one hour of one instance, or IRS_SCALER_PRICES"
            )
        if 0 < len(self.web_token) < 32:
            raise ValueError("IRS_WEB_TOKEN must have 32 characters or more, such as `openssl rand -hex 32` makes")
        if 0 < len(self.flower_password) < 12:
            raise ValueError("IRS_FLOWER_PASSWORD must have 12 characters or more, such as `openssl rand -hex 16` makes")
        if self.web_bytes_budget < self.max_bytes:
            raise ValueError("IRS_WEB_BYTES_BUDGET must be at least IRS_MAX_BYTES")
        return self

    @property
    def requests_dead_queue(self) -> str:
        """Name of the dead-letter queue of the tasks."""
        return f"{self.requests_queue}-dead"

    @property
    def is_named(self) -> bool:
        """Whether the worker was given its name, as one that a scaler starts."""
        return "instance_id" in self.model_fields_set

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
