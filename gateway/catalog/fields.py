"""Types of publisher fields as pydantic reads them: the pure checks of checks.py bound to strict JSON types.

Text is never made from numbers nor numbers from text: a price of 0.1 sent as a JSON number has lost its digits before
anyone can check them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, Strict, StrictBool, StrictInt, StrictStr

from gateway.catalog import checks, delivery, metering, refund_rules, tiers
from gateway.catalog.vocabulary import (
    AUTH_TYPES,
    BILLING_MODELS,
    JWT_ALGORITHMS,
    MAX_ITEM,
    MAX_LIST,
    MAX_TEXT,
    SETTLEMENT_POLICIES,
    TOKEN_METHODS,
    TOKEN_MODES,
)


def _words(words: Sequence[str]) -> AfterValidator:
    return AfterValidator(lambda value: checks.one_of(value, words))


def _matching(test: Callable[[str], object], wanted: str) -> AfterValidator:
    def check(value: str) -> str:
        if not test(value):
            raise ValueError(wanted)
        return value

    return AfterValidator(check)


def _headers(*, public: bool) -> AfterValidator:
    return AfterValidator(lambda value: None if value is None else checks.headers(value, public=public))


def _optional_json(value: Any) -> Any:
    return None if value is None else checks.json_value(value)


def _trimmed(value: str) -> str:
    return checks.text(value, MAX_TEXT)


def _item(value: str) -> str:
    item = checks.text(value, MAX_ITEM).strip()
    if not item:
        raise ValueError("must not be empty")
    if not checks.has_something_to_see(item):
        raise ValueError("must have a character that can be seen")
    return item


Text = Annotated[StrictStr, AfterValidator(_trimmed)]
Item = Annotated[StrictStr, AfterValidator(_item)]
Items = Annotated[list[Item], Field(max_length=MAX_LIST)]
Secret = Annotated[StrictStr, Field(min_length=1, max_length=8_192), AfterValidator(checks.header_value)]
SigningKey = Annotated[StrictStr, Field(min_length=1, max_length=16_384), AfterValidator(checks.signing_key)]
Slug = Annotated[StrictStr, AfterValidator(checks.slug)]
Url = Annotated[StrictStr, AfterValidator(checks.http_url)]
BaseUrl = Annotated[StrictStr, AfterValidator(checks.base_url)]
HeaderName = Annotated[StrictStr, AfterValidator(checks.header_name)]
QueryName = Annotated[StrictStr, _matching(checks.QUERY_NAME.fullmatch, "must be a plain query parameter name")]
Passthrough = Annotated[list[StrictStr], AfterValidator(checks.passthrough)]
PublicHeaders = Annotated[Any, _headers(public=True)]
SecretHeaders = Annotated[Any, _headers(public=False)]
JsonValue = Annotated[Any, AfterValidator(_optional_json)]
Email = Annotated[StrictStr, AfterValidator(checks.email)]
MediaType = Annotated[
    StrictStr, _matching(checks.MEDIA_TYPE.fullmatch, "must be a media type such as application/json")
]
ResponsePath = Annotated[
    StrictStr, _matching(checks.RESPONSE_PATH.fullmatch, "must be a dotted path into the answer, such as usage.cost")
]
PathTemplate = Annotated[StrictStr, AfterValidator(checks.path_template)]
AuthType = Annotated[StrictStr, _words(AUTH_TYPES)]
BillingModel = Annotated[StrictStr, _words(BILLING_MODELS)]
JwtAlgorithm = Annotated[StrictStr, _words(JWT_ALGORITHMS)]
TokenMethod = Annotated[StrictStr, _words(TOKEN_METHODS)]
TokenMode = Annotated[StrictStr, _words(TOKEN_MODES)]
# Amounts stay text until the asset's decimals are known (prices.py).
Amount = Annotated[StrictStr, Field(max_length=64)]
Minutes = Annotated[StrictInt, Field(ge=0, le=527_040)]
PositiveMinutes = Annotated[StrictInt, Field(ge=1, le=44_640)]
Seconds = Annotated[StrictInt, Field(ge=1, le=31_536_000)]
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
Flag = StrictBool
# Bounded by the operator's settings (delivery.py), not by the type. Extensions to the contract, marked in the document.
EXTENSION = Field(json_schema_extra={"x-extension": True})
Duration = Annotated[float, Strict(), EXTENSION]
Claims = Annotated[Any, AfterValidator(_optional_json), EXTENSION]
KeyId = Annotated[StrictStr, AfterValidator(_item), EXTENSION]
Connections = Annotated[StrictInt, EXTENSION]
Switch = Annotated[StrictBool, EXTENSION]
Settlement = Annotated[StrictStr, _words(SETTLEMENT_POLICIES), EXTENSION]
Exposure = Annotated[StrictStr, Field(max_length=64), EXTENSION]
MeteredAmount = Annotated[StrictStr, Field(max_length=64), EXTENSION]
CostHeader = Annotated[StrictStr, AfterValidator(checks.header_name), EXTENSION]
PriceTiers = Annotated[Any, AfterValidator(tiers.price_tiers), EXTENSION]
TierStyle = Annotated[StrictStr, _words(tiers.STYLES), EXTENSION]
RefundRules = Annotated[Any, AfterValidator(refund_rules.refund_rules), EXTENSION]
EndpointRefundRules = Annotated[Any, AfterValidator(refund_rules.endpoint_refund_rules), EXTENSION]
UsagePrices = Annotated[Any, AfterValidator(metering.usage_prices), EXTENSION]
RefundStatuses = Annotated[list[StrictStr], Field(max_length=200), AfterValidator(delivery.refund_statuses), EXTENSION]
ChargedStatuses = Annotated[
    list[StrictStr], Field(max_length=200), AfterValidator(delivery.charged_statuses), EXTENSION
]
