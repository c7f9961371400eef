"""A network's nodes: one URL, or several of which the first that answers is asked.

A node is asked for its chain before anything else, and again after each silence: one that serves another chain would
find money that is not there, and take transactions that move none. Who does not answer is left alone for a moment while
another does. A transaction is handed to one node only: after silence nobody knows whether it was taken, and the sender
(sender.py) hands it over again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.payments.evm.encoding import parse_quantity
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, Request, Rpc, RpcError

log = logging.getLogger(__name__)

REST_SECONDS = 15.0
SECONDS = 10.0
SECONDS_BESIDE_OTHERS = 4.0
"""What a node may take for an answer where another could be asked."""

SEND = "eth_sendRawTransaction"
Answer = TypeVar("Answer")


@dataclass(slots=True)
class Endpoint:
    """One node. `checked`: it serves our chain; `rests_until` is a moment of the loop's clock."""

    rpc: Rpc
    checked: bool = False
    rests_until: float = 0.0


class Endpoints:
    """The door to a network, for node.py. Shows hosts only, as Rpc does."""

    def __init__(self, network: str, urls: Sequence[str], *, timeout: float | None = None) -> None:
        seconds = timeout or (SECONDS if len(urls) == 1 else SECONDS_BESIDE_OTHERS)
        self._network = network
        self._chain_id = int(network.removeprefix("eip155:"))
        self._all = [Endpoint(Rpc(url, timeout=seconds)) for url in urls]

    def __repr__(self) -> str:
        return f"Endpoints({', '.join(endpoint.rpc.host for endpoint in self._all)})"

    async def aclose(self) -> None:
        """Close the connections."""
        for endpoint in self._all:
            await endpoint.rpc.aclose()

    async def call(self, method: str, *params: object) -> Any:
        """Return the result of one call. Raises NodeRefused or NoAnswer."""

        async def ask(rpc: Rpc) -> Any:
            return await rpc.call(method, *params)

        return await self._ask(ask, once=method == SEND)

    async def batch(self, requests: Sequence[Request]) -> list[Any | RpcError]:
        """Return a result or an RpcError for each request, in order. Never raises for the nodes' sake."""

        async def ask(rpc: Rpc) -> list[Any | RpcError]:
            answers = await rpc.batch(requests)
            silent = [answer for answer in answers if isinstance(answer, NoAnswer)]
            if silent and len(silent) == len(answers):
                raise silent[0]
            return answers

        try:
            return await self._ask(ask, once=any(request.method == SEND for request in requests))
        except RpcError as error:
            return [error] * len(requests)

    async def _ask(self, ask: Callable[[Rpc], Awaitable[Answer]], *, once: bool) -> Answer:
        trouble = NoAnswer(f"{self._network} has no node")
        for endpoint in self._in_turn():
            began = False
            try:
                await self._check(endpoint)
                began = True
                answer = await ask(endpoint.rpc)
            except NoAnswer as error:
                self._rest(endpoint, error)
                trouble = error
                if once and began:
                    break
                continue
            self._well(endpoint)
            return answer
        raise trouble

    def _in_turn(self) -> list[Endpoint]:
        """Return the nodes in order, those that rest at the end: they are better than none."""
        now = asyncio.get_running_loop().time()
        return sorted(self._all, key=lambda endpoint: max(endpoint.rests_until - now, 0.0))

    async def _check(self, endpoint: Endpoint) -> None:
        if endpoint.checked:
            return
        try:
            served = parse_quantity(await endpoint.rpc.call("eth_chainId"))
        except (NodeRefused, ValueError) as error:
            raise NoAnswer(f"{endpoint.rpc.host} does not say which chain it serves ({error})") from None
        if served != self._chain_id:
            raise NoAnswer(f"the node of {self._network} at {endpoint.rpc.host} serves chain {served}: it is not used")
        endpoint.checked = True

    def _rest(self, endpoint: Endpoint, error: NoAnswer) -> None:
        if not endpoint.rests_until:
            log.warning("a node of %s is left alone for a moment: %s", self._network, error)
        endpoint.checked = False  # whatever answers next may be another node
        endpoint.rests_until = asyncio.get_running_loop().time() + REST_SECONDS

    def _well(self, endpoint: Endpoint) -> None:
        if endpoint.rests_until:
            endpoint.rests_until = 0.0
            log.info("the node of %s at %s answers again", self._network, endpoint.rpc.host)
