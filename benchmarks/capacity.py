"""What the pipeline needs for so many episodes a day, and how it comes through an hour's outage: a simulation.

`python -m benchmarks.capacity [--episodes N …] [--outage-h H] [--peak F] [--check] [--json]` plans record roles, branch
workers, processors, GPUs and storage for each load, and simulates the day with `benchmarks.pipeline_model`: all roles
stand still for the hour before the busiest moment of the day, and catch up. Costs of the work are those that
`benchmarks.scaling --keep` measured (`scaling.json`, or the file `--points`) and the others of
`benchmarks.pipeline_figures`. The model is also run at the measured configurations, with the processors that other
programs left, and the report tells how far it is off; `--check` is that alone. Prices, and what nothing measured, are
options. The report is tables in Markdown.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from pydantic import ValidationError

from benchmarks.capacity_plan import Plan, after_outage, plan
from benchmarks.model_error import modelled_per_s, relative_error
from benchmarks.pipeline_figures import Assumptions, branch_costs, store_costs
from benchmarks.scaling_points import NAMES, POINTS, Kind, Point, Points

HOUR_S = 3600.0
ASSUMED = {
    "steps": "steps of an episode",
    "trusted": "share of episodes that are branched and trained on",
    "peak": "load of the busiest moment over the mean; 1: the same all day",
    "utilisation": "share of its capacity that anything is to be busy at the peak",
    "event_bytes": "bytes of an event as it is sent",
    "replication": "copies of each record in Kafka",
    "samples": "replies of the policy at a state; 0 asks none",
    "parameters": "parameters of the model",
    "prompt_tokens": "tokens of a state",
    "reply_tokens": "tokens of a reply",
    "tokens_per_update": "tokens of a training update",
    "flops": "operations per second of a GPU",
    "flops_used": "share of them that the bare model reaches",
    "decoded_per_s": "tokens per second that a GPU draws",
    "core_hour": "price of an hour of a core",
    "gpu_hour": "price of an hour of a GPU",
    "gigabyte_month": "price of a gigabyte of disk in a month",
}


def plans_table(plans: Sequence[Plan]) -> str:
    """The table "modelled" of `docs/scale.md`."""
    rows = {
        "records/s at the peak, results of branching among them": [f"{each.records:,.1f}" for each in plans],
        "states/s at the peak": [f"{each.states:,.1f}" for each in plans],
        "store": [
            f"{'a' if each.stores == 1 else each.stores} {each.store}{'s' if each.stores > 1 else ''}" for each in plans
        ],
        "record roles, branch workers": [f"{each.record_roles}, {each.branch_workers}" for each in plans],
        "partitions of a topic": [str(each.partitions) for each in plans],
        "cores": [str(each.cores) for each in plans],
        "GPU hours a day, GPUs": [f"{each.gpu_hours_per_day:,.1f}, {each.gpus}" for each in plans],
        "cycles a day; from trusted to learned": [
            f"{each.cycles_per_day:,.0f}; {each.freshness_min:,.0f} min" for each in plans
        ],
        "Kafka, held; the store, more each month": [
            f"{_size(each.kafka_gb)}; {_size(each.store_gb_month)}" for each in plans
        ],
        "records that wait when the outage ends": [f"{each.lag_events:,}" for each in plans],
        "minutes until they are stored": [_minutes(each.caught_up_events_min) for each in plans],
        "minutes until their states are branched": [_minutes(each.caught_up_states_min) for each in plans],
        "cost of a month, in dollars": [f"{each.cost:,.0f}" for each in plans],
    }
    head = "".join(f" {each.episodes_per_day:,.0f} |" for each in plans)
    lines = [f"| episodes a day |{head}", "|---" * (1 + len(plans)) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def errors_table(points: Sequence[Point]) -> str:
    """The table of the model's errors of `docs/scale.md`."""
    lines = ["| what | processes | partitions | measured per s | model | error |", "|---" * 6 + "|"]
    for each in points:
        measured = f"{NAMES[each.kind]} | {each.workers} | {each.partitions} | {each.per_s:,.0f}"
        lines.append(f"| {measured} | {modelled_per_s(each, points):,.0f} | {relative_error(each, points):+.0%} |")
    return "\n".join(lines)


def _minutes(minutes: float | None) -> str:
    return "not within a day" if minutes is None else f"{minutes:,.1f}"


def _size(gigabytes: float) -> str:
    if gigabytes >= 1000:
        return f"{gigabytes / 1000:,.1f} TB"
    return f"{gigabytes:,.0f} GB" if gigabytes >= 10 else f"{gigabytes:.2g} GB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32),
    )
    parser.add_argument("--episodes", nargs="+", type=float, default=[1e3, 1e5, 1e7], help="a day")
    parser.add_argument("--outage-h", type=float, default=1.0, help="hours that all roles stand still")
    parser.add_argument(
        "--points", type=Path, default=POINTS, help="measured points, as `benchmarks.scaling` keeps them"
    )
    parser.add_argument("--check", action="store_true", help="only the model beside the measured points")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    assumptions = parser.add_argument_group("assumptions", "what nothing measured; prices are in dollars")
    for each in fields(Assumptions):
        name = f"--{each.name.replace('_', '-')}"
        assumptions.add_argument(name, type=type(each.default), default=each.default, help=ASSUMED[each.name])
    options = parser.parse_args()
    try:
        points = Points.model_validate_json(options.points.read_bytes()).points
    except (OSError, ValidationError) as error:
        parser.error(
            f"the points cannot be read: {error}. Run `python -m benchmarks.scaling --keep`, or name a file of it"
        )
    assumed = Assumptions(**{each.name: getattr(options, each.name) for each in fields(Assumptions)})
    plans = []
    try:
        print(errors_table(points))
        costs, branch = {kind: store_costs(points, kind) for kind in (Kind.FILE, Kind.LAKE)}, branch_costs(points)
        for episodes in () if options.check else options.episodes:
            planned = plan(episodes, costs, branch, assumed)
            plans.append(after_outage(planned, costs[planned.store], branch, assumed, options.outage_h * HOUR_S))
    except (LookupError, ValueError) as error:
        parser.error(str(error))
    if plans:
        print(f"\n{plans_table(plans)}")
    if options.json:
        off = [
            {
                **each.model_dump(mode="json", include={"kind", "workers", "partitions"}),
                "error": relative_error(each, points),
            }
            for each in points
        ]
        print(json.dumps({"errors": off, "plans": [asdict(each) for each in plans]}))


if __name__ == "__main__":
    main()
