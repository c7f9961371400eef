"""Which tax is added: by the two countries, the buyer's tax id, and what the operator has set."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.billing.invoices.taxes import REVERSE_CHARGE, tax_for
from gateway.settings import InvoiceSettings

SELLER = InvoiceSettings(seller_country="DE", tax_rates=("DE=19", "FR=20", "CH=8.1"), reverse_charge=("DE", "FR"))
HOME, NONE = 190_000, (0, "")


@pytest.mark.parametrize(
    ("country", "tax_id", "expected"),
    [
        ("DE", None, (HOME, "")),
        ("DE", "DE123456789", (HOME, "")),  # a tax id takes nothing off at home
        ("FR", None, (200_000, "")),
        ("FR", "FR12345678901", (0, REVERSE_CHARGE)),
        ("CH", "CHE-1", (81_000, "")),  # both countries must take part
        ("US", "12-3456789", NONE),
        (None, None, (HOME, "")),
        (None, "DE123456789", (HOME, "")),
    ],
)
def test_the_tax_is_that_of_both_countries(country: str | None, tax_id: str | None, expected: tuple[int, str]) -> None:
    tax = tax_for(SELLER, country, tax_id)
    assert (tax.ppm, tax.note) == expected


@pytest.mark.parametrize("changed", [{"seller_country": ""}, {"tax_rates": ()}])
def test_who_has_set_no_country_or_no_rate_adds_none(changed: dict[str, object]) -> None:
    tax = tax_for(SELLER.model_copy(update=changed), "FR", "FR12345678901")
    assert (tax.ppm, tax.note) == NONE


@pytest.mark.parametrize(
    "wrong", [{"seller_country": "UK"}, {"tax_rates": ("DE=19", "UK=20")}, {"reverse_charge": ("DE", "EL")}]
)
def test_a_country_that_there_is_not_would_have_no_tax_and_stops_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"UK|EL"):
        InvoiceSettings(**wrong)
