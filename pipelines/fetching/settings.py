"""How strangers' URLs are fetched: what is asked of their hosts, and where fetching stops."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from omnimill.config import Config
from omnimill.pipelines.fetching.addresses import networks

# Bodies that wait to be written: twice as many as there are threads (img2dataset's own bound).
_MAX_WAITING_BYTES = 2 << 30


class FetchSettings(Config):
    """Settings of fetching. None of them is part of a unit's recipe: another value fetches no committed unit again.

    threads: fetches of a unit at once. max_per_host: of them to one host; every core works on a unit of its own.
    max_bytes: of one response, counted while it comes in.
    timeout_seconds: of one try, from connecting to the last byte, redirects included.
    unit_seconds, unit_bytes: of a whole unit; what did not get its turn is quarantined as ``fetch_budget_spent``.
    retries: of what may be better later: overload, server errors, timeouts, broken connections.
    backoff_seconds: pause before the first retry, doubled for each one after it.
    user_agent: the header of that name; it should say who fetches and where to complain.
    user_agent_token: the name under which ``X-Robots-Tag`` may address this program alone.
    opt_out_directives: of ``X-Robots-Tag``, img2dataset's by default; ``tdm-reservation`` stands for the header of the
        TDM Reservation Protocol.
    allow_networks: addresses besides the public ones that may be fetched from (an internal mirror), as networks or
        single addresses, in a list or in one text separated by commas.
    """

    threads: int = Field(64, ge=1, le=1024)
    max_per_host: int = Field(16, ge=1)
    max_bytes: int = Field(10 << 20, gt=0)
    timeout_seconds: float = Field(20.0, gt=0)
    unit_seconds: float = Field(3600.0, gt=0)
    unit_bytes: int = Field(16 << 30, gt=0)
    retries: int = Field(2, ge=0, le=10)
    backoff_seconds: float = Field(1.0, ge=0, le=60)
    user_agent: str = Field("Mozilla/5.0 (compatible; omnimill)", pattern=r"^[\x20-\x7e]+$")
    user_agent_token: str = Field("omnimill", pattern=r"^[A-Za-z0-9_.-]+$")
    opt_out_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex", "tdm-reservation")
    allow_networks: tuple[str, ...] = ()

    @field_validator("allow_networks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("allow_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        networks(value)
        return value

    @model_validator(mode="after")
    def _memory_is_bounded(self) -> FetchSettings:
        waiting = 2 * self.threads * self.max_bytes
        if waiting > _MAX_WAITING_BYTES:
            raise ValueError(
                f"2 x threads x max_bytes may wait in memory: {waiting >> 20} MiB; at most {_MAX_WAITING_BYTES >> 20}"
            )
        return self
