"""The exception tree of all layers. Every message says what happened, to what, and what to do about it.

Those down to `FeedbackError` are in `ratchet_client.errors`, the others here.

RatchetError
├── ConfigurationError          a setting or a part of the installation
├── BrokerError                 the Kafka cluster
├── NewerRecordError            a record of a newer version of Ratchet
├── SpoolError                  the producer's spool
├── FeedbackError               the client of the gateway's feedback
├── StoreError                  the DuckDB file and the query API
│   └── UnknownEpisodeError
├── RetractionError             `ratchet forget`
├── UnjudgeableError            redaction
├── ToolCallError               tool calls and the definitions of tools
├── UnreadableRequestError      the OTLP receiver
├── RequestTooLargeError        the OTLP receiver
├── IntakeError                 the client of the OTLP receiver
├── AbsentContentError          a captured call (streams/calls/absence.py)
├── ExchangeError               files of conversations
├── SandboxError                sandboxes and environments
│   ├── DivergedError
│   ├── StepTimeoutError
│   ├── ObservationTooLargeError
│   ├── SandboxDiedError
│   ├── SandboxGoneError
│   ├── ServerRefusedError      an OpenEnv server
│   └── BrokenPromiseError      `ratchet environment check`
├── PolicyError                 the client of the inference server
│   └── ContextLengthError
├── RequestRefusedError         the inference server, and access
├── ChatTemplateError           a chat and the base model's template
├── TrainingError               a training run
├── GateError                   an evaluation
├── PromotionError              promotion and rollback
│   └── NoRoomError             places for adapters at the inference servers
├── LifecycleError              the states of an adapter
├── RegistryError               refs and adapters
├── AuditError                  the audit log
├── BackupError                 `ratchet backup`
├── ErasureError                `ratchet forget --erase`
├── UpgradeError                `ratchet upgrade`
├── UnknownAdapterError         the name of an adapter
├── ControlError                the client of the control API
├── LearnerRunsError            a second learner in one home
├── CycleInterruptedError       `ratchet cycle`
└── SupervisorError             processes of `ratchet run`
"""

from collections.abc import Mapping, Sequence

from ratchet_client.errors import RatchetError


class StoreError(RatchetError):
    """The DuckDB file cannot be opened, or what it holds contradicts the log."""


class NewerRecordError(RatchetError):
    """A role of a newer version wrote a record, and waits for this one to be upgraded."""


class UnknownEpisodeError(StoreError):
    """Nothing of an episode is stored, or an id stands for several."""


class RetractionError(RatchetError):
    """A retraction was published and is not in force, or not yet."""


class UnjudgeableError(RatchetError):
    """A text cannot be cleared of secrets and personal data. The message holds nothing of the text."""


class ToolCallError(RatchetError):
    """A tool call cannot be executed, or a tool's definition cannot be used; the text is fit for the policy's eyes."""


class UnreadableRequestError(RatchetError):
    """A request's body is not what its headers say."""


class IntakeError(RatchetError):
    """The OTLP receiver cannot be reached or refused a request."""


class ExchangeError(RatchetError):
    """A conversation in a file cannot be read, or not as the options say."""


class UnnamedError(ExchangeError):
    """Neither an option nor the file names the `missing` agent or environment."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"the document does not name the {missing}: say --{missing}")
        self.missing = missing


class RequestTooLargeError(RatchetError):
    """A request's body is larger than the settings allow."""


class SandboxError(RatchetError):
    """A sandbox process died, timed out, or answered what its contract does not allow."""


class DivergedError(SandboxError):
    """A restored state is not the recorded one, so what would follow from it says nothing about the recorded state."""


class StepTimeoutError(SandboxError):
    """A request to a sandbox took too long; the process it ran in was killed.

    `before` are the observations of the branches that were done by then.
    """

    def __init__(self, message: str, before: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.before = before


class ObservationTooLargeError(SandboxError):
    """An observation is larger than the limits allow. `before` are those of the branches that were done by then."""

    def __init__(self, message: str, before: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.before = before


class SandboxDiedError(SandboxError):
    """A sandbox process died of what was asked of it."""


class SandboxGoneError(SandboxError):
    """A sandbox process was gone before the request was worked: it died of another one, of any of its sessions."""


class ServerRefusedError(SandboxError):
    """An OpenEnv server answered with an error. `code` is one of `ErrorCode`, or one that only the server knows."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BrokenPromiseError(SandboxError):
    """An environment broke its contract or the promises of its capabilities.

    `seen` is what it did. `tried` are the actions that led to it and `expected` what should have come instead; both
    are empty where `seen` says it all.
    """

    def __init__(self, seen: str, tried: str = "", expected: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.tried = tried
        self.expected = expected


class PolicyError(RatchetError):
    """The inference server cannot be reached or refused a request."""


class ContextLengthError(PolicyError):
    """A chat, with the reply that is asked for, is longer than the inference server takes."""


class RequestRefusedError(RatchetError):
    """A request cannot be served; `status` is its HTTP status and `code` the word that programs may act upon.

    `headers` go with the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class ChatTemplateError(RatchetError):
    """The base model's chat template refuses a chat, or renders it in a way that cannot be trained as it is served."""


class TrainingError(RatchetError):
    """A training run could not start or did not produce an adapter."""


class GateError(RatchetError):
    """An evaluation could not be carried out; this is never a verdict."""


class PromotionError(RatchetError):
    """An adapter could not be put into service; what served before still serves."""


class NoRoomError(PromotionError):
    """All places for adapters are taken by those that cannot be unloaded now."""


class LifecycleError(RatchetError):
    """An adapter was asked to become what it cannot."""


class RegistryError(RatchetError):
    """The registry's files cannot be read, or contradict each other."""


class AuditError(RatchetError):
    """The audit log cannot be read, or somebody changed it."""


class BackupError(RatchetError):
    """A backup cannot be taken, is not whole, or cannot be restored."""


class ErasureError(RatchetError):
    """What was to be erased is not, or not yet."""


class UpgradeError(RatchetError):
    """A home cannot be brought to the formats of this version, or is not yet."""


class LearnerRunsError(RatchetError):
    """Another learner works in the home."""


class CycleInterruptedError(RatchetError):
    """A signal came before a cycle had ended; the next call resumes it."""


class UnknownAdapterError(RatchetError):
    """A name stands for no adapter, or for several."""


class ControlError(RatchetError):
    """The control API cannot be reached or refused."""


class SupervisorError(RatchetError):
    """A process of Ratchet did not start or does not stay up."""
