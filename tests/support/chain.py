"""The local chain for tests, and a hand on it: mining, forks, a forgetful mempool, wallets that sign.

One chain serves the whole session; each test takes wallets of its own, and puts mining back to "at once".
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.devservices import chain as devchain
from gateway.devservices import chain_genesis
from gateway.devservices.datadir import held, prepare
from gateway.eip55 import keccak_256
from gateway.payments.evm.encoding import call_data, parse_address, selector, word
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.node import Node
from gateway.payments.evm.rpc import Rpc

DOMAIN = keccak_256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
TRANSFER = keccak_256(
    b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
BY_BYTES = selector("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)")
PERMIT2_DOMAIN = keccak_256(b"EIP712Domain(string name,uint256 chainId,address verifyingContract)")
PERMISSIONS = keccak_256(b"TokenPermissions(address token,uint256 amount)")
WITNESSES = {
    "permit2_exact": b"Witness(address to,uint256 validAfter)",
    "permit2_upto": b"Witness(address to,address facilitator,uint256 validAfter)",
}
PERMIT2, EXACT_PROXY, UPTO_PROXY = (
    parse_address(text) for text in (chain_genesis.PERMIT2, chain_genesis.EXACT_PROXY, chain_genesis.UPTO_PROXY)
)
CANCEL = keccak_256(b"CancelAuthorization(address authorizer,bytes32 nonce)")


@dataclass(frozen=True)
class Authorization:
    """A signed EIP-3009 authorization, in bytes."""

    payer: bytes
    payee: bytes
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes
    signature: bytes


def executed(signed: Authorization) -> bytes:
    """The call by which anybody can execute an EIP-3009 authorization."""
    return call_data(
        BY_BYTES, signed.payer, signed.payee, signed.value, signed.valid_after, signed.valid_before, signed.nonce,
        data=signed.signature,
    )  # fmt: skip


@dataclass
class Chain:
    """A running chain. `node` speaks to it in the current event loop."""

    url: str
    chain_id: int
    network: str
    usdc: bytes
    treasury: bytes
    signer_key: str
    keys: tuple[str, ...]
    ahead: int = 0
    held: bool = False
    _node: Node | None = None

    @property
    def node(self) -> Node:
        if self._node is None:
            self._node = Node(Rpc(self.url))
        return self._node

    async def rpc(self, method: str, *params: Any) -> Any:
        return await self.node.rpc.call(method, *params)

    async def aclose(self) -> None:
        if self._node is not None:
            await self._node.rpc.aclose()

    # --- wallets -------------------------------------------------------------------------------------------------

    async def wallet(self, usdc: int = 0, ether: int = 10**18) -> Signer:
        """A new wallet with so much."""
        signer = Signer(secrets.token_bytes(32))
        await self.rpc("anvil_setBalance", "0x" + signer.address.hex(), hex(ether))
        if usdc:
            await self.give(signer.address, usdc)
        return signer

    async def give(self, address: bytes, units: int) -> str:
        """Send USDC from the bank, the first funded account, whose transactions anvil signs; return the transaction."""
        bank = Signer(bytes.fromhex(self.keys[0][2:])).address
        data = call_data(selector("transfer(address,uint256)"), address, units)
        sent = {"from": "0x" + bank.hex(), "to": "0x" + self.usdc.hex(), "data": "0x" + data.hex(), "gas": hex(100_000)}
        digest = await self.rpc("eth_sendTransaction", sent)
        if self.held:
            await self.mine()
        async with asyncio.timeout(60):
            while (await self.rpc("eth_getTransactionReceipt", digest)) is None:  # "at once" is a moment later
                await asyncio.sleep(0.01)
        return digest

    async def treasurer_pays(self, address: bytes, units: int) -> str:
        """Send USDC from the treasury; return the transaction."""
        who, data = "0x" + self.treasury.hex(), call_data(selector("transfer(address,uint256)"), address, units)
        sent = {"from": who, "to": "0x" + self.usdc.hex(), "data": "0x" + data.hex(), "gas": hex(100_000)}
        return await self.rpc("eth_sendTransaction", sent)

    async def give_away(self, owner: Signer, units: int, *, tip: int = 10**11) -> str:
        """Let a wallet spend its USDC elsewhere, before whatever else is in the mempool."""
        elsewhere = bytes.fromhex("00" * 19 + "99")
        return await self.transact(
            owner, self.usdc, call_data(selector("transfer(address,uint256)"), elsewhere, units), tip=tip
        )

    async def usdc_of(self, address: bytes) -> int:
        return await self.node.token_balance(self.usdc, address)

    async def used(self, payer: bytes, nonce: bytes) -> bool:
        """Whether an authorization is used or cancelled."""
        data = call_data(selector("authorizationState(address,bytes32)"), payer, nonce)
        return any(await self.node.view(self.usdc, data))

    def authorize(
        self, payer: Signer, payee: bytes, value: int, *, nonce: bytes | None = None, seconds: int = 600,
        valid_after: int = 0, valid_before: int | None = None, chain_id: int | None = None, token: bytes = b"",
        name: str = "USDC",
    ) -> Authorization:  # fmt: skip
        """Sign a transfer as a client does. `chain_id`, `token` and `name` are of another token's domain."""
        nonce = nonce or secrets.token_bytes(32)
        before = valid_before if valid_before is not None else int(time.time()) + self.ahead + seconds
        body = word(payer.address) + word(payee) + word(value) + word(valid_after) + word(before) + nonce
        signature = self.sign(payer, keccak_256(TRANSFER + body), chain_id, token, name)
        return Authorization(payer.address, payee, value, valid_after, before, nonce, signature)

    def permit(
        self, payer: Signer, payee: bytes, value: int, *, method: str = "permit2_exact", nonce: bytes | None = None,
        seconds: int = 600, facilitator: bytes = b"", token: bytes = b"",
    ) -> Authorization:  # fmt: skip
        """Sign a Permit2 transfer for the x402 proxies, as a client does."""
        nonce, deadline = nonce or secrets.token_bytes(32), int(time.time()) + self.ahead + seconds
        kind, parts = WITNESSES[method], word(payee)
        if method == "permit2_upto":
            parts += word(facilitator or self.treasury)
        witness = keccak_256(keccak_256(kind) + parts + word(0))
        names = (
            b"PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,"
            b"Witness witness)TokenPermissions(address token,uint256 amount)" + kind
        )
        spender = UPTO_PROXY if method == "permit2_upto" else EXACT_PROXY
        permitted = keccak_256(PERMISSIONS + word(token or self.usdc) + word(value))
        struct = keccak_256(keccak_256(names) + permitted + word(spender) + nonce + word(deadline) + witness)
        domain = keccak_256(PERMIT2_DOMAIN + keccak_256(b"Permit2") + word(self.chain_id) + word(PERMIT2))
        raw = payer.sign(keccak_256(b"\x19\x01" + domain + struct))
        return Authorization(payer.address, payee, value, 0, deadline, nonce, raw[:64] + bytes([27 + raw[64]]))

    async def allow_permit2(self, payer: Signer) -> None:
        """Let Permit2 take the payer's USDC, as wallets do once."""
        await self.transact(payer, self.usdc, call_data(selector("approve(address,uint256)"), PERMIT2, 2**256 - 1))

    def sign(
        self, payer: Signer, struct: bytes, chain_id: int | None = None, token: bytes = b"", name: str = "USDC"
    ) -> bytes:
        """Sign an EIP-712 struct hash under the token's domain; v is 27 or 28."""
        parts = (
            keccak_256(name.encode()) + keccak_256(b"2") + word(chain_id or self.chain_id) + word(token or self.usdc)
        )
        domain = keccak_256(DOMAIN + parts)
        raw = payer.sign(keccak_256(b"\x19\x01" + domain + struct))
        return raw[:64] + bytes([27 + raw[64]])

    async def transact(self, sender: Signer, target: bytes, data: bytes, *, tip: int = 0) -> str:
        """Send a transaction of a wallet of ours, signed by anvil's impersonation, and return its hash."""
        who = "0x" + sender.address.hex()
        await self.rpc("anvil_impersonateAccount", who)
        sent = {"from": who, "to": "0x" + target.hex(), "data": "0x" + data.hex(), "gas": hex(500_000)}
        if tip:  # wei per gas: miners take the highest first
            sent |= {"maxPriorityFeePerGas": hex(tip), "maxFeePerGas": hex(2 * tip)}
        return await self.rpc("eth_sendTransaction", sent)

    async def steal_nonce(self) -> None:
        """Send a transaction with the relayer's key behind its back."""
        who = "0x" + self.treasury.hex()
        await self.rpc("eth_sendTransaction", {"from": who, "to": who, "maxFeePerGas": hex(10**12),
                                               "maxPriorityFeePerGas": hex(10**11)})  # fmt: skip

    # --- mining --------------------------------------------------------------------------------------------------

    async def mine(self, blocks: int = 1) -> None:
        await self.rpc("anvil_mine", hex(blocks))

    async def head(self) -> int:
        return (await self.node.head()).number

    @contextlib.asynccontextmanager
    async def resting(self) -> AsyncIterator[Chain]:
        """Mine nothing but what is sent, at once, until a test says otherwise; close the connection at the end."""
        await self.rpc("anvil_setIntervalMining", 0)
        await self.at_once()
        yield self
        await self.aclose()

    @contextlib.asynccontextmanager
    async def held_blocks(self) -> AsyncIterator[None]:
        """Mine only when told; afterwards what waits is mined."""
        await self.rpc("anvil_setIntervalMining", 0)
        await self.hold()
        try:
            yield
        finally:
            await self.at_once()
            await self.mine()

    @contextlib.asynccontextmanager
    async def blocks_every(self, seconds: int) -> AsyncIterator[None]:
        """Mine as a public chain does."""
        await self.hold()
        await self.rpc("anvil_setIntervalMining", seconds)
        try:
            yield
        finally:
            await self.rpc("anvil_setIntervalMining", 0)
            await self.at_once()

    async def hold(self) -> None:
        """Mine nothing until told."""
        await self.rpc("evm_setAutomine", False)
        self.held = True

    async def at_once(self) -> None:
        """Mine what is sent."""
        await self.rpc("evm_setAutomine", True)
        self.held = False

    async def later(self, seconds: int) -> None:
        """Let the next block be so much later."""
        await self.rpc("evm_increaseTime", seconds)

    async def clock_back(self) -> None:
        """Set the chain's clock to ours again. Blocks never go back in time, so later tests sign for longer."""
        head = await self.node.head()
        self.ahead = max(head.timestamp - int(time.time()), 0)

    async def knows(self, digest: bytes) -> bool:
        """Whether a transaction is in the mempool or in a block."""
        return (await self.node.known([digest])) == [True]

    async def reorg(self, depth: int) -> None:
        """Replace the last blocks by empty ones: their transactions are gone."""
        await self.rpc("anvil_reorg", depth, [])

    async def forget(self, digest: bytes) -> None:
        """Drop a transaction from the mempool."""
        await self.rpc("anvil_dropTransaction", "0x" + digest.hex())


@contextlib.contextmanager
def temporary_chain() -> Iterator[Chain]:
    """Run a chain on a fresh directory that is removed at the end. Call it from the main thread."""
    directory = Path(tempfile.mkdtemp(prefix="tw-chain-", dir="/tmp"))
    data = prepare(directory)
    with held(data):
        running = devchain.launch(data).wait_ready()
        try:
            yield Chain(
                running.rpc_url, running.chain_id, f"eip155:{running.chain_id}", parse_address(running.usdc),
                parse_address(running.treasury), running.signer_key, running.funded_keys,
            )  # fmt: skip
        finally:
            running.stop()
    shutil.rmtree(directory, ignore_errors=True)
