"""Idempotency-Key of the admin API: an operation that moves money runs once per key, and its answer is given again.

Such an operation has a parameter `once: Once`, after what says who calls, so that a stored answer is for its owner
only. The parameter claims the key, and the route (StrictRoute) stores the answer or gives the key back:

    2xx                       is stored, sealed, for TOLLWAY_IDEMPOTENCY_LIFETIME
    another answer below 500  changed nothing: the key is free again, for any request
    5xx, or a crash           nobody knows: the same request may run again, with the same `effect_id`

What does not live here: the keys themselves (gateway/ledger/operation_keys.py), and keys of publisher calls
(gateway/proxy/idempotency.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any
from uuid import NAMESPACE_OID, UUID, uuid5

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from admin_api.kit.access import KeyField, ServicesDep, idempotency_key
from gateway.audit.origin import origin
from gateway.database.pool import LOST
from gateway.errors import AnswerNotKept, CallRunning, KeyReused, Problem, Unavailable
from gateway.faults import ARMED, act
from gateway.ids import uuid7
from gateway.ledger.operation_keys import KnownKey, Use, claim, give_back, store
from gateway.services import Services
from gateway.upstreams.credentials import CredentialError, NoKeys

log = logging.getLogger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
PAYMENTS = ("payment-signature", "x-payment")
KEPT = ("content-type", "payment-response", "x-payment-response")
RETRY_SECONDS = "1"
_KEYED = "tollway_keyed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of an operation. What it makes is named by `effect_id`, which a run after a crash has as well."""

    effect_id: UUID
    key: str | None = None


@dataclass(frozen=True, slots=True)
class _Keyed:
    services: Services
    use: Use
    effect_id: UUID


class _Repeated(Exception):
    """The answer is in store; it leaves a dependency by this way."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


async def _once(request: Request, services: ServicesDep, _documented: KeyField = None) -> Attempt:
    """Claim the request's key, if it has one. Raises KeyReused, CallRunning, AnswerNotKept, Unavailable."""
    key, run_id = idempotency_key(request), uuid7()
    owner = None if key is None else _owner(request)
    if key is None or owner is None:
        return Attempt(run_id)
    operation: str = request.scope["route"].operation_id
    use = Use(owner, operation, key, await _fingerprint(request), run_id)
    lifetime = timedelta(seconds=services.settings.idempotency.lifetime)
    claimed = await claim(services.database, use, services.ledger.worker_id, lifetime)
    if isinstance(claimed, KnownKey):
        raise _Repeated(_stored(services, use, claimed))
    request.scope[_KEYED] = _Keyed(services, use, claimed)
    return Attempt(claimed, key)


Once = Annotated[Attempt, Depends(_once)]


def _owner(request: Request) -> UUID | None:
    """Return whose key it is; None where nobody is known and nothing is paid: then nothing can happen twice."""
    who = origin()
    if who.actor_id is not None:
        return who.actor_id
    if who.actor_type == "operator":
        return uuid5(NAMESPACE_OID, f"operator:{request.state.operator}")
    payment = _payment(request)
    return uuid5(NAMESPACE_OID, payment) if payment else None


def _payment(request: Request) -> str:
    return "".join(value for name in PAYMENTS for value in request.headers.getlist(name))


async def _fingerprint(request: Request) -> bytes:
    """Return the hash of what makes two requests of one operation the same."""
    target = f"{request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"
    parts = (target.encode(), _payment(request).encode(), await request.body())
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def _stored(services: Services, use: Use, known: KnownKey) -> Response:
    """Return the answer that a key got before, or raise why there is none."""
    if known.request_hash != use.request_hash:
        raise KeyReused(
            "This Idempotency-Key was used for another request of this operation. Nothing was moved now; use a new"
            " key for a new request."
        )
    if known.status is None:
        raise CallRunning(
            "The request with this Idempotency-Key is still running; ask again.", headers={"Retry-After": RETRY_SECONDS}
        )
    try:
        body = services.box.open(known.answer or b"", _context(known.effect_id))
    except CredentialError:
        raise AnswerNotKept(
            "The request with this Idempotency-Key was carried out, and nothing was moved now; its answer was not kept,"
            " because this gateway has no secret key for it."
        ) from None
    fields = {**known.fields(), "Idempotency-Replayed": "true"}
    return Response(body, known.status, fields)


def _context(effect_id: UUID) -> bytes:
    return b"operation:" + effect_id.bytes


async def finish(request: Request, handler: Handler) -> Response:
    """Run a route's handler, and store what it answers if `Once` has claimed a key for it."""
    try:
        response = await handler(request)
    except _Repeated as repeated:
        return repeated.response
    except BaseException as error:
        await _give_back(request, _status(error))
        raise
    if 200 <= response.status_code < 300:
        await _keep(request, response)
    else:
        await _give_back(request, response.status_code)
    return response


def _status(error: BaseException) -> int:
    """Return the status of the answer that an exception becomes (kit/problems.py)."""
    if isinstance(error, RequestValidationError):
        return 400
    if isinstance(error, Problem):
        return error.status
    return error.status_code if isinstance(error, HTTPException) else 500


async def _keep(request: Request, response: Response) -> None:
    """Store an answer. Where that fails it is given all the same: the same request runs again, and finds its effect."""
    keyed: _Keyed | None = request.scope.get(_KEYED)
    if keyed is None:
        return
    if ARMED == "operation.done":
        await act()
    fields = {name: response.headers[name] for name in KEPT if name in response.headers}
    try:
        sealed = keyed.services.box.seal(bytes(response.body), _context(keyed.effect_id))
    except NoKeys:
        sealed = None
    try:
        await store(keyed.services.database, keyed.use, response.status_code, fields, sealed)
    except (*LOST, Unavailable) as error:
        _warn(keyed, error)


async def _give_back(request: Request, status: int) -> None:
    """Give the key of a request back that was not carried out, or of which that is not known (5xx).

    A run after a crash forgets nothing: the run before it may have had its effect.
    """
    keyed: _Keyed | None = request.scope.get(_KEYED)
    if keyed is None:
        return
    is_first = keyed.effect_id == keyed.use.run_id
    try:
        await give_back(keyed.services.database, keyed.use, forget=is_first and status < 500)
    except (*LOST, Unavailable) as error:
        _warn(keyed, error)


def _warn(keyed: _Keyed, error: Exception) -> None:
    log.warning("a key of %s is held until its lease ends: %s", keyed.use.operation, type(error).__name__)
