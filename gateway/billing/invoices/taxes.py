"""Which tax is added to what is due: decided from the settings and the two countries, without I/O.

    seller names no country, or no rate is set            no tax
    buyer in another country, with a tax id, and both
      countries are in `reverse_charge`                   no tax: the buyer accounts for it
    else the rate of the buyer's country, 0 if none is set; a buyer whose country is not known has the seller's

Integers only: rates are parts per million, and a tax is rounded to whole cents, half a cent up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from gateway.settings import InvoiceSettings
from pricing.money import PPM, percent_to_ppm

REVERSE_CHARGE = "Reverse charge: the recipient accounts for the tax."


@dataclass(frozen=True, slots=True)
class Tax:
    """A rate in parts per million, and what the document says of it."""

    ppm: int
    note: str


def tax_for(settings: InvoiceSettings, country: str | None, tax_id: str | None) -> Tax:
    """Return the tax on what an organization owes."""
    home, rates = settings.seller_country, rates_of(settings)
    if not home or not rates:
        return Tax(0, "")
    both = {home, country} <= set(settings.reverse_charge)
    if country is not None and country != home and tax_id and both:
        return Tax(0, REVERSE_CHARGE)
    return Tax(rates.get(country or home, 0), "")


def rates_of(settings: InvoiceSettings) -> Mapping[str, int]:
    """Return the rate of each country that has one, in parts per million."""
    found = (rate.partition("=") for rate in settings.tax_rates)
    return {country: percent_to_ppm(Decimal(percent)) for country, _, percent in found}


def tax_on(amount: int, ppm: int, cent: int) -> int:
    """Return the tax on an amount, in whole cents, half a cent up. `cent` is a cent in atomic units."""
    return (2 * amount * ppm + cent * PPM) // (2 * cent * PPM) * cent
