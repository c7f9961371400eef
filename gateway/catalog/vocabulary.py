"""The words of the contract's publisher fields: enumerations, known vocabularies, and bounds. Data only."""

from __future__ import annotations

from enum import StrEnum


class PublisherCategory(StrEnum):
    """What kind of thing is sold."""

    DATABASE = "database"
    INTEGRATION = "integration"
    COMPUTE = "compute"


class PublisherType(StrEnum):
    """Who sells."""

    INDIVIDUAL = "individual"
    ORGANIZATION = "organization"
    VERIFIED_PARTNER = "verified_partner"


class IntegrationType(StrEnum):
    """How an integration is spoken to."""

    API = "api"
    MCP = "mcp"


class DatabaseType(StrEnum):
    """Where a database publisher's data lives."""

    SERENDB = "serendb"
    NEON = "neon"
    SUPABASE = "supabase"
    MONGODB = "mongodb"


class ComputeType(StrEnum):
    """What a compute publisher runs."""

    TEMPLATE = "template"
    WORKFLOW = "workflow"
    FUNCTION = "function"


class UndocumentedEndpointPolicy(StrEnum):
    """Whether paths that no endpoint definition describes are sold."""

    DEFAULT_ALLOW = "default_allow"
    DEFAULT_DENY = "default_deny"


class PricingModel(StrEnum):
    """How a price is computed; each has a file in pricing/tariffs."""

    PER_ROW = "per_row"
    PER_REQUEST = "per_request"
    PER_BYTE = "per_byte"
    TIERED = "tiered"
    PASSTHROUGH = "passthrough"


class HttpMethod(StrEnum):
    """Methods that an endpoint definition may name."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"
    PATCH = "PATCH"


class ParamType(StrEnum):
    """Types of a query parameter."""

    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    NUMBER = "number"
    ARRAY = "array"


# Plain strings on the wire with a known vocabulary: other words are refused, the schema stays a string.
BILLING_MODELS = ("x402_per_request", "prepaid_credits", "x402_passthrough", "pay_per_use")
AUTH_TYPES = ("static", "jwt", "oauth2_cc")
SETTLEMENT_POLICIES = ("settle_first", "before_response", "deferred")
JWT_ALGORITHMS = ("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
TOKEN_METHODS = ("POST", "GET")
TOKEN_MODES = ("header", "body", "query")

MAX_LIST = 50
MAX_ITEM = 200
MAX_TEXT = 10_000
MAX_URL = 2_048
MAX_ENDPOINTS = 500
MAX_HEADERS = 64
MAX_HEADER_VALUE = 4_096
MAX_JSON_BYTES = 65_536
MAX_JSON_DEPTH = 16
MAX_ASSETS = 32
