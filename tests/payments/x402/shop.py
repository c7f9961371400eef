"""A seller's offers, and payers whose wallets sign with eth-account: an implementation of EIP-712 that is not ours."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from gateway.networks import Networks, load_networks
from gateway.payments.evm.encoding import show_address
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import resource
from gateway.payments.x402.offer import Offer, PaymentKinds, compile_kinds
from gateway.payments.x402.verify import DEFAULT_BOUNDS, TimeBounds, Verified, verify

SEPOLIA, BASE = "eip155:84532", "eip155:8453"
FACILITATOR = bytes.fromhex("f00dbabe" * 5)
PAYEE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
PRICE = 10_000
NOW = 1_800_000_000
SHOP = resource("https://gateway.example/publishers/demo/v1/search", "GET Demo")

TRANSFER_TYPES = {
    "TransferWithAuthorization": [
        {"name": name, "type": kind}
        for name, kind in (
            ("from", "address"), ("to", "address"), ("value", "uint256"), ("validAfter", "uint256"),
            ("validBefore", "uint256"), ("nonce", "bytes32"),
        )
    ]
}  # fmt: skip


def permit_types(*, upto: bool) -> dict[str, list[dict[str, str]]]:
    """Permit2's EIP-712 types with the witness of the x402 proxies."""
    facilitator = [{"name": "facilitator", "type": "address"}] if upto else []
    return {
        "PermitWitnessTransferFrom": [
            {"name": "permitted", "type": "TokenPermissions"},
            {"name": "spender", "type": "address"},
            {"name": "nonce", "type": "uint256"},
            {"name": "deadline", "type": "uint256"},
            {"name": "witness", "type": "Witness"},
        ],
        "TokenPermissions": [{"name": "token", "type": "address"}, {"name": "amount", "type": "uint256"}],
        "Witness": [
            {"name": "to", "type": "address"}, *facilitator, {"name": "validAfter", "type": "uint256"},
        ],
    }  # fmt: skip


def networks() -> Networks:
    """The shipped networks."""
    return load_networks({})


def permit2_networks() -> Networks:
    """The shipped networks, with tokens that only Permit2 can move."""
    shipped = networks()
    moved = tuple(
        network.model_copy(
            update={
                "assets": tuple(a.model_copy(update={"transfer": ("permit2",)}) for a in network.assets if a.transfer)
            }
        )
        for network in shipped.networks
    )
    return shipped.model_copy(update={"networks": moved})


def permit2_offer(amount: int = PRICE, timeout: int = 120) -> Offer:
    """A fixed price on Base Sepolia in a token that only Permit2 can move."""
    kind = compile_kinds(permit2_networks(), {SEPOLIA: FACILITATOR}).find(SEPOLIA, "USDC")
    assert kind is not None
    return Offer(kind, amount, bytes.fromhex(PAYEE[2:]), timeout)


def kinds() -> PaymentKinds:
    """The kinds of both shipped networks."""
    return compile_kinds(networks(), {SEPOLIA: FACILITATOR, BASE: FACILITATOR})


def offer(network: str = SEPOLIA, scheme: Any = "exact", amount: int = PRICE, payee: str = PAYEE) -> Offer:
    """An offer in USDC, valid for two minutes."""
    kind = kinds().find(network, "USDC", scheme)
    assert kind is not None
    return Offer(kind, amount, bytes.fromhex(payee[2:]), 120)


@dataclass
class Payer:
    """A wallet. `authorization` and `domain` are what it signs; tests change them before or after signing."""

    account: LocalAccount = field(default_factory=Account.create)

    @property
    def address(self) -> bytes:
        return bytes.fromhex(self.account.address[2:])

    def authorization(self, of: Offer, **changes: str) -> dict[str, str]:
        """What an honest client would sign for an offer, with changes."""
        return {
            "from": self.account.address,
            "to": of.pay_to,
            "value": str(of.amount),
            "validAfter": "0",
            "validBefore": str(NOW + of.timeout),
            "nonce": "0x" + secrets.token_hex(32),
        } | changes

    def sign(self, of: Offer, authorization: dict[str, str], **domain: Any) -> bytes:
        """Sign an authorization in the offer's domain, with changes to the domain."""
        message: dict[str, Any] = {
            name: int(authorization[name]) for name in ("value", "validAfter", "validBefore")
        } | {
            "from": authorization["from"],
            "to": authorization["to"],
            "nonce": bytes.fromhex(authorization["nonce"][2:]),
        }
        full = {
            "name": of.kind.extra["name"],
            "version": of.kind.extra["version"],
            "chainId": of.kind.network.chain_id,
            "verifyingContract": of.kind.asset_text,
        } | domain
        return bytes(self.account.sign_typed_data(full, TRANSFER_TYPES, message).signature)

    def payment(self, of: Offer, domain: dict[str, Any] | None = None, **changes: str) -> dict[str, Any]:
        """A version 2 payment for an offer; changes are signed."""
        authorization = self.authorization(of, **changes)
        signature = "0x" + self.sign(of, authorization, **(domain or {})).hex()
        return {
            "x402Version": 2,
            "payload": {"signature": signature, "authorization": authorization},
            "accepted": dict(v2.requirements(of)),
            "resource": {"url": SHOP.url, "description": SHOP.description, "mimeType": SHOP.mime_type},
        }

    def permit(self, of: Offer, *, domain: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """A version 2 payment by Permit2 for an offer; changes are signed. Nested names are flat here."""
        upto = of.kind.scheme == "upto"
        terms: dict[str, Any] = {
            "token": of.kind.asset_text,
            "amount": of.amount,
            "spender": show_address(of.kind.spender),
            "nonce": secrets.randbits(256),
            "deadline": NOW + of.timeout,
            "to": of.pay_to,
            "validAfter": 0,
            "facilitator": of.kind.extra.get("facilitatorAddress"),
        } | changes
        witness = {"to": terms["to"], "validAfter": terms["validAfter"]}
        witness |= {"facilitator": terms["facilitator"]} if upto else {}
        message = {
            "permitted": {"token": terms["token"], "amount": terms["amount"]},
            "spender": terms["spender"],
            "nonce": terms["nonce"],
            "deadline": terms["deadline"],
            "witness": witness,
        }
        permit2 = {
            "name": "Permit2", "chainId": of.kind.network.chain_id, "verifyingContract": of.kind.network.permit2
        } | (domain or {})  # fmt: skip
        signature = self.account.sign_typed_data(permit2, permit_types(upto=upto), message).signature
        return {
            "x402Version": 2,
            "payload": {
                "signature": "0x" + signature.hex(),
                "permit2Authorization": {"from": self.account.address, **_decimals(message)},
            },
            "accepted": dict(v2.requirements(of)),
        }


def _decimals(value: Any) -> Any:
    """Numbers as the wire has them."""
    if isinstance(value, dict):
        return {name: _decimals(part) for name, part in value.items()}
    return str(value) if isinstance(value, int) else value


def as_v1(payment: dict[str, Any], network: str = "base-sepolia") -> dict[str, Any]:
    """The same payment in version 1."""
    return {"x402Version": 1, "scheme": "exact", "network": network, "payload": payment["payload"]}


def header(document: Any) -> bytes:
    """A payment header."""
    return base64.b64encode(document if isinstance(document, bytes) else json.dumps(document).encode())


def check(document: dict[str, Any], *offers: Offer, now: int = NOW, bounds: TimeBounds = DEFAULT_BOUNDS) -> Verified:
    """Send a payment over the wire and verify it for these offers."""
    read = v1.read_payment if document["x402Version"] == 1 else v2.read_payment
    taken, terms = read(header(document))
    return verify(taken, terms, offers, SHOP.url, now, bounds)
