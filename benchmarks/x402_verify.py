"""`python -m benchmarks.x402_verify`: what one payment costs before the chain is asked, in CPU microseconds.

Rows are kinds of payments; the columns are reading the header, deciding, and both. The last row is the official Python
SDK doing the same for the first kind: decode the header, hash, recover. Each figure is the least of several rounds on
one thread: this is arithmetic, and whatever else the machine does only adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
from coincurve import PrivateKey
from x402.http.utils import decode_payment_signature_header
from x402.mechanisms.evm.eip712 import hash_eip3009_authorization
from x402.mechanisms.evm.types import ExactEIP3009Payload
from x402.mechanisms.evm.verify import verify_eoa_signature

from gateway.eip55 import keccak_256
from gateway.networks import load_networks
from gateway.payments.evm.encoding import show_address
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import resource
from gateway.payments.x402.digest import digest
from gateway.payments.x402.offer import Offer, compile_kinds
from gateway.payments.x402.reasons import PaymentRefused
from gateway.payments.x402.terms import SignedTerms
from gateway.payments.x402.verify import verify
from gateway.payments.x402.wire import encode

SEPOLIA = "eip155:84532"
NOW = 1_800_000_000
SHOP = resource("https://gateway.example/publishers/demo/v1/search", "GET Demo")
HEAD = "payment                  read us  decide us  both us"


class Payer:
    """A key that signs what an offer asks for."""

    def __init__(self) -> None:
        self._key = PrivateKey()
        self.address = keccak_256(self._key.public_key.format(compressed=False)[1:])[12:]

    def sign(self, offer: Offer) -> SignedTerms:
        """Return signed terms for an offer."""
        kind = offer.kind
        permit = (kind.asset, kind.spender, kind.facilitator) if kind.method != "eip3009" else (b"", b"", b"")
        terms = SignedTerms(
            kind.method, self.address, offer.payee, offer.amount, 0, NOW + offer.timeout, b"\x5a" * 32, b"", *permit
        )
        signature = self._key.sign_recoverable(digest(kind.separator, terms), hasher=None)
        return replace(terms, signature=signature[:64] + bytes((signature[64] + 27,)))


def payload_of(terms: SignedTerms) -> dict[str, Any]:
    """Return signed terms as a client writes them."""
    signature = "0x" + terms.signature.hex()
    payer, payee = show_address(terms.payer), show_address(terms.payee)
    if terms.method == "eip3009":
        authorization = {
            "from": payer, "to": payee, "value": str(terms.value), "validAfter": str(terms.valid_after),
            "validBefore": str(terms.valid_before), "nonce": "0x" + terms.nonce.hex(),
        }  # fmt: skip
        return {"signature": signature, "authorization": authorization}
    witness = {"to": payee, "validAfter": str(terms.valid_after)}
    if terms.method == "permit2_upto":
        witness["facilitator"] = show_address(terms.facilitator)
    permit = {
        "from": payer,
        "permitted": {"token": show_address(terms.token), "amount": str(terms.value)},
        "spender": show_address(terms.spender),
        "nonce": str(int.from_bytes(terms.nonce, "big")),
        "deadline": str(terms.valid_before),
        "witness": witness,
    }
    return {"signature": signature, "permit2Authorization": permit}


def second(offer: Offer, terms: SignedTerms) -> bytes:
    """Return a PAYMENT-SIGNATURE header."""
    shop = {"url": SHOP.url, "description": SHOP.description, "mimeType": SHOP.mime_type}
    return encode(
        {"x402Version": 2, "payload": payload_of(terms), "accepted": v2.requirements(offer), "resource": shop}
    )


def first(offer: Offer, terms: SignedTerms) -> bytes:
    """Return an X-PAYMENT header."""
    network = offer.kind.network.x402_name
    return encode({"x402Version": 1, "scheme": "exact", "network": network, "payload": payload_of(terms)})


def least(work: Callable[[], object], rounds: int, calls: int) -> float:
    """Return the CPU microseconds of one call, the least of several rounds."""
    figures: list[float] = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            work()
        figures.append((time.process_time() - started) / calls)
    return min(figures) * 1e6


def measure(name: str, header: bytes, offers: list[Offer], rounds: int, calls: int) -> float:
    """Print one row and return what reading and deciding cost together."""
    read = v1.read_payment if name.startswith("v1") else v2.read_payment
    said, terms = read(header)

    def decide() -> object:
        try:
            return verify(said, terms, offers, SHOP.url, NOW)
        except PaymentRefused as refused:
            return refused

    def both() -> object:
        return verify(*read(header), offers, SHOP.url, NOW)

    reading, deciding = least(lambda: read(header), rounds, calls), least(decide, rounds, calls)
    total = reading + deciding if isinstance(decide(), PaymentRefused) else least(both, rounds, calls)
    click.echo(f"{name:<24} {reading:>7.1f}  {deciding:>9.1f}  {total:>7.1f}")
    return total


def official(header: bytes, offer: Offer, rounds: int, calls: int) -> None:
    """Print the official SDK's row."""
    text, kind = header.decode(), offer.kind

    def read() -> Any:
        return ExactEIP3009Payload.from_dict(decode_payment_signature_header(text).payload)

    def decide(payload: Any) -> bool:
        signed = hash_eip3009_authorization(
            payload.authorization, kind.network.chain_id, kind.asset_text, kind.extra["name"], kind.extra["version"]
        )
        return verify_eoa_signature(signed, bytes.fromhex(payload.signature[2:]), payload.authorization.from_address)

    payload = read()
    if not decide(payload):
        raise RuntimeError("the official SDK does not take our payment")
    reading, deciding = least(read, rounds, calls), least(lambda: decide(payload), rounds, calls)
    click.echo(f"{'official SDK, v2 exact':<24} {reading:>7.1f}  {deciding:>9.1f}  {reading + deciding:>7.1f}")


@click.command()
@click.option("--rounds", default=7, help="Rounds per figure; the least counts")
@click.option("--calls", default=2_000, help="Calls per round")
@click.option("--most", type=float, help="End with status 1 when an honest payment costs more microseconds than this")
def main(rounds: int, calls: int, most: float | None) -> None:
    """Measure verification."""
    kinds = compile_kinds(load_networks({}), {SEPOLIA: b"\x11" * 20})
    payee = bytes.fromhex("209693bc6afc0c5328ba36faf03c514ef312287c")
    found = {scheme: kinds.find(SEPOLIA, "USDC", scheme) for scheme in ("exact", "upto")}
    exact, upto = (Offer(kind, 10_000, payee, 120) for kind in found.values() if kind is not None)
    payer = Payer()
    paid, permitted = payer.sign(exact), payer.sign(upto)
    click.echo(HEAD)
    costs = [
        measure("v2 exact", second(exact, paid), [exact, upto], rounds, calls),
        measure("v1 exact", first(exact, paid), [exact, upto], rounds, calls),
        measure("v2 upto (Permit2)", second(upto, permitted), [exact, upto], rounds, calls),
    ]
    measure("v2 forged", second(exact, replace(paid, nonce=bytes(32))), [exact], rounds, calls)
    measure("v2 too little", second(exact, replace(paid, value=1)), [exact], rounds, calls)
    official(second(exact, paid), exact, rounds, max(calls // 20, 1))
    if most is not None and max(costs) > most:
        raise SystemExit(f"a payment costs {max(costs):.0f} us, more than {most:.0f}")


if __name__ == "__main__":
    main()
