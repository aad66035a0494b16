"""Quotas on the wire: made from the one list of keys in ``model.quotas``."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, defstruct
from msgspec.structs import asdict

from appliance.model.quotas import COST_KEYS, QUOTA_KEYS, Quotas, render_quotas
from appliance.transports.schemas.base import Body, View

_Limit = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Cost = Annotated[
    str, Meta(max_length=32, description="A decimal in the billing currency.", examples=["50.00"])
]
_NOTE = "null is unlimited, 0 is none at all."


def _type(key: str) -> Any:
    # Whole amounts may come without quotes; a float never, it has lost digits.
    return (_Cost | _Limit | None) if key in COST_KEYS else (_Limit | None)


QuotasWanted: type[Any] = defstruct(
    "QuotasWanted",
    [
        (key, Annotated[_type(key) | UnsetType, Meta(description=_NOTE)], UNSET)
        for key in QUOTA_KEYS
    ],
    bases=(Body,),
    module=__name__,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)
QuotasWanted.__doc__ = "The tenant's own limits; a key not named follows the gateway's default."

QuotasInForce: type[Any] = defstruct(
    "QuotasInForce",
    [(key, (_Cost if key in COST_KEYS else _Limit) | None) for key in QUOTA_KEYS],
    bases=(View,),
    module=__name__,
    frozen=True,
    kw_only=True,
)
QuotasInForce.__doc__ = "Every limit as it holds now: null is unlimited, 0 is none at all."


def written(wanted: Body) -> dict[str, object]:
    """The keys that a request names, with their values as written."""
    return {key: value for key, value in asdict(wanted).items() if value is not UNSET}


def in_force(quotas: Quotas) -> View:
    values: Mapping[str, Any] = render_quotas(quotas)
    view: View = QuotasInForce(**values)
    return view
