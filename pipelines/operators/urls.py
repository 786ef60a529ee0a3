"""Where an example comes from, by its web address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field, model_validator

from omnimill.errors import ConfigError, IntegrityError, OmnimillError
from omnimill.hosts import host_of, plain_host
from omnimill.infra import storage
from omnimill.pipelines.base import Operator
from omnimill.schema import Example

_WORD_IN_URL = re.compile(r"[^\W_]+")


class DomainBlocklist(Operator):
    """Turns down examples whose ``meta.url`` is blocked; those without a URL, or with one that has no host, pass.

    domains: with all that is below them ("example.com" blocks "www.example.com").
    hosts: exactly these.
    words: whole words anywhere in the URL, without regard to case.
    lists: files of domains, local or under any fsspec URL: one a line, or lines of a hosts file
        ("0.0.0.0 example.com"); what follows a "#" is left out.
    digests: blake3 of the content of each list. Filled in when the DAG is read, so that a changed list does the units
        again; given in the DAG, another content is refused.
    """

    reads: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["domain_blocklist"]
    domains: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    digests: tuple[str, ...] = Field(())

    @model_validator(mode="before")
    @classmethod
    def _fill_in_digests(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lists") and not values.get("digests"):
            try:
                return {**values, "digests": tuple(storage.digest_file(url) for url in values["lists"])}
            except (OSError, OmnimillError) as error:
                raise ValueError(f"a list cannot be read: {error}") from None
        return values

    @model_validator(mode="after")
    def _says_something(self) -> DomainBlocklist:
        if not (self.domains or self.hosts or self.words or self.lists):
            raise ValueError("needs domains, hosts, words or lists")
        if len(self.digests) != len(self.lists):
            raise ValueError(f"{len(self.lists)} lists need as many digests, found {len(self.digests)}")
        if not all(_WORD_IN_URL.fullmatch(word) for word in self.words):
            raise ValueError("words hold letters and digits only: other characters separate words in a URL")
        return self

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example.meta.url) for example in examples]

    def _judge(self, url: str | None) -> str | None:
        host = host_of(url or "")
        if not host:
            return None
        domains, hosts, words = self._blocked
        parts = host.split(".")
        if host in hosts or any(".".join(parts[i:]) in domains for i in range(len(parts))):
            return "blocked_domain"
        return "blocked_url_word" if words and words & set(_WORD_IN_URL.findall((url or "").lower())) else None

    @cached_property
    def _blocked(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        domains = {plain_host(domain) for domain in self.domains}
        for url, digest in zip(self.lists, self.digests, strict=True):
            data = storage.read_bytes(url)
            if blake3(data).hexdigest() != digest:
                raise IntegrityError(f"list {url} is not the one that the DAG was read with ({digest[:12]}…)")
            domains |= set(_listed(data, url))
        return frozenset(domains), frozenset(map(plain_host, self.hosts)), frozenset(map(str.lower, self.words))


def _listed(data: bytes, url: str) -> list[str]:
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"list {url} is not UTF-8 text") from None
    fields = (line.split("#", 1)[0].split() for line in lines)
    return [plain_host(field[-1]) for field in fields if field]
