"""The dashboards, as code: `python -m ops` writes `ops/grafana/dashboards/` from them."""

from pathlib import Path

from ops.panels import Board, Kind, Shown, as_json
from ops.safety_board import SAFETY

FOLDER = Path(__file__).parent / "grafana" / "dashboards"

_NO_TRAINING = "while no training runs"
_NO_CYCLE = "before the first cycle ended"


def _one(expression: str, legend: str = "") -> tuple[tuple[str, str], ...]:
    return ((expression, legend),)


SERVICE = Board(
    "ratchet-service",
    "Ratchet: service",
    "What agents get, what is recorded of it, and the processes that do it.",
    (
        (
            "Gateway",
            (
                Shown(
                    "Requests by status",
                    _one("ratchet:gateway_requests:rate5m", "{{status}}"),
                    "Requests below /v1 a second. 401: a token that no principal has.",
                    unit="reqps",
                    runbook="unknown-tokens",
                ),
                Shown(
                    "Duration of calls",
                    (
                        ("ratchet:call_seconds:p95", "95 % {{served}}"),
                        (
                            "histogram_quantile(0.5, sum by (served, le) "
                            "(rate(ratchet_gateway_call_seconds_bucket[5m])))",
                            "50 % {{served}}",
                        ),
                    ),
                    "Until the last byte, by the name of the adapter that answered.",
                    unit="s",
                ),
                Shown(
                    "Time to first token",
                    _one("ratchet:first_token_seconds:p95", "95 % {{served}}"),
                    "Of streamed replies.",
                    unit="s",
                    empty="while no reply is streamed",
                ),
                Shown(
                    "Tokens",
                    _one("sum by (kind) (rate(ratchet_gateway_tokens_total[5m]))", "{{kind}}"),
                    "As the inference server counts them, a second.",
                ),
                Shown(
                    "In flight", _one("ratchet_gateway_in_flight", "{{served}}"), "Calls that are answered now.", wide=8
                ),
                Shown(
                    "Upstream errors",
                    _one("sum by (cause) (rate(ratchet_gateway_upstream_errors_total[5m]))", "{{cause}}"),
                    "Calls a second that the inference server did not answer, or not to the end.",
                    unit="reqps",
                    runbook="upstream-errors",
                ),
            ),
        ),
        (
            "Recording",
            (
                Shown(
                    "Captured calls",
                    _one("sum by (result) (rate(ratchet_capture_calls_total[5m]))", "{{result}}"),
                    "Dropped and refused ones are lost.",
                    unit="reqps",
                    runbook="capture-dropping",
                ),
                Shown(
                    "Calls that wait for the log",
                    (("ratchet_capture_queue", "calls"), ("ratchet_assembly_open", "open conversations")),
                    "The queue of the gateway, and what the assembler has not completed.",
                ),
                Shown(
                    "Lag behind the log",
                    _one("ratchet_consumer_lag", "{{topic}}/{{partition}}"),
                    "Records that are not stored yet.",
                    limits=((5000.0, "red"),),
                    runbook="consumer-lag",
                ),
                Shown(
                    "Events stored",
                    _one("sum by (kind) (rate(ratchet_events_total[5m]))", "{{kind}}"),
                    "A second.",
                    runbook="ingestion-stalled",
                ),
                Shown(
                    "Refused, missing and waiting",
                    (
                        ("increase(ratchet_dead_letters_total[15m])", "unreadable"),
                        ("increase(ratchet_quarantined_total[15m])", "not let in"),
                        ("increase(ratchet_gaps_total[15m])", "missing offsets"),
                        ("ratchet_outbox_pending", "messages not published"),
                    ),
                    "Of a quarter of an hour.",
                    runbook="dead-letters",
                ),
                Shown(
                    "Store writes",
                    _one(
                        "histogram_quantile(0.95, sum by (le) (rate(ratchet_store_write_seconds_bucket[5m])))", "95 %"
                    ),
                    "Time to store a batch.",
                    unit="s",
                    empty="while nothing is stored",
                ),
            ),
        ),
        (
            "Processes",
            (
                Shown(
                    "Roles that answer",
                    _one('up{job=~"ratchet-.*"}', "{{job}}"),
                    "1 for a role that Prometheus reaches.",
                    kind=Kind.BARS,
                    limits=((1.0, "green"),),
                    good="red",
                    runbook="role-down",
                ),
                Shown(
                    "Memory",
                    _one('process_resident_memory_bytes{job=~"ratchet-.*"}', "{{job}}"),
                    "Resident memory.",
                    unit="bytes",
                ),
                Shown(
                    "CPU",
                    _one('rate(process_cpu_seconds_total{job=~"ratchet-.*"}[5m])', "{{job}}"),
                    "Cores that are busy.",
                ),
                Shown(
                    "Disk",
                    (("min by (place) (ratchet_disk_free_bytes)", "free: {{place}}"),),
                    "Room on the file systems of home and store.",
                    unit="bytes",
                    limits=((1e9, "green"),),
                    good="red",
                    runbook="disk-filling",
                ),
                Shown("Store size", _one("ratchet_store_size_bytes", "store"), "With its log.", unit="bytes"),
                Shown(
                    "Starts within an hour",
                    _one('changes(process_start_time_seconds{job=~"ratchet-.*"}[1h])', "{{job}}"),
                    "Restarts of each role.",
                    limits=((3.0, "red"),),
                    runbook="learner-crash-looping",
                ),
            ),
        ),
    ),
)

LEARNING = Board(
    "ratchet-learning",
    "Ratchet: learning",
    "The way of an episode from its end into training, and what the learner is at.",
    (
        (
            "Episodes",
            (
                Shown(
                    "From an ended episode to a snapshot",
                    (
                        ("ratchet_funnel_episodes", "{{stage}}"),
                        ("sum(ratchet_snapshot_episodes)", "in the newest snapshot"),
                    ),
                    "Episodes of production that came so far. A snapshot has distinct trajectories, and practice.",
                    kind=Kind.BARS,
                ),
                Shown(
                    "Episodes by state",
                    _one("sum by (state) (ratchet_episodes)", "{{state}}"),
                    "As `ratchet episodes` has them.",
                ),
                Shown(
                    "Why not trusted",
                    _one('sum by (reason) (ratchet_episodes{state=~"undecided|untrusted|flagged|open"})', "{{reason}}"),
                    "Episodes that nothing is learned from, or not yet.",
                    empty="where all episodes are trusted",
                ),
                Shown(
                    "Why states were dropped",
                    _one("ratchet_dropped_total", "{{reason}}"),
                    "States and failed episodes that could not be restored.",
                    runbook="states-dropped",
                    empty="where none was dropped",
                ),
                Shown(
                    "Alternatives",
                    _one("rate(ratchet_branches_total[1h]) * 3600", "{{result}}"),
                    "Actions tried in sandboxes, an hour.",
                ),
                Shown(
                    "Recoveries and practice",
                    (
                        ("ratchet_recoveries_total", "recoveries"),
                        ("ratchet_practice_successes_total", "practised successes"),
                        ("ratchet_practice_episodes_total", "practised episodes"),
                    ),
                    "What Ratchet played itself.",
                ),
            ),
        ),
        (
            "Learner",
            (
                Shown(
                    "Alive",
                    _one("ratchet_learner_up", "alive"),
                    "0 after a minute of silence.",
                    kind=Kind.NUMBER,
                    limits=((1.0, "green"),),
                    good="red",
                    runbook="learner-dead",
                    wide=4,
                ),
                Shown(
                    "Failures in a row",
                    _one("ratchet_learner_failures"),
                    "Cycles that failed before an adapter came of them.",
                    kind=Kind.NUMBER,
                    limits=((1.0, "orange"), (3.0, "red")),
                    runbook="learner-crash-looping",
                    wide=4,
                    empty="where no learner runs",
                ),
                Shown(
                    "Phase",
                    _one("ratchet_learner_phase == 1", "{{phase}}"),
                    "What the learner is at.",
                    wide=8,
                    empty="where no learner runs",
                ),
                Shown(
                    "Until a cycle",
                    (
                        ("ratchet_learner_new_episodes", "new episodes"),
                        ("ratchet_learner_needed_episodes", "needed"),
                        ("ratchet_learner_missing_branches", "missing branches"),
                    ),
                    "What a cycle waits for.",
                    empty="where no learner waits",
                ),
                Shown(
                    "Progress",
                    _one("ratchet_learner_done / ratchet_learner_planned", "done"),
                    "Of the training, or of a gate.",
                    unit="percentunit",
                    empty=_NO_TRAINING,
                ),
                Shown("Loss", _one("ratchet_learner_loss", "{{objective}}"), "Nats per token.", empty=_NO_TRAINING),
                Shown(
                    "Gradient and speed",
                    (
                        ("ratchet_learner_gradient_norm", "norm of the gradient"),
                        ("ratchet_learner_tokens_per_second", "tokens a second"),
                    ),
                    "Of the last update.",
                    empty=_NO_TRAINING,
                ),
                Shown(
                    "Since the last verdict",
                    _one("ratchet_learner_last_cycle_age_seconds", "{{verdict}}"),
                    "Age of the last cycle.",
                    unit="s",
                    empty=_NO_CYCLE,
                ),
            ),
        ),
    ),
)

BOARDS = (SERVICE, LEARNING, SAFETY)


def dashboards() -> dict[str, str]:
    """The content of each file of `FOLDER`, by its name."""
    return {f"{board.uid}.json": as_json(board) for board in BOARDS}
