"""Invoices of organizations (categories `billing` and `payments`): made, issued and voided by the operator; seen and
paid by the organization. Lists, documents and void are extensions; billing details are in billing_details.py.

Whoever may not see an invoice is told the same as of one that does not exist (404).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.security import HTTPBearer
from starlette.responses import Response

from admin_api.invoices.page import HEADERS, page_of
from admin_api.kit.access import Caller, ServicesDep, caller
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Offset, PaginationMeta, page
from admin_api.kit.needs import declares, needs
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.kit.segments import INVOICE
from admin_api.resources.invoice_models import (
    GenerateInvoicesRequest,
    InvoiceAnswer,
    InvoiceResponse,
    InvoicesGenerated,
    InvoicesGeneratedResponse,
    InvoicesResponse,
    InvoiceSummary,
    PaymentHistory,
    PaymentHistoryResponse,
    PaymentIntentCreated,
    PaymentIntentCreatedResponse,
    VoidInvoiceRequest,
    attempt,
    summary,
    usd,
    whole,
)
from admin_api.resources.operator import Operator, operator, operator_of
from gateway.billing.invoices import issuing, paying, records
from gateway.billing.invoices.document import Document, clean, document_of
from gateway.billing.invoices.drafts import generate
from gateway.billing.invoices.drawing import Draughtsman
from gateway.billing.invoices.month import past_month
from gateway.billing.invoices.records import CURRENCY, Invoice
from gateway.catalog.refusals import refused
from gateway.errors import Forbidden, NotFound
from gateway.identity.permissions import Member, Permission, membership
from gateway.identity.principals import Principal
from gateway.services import Services

router = APIRouter(tags=["billing"], route_class=StrictRoute)
payments = APIRouter(tags=["payments"], route_class=StrictRoute)
EXTENSION: dict[str, Any] = {"x-extension": True}
UNKNOWN = "You have no invoice with this id."
_bearer = HTTPBearer(scheme_name="bearer_auth", auto_error=False)
_draughtsman = Draughtsman()


async def _belongs(services: Services, invoice_id: UUID, who: Principal, permission: Permission) -> Invoice:
    """Return an invoice of the caller's organization. Raises NotFound, or Forbidden for a member who may not."""
    async with services.database.acquire() as connection:
        invoice = await records.find(connection, invoice_id)
        if invoice is None:
            raise NotFound(UNKNOWN)
        try:
            member = await membership(connection, who, invoice.organization_id)
        except Forbidden:
            raise NotFound(UNKNOWN) from None
    member.demand(permission)
    return invoice


@declares("billing.read of the invoice, or operator")
async def _readable(
    id: UUID, request: Request, services: ServicesDep, _documented: Annotated[object, Security(_bearer)]
) -> Invoice:
    if operator_of(request, services) is not None:
        await operator(request, services, None)
        async with services.database.acquire() as connection:
            invoice = await records.find(connection, id)
        if invoice is None:
            raise NotFound(UNKNOWN)
        return invoice
    return await _belongs(services, id, await caller(request, services, None), Permission.BILLING_READ)


@declares("billing.manage of the invoice")
async def _payable(id: UUID, who: Caller, services: ServicesDep) -> Invoice:
    return await _belongs(services, id, who, Permission.BILLING_MANAGE)


Readable = Annotated[Invoice, Depends(_readable)]
Payable = Annotated[Invoice, Depends(_payable)]


@router.post("/billing/invoices/generate", operation_id="generate_invoices", responses=refusals(400, 401, 429, 501))
async def generate_invoices(
    body: GenerateInvoicesRequest, _actor: Operator, once: Once, services: ServicesDep
) -> InvoicesGeneratedResponse:
    """Make a draft for every organization that bought something in a month, unless it has its invoice already."""
    month = past_month(body.year, body.month, datetime.now(UTC))
    found = await generate(services.database, services.settings.invoices, month)
    return InvoicesGeneratedResponse(data=InvoicesGenerated(count=len(found), invoice_ids=found))


@router.get(f"/billing/invoices/{INVOICE}", operation_id="get_invoice", responses=refusals(400, 401, 403, 404))
async def get_invoice(invoice: Readable, services: ServicesDep) -> InvoiceResponse:
    """Return an invoice with its lines."""
    return InvoiceResponse(data=await _whole(services, invoice))


@router.get(
    f"/billing/invoices/{INVOICE}/html",
    operation_id="get_invoice_page",
    responses={200: {"content": {"text/html": {}}}, **refusals(400, 401, 403, 404)},
    response_class=Response,
    openapi_extra=EXTENSION,
)
async def get_invoice_page(invoice: Readable, services: ServicesDep) -> Response:
    """Return an invoice as a page to read and print."""
    return Response(page_of(await _document(services, invoice)), media_type="text/html", headers=HEADERS)


@router.get(
    f"/billing/invoices/{INVOICE}/pdf",
    operation_id="get_invoice_pdf",
    responses={200: {"content": {"application/pdf": {}}}, **refusals(400, 401, 403, 404, 503)},
    response_class=Response,
    openapi_extra=EXTENSION,
)
async def get_invoice_pdf(invoice: Readable, services: ServicesDep) -> Response:
    """Return an invoice as a PDF; the same invoice is the same file."""
    drawn = await _draughtsman.draw(await _document(services, invoice))
    headers = {
        "Content-Disposition": f'attachment; filename="{invoice.label}.pdf"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    return Response(drawn, media_type="application/pdf", headers=headers)


@router.post(
    f"/billing/invoices/{INVOICE}/issue", operation_id="issue_invoice", responses=refusals(400, 401, 404, 409, 429, 501)
)
async def issue_invoice(id: UUID, _actor: Operator, once: Once, services: ServicesDep) -> dict[str, str]:
    """Give a draft its number and book what is due. From then on nothing of it changes."""
    async with services.database.transaction() as connection:
        await issuing.issue(connection, services.settings.invoices, id)
    return {}


@router.post(
    f"/billing/invoices/{INVOICE}/void",
    operation_id="void_invoice",
    responses=refusals(400, 401, 404, 409, 429, 501),
    openapi_extra=EXTENSION,
)
async def void_invoice(
    id: UUID, body: VoidInvoiceRequest, _actor: Operator, once: Once, services: ServicesDep
) -> InvoiceResponse:
    """Take back an issued invoice that is not paid. It keeps its number; its month can be generated anew."""
    reason = clean(body.reason)
    if not reason:
        raise refused("reason", "must not be blank")
    done = await services.invoice_payments.void(id, reason)
    return InvoiceResponse(data=await _whole(services, done))


@payments.post(
    f"/billing/invoices/{INVOICE}/pay",
    operation_id="create_payment_intent",
    responses=refusals(400, 401, 403, 404, 501, 503),
)
async def create_payment_intent(invoice: Payable, once: Once, services: ServicesDep) -> PaymentIntentCreatedResponse:
    """Begin to pay what is due by card. Asked again it is the same intent, as long as that is open."""
    intent = await services.invoice_payments.begin(invoice.id)
    return PaymentIntentCreatedResponse(
        data=PaymentIntentCreated(
            amount_usd=usd(intent.cents, 2),
            client_secret=intent.client_secret or "",
            currency=CURRENCY,
            payment_intent_id=intent.id,
        )
    )


@payments.get(
    f"/billing/invoices/{INVOICE}/payments",
    operation_id="get_payment_history",
    responses=refusals(400, 401, 403, 404),
)
async def get_payment_history(invoice: Readable, services: ServicesDep) -> PaymentHistoryResponse:
    """List every try to pay an invoice, with what became of it."""
    async with services.database.acquire() as connection:
        found = await paying.attempts(connection, invoice.id)
    return PaymentHistoryResponse(data=PaymentHistory(payments=[attempt(one) for one in found]))


@router.get(
    "/organizations/{organization_id}/invoices",
    operation_id="list_organization_invoices",
    responses=refusals(400, 401, 403),
    openapi_extra=EXTENSION,
)
async def list_organization_invoices(
    member: Annotated[Member, needs(Permission.BILLING_READ)],
    services: ServicesDep,
    status: Literal["draft", "issued", "paid", "void"] | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Offset = 0,
) -> InvoicesResponse:
    """List an organization's invoices, the newest month first."""
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        found = await records.LIST.all(connection, member.organization_id, status, limit, offset)
        total = await records.COUNT.one(connection, member.organization_id, status)
    shown = [InvoiceSummary(**summary(invoice)) for invoice in found]
    return InvoicesResponse(
        data=shown, pagination=PaginationMeta(**page(shown, total=total, limit=limit, offset=offset))
    )


async def _whole(services: Services, invoice: Invoice) -> InvoiceAnswer:
    async with services.database.acquire() as connection:
        return whole(invoice, await records.lines(connection, invoice.id))


async def _document(services: Services, invoice: Invoice) -> Document:
    async with services.database.acquire() as connection:
        return document_of(invoice, await records.lines(connection, invoice.id))
