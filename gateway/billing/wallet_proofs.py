"""From a SIGN-IN-WITH-X header to the wallet that signed it: each proof counts once, here and now.

A claimed address opens nothing. The signature is checked locally, or by the wallet's contract on the chain that the
proof names; then its nonce is used up in the database, so that a proof that was overheard or kept is worth nothing.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.database.pool import Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unauthenticated, Unavailable
from gateway.identity.principals import Principal
from gateway.identity.wallets import principal_of
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.node import Node
from gateway.payments.evm.rpc import NoAnswer
from gateway.payments.examine import affirmed
from gateway.payments.x402.wallet_proof import ProofRefused, WalletProof, challenge, make_nonce, verify_proof
from gateway.suspensions import SuspendedWallets

EXTENSION = "sign-in-with-x"
EXPIRE_ROUND = 1_000

USE_NONCE = Statement(
    "INSERT INTO identity.used_nonce (nonce, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true",
    bool,
    scalar=True,
)
FORGET_NONCES = Command(
    """
    DELETE FROM identity.used_nonce
     WHERE nonce IN (SELECT nonce FROM identity.used_nonce WHERE expires_at < now() LIMIT $1)
    """
)


class WalletProofs:
    """One per worker. `nodes` has the networks on which wallets may sign in.

    Nonces are sealed with the first of `keys` (settings.secrets.keys), and read with any.
    """

    def __init__(
        self, database: Database, nodes: Mapping[str, Node | None], keys: Mapping[str, bytes], public_url: str,
        suspended: SuspendedWallets,
    ) -> None:  # fmt: skip
        self._database = database
        self._nodes = nodes
        self._suspended = suspended
        self._secrets = [hmac.digest(key, b"tollway wallet proofs", "sha256") for key in keys.values()]
        self._origin = public_url

    def extensions(self, uri: str) -> dict[str, Any]:
        """Return the x402 extension by which a client learns what to sign; empty where nobody can."""
        if not self._secrets or not self._nodes:
            return {}
        now, domain = int(time.time()), self._origin.partition("://")[2]
        nonce = make_nonce(self._secrets[0], domain, now, secrets.token_bytes(4))
        return {EXTENSION: challenge(domain, uri, sorted(self._nodes), nonce, now)}

    async def prove(self, header: bytes, claimed: bytes | None) -> Principal:
        """Return whose proof this is and use it up; `claimed` is X-AGENT-WALLET, if it was sent.

        Raises Unauthenticated, also where there is no chain or no secret key and so no proof can be good; Suspended;
        Unavailable.
        """
        if not self._secrets or not self._nodes:
            raise Unauthenticated("Wallets cannot sign in here: this gateway has no chain, or no secret keys.")
        proof = self._verified(header)
        if claimed is not None and claimed.lower() != b"0x" + proof.wallet.hex().encode():
            raise Unauthenticated(f"X-AGENT-WALLET is not the wallet that has signed, {show_address(proof.wallet)}.")
        if proof.question is not None and not await self._affirmed(proof, proof.question):
            raise Unauthenticated("The wallet proof is not signed by the wallet that it names, on that chain.")
        expires = datetime.fromtimestamp(proof.expires, UTC)
        async with self._database.acquire() as connection:
            if not await USE_NONCE.first(connection, proof.nonce, expires):
                raise Unauthenticated("This wallet proof was used before: sign a new challenge for every request.")
        self._suspended.demand(proof.wallet)
        return principal_of(proof.network, proof.wallet)

    def _verified(self, header: bytes) -> WalletProof:
        reason = ""
        for secret in self._secrets:
            try:
                return verify_proof(header, secret, self._origin, self._nodes.keys(), int(time.time()))
            except ProofRefused as refusal:
                reason = reason or str(refusal)
        raise Unauthenticated(f"The wallet proof does not hold: {reason}.")

    async def _affirmed(self, proof: WalletProof, question: bytes) -> bool:
        node = self._nodes[proof.network]
        if node is None:
            raise Unauthenticated("Only wallets with a key can sign in on this network: it has no node to ask.")
        try:
            return await affirmed(node, proof.wallet, question)
        except NoAnswer:
            raise Unavailable("The network's node does not answer, so the wallet cannot be asked. Try again.") from None


async def forget_nonces(database: Database) -> int:
    """Forget nonces that have ended by themselves, and return how many."""
    total = 0
    while True:
        async with database.acquire() as connection:
            removed = await FORGET_NONCES.run(connection, EXPIRE_ROUND)
        total += removed
        if removed < EXPIRE_ROUND:
            return total
