"""`tollway receipt`: check a receipt without trusting who shows it."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path
from typing import Any

import click
import orjson

from gateway.billing.receipts import ReceiptError, verify
from gateway.devservices.datadir import read_dev_json
from gateway.settings import load


@click.group()
def receipt() -> None:
    """Check receipts of paid calls."""


@receipt.command("verify")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--jwks", help="File or URL of the public keys; default the development gateway's.")
def verify_command(file: str, jwks: str | None) -> int:
    """Verify a receipt (a JWS, or the JSON that GET /receipts/{id} answers) and print what it says.

    Exit status 0 when a published key signed exactly this, 1 when not.
    """
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    try:
        claims = verify(_receipt_in(text), _keys(jwks))
    except ReceiptError as error:
        click.echo(f"tollway: not a valid receipt: {error}", err=True)
        return 1
    click.echo(orjson.dumps(claims, option=orjson.OPT_INDENT_2).decode())
    return 0


def _receipt_in(text: str) -> str:
    """Return the JWS in a text: itself, or the `receipt` member of an API answer."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        document: dict[str, Any] = orjson.loads(text)
        return str(document.get("data", document)["receipt"])
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        raise ReceiptError("the JSON has no member `receipt`") from None


def _keys(source: str | None) -> dict[str, Any]:
    if source is None:
        document = read_dev_json(load().server.data)
        if not document.get("url"):
            raise click.UsageError("name the public keys by --jwks FILE|URL; no development gateway is here")
        source = f"{document['url']}/.well-known/jwks.json"
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=10) as answer:  # noqa: S310 - http(s) only, checked above
            return orjson.loads(answer.read())
    return orjson.loads(Path(source).read_bytes())
