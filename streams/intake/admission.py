"""Limits on events: signatures, sizes, and sessions that are kept out of training. The record role asks it.

Whether an episode may be learned from is decided later, by `streams.trust.rules` and `streams.trust.quota`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Annotated

from pydantic import Field, JsonValue, SecretStr

from ratchet_client.events import Event, OutcomeEvent, RetractionEvent, StepEvent
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, verify
from ratchet_client.messages import Message, Messages, is_function
from ratchet_client.settings import FrozenModel, Secret
from streams.intake.injection import injection_sign, may_hold
from streams.kafka.records import Received
from streams.trust.holdout import HoldoutSettings
from streams.trust.practice import is_practice, why_not_practice
from streams.trust.settings import QuotaSettings

UNAUTHENTICATED = "any client that can write to the events topic can publish in the name of any principal or expert"
AUTHENTICATE = "give each principal a key in admission.principals, and have its producer sign with it"


class AdmissionSettings(FrozenModel):
    """Settings of admission. Events that are not admitted are refused: they go to the dead-letter topic, whole."""

    principals: dict[str, Annotated[Secret, Field(min_length=1)]] = Field(
        default={}, description="Keys by principal. If there are any, every event must be signed by its principal."
    )
    operator_key: Secret = Field(
        default=SecretStr(""),
        description="Key that `ratchet forget` signs with; empty takes that of the file operator.key in home.",
    )
    unsigned_retractions: bool = Field(
        default=False, description="Obey unsigned retractions, where no principal has a key."
    )
    verifiers: tuple[str, ...] = Field(
        default=(), description="Verifiers whose outcomes are let in; empty lets in any. An outcome decides on trust."
    )
    max_bytes: int = Field(default=2**20, ge=1, description="Largest record.")
    max_messages: int = Field(default=1000, ge=1, description="Most messages in one state or observation.")
    max_tools: int = Field(default=1000, ge=1, description="Most tools offered at one step.")
    max_depth: int = Field(default=16, ge=1, description="Deepest nesting of an outcome's evidence.")
    max_evidence: int = Field(default=10_000, ge=1, description="Most values in an outcome's evidence.")
    quota: QuotaSettings = QuotaSettings()

    @property
    def authenticates(self) -> bool:
        """Return whether every event must be signed."""
        return bool(self.principals)


class Admission:
    """Stateless but for its settings."""

    def __init__(
        self,
        settings: AdmissionSettings,
        operator_key: bytes | None = None,
        holdout: HoldoutSettings = HoldoutSettings(),  # noqa: B008 - frozen
    ) -> None:
        """`operator_key` signs retractions of any principal, and practice; None where there is no such key.

        `holdout` says which tasks must not be practised.
        """
        self._settings = settings
        self._holdout = holdout
        self._operator_key = operator_key
        self._keys = {name: key.get_secret_value().encode() for name, key in settings.principals.items()}

    def refusal(self, received: Received, event: Event) -> str | None:
        """Return the reason for which the event must not be stored, or None."""
        limits = self._settings
        assert received.value is not None  # what was decoded had a value
        if len(received.value) > limits.max_bytes:
            return f"the record has {len(received.value)} bytes, the most is {limits.max_bytes}"
        if is_practice(event):
            reason = why_not_practice(event, self._holdout)
            if reason is not None:
                return reason
        if isinstance(event, StepEvent):
            return _step_refusal(event, limits)
        if isinstance(event, OutcomeEvent) and not self._lets_in(event):
            return "the verifier is not known"
        if isinstance(event, OutcomeEvent) and event.evidence:
            return _evidence_refusal(event.evidence, limits.max_depth, limits.max_evidence)
        return None

    def _lets_in(self, outcome: OutcomeEvent) -> bool:
        verifiers = self._settings.verifiers
        return not verifiers or outcome.verifier in verifiers or is_practice(outcome)

    def unsigned(self, received: Received, event: Event) -> str | None:
        """Return the reason for which the event's signature is not its principal's, or None.

        Outcomes are signed by any known principal, retractions by their principal or an operator. Where no principal
        has a key, retractions and practice alone must be signed. Practice is signed by the operator's key, which no
        agent has.
        """
        signature, value = received.header(SIGNATURE_HEADER), received.value
        assert value is not None
        if is_practice(event):
            return None if self._is_operators(value, signature) else "practice is signed with the operator's key alone"
        if isinstance(event, RetractionEvent) and self._is_operators(value, signature):
            return None
        if not self._keys:
            if isinstance(event, RetractionEvent) and not self._settings.unsigned_retractions:
                return "the retraction is not an operator's: `ratchet forget` signs it"
            return None
        if signature is None:
            return "the record has no signature"
        if isinstance(event, OutcomeEvent):
            known = any(verify(key, value, signature) for key in self._keys.values())
            return None if known else "the signature is not a known principal's"
        key = self._keys.get(event.principal)
        if key is None:
            return "the principal is not known"
        return None if verify(key, value, signature) else "the signature is not the principal's"

    def _is_operators(self, value: bytes, signature: str | None) -> bool:
        key = self._operator_key
        return key is not None and signature is not None and verify(key, value, signature)


def flag(event: Event) -> str | None:
    """Return the sign in the event for which nothing must be learned from its episode, or None.

    A state's earlier messages were looked at when they were new, in the steps before it. System messages and tools are
    the deployer's words.
    """
    if not isinstance(event, StepEvent):
        return None
    came = (*_new(event), *event.observation)
    for message in (*came, event.action):
        for kind in message.unreadable():
            return f"a message holds what a text model cannot read: {kind}"
    if not all(map(is_function, event.tools)):
        return "a tool is not a function"
    said = [text for message in came if message.role not in ("system", "developer") for text in _read(message)]
    acted = [*_read(event.action)]
    advised = [] if event.advice is None else [event.advice.text]
    # Nearly no event holds a sign, and to look through all its texts at once costs less.
    if not may_hold("\n".join((*said, *acted, *advised))):
        return None
    for place, texts in (("", said), (" in the action", acted), (" in the advice", advised)):
        for text in texts:
            sign = injection_sign(text)
            if sign is not None:
                return f"injection{place}: {sign}"
    return None


def _read(message: Message) -> Iterable[str]:
    """Every text of the message, those of its name and of fields that no version knows included."""
    return message.texts() if message.is_plain else (*message.texts(), *_of_unknown_fields(message))


def _of_unknown_fields(message: Message) -> Iterator[str]:
    parts = message.content if isinstance(message.content, tuple) else ()
    functions = (each.function for each in message.calls if each.function is not None)
    left: list[object] = [each.__pydantic_extra__ for each in (message, *parts, *message.calls, *functions)]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += (*value, *value.values())
        elif isinstance(value, list):
            left += value


def _new(event: StepEvent) -> Messages:
    """The messages of the state that came after the action before it."""
    if event.step == 0:
        return event.messages
    # From the end, since a state has few new messages and may have many old ones.
    new = takewhile(lambda message: message.role != "assistant", reversed(event.messages))
    return tuple(new)[::-1]


def _step_refusal(event: StepEvent, limits: AdmissionSettings) -> str | None:
    for count, most, what in (
        (len(event.messages), limits.max_messages, "the state has {} messages"),
        (len(event.observation), limits.max_messages, "the observation has {} messages"),
        (len(event.tools), limits.max_tools, "the step offers {} tools"),
    ):
        if count > most:
            return f"{what.format(count)}, the most is {most}"
    return None


def _evidence_refusal(evidence: Mapping[str, JsonValue], depth: int, most: int) -> str | None:
    level: Sequence[JsonValue] = [dict(evidence)]
    values = 0
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        values += len(level)
        if values > most:
            return f"the evidence has more than {most} values"
        if not level:
            return None
    return f"the evidence is nested deeper than {depth}"
