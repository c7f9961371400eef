"""What stands on the local chain from the beginning: real USDC, Permit2, Multicall3, and wallets with money.

The x402 proxies of Permit2 are our own stand-ins (contracts/Permit2Proxies.sol); all else is the public code.

Everything is put at the addresses it has on the public network, so clients and signatures are the same as there. The
accounts are those of the well-known test mnemonic: anybody has their keys, and nothing here is worth anything.
Idempotent: a chain that has the token already is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.devservices.chain_packages import Contracts
from gateway.payments.evm.encoding import Argument, parse_address, selector, tail, word
from gateway.payments.evm.rpc import Request, Rpc, RpcError

PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
EXACT_PROXY = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001"
UPTO_PROXY = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
CHECKER = "0x7000000000000000000000000000000000000001"
IMPLEMENTATION = "0x7000000000000000000000000000000000000002"
PROXY_ADMIN = "0x7000000000000000000000000000000000000003"  # used for nothing else: the proxy hides the token from it
MINTER = "0x7000000000000000000000000000000000000004"
IMPLEMENTATION_SLOT = "0x7050c9e0f4ca769c69bd3a8ef740bc37934f8e2c036e5a723fd8ee048ed3f8c3"
ADMIN_SLOT = "0x10d6a54a4754c8869d6886b5f5d7fbfa5b4522237ea5c60d11bc4e7a1ff9390b"
FUNDS = 1_000_000_000_000  # a million dollars for each wallet
DECIMALS = 6


@dataclass(frozen=True)
class Genesis:
    """Which token, under which name in its signatures, and who has money."""

    usdc: str
    name: str
    wallets: tuple[str, ...]


async def prepare(rpc: Rpc, contracts: Contracts, genesis: Genesis) -> None:
    """Put everything in place, unless it is. Raises RpcError when the chain refuses."""
    if await rpc.call("eth_getCode", genesis.usdc, "latest") != "0x":
        return
    checker = parse_address(CHECKER)
    # A library begins with its own address, so that it notices when it is called directly.
    library = contracts.checker[:1] + checker + contracts.checker[21:]
    await _all(
        rpc,
        _code(CHECKER, library),
        _code(IMPLEMENTATION, contracts.token.at(checker)),
        _code(genesis.usdc, contracts.proxy),
        _code(PERMIT2, contracts.permit2),
        _code(MULTICALL3, contracts.multicall3),
        _code(EXACT_PROXY, contracts.exact_proxy),
        _code(UPTO_PROXY, contracts.upto_proxy),
        Request("anvil_setStorageAt", (genesis.usdc, IMPLEMENTATION_SLOT, _hex(word(parse_address(IMPLEMENTATION))))),
        Request("anvil_setStorageAt", (genesis.usdc, ADMIN_SLOT, _hex(word(parse_address(PROXY_ADMIN))))),
        Request("anvil_impersonateAccount", (MINTER,)),
        Request("anvil_setBalance", (MINTER, hex(10**20))),
    )
    for data in _initialization(genesis):
        await _send(rpc, genesis.usdc, data)
    await _all(rpc, Request("anvil_stopImpersonatingAccount", (MINTER,)))


def _initialization(genesis: Genesis) -> list[bytes]:
    owner = parse_address(MINTER)
    init = "initialize(string,string,string,uint8,address,address,address,address)"
    calls = [
        _call(init, genesis.name, "USDC", "USD", DECIMALS, owner, owner, owner, owner),
        _call("initializeV2(string)", genesis.name),
        _call("initializeV2_1(address)", parse_address(PROXY_ADMIN)),
        # An empty array of accounts, then the symbol.
        selector("initializeV2_2(address[],string)") + word(64) + word(96) + word(0) + tail(b"USDC"),
        _call("configureMinter(address,uint256)", owner, 10**24),
    ]
    return calls + [_call("mint(address,uint256)", parse_address(wallet), FUNDS) for wallet in genesis.wallets]


def _call(signature: str, *arguments: str | Argument) -> bytes:
    """Return call data; strings are dynamic arguments, everything else is one word."""
    head, tails = b"", b""
    for argument in arguments:
        if isinstance(argument, str):
            head += word(32 * len(arguments) + len(tails))
            tails += tail(argument.encode())
        else:
            head += word(argument)
    return selector(signature) + head + tails


async def _send(rpc: Rpc, target: str, data: bytes) -> None:
    sent = {"from": MINTER, "to": target, "data": _hex(data), "gas": hex(3_000_000)}
    digest = await rpc.call("eth_sendTransaction", sent)
    await rpc.call("anvil_mine", "0x1")
    receipt = await rpc.call("eth_getTransactionReceipt", digest)
    if not receipt or receipt["status"] != "0x1":
        raise RuntimeError("the token could not be set up on the local chain")


async def _all(rpc: Rpc, *requests: Request) -> None:
    for answer in await rpc.batch(requests):
        if isinstance(answer, RpcError):
            raise answer


def _code(address: str, code: bytes) -> Request:
    return Request("anvil_setCode", (address, _hex(code)))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
