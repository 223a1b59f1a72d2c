"""Appending through libforeshadow_wal, with the bindings of io/c/examples/append.py: the same records
and the same answers to errors as native/writer.rs. Threads of one tenant take turns at its log.
"""
import os
import struct
import threading

from append import Failed, Library, Log, scan
from refusal import Refusal

SYSTEM, IN_USE, SEALED, LEASE_OVER, BROKEN, NO_SPACE = 1, 2, 3, 4, 11, 12
REOPEN = (SYSTEM, SEALED, BROKEN, NO_SPACE)
NAMES = {IN_USE: "InUse", SEALED: "Sealed", LEASE_OVER: "LeaseOver", BROKEN: "Broken"}
FOUNDING, ROW, PROOF = 1, 3, 4
PATIENCE_SECONDS = 0.001


def version():
    return "C"


class Shared:
    """A tenant's log, for all writers of this process."""

    every, alone = {}, threading.Lock()

    def __init__(self, plan, route):
        self.library, self.route = Library(plan["library"]), route
        self.lock, self.log, self.path, self.number = threading.Lock(), None, None, 0

    @classmethod
    def of(cls, plan, route):
        with cls.alone:
            if route not in cls.every:
                cls.every[route] = Shared(plan, route)
            return cls.every[route]

    def open(self):
        if self.log is None:
            # The library makes a log where there is none: it must be there, and one of ours.
            self.path = os.path.realpath(self.route, strict=True)
            log = Log(self.library, self.path)
            first = next(scan(self.library, self.path), None)
            if first is None or first[1] != FOUNDING:
                log.close()
                raise Refusal("another partition's log", "wonder")
            self.log, self.number = log, self.number + 1
        return self.log

    def close(self, number):
        with self.lock:
            if self.log is not None and self.number == number:
                self.log.close()
                self.log = None


class Book:
    def __init__(self, plan, own):
        self.shared = Shared.of(plan, os.path.join(plan["routes"], own["file"]))
        self.opened, self.base = 0, 0

    def let_go(self):
        self.shared.close(self.opened)

    def enter(self, row, doubtful):
        with self.shared.lock:
            try:
                log = self.shared.open()
                self.opened = self.shared.number
                if not doubtful:
                    self.base = log.position()
                elif self.is_there(row):
                    log.append(b"", kind=PROOF)
                    return True
                writer, seq, generation, account, amount = row
                payload = struct.pack("<IIQQq", writer, generation, seq, account, amount)
                log.append(payload, kind=ROW)
                return False
            except Failed as failed:
                raise self.refusal(failed) from failed
            except FileNotFoundError as error:
                raise Refusal("nothing at the route", "reopen") from error

    def is_there(self, row):
        """The row, behind where the log ended before it was tried first (0: it is not known)."""
        for _, kind, data in scan(self.shared.library, self.shared.path, self.base):
            if kind == ROW:
                writer, _, seq = struct.unpack_from("<IIQ", data)
                if (writer, seq) == row[:2]:
                    return True
        return False

    def refusal(self, failed):
        name = NAMES.get(failed.code, str(failed))
        if failed.code in REOPEN:
            return Refusal(name, "reopen")
        if failed.code == LEASE_OVER and os.path.realpath(self.shared.route) != self.shared.path:
            return Refusal(name, "reopen")
        if failed.code in (IN_USE, LEASE_OVER):
            return Refusal(name, "wait", PATIENCE_SECONDS)
        return Refusal(name, "wonder")
