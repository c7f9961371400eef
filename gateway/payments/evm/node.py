"""What we ask a chain, with types: blocks, receipts, logs, balances, simulations, broadcasts.

Everything a node says is checked here: a result of the wrong shape is `NoAnswer`, like no result at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from gateway.payments.evm.encoding import call_data, parse_hex, parse_quantity, selector
from gateway.payments.evm.rpc import Calls, NoAnswer, Request, RpcError

Result = TypeVar("Result")

BALANCE_OF = selector("balanceOf(address)")
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Block:
    """A block's head: `timestamp` in seconds, `base_fee` in wei per gas."""

    number: int
    hash: bytes
    timestamp: int
    base_fee: int


@dataclass(frozen=True, slots=True)
class Log:
    """One event: who emitted it, its topics and data, and where it stands in the chain."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    transaction: bytes
    block_number: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction in a block. `succeeded` is false when it was reverted; then it has no logs. `gas_price` is wei."""

    transaction: bytes
    succeeded: bool
    block_number: int
    block_hash: bytes
    gas_used: int
    gas_price: int
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which logs: of a contract, by topics (None matches any), in a range of blocks (both ends included)."""

    address: bytes
    topics: tuple[bytes | None, ...]
    first: int
    last: int


class Node:
    """Typed questions to one node. All raise NodeRefused or NoAnswer; lists hold such errors per item instead."""

    def __init__(self, rpc: Calls) -> None:
        self.rpc = rpc

    async def chain_id(self) -> int:
        """Return the chain id that the node serves."""
        return _read(parse_quantity, await self.rpc.call("eth_chainId"))

    async def head(self) -> Block:
        """Return the newest block."""
        return _read(_block, await self.rpc.call("eth_getBlockByNumber", LATEST, False))

    async def blocks(self, numbers: Sequence[int]) -> list[Block | RpcError | None]:
        """Return the canonical blocks with these numbers; None where there is none (yet, or any more)."""
        requests = [Request("eth_getBlockByNumber", (hex(number), False)) for number in numbers]
        return [_each(_optional(_block), answer) for answer in await self.rpc.batch(requests)]

    async def tip(self) -> int:
        """Return the node's suggestion for the tip, in wei per gas."""
        return _read(parse_quantity, await self.rpc.call("eth_maxPriorityFeePerGas"))

    async def balance(self, address: bytes) -> int:
        """Return an account's native balance, in wei."""
        return _read(parse_quantity, await self.rpc.call("eth_getBalance", _hex(address), LATEST))

    async def account(self, address: bytes) -> tuple[int, int]:
        """Return `balance` and `next_nonce`, in one round trip."""
        methods = ("eth_getBalance", "eth_getTransactionCount")
        answers = await self.rpc.batch([Request(method, (_hex(address), LATEST)) for method in methods])
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
        return _read(parse_quantity, answers[0]), _read(parse_quantity, answers[1])

    async def next_nonce(self, address: bytes) -> int:
        """Return how many transactions of an account are in the newest block's state."""
        return _read(parse_quantity, await self.rpc.call("eth_getTransactionCount", _hex(address), LATEST))

    async def nonce_at(self, address: bytes, block: int) -> int:
        """Return how many transactions of an account were in a block's state."""
        return _read(parse_quantity, await self.rpc.call("eth_getTransactionCount", _hex(address), hex(block)))

    async def view(self, contract: bytes, data: bytes, block: int | None = None) -> bytes:
        """Return what one view call answers, raw. A revert is NodeRefused."""
        answer = (await self.views([(contract, data)], block))[0]
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def token_balance(self, token: bytes, owner: bytes) -> int:
        """Return how much of an ERC-20 token an address has, in atomic units."""
        return int.from_bytes(await self.view(token, call_data(BALANCE_OF, owner)), "big")

    async def views(self, calls: Sequence[tuple[bytes, bytes]], block: int | None = None) -> list[bytes | RpcError]:
        """Return what each (contract, data) view call answers, raw, at a block (default: the newest)."""
        at = LATEST if block is None else hex(block)
        requests = [Request("eth_call", ({"to": _hex(to), "data": _hex(data)}, at)) for to, data in calls]
        return [_each(parse_hex, answer) for answer in await self.rpc.batch(requests)]

    async def estimate(self, sender: bytes, calls: Sequence[tuple[bytes, bytes]]) -> list[int | RpcError]:
        """Return the gas that each (target, data) would use now; a NodeRefused says how it would revert."""
        requests = [
            Request("eth_estimateGas", ({"from": _hex(sender), "to": _hex(target), "data": _hex(data)},))
            for target, data in calls
        ]
        return [_each(parse_quantity, answer) for answer in await self.rpc.batch(requests)]

    async def look_and_try(
        self, view: tuple[bytes, bytes], sender: bytes, call: tuple[bytes, bytes]
    ) -> tuple[bytes | RpcError, int | RpcError]:
        """Ask a view call and try another as `sender`, in one round trip: the answer, and the gas or why not."""
        requests = [
            Request("eth_call", ({"to": _hex(view[0]), "data": _hex(view[1])}, LATEST)),
            Request("eth_estimateGas", ({"from": _hex(sender), "to": _hex(call[0]), "data": _hex(call[1])},)),
        ]
        answers = await self.rpc.batch(requests)
        return _each(parse_hex, answers[0]), _each(parse_quantity, answers[1])

    async def broadcast(self, raws: Sequence[bytes]) -> list[bytes | RpcError]:
        """Send raw transactions; each answer is its hash or why not."""
        requests = [Request("eth_sendRawTransaction", (_hex(raw),)) for raw in raws]
        return [_each(parse_hex, answer) for answer in await self.rpc.batch(requests)]

    async def known(self, hashes: Sequence[bytes]) -> list[bool | RpcError]:
        """Say of each transaction whether the node has it, in its pool or in a block."""
        requests = [Request("eth_getTransactionByHash", (_hex(digest),)) for digest in hashes]
        return [_each(lambda answer: answer is not None, answer) for answer in await self.rpc.batch(requests)]

    async def inputs(self, hashes: Sequence[bytes]) -> list[bytes | RpcError | None]:
        """Return the call data of each transaction, None where the node does not know it."""
        requests = [Request("eth_getTransactionByHash", (_hex(digest),)) for digest in hashes]
        return [_each(_optional(lambda row: parse_hex(row["input"])), row) for row in await self.rpc.batch(requests)]

    async def receipts(self, hashes: Sequence[bytes]) -> list[Receipt | RpcError | None]:
        """Return the receipt of each transaction, None while it is in no block."""
        requests = [Request("eth_getTransactionReceipt", (_hex(digest),)) for digest in hashes]
        return [_each(_optional(_receipt), answer) for answer in await self.rpc.batch(requests)]

    async def logs(self, query: LogQuery) -> list[Log]:
        """Return the matching logs in chain order."""
        question = {
            "address": _hex(query.address),
            "topics": [None if topic is None else _hex(topic) for topic in query.topics],
            "fromBlock": hex(query.first),
            "toBlock": hex(query.last),
        }
        answer = await self.rpc.call("eth_getLogs", question)
        return _read(lambda rows: [_log(row) for row in _list(rows)], answer)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _read(parse: Callable[[Any], Result], answer: Any) -> Result:
    try:
        return parse(answer)
    except (ValueError, KeyError, TypeError):
        raise NoAnswer("the node's answer has the wrong shape") from None


def _each(parse: Callable[[Any], Result], answer: Any) -> Result | RpcError:
    if isinstance(answer, RpcError):
        return answer
    try:
        return _read(parse, answer)
    except NoAnswer as error:
        return error


def _optional(parse: Callable[[Any], Result]) -> Callable[[Any], Result | None]:
    return lambda answer: None if answer is None else parse(answer)


def _block(answer: Any) -> Block:
    return Block(
        parse_quantity(answer["number"]),
        _sized(answer["hash"], 32),
        parse_quantity(answer["timestamp"]),
        parse_quantity(answer.get("baseFeePerGas") or "0x0"),
    )


def _receipt(answer: Any) -> Receipt:
    return Receipt(
        _sized(answer["transactionHash"], 32),
        parse_quantity(answer["status"]) == 1,
        parse_quantity(answer["blockNumber"]),
        _sized(answer["blockHash"], 32),
        parse_quantity(answer["gasUsed"]),
        parse_quantity(answer.get("effectiveGasPrice", "0x0")),
        tuple(_log(row) for row in _list(answer["logs"])),
    )


def _log(row: Any) -> Log:
    return Log(
        _sized(row["address"], 20),
        tuple(_sized(topic, 32) for topic in _list(row["topics"])),
        parse_hex(row["data"]),
        _sized(row["transactionHash"], 32),
        parse_quantity(row["blockNumber"]),
        _sized(row["blockHash"], 32),
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return cast("list[Any]", value)


def _sized(value: Any, size: int) -> bytes:
    data = parse_hex(value)
    if len(data) != size:
        raise ValueError("wrong length")
    return data
