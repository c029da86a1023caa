"""The thread behind a producer: takes the oldest events from its backlog and delivers them until it is told to stop."""

import logging
import math
import threading
import time
from collections.abc import Sequence

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.errors import SpoolError
from ratchet_client.producer.backlog import Backlog
from ratchet_client.producer.delivery import WAVE_BYTES, Delivery
from ratchet_client.producer.spool_file import Entry

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_GRACE_S = 1.0
_COMPLAINT_INTERVAL_S = 60.0


class Sender:
    """Delivers a backlog in its order, and keeps count. While the cluster is away, it moves the backlog to the disk."""

    def __init__(self, name: str, backlog: Backlog, delivery: Delivery) -> None:
        """`name` is for the log."""
        self.sent = 0
        self.dropped = 0
        self._name = name
        self._backlog = backlog
        self._delivery = delivery
        self._wave: Sequence[Entry] = ()
        self._unsettled: Sequence[Entry] = ()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._deadline = math.inf
        self._retry_at = 0.0
        self._complained_at: dict[str, float] = {}

    @property
    def stopping(self) -> bool:
        return self._deadline < math.inf

    def wake(self) -> None:
        """Have the thread look for something to send. Starts it when need be, also after a bug has ended it."""
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._start()
        self._wake.set()

    def stop(self, within_s: float) -> None:
        """Deliver for `within_s` seconds at most, spool what is left, and count what cannot be kept as dropped."""
        self._deadline = time.monotonic() + within_s
        self._retry_at = 0.0
        self._wake.set()
        if self._thread is not None:
            self._thread.join(within_s + _GRACE_S)
        self._backlog.refuse()
        self._spill()
        if self._backlog.queued:
            self.drop("the producer was closed before the cluster had them", self._backlog.queued)
        try:
            self._backlog.close()
        except SpoolError as error:
            self._complain(f"the spool could not be closed: {error}")

    def leave_to_parent(self) -> None:
        """In a forked child, where the thread does not run: touch nothing that is the parent's."""
        self._backlog.leave_to_parent()
        self._delivery.leave_to_parent()

    def drop(self, reason: str, count: int = 1) -> None:
        """Count events as lost, and say so."""
        with self._lock:
            self.dropped += count
        self._complain(f"events were dropped: {reason}", f"; {self.dropped} until now")

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="ratchet-producer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads may be had, or the interpreter is ending
            self._complain(f"events wait, since no thread could be started: {error}")
        else:
            self._thread = thread

    def _run(self) -> None:
        self._delivery.drop_connection()
        self._open_spool()
        pause = _FIRST_PAUSE_S
        while time.monotonic() < self._deadline and (self._backlog or not self.stopping):
            if not self._backlog:
                self._sleep(math.inf)
            elif time.monotonic() < self._retry_at:
                self._sleep(self._retry_at)
                self._spill()
            elif self._deliver():
                pause = _FIRST_PAUSE_S
            else:
                self._spill()
                self._retry_at = time.monotonic() + pause
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._delivery.drop_connection()

    def _sleep(self, until: float) -> None:
        until = min(until, self._deadline)
        self._wake.wait(None if until == math.inf else max(0.0, until - time.monotonic()))
        self._wake.clear()

    def _deliver(self) -> bool:
        """Send the oldest events, or those of them again that failed; whether all of them are settled."""
        try:
            if not self._wave:
                self._open_spool()
                self._wave = self._unsettled = self._backlog.head(WAVE_BYTES)
            if self._wave:
                self._unsettled = self._send(self._unsettled)
            if not self._unsettled:
                settled, self._wave = self._wave, ()
                self._backlog.discard(settled)
                reach(CrashPoint.PRODUCER_ACK_AFTER)
        except SpoolError as error:
            self._complain(f"the spool failed: {error}")
            return False
        return not self._unsettled

    def _send(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Send and count; returns those that are to be sent again."""
        reach(CrashPoint.PRODUCER_SEND_BEFORE)
        delivered = self._delivery.send(entries, self._go_on, self._deadline - time.monotonic())
        reach(CrashPoint.PRODUCER_SEND_AFTER)
        self.sent += delivered.acknowledged
        if delivered.refused:
            self.drop("the cluster does not take records of their size or kind", delivered.refused)
        if delivered.failed:
            self._complain("events wait, since the cluster does not take them now", f": {delivered.error!r}")
        return delivered.failed

    def _go_on(self) -> bool:
        self._spill()
        return time.monotonic() < self._deadline

    def _open_spool(self) -> None:
        try:
            self._backlog.open()
        except SpoolError as error:
            self._complain(f"events wait in memory only, since the spool cannot be used: {error}")

    def _spill(self) -> None:
        try:
            self._backlog.spill()
        except SpoolError as error:
            self._complain(f"events wait in memory only, since the spool failed: {error}")

    def _complain(self, problem: str, detail: str = "") -> None:
        """Log, but the same problem once a minute."""
        now = time.monotonic()
        if now >= self._complained_at.get(problem, -math.inf) + _COMPLAINT_INTERVAL_S:
            self._complained_at[problem] = now
            log.warning("%s: %s%s", self._name, problem, detail)
