"""The check of `ratchet doctor` whether the memory suffices for a training beside what serves."""

from pathlib import Path

from daemon.commands.diagnosis import Diagnosis, Health
from daemon.config import Settings
from daemon.learning.domain import is_judged
from daemon.registry.learner_status import LearnerPhase, learner_report
from learners.base_model import find_base
from learners.memory import EMBEDDED_SHAPE, LIBRARIES, Shape, training_memory
from learners.settings import EMBEDDED
from ratchet_client.errors import ConfigurationError
from streams.runtime.memory import available_memory

NAME = "memory"
# The other roles and the embedded broker, with what is small.
_ROLES = 800_000_000


def check_memory(settings: Settings) -> Diagnosis:
    """The memory that is available is enough for a training; where nothing runs yet, for what runs beside it, too."""
    if not is_judged(settings.domain):
        return Diagnosis(name=NAME, status=Health.OK, message="nothing is trained without a domain")
    try:
        shape = _shape(settings)
    except ConfigurationError as error:
        message = f"the memory that a training needs cannot be estimated: {error}"
        return Diagnosis(name=NAME, status=Health.OK, message=message)
    dtype = _dtype_bytes()
    needed = training_memory(shape, settings.learner, settings.engine.max_length, dtype)
    message = f"a training needs about {_told(needed)}"
    learner, available = learner_report(settings.home, ()), available_memory()
    if learner.running and learner.status is not None and learner.status.phase is LearnerPhase.TRAINING:
        available = None if available is None else available + learner.status.memory_bytes
    if not learner.running:
        # During a training the engine has the base model and the champion.
        beside = _ROLES + (0 if settings.engine.named else LIBRARIES + 2 * shape.parameters * dtype)
        needed += beside
        message += f", and what runs beside it about {_told(beside)}"
    if available is None:
        return Diagnosis(name=NAME, status=Health.OK, message=f"{message}; it is not known how much is available")
    message += f"; {_told(available)} are available"
    if available < needed:
        return Diagnosis(
            name=NAME,
            status=Health.WARNING,
            message=message,
            remedy="lower engine.max_length and learner.max_length, which count most, or learner.lora.rank and "
            "engine.slots; or choose a smaller model, or give the machine or the container more memory",
        )
    return Diagnosis(name=NAME, status=Health.OK, message=message)


def _shape(settings: Settings) -> Shape:
    if settings.model == EMBEDDED:
        return EMBEDDED_SHAPE
    return Shape.read(Path(find_base(settings.model)))


def _dtype_bytes() -> int:
    try:
        # Torch takes seconds to import.
        from learners.precision import compute_dtype
    except ImportError:
        return 4  # where nothing can be trained

    return compute_dtype().itemsize


def _told(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
