"""Segments of paths where an id may stand, but for the word that a path beside it has there.

Without this the operations of the id would answer for the word's path too, with methods that it does not have.
"""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class _Text(Convertor[str]):
    def convert(self, value: str) -> str:
        """Return the text, whatever it is: the operation says what is wrong with it."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text."""
        return value


class SessionConvertor(_Text):
    """Where a session's id may stand."""

    regex = "(?!revoke-all(?:/|$))[^/]+"


class EntryConvertor(_Text):
    """Where the id of an entry of an IP allow-list may stand."""

    regex = "(?!reset(?:/|$))[^/]+"


class InvoiceConvertor(_Text):
    """Where an invoice's id may stand."""

    regex = "(?!generate(?:/|$))[^/]+"


register_url_convertor("session", SessionConvertor())
register_url_convertor("ip_entry", EntryConvertor())
register_url_convertor("invoice", InvoiceConvertor())

SESSION = "{session_id:session}"
IP_ENTRY = "{ip_id:ip_entry}"
INVOICE = "{id:invoice}"
