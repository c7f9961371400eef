"""What every section of the settings is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=86_400)]

Bytes = Annotated[int, Field(ge=1)]


class SettingsError(ValueError):
    """The configuration is wrong. The message is one line per fault, safe to print."""


class Section(BaseModel):
    """A frozen section, in which an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
