"""The local chain of `tollway dev --chain`: anvil with real USDC, under the id of a public test network.

It mines at once when something is sent, and every BLOCK_SECONDS besides, so that its clock goes on. What happened on
it is kept under the data directory, because the ledger remembers it too. TOLLWAY_CHAIN_RPC (with
TOLLWAY_CHAIN_SIGNER_KEY) names a chain that already runs: then nothing is started.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.devservices import chain_genesis, chain_packages
from gateway.devservices.processes import (
    LOOPBACK,
    Child,
    ServiceError,
    bare_environment,
    never,
    quiet,
    stable_port,
    start,
    stop_leftover,
    wait_until,
)
from gateway.payments.evm.encoding import parse_address, parse_hex, parse_quantity, show_address
from gateway.payments.evm.keystore import Signer, load_signer
from gateway.payments.evm.rpc import Rpc, RpcError

CHAIN_ID = 84532
NETWORK = f"eip155:{CHAIN_ID}"
# The token's address and its name in signatures, by network.
USDC = {
    NETWORK: ("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    "eip155:8453": ("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
}
ACCOUNTS = 30
BLOCK_SECONDS = 10
STATE_SECONDS = 60
READ_SECONDS = 10.0


@dataclass
class Chain:
    """A chain in use. The first account relays and is the treasury; `funded_keys` are wallets with ether and USDC, and
    `buyer_key` is that of one more, from which the gateway buys.
    """

    rpc_url: str
    chain_id: int
    usdc: str
    signer_key: str
    treasury: str
    funded_keys: tuple[str, ...]
    child: Child | None = None
    buyer_key: str = ""

    def document(self) -> dict[str, object]:
        """Return the chain part of dev.json."""
        return {
            "rpc_url": self.rpc_url,
            "chain_id": self.chain_id,
            "network": f"eip155:{self.chain_id}",
            "usdc": self.usdc,
            "permit2": chain_genesis.PERMIT2,
            "treasury": self.treasury,
            "funded_keys": list(self.funded_keys),
            **({"buyer": self.buyer} if self.buyer else {}),
        }

    def environment(self) -> dict[str, str]:
        """Return what a gateway on this chain has in its environment, beside the operator's own keystore."""
        key = {"TOLLWAY_CHAIN_SIGNER_KEY": self.signer_key} if self.signer_key else {}
        # Everybody may publish here, and the money is none: so everybody may be bought from.
        buyer = {"TOLLWAY_CHAIN_BUYER_KEY": self.buyer_key, "TOLLWAY_BUYING_PUBLISHERS": "*"} if self.buyer_key else {}
        return {f"TOLLWAY_CHAIN_{self.chain_id}_RPC": self.rpc_url, **key, **buyer}

    @property
    def buyer(self) -> str:
        """Return the buying wallet's address, or nothing."""
        return show_address(Signer(parse_hex(self.buyer_key)).address) if self.buyer_key else ""

    def stop(self) -> None:
        """Stop what was started; on SIGTERM it writes its state first."""
        if self.child is not None:
            self.child.stop((signal.SIGTERM, 15.0))


@dataclass
class Launched:
    """An anvil process whose chain is not set up yet."""

    child: Child
    port: int
    home: Path
    accounts: Path

    def stop(self) -> None:
        """Stop it."""
        self.child.stop((signal.SIGTERM, 15.0))

    def wait_ready(self, *, seconds: float = 60.0, stopping: Callable[[], bool] = never) -> Chain:
        """Wait until it answers, put the contracts in place, and return the chain."""
        what = "the local chain (anvil)"
        wait_until(self._ready, self.child, seconds=seconds, stopping=stopping, what=what)
        document = json.loads(self.accounts.read_text(encoding="utf-8"))
        addresses = [show_address(parse_address(text)) for text in document["available_accounts"]]
        keys: list[str] = document["private_keys"]
        url = f"http://{LOOPBACK}:{self.port}"
        usdc, name = USDC[NETWORK]
        asyncio.run(_set_up(url, self.home, chain_genesis.Genesis(usdc, name, tuple(addresses[1:]))))
        return Chain(url, CHAIN_ID, usdc, keys[0], addresses[0], tuple(keys[1:-1]), self.child, keys[-1])

    def _ready(self) -> bool:
        """Say whether it answers, and has written its accounts whole."""
        try:
            return _answers(self.port) and bool(json.loads(self.accounts.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return False


def launch(data: Path, *, say: Callable[[str], None] = quiet, keep: bool = True) -> Launched:
    """Start the chain kept under `data`; does not wait until it is ready. The caller holds the directory's lock.

    Without `keep` it is forgotten when it ends: writing it down holds everybody up for a moment.
    """
    stop_leftover(data, "chain", signal.SIGTERM)
    home = chain_packages.fetch(say)
    place = data / "chain"
    place.mkdir(exist_ok=True, mode=0o700)
    port = stable_port(data / "chain.port")
    accounts = place / "accounts.json"
    command = [
        home / "anvil", "--host", LOOPBACK, "--port", str(port), "--chain-id", str(CHAIN_ID),
        "--accounts", str(ACCOUNTS), "--config-out", accounts, "--silent",
        "--block-time", str(BLOCK_SECONDS), "--mixed-mining",
        *(("--state", place / "state.json", "--state-interval", str(STATE_SECONDS)) if keep else ()),
    ]  # fmt: skip
    environment = {**bare_environment(), "HOME": str(place)}
    child = start("chain", command, data=data, env=environment, log=data / "chain.log", cwd=place)
    return Launched(child, port, home, accounts)


def existing(environ: Mapping[str, str]) -> Chain | None:
    """Return the chain that TOLLWAY_CHAIN_RPC names, or None. Raises ServiceError when it cannot be used."""
    url = environ.get("TOLLWAY_CHAIN_RPC")
    if not url:
        return None
    signer = load_signer(environ)
    if signer is None:
        raise ServiceError("TOLLWAY_CHAIN_RPC needs TOLLWAY_CHAIN_SIGNER_KEY (or a keystore): who sends transactions?")
    try:
        chain_id = asyncio.run(_chain_id(url))
    except (RpcError, ValueError) as error:
        raise ServiceError(f"TOLLWAY_CHAIN_RPC: no chain answers there ({error})") from None
    if f"eip155:{chain_id}" not in USDC:
        raise ServiceError(f"TOLLWAY_CHAIN_RPC: chain {chain_id} is not one of {', '.join(USDC)}")
    usdc, _ = USDC[f"eip155:{chain_id}"]
    key = environ.get("TOLLWAY_CHAIN_SIGNER_KEY", "")
    return Chain(url, chain_id, usdc, key, show_address(signer.address), ())


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        body = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
        connection.request("POST", "/", body, {"content-type": "application/json"})
        return json.loads(connection.getresponse().read()).get("result") == hex(CHAIN_ID)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def _set_up(url: str, home: Path, genesis: chain_genesis.Genesis) -> None:
    rpc = Rpc(url, timeout=READ_SECONDS)
    try:
        await chain_genesis.prepare(rpc, chain_packages.contracts(home), genesis)
    finally:
        await rpc.aclose()


async def _chain_id(url: str) -> int:
    rpc = Rpc(url, timeout=READ_SECONDS)
    try:
        return parse_quantity(await rpc.call("eth_chainId"))
    finally:
        await rpc.aclose()
