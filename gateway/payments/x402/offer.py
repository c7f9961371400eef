"""What we ask for. A payment kind is one way to pay that a network and its asset allow; an offer puts an amount on it.

Everything that decides about money comes from here and never from the payment: amount, asset, payee, network, contracts
and how long an authorization may live. A payment is only used to tell which of our offers it takes up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.networks import AssetEntry, Network, Networks
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.terms import Method
from gateway.payments.x402.digest import domain_separator, permit2_separator
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.terms import SignedTerms

Scheme = Literal["exact", "upto"]


@dataclass(frozen=True, slots=True)
class PaymentKind:
    """One scheme for one asset by one method. `verifier` is the contract whose nonces are spent (20 bytes)."""

    scheme: Scheme
    method: Method
    network: Network
    symbol: str
    asset: bytes
    asset_text: str
    verifier: bytes
    separator: bytes
    spender: bytes
    facilitator: bytes
    factories: frozenset[bytes]
    extra: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Offer:
    """A kind with what is asked for: atomic units (`upto`: at most), to whom (20 bytes), valid for so many seconds."""

    kind: PaymentKind
    amount: int
    payee: bytes
    timeout: int

    @property
    def pay_to(self) -> str:
        """Return the payee in EIP-55."""
        return show_address(self.payee)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a payment says beside what is signed. It selects an offer; version 1 names neither asset nor amount."""

    version: Literal[1, 2]
    scheme: str
    network: str
    asset: bytes | None = None
    amount: int | None = None
    payee: bytes | None = None
    resource: str | None = None


class PaymentKinds:
    """The kinds of every asset that can be paid with. Built once at start; look-ups are dictionary reads."""

    def __init__(self, kinds: Sequence[PaymentKind]) -> None:
        self.all = tuple(kinds)
        self._by_symbol = {(kind.network.id, kind.symbol, kind.scheme): kind for kind in kinds}
        self._by_asset = {(kind.network.id, kind.asset, kind.method): kind for kind in kinds}

    def find(self, network_id: str, symbol: str, scheme: Scheme = "exact") -> PaymentKind | None:
        """Return the kind for an asset, or None when nobody can pay this way."""
        return self._by_symbol.get((network_id, symbol, scheme))

    def of_asset(self, network_id: str, asset: bytes, method: Method) -> PaymentKind | None:
        """Return the kind by which a method moves a token (20 bytes), if there is one."""
        return self._by_asset.get((network_id, asset, method))

    def named(self, network: str, version: int) -> Network | None:
        """Return the network of a name in a version of the protocol: a CAIP-2 id in version 2."""
        return next((kind.network for kind in self.all if _network_name(kind.network, version) == network), None)


def compile_kinds(networks: Networks, payable: Mapping[str, bytes]) -> PaymentKinds:
    """Return the kinds of the networks that can be settled on.

    `payable` has their ids, each with the address (20 bytes) that settles there: `upto` binds payments to it. Where
    that is somebody else's (b""), `upto` is not offered.
    """
    found: list[PaymentKind] = []
    for network in networks.networks:
        facilitator = payable.get(network.id)
        if facilitator is not None:
            found.extend(kind for entry in network.assets for kind in _kinds_of(network, entry, facilitator))
    return PaymentKinds(found)


def _kinds_of(network: Network, entry: AssetEntry, facilitator: bytes) -> Iterable[PaymentKind]:
    """Yield the kind for fixed prices by the asset's preferred method, and `upto` where Permit2 may move it."""
    if not entry.transfer:
        return
    yield _eip3009(network, entry) if entry.transfer[0] == "eip3009" else _permit2(network, entry)
    if "permit2" in entry.transfer and facilitator:
        yield _permit2(network, entry, facilitator)


def _eip3009(network: Network, entry: AssetEntry) -> PaymentKind:
    domain = entry.eip712
    if domain is None:
        raise ValueError(f"{network.id}/{entry.symbol} has no eip712 domain")
    token = parse_address(entry.contract or "")
    separator = domain_separator(domain.name, domain.version, network.chain_id, token)
    extra = {"name": domain.name, "version": domain.version}
    return _kind("exact", "eip3009", network, entry, token, separator, b"", b"", extra)


def _permit2(network: Network, entry: AssetEntry, facilitator: bytes = b"") -> PaymentKind:
    """Return the Permit2 kind of an asset: `upto` when a facilitator is given, else `exact`."""
    permit2 = parse_address(network.permit2)
    separator = permit2_separator(network.chain_id, permit2)
    extra = {"assetTransferMethod": "permit2"}
    if entry.eip712 is not None:
        extra |= {"name": entry.eip712.name, "version": entry.eip712.version}
    if not facilitator:
        spender = parse_address(network.exact_permit2_proxy)
        return _kind("exact", "permit2_exact", network, entry, permit2, separator, spender, b"", extra)
    extra["facilitatorAddress"] = show_address(facilitator)
    spender = parse_address(network.upto_permit2_proxy)
    return _kind("upto", "permit2_upto", network, entry, permit2, separator, spender, facilitator, extra)


def _kind(
    scheme: Scheme, method: Method, network: Network, entry: AssetEntry, verifier: bytes, separator: bytes,
    spender: bytes, facilitator: bytes, extra: Mapping[str, str],
) -> PaymentKind:  # fmt: skip
    factories = frozenset(parse_address(factory) for factory in network.erc6492_factories)
    contract = entry.contract or ""
    return PaymentKind(
        scheme, method, network, entry.symbol, parse_address(contract), contract, verifier, separator, spender,
        facilitator, factories, extra,
    )  # fmt: skip


def match(taken: Taken, terms: SignedTerms, offers: Sequence[Offer], resource: str | None) -> list[Offer]:
    """Return which of our offers a payment can be for: one, or in version 1 one for each asset.

    `resource` is the URL that is paid for; None when the payment's word for it is good enough (a facilitator's case).

    Raises PaymentRefused with the first thing that fits none of them.
    """
    if resource is not None and taken.resource not in (None, resource):
        raise PaymentRefused(Reason.REQUIREMENTS, "this payment was made for another resource")
    here = [offer for offer in offers if taken.network == _network_name(offer.kind.network, taken.version)]
    if not here:
        raise PaymentRefused(Reason.NETWORK, "this resource is not offered on that network")
    schemed = [offer for offer in here if offer.kind.scheme == taken.scheme]
    if not schemed:
        raise PaymentRefused(Reason.SCHEME, "this resource is not offered by that scheme")
    found = [
        offer for offer in schemed if offer.kind.method == terms.method and taken.asset in (None, offer.kind.asset)
    ]
    if not found:
        raise PaymentRefused(Reason.REQUIREMENTS, "this resource is not offered for that asset by that transfer method")
    return found


def _network_name(network: Network, version: int) -> str | None:
    return network.id if version == 2 else network.x402_name
