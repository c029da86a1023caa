"""How far the model of the pipeline is off, at the configurations that `benchmarks.scaling` measured."""

from collections.abc import Sequence

from benchmarks.pipeline_figures import branch_costs, store_costs
from benchmarks.pipeline_model import Layout, Pipeline
from benchmarks.scaling_points import Kind, Point


def layout_of(point: Point, points: Sequence[Point]) -> Layout:
    """The measured configuration: its processors, less what other programs took of them."""
    left = point.cores - point.of_others / point.seconds
    branches = point.kind is Kind.BRANCH
    return Layout(
        store=None if branches else store_costs(points, point.kind),
        branch=branch_costs(points) if branches else None,
        cores=left,
        partitions=point.partitions,
        record_roles=0 if branches else point.workers,
        branch_workers=point.workers if branches else 0,
    )


def modelled_per_s(point: Point, points: Sequence[Point]) -> float:
    """Events or states per second of the model in the measured configuration, from a backlog as large."""
    backlog = [(0.0, point.counted)]
    branches = point.kind is Kind.BRANCH
    pipeline = Pipeline(layout_of(point, points), () if branches else backlog, backlog if branches else ())
    pipeline.run()
    return point.counted / pipeline.environment.now


def relative_error(point: Point, points: Sequence[Point]) -> float:
    """By how much of the measured rate the model's is above it. Of one process alone it is a fit, else a forecast."""
    return modelled_per_s(point, points) / point.per_s - 1
