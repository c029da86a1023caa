"""Panels of Grafana's dashboards, as `dashboards.py` lists them, and what Grafana reads of them."""

import json
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_COLUMNS, _HEIGHT = 24, 8


class Kind(StrEnum):
    """The form of a panel: a course over time, a number, or bars by label."""

    TIME = "time"
    NUMBER = "number"
    BARS = "bars"


@dataclass(frozen=True, slots=True)
class Shown:
    """One panel: PromQL `queries` with the legend of each.

    `unit` is one of Grafana's. `limits` are values from which on a colour is shown; `runbook` is the name of the page
    that says what to do then. `empty` says when nothing is shown on purpose.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    meaning: str
    unit: str = "short"
    kind: Kind = Kind.TIME
    limits: tuple[tuple[float, str], ...] = ()
    good: str = "green"
    runbook: str = ""
    wide: int = 8
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard: its rows by title."""

    uid: str
    title: str
    about: str
    rows: tuple[tuple[str, tuple[Shown, ...]], ...]

    @property
    def panels(self) -> tuple[Shown, ...]:
        return tuple(panel for _, panels in self.rows for panel in panels)


def as_json(board: Board) -> str:
    """The dashboard as Grafana reads it."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["ratchet"])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.TextBoxVariable("runbooks").label("Runbooks at").default_value("https://ratchet.example/runbooks")
        )
        .link(dashboard.DashboardLink("Ratchet").type(DashboardLinkType.DASHBOARDS).tags(["ratchet"]))
    )
    numbers = count(1)
    for title, panels in board.rows:
        built = built.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            built = built.with_panel(_panel(panel).id(next(numbers)))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _panel(shown: Shown) -> timeseries.Panel | stat.Panel | bargauge.Panel:
    built: timeseries.Panel | stat.Panel | bargauge.Panel
    last = ReduceDataOptions().calcs(["lastNotNull"])
    if shown.kind is Kind.NUMBER:
        built = stat.Panel().reduce_options(last)
    elif shown.kind is Kind.BARS:
        built = bargauge.Panel().reduce_options(last)
    else:
        legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        built = timeseries.Panel().fill_opacity(10).legend(legend.show_legend(True))
    built = built.title(shown.title).description(_description(shown)).unit(shown.unit).datasource(SOURCE)
    built = built.span(min(shown.wide, _COLUMNS)).height(_HEIGHT)
    built = built.thresholds(
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(None, shown.good), *(Threshold(value, colour) for value, colour in shown.limits)])
    )
    if shown.runbook:
        link = dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK)
        built = built.links([link.url(f"${{runbooks}}/{shown.runbook}.md").target_blank(True)])
    for number, (expression, legend_format) in enumerate(shown.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend_format)
        built = built.with_target(query.ref_id(chr(ord("A") + number)))
    return built


def _description(shown: Shown) -> str:
    return f"{shown.meaning} Empty: {shown.empty}." if shown.empty else shown.meaning
