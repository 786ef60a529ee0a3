"""Masking of personal data: what is found, what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.pipelines.operators.text_pii import TextPii, luhn, mask
from omnimill.schema import Example, Provenance, Text


def example(text: str, role: str = "body") -> Example:
    texts = [Text(role=role, text=text)]
    return Example(id="i", source="s", unit="u", key="k", provenance=Provenance(uri="", digest=""), text=texts)


def masked(text: str) -> str:
    one = example(text)
    assert TextPii(op="text_pii")([one]) == [None]
    return one.text[0].text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+x@mail.example.co.uk.", "Write to [EMAIL]."),
        ("a @ b, user@localhost, @handle", "a @ b, user@localhost, @handle"),
        ("server 8.8.8.8, port 53", "server [IP], port 53"),
        ("router 192.168.0.1 and 127.0.0.1, 10.1.2.3", "router 192.168.0.1 and 127.0.0.1, 10.1.2.3"),
        ("version 1.2.3.4.5 and 300.1.1.1", "version 1.2.3.4.5 and 300.1.1.1"),
        ("2a00:1450:4001:82a::200e answers, fe80::1 does not", "[IP] answers, fe80::1 does not"),
        ("at 12:30:45 std::vector::size", "at 12:30:45 std::vector::size"),
        ("call +44 20 7946 0958 today", "call [PHONE] today"),
        ("call (555) 234-5678 or 555-234-5678", "call [PHONE] or [PHONE]"),
        ("from 1914-1918 to 2001-2003, 1234567890", "from 1914-1918 to 2001-2003, 1234567890"),
        ("card 4111 1111 1111 1111, not 4111 1111 1111 1112", "card [CARD], not 4111 1111 1111 1112"),
        ("0000000000000000 and pi 3.141592653589793", "0000000000000000 and pi 3.141592653589793"),
        ("IBAN DE89 3704 0044 0532 0130 00, GB82WEST12345698765432", "IBAN [IBAN], [IBAN]"),
        ("DE88 3704 0044 0532 0130 00 has wrong check digits", "DE88 3704 0044 0532 0130 00 has wrong check digits"),
    ],
)
def test_what_is_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_kinds_are_counted() -> None:
    one = example("a@b.org, c@d.org, 8.8.4.4")
    operator = TextPii(op="text_pii", kinds=("email", "ip"), max_found=2)
    assert operator([one, example("nothing"), example("", role="label")]) == ["many_personal_data", None, None]
    assert one.meta.scores == {"pii_email": 2, "pii_ip": 1}


def test_measuring_leaves_the_text() -> None:
    one = example("a@b.org")
    TextPii(op="text_pii", mask=False)([one])
    assert (one.text[0].text, one.meta.scores["pii_email"]) == ("a@b.org", 1)


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_one_check_digit_of_ten_passes(digits: str) -> None:
    assert sum(luhn(f"{digits}{check}") for check in "0123456789") == 1


@given(st.text(max_size=200))
def test_masked_text_holds_nothing_more_to_mask(text: str) -> None:
    for kind in ("email", "ip"):
        once, _ = mask(kind, text)
        assert mask(kind, once) == (once, 0)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["a", "1", "1 ", "+1", "a.", "a@", "a-", "AB12 ", "f:", "("])
def test_long_runs_take_linear_time(piece: str) -> None:
    masked(piece * 100_000)
