"""Threads for what takes time: protocol rounds and calls into the HSM. Jobs of one lane run one by one, in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


NICEST: Final = 19


class Lane:
    """Jobs that must not overlap."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.lock = threading.Lock()
        self.scheduled = False


class Workers:
    """A fixed number of threads, until the process ends. Jobs must not raise."""

    def __init__(self, count: int, name: str, *, nice: int = 0) -> None:
        """nice: how much less than the rest of the process these threads get where there is too little for all."""
        self._ready: SimpleQueue[Lane] = SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, args=(nice,), name=f"{name}-{number}", daemon=True).start()

    def put(self, job: Callable[[], None], lane: Lane | None = None) -> None:
        """Run a job soon: behind the others of its lane, or beside everything else."""
        lane = lane or Lane()
        with lane.lock:
            lane.jobs.append(job)
            if lane.scheduled:
                return
            lane.scheduled = True
        self._ready.put(lane)

    def _work(self, nice: int) -> None:
        if nice:
            # More than the process may have already, and never less than it has: that takes a privilege.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(NICEST, os.nice(0) + nice))
        while True:
            lane = self._ready.get()
            lane.jobs[0]()
            with lane.lock:
                lane.jobs.popleft()
                more = lane.scheduled = bool(lane.jobs)
            if more:  # asked under the lock: whoever puts a job into an idle lane schedules it himself
                # Behind the other lanes: a ceremony with much to do does not keep one with little waiting.
                self._ready.put(lane)
