"""Whether a payment pays for an offer, as far as this can be known without asking the chain. Pure, about 80 us.

What is left to the chain is said in the result: whether a smart wallet signed (`question`), and whether the transfer
would succeed now (evm/checks.inspect: funds, an unused nonce, a trial run). What is left to the caller is replay: one
payer's nonce with one contract on one network is one payment, and is reserved once (evm/settlements.reserve).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.payments.evm.terms import Terms
from gateway.payments.x402.digest import digest
from gateway.payments.x402.offer import Offer, PaymentKind, Taken, match
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.signatures import Signature, as_contracts_want, question, read_signature, recover
from gateway.payments.x402.terms import SignedTerms


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """How long an authorization must still live and may live at most, in seconds.

    `margin` is what settling needs at least; `ahead` is how much a payer's clock may be fast: nothing that lives longer
    than the offer's timeout plus this is taken, because an old authorization that nobody remembers must die.
    """

    margin: int = 6
    ahead: int = 300


@dataclass(frozen=True, slots=True)
class Question:
    """A view call that the payer's smart wallet must affirm (signatures.affirms), and the code if it does not."""

    data: bytes
    reason: Reason


@dataclass(frozen=True, slots=True)
class Verified:
    """A payment that pays for `offer`, if the chain agrees. `terms` are for settlement; `digest` is what was signed.

    `question` is None when the payer's key has signed for certain; else ask the payer's address and go on with
    `decided`.
    """

    offer: Offer
    terms: Terms
    digest: bytes
    question: Question | None

    @property
    def network(self) -> str:
        """Return the network's CAIP-2 id."""
        return self.offer.kind.network.id

    def decided(self, affirmed: bool) -> Verified:
        """Return the payment once its `question` was put: without the wallet's creation where the wallet has answered.

        Raises PaymentRefused when the wallet does not affirm and cannot be created; otherwise the trial run decides.
        """
        if self.question is None:
            return self
        if affirmed:
            return replace(self, terms=replace(self.terms, deploy_target=None, deploy_data=None), question=None)
        if self.terms.deploy_target is not None:
            return replace(self, question=None)
        raise PaymentRefused(self.question.reason, _UNPROVEN[self.question.reason])


@dataclass(frozen=True, slots=True)
class _Codes:
    """The reason codes of one method."""

    signature: Reason
    payee: Reason
    value: Reason
    not_yet: Reason
    expired: Reason


_EIP3009 = _Codes(Reason.SIGNATURE, Reason.PAYEE, Reason.VALUE, Reason.NOT_YET_VALID, Reason.EXPIRED)
_PERMIT2 = _Codes(
    Reason.PERMIT2_SIGNATURE,
    Reason.PERMIT2_PAYEE,
    Reason.PERMIT2_AMOUNT,
    Reason.PERMIT2_NOT_YET_VALID,
    Reason.PERMIT2_EXPIRED,
)
_UNPROVEN = {
    Reason.SIGNATURE: "the signature is not the payer's over these terms: check the token's domain and the chain",
    Reason.PERMIT2_SIGNATURE: "the signature is not the payer's over these terms: check Permit2's domain and the chain",
    Reason.FACTORY: "the payer's wallet is not deployed, and its factory is not one that this gateway calls",
    Reason.WALLET: "the payer's wallet is not deployed; upto payments are taken from deployed wallets only",
}
DEFAULT_BOUNDS = TimeBounds()


def verify(
    taken: Taken,
    terms: SignedTerms,
    offers: Sequence[Offer],
    resource: str | None,
    now: int,
    bounds: TimeBounds = DEFAULT_BOUNDS,
) -> Verified:
    """Return the payment as one for an offer of ours. `now` is Unix seconds, `resource` as for `match`.

    Raises PaymentRefused.

    Where version 1 leaves open which asset is meant, the offer whose domain the signature fits is the one.
    """
    open_ones: list[Verified] = []
    refusals: list[PaymentRefused] = []
    for offer in match(taken, terms, offers, resource):
        try:
            verified = _verify(taken, terms, offer, now, bounds)
        except PaymentRefused as refusal:
            refusals.append(refusal)
            continue
        if verified.question is None:
            return verified
        open_ones.append(verified)
    if open_ones:
        return open_ones[0]
    raise refusals[0]


def _verify(taken: Taken, terms: SignedTerms, offer: Offer, now: int, bounds: TimeBounds) -> Verified:
    kind = offer.kind
    codes = _EIP3009 if terms.method == "eip3009" else _PERMIT2
    _check_money(taken, terms, offer, codes)
    if terms.method != "eip3009":
        _check_permit(terms, kind)
    _check_times(terms, now, now + offer.timeout + bounds.ahead, bounds.margin, codes)
    signature = read_signature(terms.signature)
    if signature is None:
        raise PaymentRefused(codes.signature, "the signature ends as ERC-6492's do, but is not laid out like one")
    signed = digest(kind.separator, terms)
    data, asked = _proof(terms.payer, signed, signature, kind, codes)
    deployment = signature.deployment if asked is not None and asked.reason is codes.signature else None
    checked = Terms(
        asset=kind.asset,
        payer=terms.payer,
        payee=terms.payee,
        nonce=terms.nonce,
        method=terms.method,
        authorized=terms.value,
        valid_after=terms.valid_after,
        valid_before=terms.valid_before,
        signature=data,
        deploy_target=deployment and deployment.factory,
        deploy_data=deployment and deployment.data,
    )
    return Verified(offer, checked, signed, asked)


def _check_money(taken: Taken, terms: SignedTerms, offer: Offer, codes: _Codes) -> None:
    """What is moved to whom. What the payment merely says of it must agree as well: it shows an outdated offer."""
    if terms.payee != offer.payee or taken.payee not in (None, offer.payee):
        raise PaymentRefused(codes.payee, f"the payment must go to {offer.pay_to}")
    if terms.payer == terms.payee:
        raise PaymentRefused(codes.payee, "a wallet cannot pay itself")
    if terms.value != offer.amount or taken.amount not in (None, offer.amount):
        raise PaymentRefused(codes.value, f"the amount must be exactly {offer.amount} atomic units")


def _check_permit(terms: SignedTerms, kind: PaymentKind) -> None:
    if terms.token != kind.asset:
        raise PaymentRefused(Reason.PERMIT2_TOKEN, f"the permitted token must be {kind.asset_text}")
    if terms.spender != kind.spender:
        raise PaymentRefused(Reason.PERMIT2_SPENDER, "the spender must be the x402 proxy of this scheme")
    if terms.facilitator != kind.facilitator:
        raise PaymentRefused(Reason.UPTO_FACILITATOR, "witness.facilitator must be the offer's facilitatorAddress")


def _check_times(terms: SignedTerms, now: int, latest: int, margin: int, codes: _Codes) -> None:
    if terms.valid_after > now:
        raise PaymentRefused(codes.not_yet, f"the authorization is not valid before {terms.valid_after}; now is {now}")
    if terms.valid_before < now + margin:
        raise PaymentRefused(codes.expired, f"the authorization ends before it can be settled; now is {now}")
    if terms.valid_before > latest:
        raise PaymentRefused(codes.expired, f"the authorization lives too long: sign one that ends before {latest}")


def _proof(
    payer: bytes, signed: bytes, signature: Signature, kind: PaymentKind, codes: _Codes
) -> tuple[bytes, Question | None]:
    """Return the signature for the contract, and what to ask the payer's wallet unless the payer's key signed."""
    deployment = signature.deployment
    if deployment is None:
        data = as_contracts_want(signature.data)
        if recover(signed, data) == payer:
            return data, None
        reason = codes.signature
    elif kind.scheme == "upto":  # the wallet would be created by a multicall, and the proxy wants the facilitator
        reason = Reason.WALLET
    else:
        reason = codes.signature if deployment.factory in kind.factories else Reason.FACTORY
    return signature.data, Question(question(signed, signature.data), reason)
