"""What every JSON body that is sent to us has in common: fields that nobody knows are refused, by name, and so are
line ends and tabs in a text of one line, which would forge further lines wherever that is listed, logged or mailed.

A misspelt price would otherwise sell for nothing, and a misspelt limit limit nothing. Bodies of protocols that are not
ours (x402, JSON-RPC) are read by their own rules, which ask for tolerance.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

# Fields whose text may have several lines: prose, code, documents and keys in PEM.
SEVERAL_LINES = frozenset(
    {
        "address", "curl", "description", "document", "jwt_secret_key", "logo", "note", "protection_reason", "query",
        "reason", "resource_description",
    }
)  # fmt: skip
LINES = re.compile("[\t\n\r\u2028\u2029]")
# Text that nobody types and terminals obey, and what no database column takes: refused in every text that is stored,
# whether it comes in a body, on the command line or in a document of somebody else's.
UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class RequestBody(BaseModel):
    """A request body, or a part of one."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _one_line(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse line ends and tabs in a text, or a list of texts, of one line each. Free JSON is not looked into."""
        broken = any(isinstance(text, str) and LINES.search(text) for text in _each(value))
        if broken and info.field_name not in SEVERAL_LINES:
            raise ValueError("must be one line, without tabs")
        return value


def nearest_field(model: type[BaseModel], location: Sequence[object]) -> str | None:
    """Return the known field that an unknown one at a location in a body was probably meant to be."""
    found: type[BaseModel] | None = model
    for part in location[:-1]:
        if isinstance(part, str) and found is not None:
            field = found.model_fields.get(part)
            found = None if field is None else _model_in(field.annotation)
    names = difflib.get_close_matches(str(location[-1])[:100], found.model_fields if found else (), 1)
    return names[0] if names else None


def _each(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation such as `list[Model] | None` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)
