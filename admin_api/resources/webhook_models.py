"""Bodies and answers of category `Webhooks` (webhooks.py)."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StrictBool, StrictStr

from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from gateway.request_body import RequestBody

Name = Annotated[StrictStr, Field(min_length=1, max_length=100)]
Url = Annotated[StrictStr, Field(min_length=1, max_length=2_048)]
Events = Annotated[list[Annotated[StrictStr, Field(max_length=100)]], Field(min_length=1, max_length=100)]
When = Annotated[StrictStr, Field(max_length=40, examples=["2026-11-30T10:57:27.368451Z"])]


class CreateWebhookRequest(RequestBody):
    """A new webhook: an https URL, and the event types it wants; `*` is all of them, also those to come.

    With a `project_id` it hears of that project, its IP allow-list and its publishers alone.
    """

    name: Name
    url: Url
    events: Events
    project_id: UUID | None = None


class UpdateWebhookRequest(RequestBody):
    """What is to change. What is left out or null stays."""

    name: Name | None = None
    url: Url | None = None
    events: Events | None = None
    enabled: StrictBool | None = None


class WebhookInfo(Answer):
    """A webhook without its secret. `disabled_reason` says why the gateway has switched it off by itself."""

    id: UUID
    organization_id: UUID
    project_id: UUID | None
    name: str
    url: str
    events: list[str]
    enabled: bool
    disabled_reason: str | None
    created_by: UUID
    created_at: Moment


class WebhookInfoResponse(Answer):
    """Envelope."""

    data: WebhookInfo
    pagination: PaginationMeta | None = None


class WebhooksResponse(Answer):
    """Envelope."""

    data: list[WebhookInfo]
    pagination: PaginationMeta | None = None


class WebhookCreated(Answer):
    """A webhook with its secret, which is shown this once."""

    webhook: WebhookInfo
    secret: str


class WebhookCreatedResponse(Answer):
    """Envelope."""

    data: WebhookCreated
    pagination: PaginationMeta | None = None


class WebhookDelivery(Answer):
    """One try of one event. `payload` is what was sent, `response_body` the beginning of what was answered."""

    id: UUID
    webhook_id: UUID
    event_id: UUID
    event_type: str
    payload: dict[str, Any]
    attempt_number: int
    response_status: int | None
    response_body: str | None
    error_message: str | None
    next_retry_at: Moment | None
    delivered_at: Moment | None
    created_at: Moment


class ReplayWebhookRequest(RequestBody):
    """Which events come again: those since a moment or day, before another if there is one; all, or what has failed."""

    since: When
    until: When | None = None
    only_failed: StrictBool = False


class EventsQueued(Answer):
    """How many events will be sent again. `next_since` is where to go on when there are more; null is all of them."""

    events: int
    next_since: Moment | None


class EventsQueuedResponse(Answer):
    """Envelope."""

    data: EventsQueued


class EventQueued(Answer):
    """An event that will be sent in a moment."""

    event_id: UUID


class EventQueuedResponse(Answer):
    """Envelope."""

    data: EventQueued
