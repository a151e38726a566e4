from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._errors import EntraConnectorError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

READ_AT_MOST = 60  # seconds between two reads, whether they succeed or fail


class WouldReadError(Exception):
    def __init__(self, kept: Kept[Any]) -> None:
        self.kept = kept


class Kept(Generic[T]):
    """A value that is read when it is asked for and due. Many may ask at once: one of them reads.

    Whoever comes meanwhile gets the value of before, or waits if that is of no use any more.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        read: Callable[[], T],
        due: Callable[[T], float],  # when the value should be read again
        ends: Callable[[T], float],  # when the value is of no use any more
        gone: Callable[[T], EntraConnectorError],  # says so
        value: T | None = None,
    ) -> None:
        self._clock, self._read, self._due, self._ends, self._gone = clock, read, due, ends, gone
        self._lock = threading.Lock()
        self._value = value
        self._error: EntraConnectorError | None = None  # of the last read
        self._read_at = float("-inf")  # when the last read began
        self._reading: threading.Event | None = None  # set when the read under way ends

    def get(self, *, may_read: bool = True) -> tuple[T, float]:
        """Return the value and when it will be read again, or raise the last read's error."""
        with self._lock:
            now = self._clock()
            reader = not (self._before(self._due, now) or self._reading or self._just_read(now))
            if not may_read and (reader or (self._reading and not self._before(self._ends, now))):
                raise WouldReadError(self)
            if reader:
                self._reading, self._read_at = threading.Event(), now
            reading = self._reading
            wait = reading is not None and not self._before(self._ends, now)
        if reading and reader:
            self._read_now(reading)
        elif reading and wait:
            reading.wait()
        with self._lock:
            value = self._value
            if value is not None and self._clock() < self._ends(value):
                again = max(self._due(value), self._read_at + READ_AT_MOST)
                return value, min(again, self._ends(value))
            error = self._error
            if value is not None and error is None:  # it has ended since the last read
                error = self._gone(value)
        error = error or UnavailableError("entra-connector: the read was interrupted")
        raise type(error)(*error.args) from error.__cause__  # a new one: each gets its own traceback

    def _read_now(self, reading: threading.Event) -> None:
        value, error = None, None
        try:
            value = self._read()
            if self._clock() >= self._ends(value):
                error = self._gone(value)
        except EntraConnectorError as e:
            error = e
        finally:
            with self._lock:
                self._error = error
                if value is not None and error is None:
                    self._value = value
                self._reading = None
            reading.set()

    def _before(self, end: Callable[[T], float], now: float) -> bool:
        return self._value is not None and now < end(self._value)

    def _just_read(self, now: float) -> bool:
        """Tell whether it is too early to read. It is not if the clock has been set back."""
        return 0 <= now - self._read_at < READ_AT_MOST
