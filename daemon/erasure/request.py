"""The files by which a command asks the record role for an erasure, and learns what came of it."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, Field, ValidationError

from daemon.registry.schemas import Erasure
from ratchet_client.ids import uuid7
from ratchet_client.settings import FrozenModel
from streams.errors import ErasureError
from streams.runtime.files import write_atomically
from streams.store.rewriting import ErasedSubject, Retained, StoreErased

_REQUEST, _PLAN, _DONE = "erasure.json", "erasure-plan.json", "erasures"


class ErasureRequest(ErasedSubject):
    """Who asked for the erasure of a principal, whose consent is revoked, or of single episodes, and when."""

    erasure_id: str = Field(default_factory=uuid7)
    actor: str
    asked_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class ErasurePlan(FrozenModel):
    """What is removed, decided on before anything is: a kill in between must not change it. `paths` are relative."""

    erasure_id: str
    store: StoreErased
    adapters: tuple[str, ...]
    in_use: tuple[str, ...]
    paths: tuple[str, ...]


class ErasureReport(FrozenModel):
    """The result. `in_use` are adapters that saw the data and answer requests: they were not removed.

    `retained` are the offsets of the log that hold it until its retention is over.
    """

    erasure: Erasure
    in_use: tuple[str, ...]
    retained: tuple[Retained, ...]


def ask(home: Path, request: ErasureRequest) -> None:
    """Ask for it, durably. Raises `ErasureError` while another one is not done."""
    if pending(home) is not None:
        raise ErasureError(f"another erasure of {home} is not done: start the record role, which goes on with it")
    write_atomically(home / _REQUEST, request.model_dump_json(indent=1).encode() + b"\n")


def is_asked_for(home: Path) -> bool:
    """Return whether an erasure waits to be carried out."""
    return (home / _REQUEST).exists()


def pending(home: Path) -> ErasureRequest | None:
    """The erasure that waits. Raises `ErasureError` where its file is damaged."""
    try:
        return ErasureRequest.model_validate_json((home / _REQUEST).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ErasureError(
            f"{home / _REQUEST} is damaged: {error}; remove it, and ask for the erasure again"
        ) from error


def keep_plan(home: Path, plan: ErasurePlan) -> None:
    """Write down what is going to be removed."""
    write_atomically(home / _PLAN, plan.model_dump_json(indent=1).encode() + b"\n")


def kept_plan(home: Path, request: ErasureRequest) -> ErasurePlan | None:
    """The plan of an erasure that was begun."""
    path = home / _PLAN
    if not path.exists():
        return None
    plan = ErasurePlan.model_validate_json(path.read_bytes())
    return plan if plan.erasure_id == request.erasure_id else None


def finish(home: Path, request: ErasureRequest, report: ErasureReport) -> None:
    """Keep the report, and remove what asked for it."""
    write_atomically(home / _DONE / f"{request.erasure_id}.json", report.model_dump_json(indent=1).encode() + b"\n")
    (home / _PLAN).unlink(missing_ok=True)
    (home / _REQUEST).unlink(missing_ok=True)


def report_of(home: Path, erasure_id: str) -> ErasureReport | None:
    """The report of an erasure that is done."""
    path = home / _DONE / f"{erasure_id}.json"
    return ErasureReport.model_validate_json(path.read_bytes()) if path.exists() else None
