"""Personal data in text, replaced by placeholders that name their kind."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from math import inf
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.schema import Example

Kind = Literal["email", "iban", "card", "ip", "phone"]


class TextPii(Operator):
    """Masks e-mail addresses, bank accounts, card numbers, public IP addresses and phone numbers.

    They become ``[EMAIL]``, ``[IBAN]``, ``[CARD]``, ``[IP]`` and ``[PHONE]``; how many of each kind an example holds is
    kept as the scores ``pii_<kind>``. Nothing is dropped unless there are more than `max_found` in all.

    Account numbers have to pass their check digits (ISO 13616, mod 97), card numbers their own (Luhn), IP addresses
    have to be global: private, loopback, documentation and other reserved ranges name nobody. Phone numbers are taken
    in the forms that are hardly ever other numbers: international with a plus sign (ITU-T E.164) and North American
    with separators.

    roles: of the texts that are masked.
    mask: replace what is found; otherwise only count.
    """

    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ("text", "meta")

    op: Literal["text_pii"]
    roles: tuple[str, ...] = ("body", "code", "caption", "alt_text", "transcript")
    kinds: tuple[Kind, ...] = ("email", "iban", "card", "ip", "phone")
    mask: bool = True
    max_found: int | None = Field(None, ge=0)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        places = [(i, text) for i, example in enumerate(examples) for text in example.text if text.role in self.roles]
        found = [dict.fromkeys(self.kinds, 0) for _ in examples]
        for kind in (kind for kind in _KINDS if kind in self.kinds):
            texts = pl.Series([text.text for _, text in places], dtype=pl.String)
            for place in texts.str.contains(_CANDIDATE[kind]).arg_true():
                i, text = places[place]
                masked, count = mask(kind, text.text)
                found[i][kind] += count
                if self.mask:
                    text.text = masked
        for i in {i for i, _ in places}:
            examples[i].meta.scores.update({f"pii_{kind}": float(count) for kind, count in found[i].items()})
        bound = inf if self.max_found is None else self.max_found
        return ["many_personal_data" if sum(counts.values()) > bound else None for counts in found]


def mask(kind: Kind, text: str) -> tuple[str, int]:
    """`text` with everything of a kind replaced, and how much that was."""
    pattern, holds = _KINDS[kind]
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if not holds(match[0]):
            return match[0]
        count += 1
        return f"[{kind.upper()}]"

    return pattern.sub(replace, text), count


def luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _is_iban(found: str) -> bool:
    account = re.sub(r"[ -]", "", found)
    if not 15 <= len(account) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1


def _is_global_ip(found: str) -> bool:
    try:
        return ipaddress.ip_address(found).is_global
    except ValueError:
        return False


def _is_phone(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    return 8 <= len(digits) <= 15 if found.startswith("+") else len(digits) == 10


# In this order: an account number may hold what looks like a card number, and both what looks like a phone number.
_KINDS: dict[Kind, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (
        re.compile(
            r"(?<![\w.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}\b"
        ),
        lambda _: True,
    ),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"), _is_iban),
    "card": (re.compile(r"(?<![\d.,-])[2-6]\d{3}(?:[ -]?\d{4}){2}(?:[ -]?\d{1,7})\b(?![.,]\d)"), _is_card),
    "ip": (
        re.compile(
            r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\.?\d)|(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])"
            r"|(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:]))"
        ),
        _is_global_ip,
    ),
    "phone": (
        re.compile(
            r"(?<![\w+])\+[1-9]\d{0,2}(?:[ .()/-]{0,2}\d{1,4}){2,6}\b"
            r"|(?<![\w.-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}\b(?![.-]\d)"
        ),
        _is_phone,
    ),
}
# What a text has to hold to be searched at all.
_CANDIDATE: dict[Kind, str] = {
    "email": r"@",
    "iban": r"\b[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}",
    "card": r"[2-6][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}",
    "ip": r"[0-9]\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]:[0-9A-Fa-f:]",
    "phone": r"\+[1-9]|[0-9]{3}\)? ?[.-]?[0-9]{3}[.-][0-9]{4}",
}
