"""The parts that a worker holds, in one typed bag: built in gateway.app, handed to the pipeline and the admin API."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.billing.card_deposits import Cards
from gateway.billing.card_refunds import CardRefunds
from gateway.billing.deposits import Deposits
from gateway.billing.invoices.paying import InvoicePayments
from gateway.billing.payment_methods import PaymentMethods
from gateway.billing.payouts import Payouts
from gateway.billing.receipts import ReceiptSigner
from gateway.billing.wallet_proofs import WalletProofs
from gateway.catalog.authentication import Authentication
from gateway.catalog.experiences import Experiences
from gateway.catalog.snapshot import Catalog
from gateway.database.pool import Database
from gateway.identity.organization_plans import PlanBook
from gateway.identity.passwords import Passwords
from gateway.identity.principals import Identities
from gateway.ledger.answers import Answers
from gateway.ledger.group_commit import GroupCommit
from gateway.ledger.holds import Holds
from gateway.limits.limiter import RateLimiter
from gateway.mail.door import MailDoor
from gateway.payments.evm.purchases import BuyingWallet
from gateway.payments.evm.settlements import Settlements
from gateway.payments.examine import Examiner
from gateway.payments.facilitation import Facilitation
from gateway.payments.stripe.client import StripeDoor
from gateway.payments.stripe.intake import Intake
from gateway.payments.x402.offer import PaymentKinds
from gateway.settings import Settings
from gateway.suspensions import SuspendedWallets
from gateway.telemetry.metrics import Metrics
from gateway.upstreams.auth.authenticator import Authenticator, authenticator
from gateway.upstreams.auth.callers import CallersTokens
from gateway.upstreams.auth.consent import Consents
from gateway.upstreams.credentials import CredentialBox
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.postgres.markets import Markets


@dataclass(slots=True)
class Services:
    """Everything a request may need. Lifetimes are `gateway.app`'s business."""

    settings: Settings
    database: Database
    plans: PlanBook
    identities: Identities
    suspended_wallets: SuspendedWallets
    passwords: Passwords
    mail: MailDoor
    catalog: Catalog
    limiter: RateLimiter
    ledger: GroupCommit
    holds: Holds
    answers: Answers
    guard: EgressGuard
    upstreams: UpstreamClient
    markets: Markets
    experiences: Experiences
    box: CredentialBox
    consents: Consents
    callers: CallersTokens
    receipts: ReceiptSigner
    settlements: Settlements
    kinds: PaymentKinds
    examiner: Examiner
    facilitation: Facilitation
    deposits: Deposits
    payouts: Payouts
    stripe: StripeDoor
    stripe_events: Intake
    cards: Cards
    card_refunds: CardRefunds
    invoice_payments: InvoicePayments
    payment_methods: PaymentMethods
    buying: BuyingWallet | None
    proofs: WalletProofs
    metrics: Metrics

    def authenticate(self, plan: Authentication, slug: str) -> Authenticator:
        """Return what lets a publisher's calls in at its server. Raises ValueError for a key that cannot sign."""
        return authenticator(plan, slug, self.upstreams, self.guard)
