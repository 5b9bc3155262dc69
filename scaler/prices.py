"""What an hour of an instance costs, by its type and market: as the settings say, else in the ratio of AWS's list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irs.errors import SetupError
from irs.monitoring.prices import find_price
from scaler.observation import ANYWHERE, Pair

if TYPE_CHECKING:
    from irs.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Dollars for an hour of an instance.

    Attributes:
        named: dollars by ``type/market``, by type or by market; the closest one holds.
        first: the place that ``per_hour`` is the price of, and that all weights are compared with.
        per_hour: dollars there; 0 where nobody knows.
    """

    named: Mapping[str, float] = field(default_factory=dict)
    first: Pair = ANYWHERE
    per_hour: float = 0.0

    def of(self, pair: Pair) -> float:
        """Return the dollars of an hour in ``pair``; 0 where they are not known.

        A type that has no price here costs what the first one does, in the ratio of their list prices. Spot without a
        price of its own counts as on demand: a budget is met too early rather than too late.
        """
        if name := next((one for one in (f"{pair.type}/{pair.market}", pair.type, pair.market) if one in self.named), ""):
            return self.named[name]
        listed, of_first = find_price(pair.type), find_price(self.first.type)
        return self.per_hour * (listed / of_first if listed and of_first else 1.0)

    def weight(self, pair: Pair) -> float:
        """Return the price in ``pair`` by that of the first place; 1 where one of them is not known."""
        mine, of_first = self.of(pair), self.of(self.first)
        return mine / of_first if mine > 0 and of_first > 0 else 1.0


def from_settings(settings: Settings, candidates: tuple[Pair, ...] = ()) -> Prices:
    """Return the prices that the settings name; where they do not name that of the first type, its list price.

    Raises:
        SetupError: IRS_SCALER_PRICES holds something else than prices.
    """
    first = candidates[0] if candidates else Pair(next(iter(settings.scaler_types), ""), "", settings.scaler_markets[0])
    named = dict(map(_named, settings.scaler_prices))
    per_hour = settings.price_per_hour or Prices(named=named).of(first) or find_price(first.type) or 0.0
    return Prices(named=named, first=first, per_hour=per_hour)


def _named(text: str) -> tuple[str, float]:
    name, _, said = text.partition("=")
    type_, slash, market = map(str.strip, name.partition("/"))
    try:
        dollars = float(said)
    except ValueError:
        dollars = math.nan
    if not type_ or not (0 < dollars < math.inf) or (slash and market not in ("spot", "on-demand")):
        raise SetupError(
            f"IRS_SCALER_PRICES: {text!r} is no price of an hour: write c7i.large=0.09, or c7i.large/spot=0.04 for one market."
        )
    return f"{type_}{slash}{market}", dollars
