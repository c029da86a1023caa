"""From captured calls and feedback to calls and verdicts. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ratchet_client.ids import content_id
from ratchet_client.messages import assistant
from streams.assembly.chains import Call
from streams.assembly.continuation import asked
from streams.assembly.telemetry import Reading
from streams.assembly.verdicts import Verdict
from streams.calls.absence import Absence, AbsentContentError
from streams.calls.chat import Chat
from streams.calls.faces import Earlier, read_call, seen_by
from streams.calls.faces.bodies import read_object
from streams.calls.records import CapturedCall, Feedback

ENVIRONMENT = "gateway"
_ABSENT = "content of a call of its episode is missing"

EarlierOf = Callable[[CapturedCall], Earlier]
ChatsOf = Callable[[CapturedCall], list[Chat]]


def scope_of(record: CapturedCall | Feedback) -> str:
    """Whose call or feedback it is: what belongs together has one."""
    if isinstance(record, CapturedCall):
        return content_id(str(record.authenticated), record.labels.principal or "")
    return content_id(str(record.authenticated), record.principal or "")


def chats_of(call: CapturedCall, earlier: Earlier | None) -> list[Chat]:
    """The chats of a call. Raises `AbsentContentError` where it cannot be read, whatever the reason."""
    try:
        chats = read_call(call, earlier)
    except (ValueError, RecursionError) as error:
        raise AbsentContentError(Absence.NOT_UNDERSTOOD, f"the call is in no known form: {error}") from error
    if not chats:
        raise AbsentContentError(Absence.INCOMPLETE, "the call has no messages or no reply")
    return chats


def read_captured(
    calls: Sequence[CapturedCall],
    feedback: Sequence[Feedback],
    earlier: EarlierOf,
    environment: str = "",
    read: ChatsOf | None = None,
) -> Reading:
    """Read the calls of a unit. Where one that was cut off was not made again, the others are not all of it.

    `environment` is that of calls that name none, `read` gives the chats of a call where it is known already.
    """
    whole: list[tuple[CapturedCall, list[Chat]]] = []
    absent: list[tuple[CapturedCall, Absence]] = []
    for call in calls:
        try:
            whole.append((call, chats_of(call, earlier(call)) if read is None else read(call)))
        except AbsentContentError as error:
            absent.append((call, error.absence))
    repeated = {asked(chats[0]) for _, chats in whole}
    broken = (reason for call, reason in absent if reason.breaks_episodes and _asked(call, earlier) not in repeated)
    reason = next(broken, None)
    flag = f"{_ABSENT}: {reason.value}" if reason is not None else None
    labels = [call.labels for call, _ in whole]
    said = {
        name: next((value for each in labels if (value := getattr(each, name)) is not None), None)
        for name in ("environment", "task", "seed", "state", "agent")
    }
    return Reading(
        [
            Call(
                place=(call.receipt, str(choice) if len(chats) > 1 else ""),
                name=call.receipt if choice == 0 else f"{call.receipt}.{choice}",
                event_id=call.record_id if choice == 0 else content_id(call.record_id, str(choice)),
                began_ns=call.began_ns,
                ended_ns=call.ended_ns,
                chat=chat,
                agent=call.labels.agent or said["agent"] or ENVIRONMENT,
                principal=call.labels.principal or ENVIRONMENT,
                environment=call.labels.environment or said["environment"] or environment or ENVIRONMENT,
                task_id=call.labels.task or said["task"],
                seed=call.labels.seed if call.labels.seed is not None else said["seed"] or 0,
                state=call.labels.state or said["state"],
                receipt=call.receipt,
                signer=call.labels.principal if call.authenticated else None,
                flag=flag,
            )
            for call, chats in whole
            for choice, chat in enumerate(chats)
        ],
        [_verdict(each) for each in feedback],
        Counter(reason.value for _, reason in absent),
    )


def continued_choices(calls: Iterable[Call]) -> dict[str, Call]:
    """Per receipt, the choice that was gone on with, for calls that asked for several; `calls` are those that were."""
    return {call.place[0]: call for call in calls if call.place[1]}


def _asked(call: CapturedCall, earlier: EarlierOf) -> str | None:
    """`asked` of a call whose reply cannot be read; None where its request cannot either."""
    try:
        messages = seen_by(call.face, read_object(call.request, "request"), earlier(call))
        chat = Chat.of(messages, assistant(""), None)
    except (AbsentContentError, ValueError, RecursionError):
        return None
    return asked(chat) if chat is not None else None


def _verdict(feedback: Feedback) -> Verdict:
    return Verdict(
        place=(feedback.receipt, "") if feedback.receipt is not None else None,
        event_id=feedback.record_id,
        verifier=feedback.verifier,
        success=feedback.success,
        score=feedback.score,
        given_ns=feedback.given_ns,
        evidence=feedback.evidence,
        signer=feedback.principal if feedback.authenticated else None,
    )
