"""The dashboard of gates, promotions and proofs. `dashboards.py` has the other two."""

from ops.panels import Board, Kind, Shown

_NO_CANARY = "while no canary runs"
_NO_CYCLE = "before the first cycle ended"

SAFETY = Board(
    "ratchet-safety",
    "Ratchet: safety",
    "How good what serves is, what gates say of candidates, and whether the proofs hold.",
    (
        (
            "Production",
            (
                Shown(
                    "Success by position",
                    (("ratchet:production_success:ratio", "{{position}}"),),
                    "Share of judged episodes that succeeded, of the champion and those before it.",
                    unit="percentunit",
                    runbook="champion-worse",
                    empty="before an outcome came",
                ),
                Shown(
                    "Judged episodes",
                    (("ratchet:production_episodes:sum", "{{position}}"),),
                    "Fewer than 30 say little.",
                    empty="before an outcome came",
                ),
                Shown(
                    "What serves",
                    (("ratchet_active_adapter", "{{served}}"),),
                    "The name of the adapter that answers.",
                    limits=((1.0, "green"),),
                    good="red",
                    runbook="nothing-serves",
                ),
                Shown(
                    "Promotions and rollbacks",
                    (
                        ("ratchet_promotions_total", "promotions"),
                        ("ratchet_rollbacks_total", "rollbacks"),
                        ("ratchet_restores_total", "restores"),
                        ("ratchet_promotion_failures_total", "refused or failed"),
                    ),
                    "Changes of the champion.",
                    runbook="promotion-failed",
                ),
                Shown(
                    "Canary: share and errors",
                    (
                        ("ratchet_canary_share", "share of new episodes"),
                        ("ratchet_canary_errors / ratchet_canary_requests", "errors of the {{side}}"),
                    ),
                    "0 while none runs.",
                    unit="percentunit",
                ),
                Shown(
                    "Canary: evidence",
                    (("ratchet_canary_evidence", "{{direction}}"),),
                    "E-values; 2/alpha is a proof.",
                    limits=((40.0, "orange"),),
                    empty=_NO_CANARY,
                ),
            ),
        ),
        (
            "Gates",
            (
                Shown(
                    "Success of the last trial",
                    (("ratchet_trial_success_ratio", "{{side}}"),),
                    "On held-out tasks.",
                    unit="percentunit",
                    kind=Kind.BARS,
                    empty=_NO_CYCLE,
                ),
                Shown(
                    "Verdicts",
                    (('ratchet_gate_verdicts_total{gate=""}', "{{verdict}}"),),
                    "On candidates.",
                    empty=_NO_CYCLE,
                ),
                Shown(
                    "Tasks of the last trial, and its power",
                    (
                        ("ratchet_trial_tasks", "tasks"),
                        ('ratchet_gate_figure{gate="improvement", figure="power"} * 100', "power, %"),
                    ),
                    "Probability of proving the gain that gates look for.",
                    empty=_NO_CYCLE,
                ),
                Shown(
                    "Alpha",
                    (("ratchet_gate_alpha_left", "left"), ("ratchet_gate_alpha_next", "next gate")),
                    "Probability of wrong promotions that may still be spent.",
                    unit="percentunit",
                ),
                Shown(
                    "Fresh confirmation tasks",
                    (
                        ("ratchet_holdout_fresh_tasks", "fresh"),
                        ("ratchet_holdout_mean_uses", "uses of selection tasks"),
                    ),
                    "Held-out tasks that no trial has played.",
                    limits=((1.0, "green"),),
                    good="red",
                    runbook="holdout-spent",
                    empty="before the first trial",
                ),
                Shown(
                    "Waiting for a person",
                    (("ratchet_held_oldest_age_seconds", "the oldest"),),
                    "Time that a held candidate has waited.",
                    unit="s",
                    limits=((3600.0, "orange"),),
                    runbook="holds-waiting",
                ),
            ),
        ),
        (
            "Proofs",
            (
                Shown(
                    "Audit chain broken",
                    (("ratchet_audit_chain_broken", ""),),
                    "1 if a line of the audit log was changed.",
                    kind=Kind.NUMBER,
                    limits=((1.0, "red"),),
                    runbook="audit-chain-broken",
                    wide=6,
                ),
                Shown(
                    "Promotion on hold",
                    (("ratchet_promotion_hold", ""),),
                    "1 while nothing is promoted without a person.",
                    kind=Kind.NUMBER,
                    limits=((1.0, "orange"),),
                    runbook="holds-waiting",
                    wide=6,
                ),
                Shown(
                    "Attestation",
                    (
                        ("ratchet_attestation_deviation", "deviation: {{position}}"),
                        ("ratchet_attestation_effect", "effect: {{position}}"),
                    ),
                    "Nats per token; the effect must be twice the deviation and more.",
                    runbook="champion-not-attested",
                    wide=6,
                    empty="while only the base model was loaded",
                ),
                Shown(
                    "Requests with unknown tokens",
                    (('increase(ratchet_gateway_requests_total{status="401"}[10m])', "401"),),
                    "Of ten minutes.",
                    limits=((20.0, "red"),),
                    runbook="unknown-tokens",
                    wide=6,
                    empty="where there was none",
                ),
            ),
        ),
    ),
)
