#!/usr/bin/env python3
"""Appends a few records to a native change log and reads them back, with nothing but ctypes.

    python3 append.py path/to/libforeshadow_wal.so path/to/log
"""
import ctypes
import sys

END = 15


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int32), ("system", ctypes.c_int32),
                ("message", ctypes.c_char * 248)]


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("segment_bytes", ctypes.c_uint32),
                ("groups_in_flight", ctypes.c_uint32), ("mirror_timeout_ms", ctypes.c_uint32),
                ("id", ctypes.c_uint64), ("must_exist", ctypes.c_uint32),
                ("zero", ctypes.c_uint32)]


class Record(ctypes.Structure):
    _fields_ = [("lsn", ctypes.c_uint64), ("data", ctypes.c_void_p), ("len", ctypes.c_size_t),
                ("kind", ctypes.c_uint16)]


class Failed(Exception):
    """What the library said; `code` is a number of foreshadow_wal.h."""

    def __init__(self, error):
        super().__init__(error.message.decode())
        self.code = error.code


class Library:
    """libforeshadow_wal with exceptions instead of numbers."""

    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.foreshadow_log_position.restype = ctypes.c_uint64

    def call(self, name, *arguments):
        error = Error()
        code = getattr(self.c, name)(*arguments, ctypes.byref(error))
        if code not in (0, END):
            raise Failed(error)
        return code


class Log:
    """A log that is open for appending; use it in a `with`."""

    def __init__(self, library, path, segment_bytes=0, partition=0, must_exist=False):
        self.library, self.log = library, ctypes.c_void_p()
        options = Options(ctypes.sizeof(Options), segment_bytes, 0, 0, partition, must_exist, 0)
        library.call("foreshadow_log_open", path.encode(), ctypes.byref(options),
                     ctypes.byref(self.log))

    def append(self, *payloads, kind=1):
        """Appends a batch; returns the position of each record once all are durable."""
        buffers = [ctypes.create_string_buffer(p, len(p)) for p in payloads]
        records = (Record * len(payloads))(*(
            Record(0, ctypes.cast(b, ctypes.c_void_p), len(p), kind)
            for b, p in zip(buffers, payloads)))
        self.library.call("foreshadow_log_append", self.log, records,
                          ctypes.c_size_t(len(payloads)))
        return [record.lsn for record in records]

    def position(self):
        return self.library.c.foreshadow_log_position(self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Lets the log go; no append may be under way."""
        self.library.c.foreshadow_log_close(self.log)


def scan(library, path, lsn=0):
    """Every acknowledged record from `lsn` on, as (position, kind, bytes)."""
    handle, record = ctypes.c_void_p(), Record()
    library.call("foreshadow_scan_open", path.encode(), ctypes.c_uint64(lsn),
                 ctypes.byref(handle))
    try:
        while library.call("foreshadow_scan_next", handle, ctypes.byref(record)) != END:
            data = ctypes.string_at(record.data, record.len) if record.len else b""
            yield record.lsn, record.kind, data
    finally:
        library.c.foreshadow_scan_close(handle)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    library, path = Library(sys.argv[1]), sys.argv[2]
    with Log(library, path, segment_bytes=65536, partition=42) as log:
        places = log.append(b"one", b"", b"three" * 100)
        places += log.append(b"four", kind=7)
        try:
            Log(library, path)
            sys.exit("two appenders")
        except Failed as failed:
            print(f"the second appender: {failed} (code {failed.code})")
        try:
            log.append(b"x" * 70000)
            sys.exit("too long")
        except Failed as failed:
            print(f"too long: {failed} (code {failed.code})")
    found = list(scan(library, path))
    for lsn, kind, data in found:
        print(f"{lsn} kind {kind}: {len(data)} bytes {data[:8]!r}")
    assert [lsn for lsn, _, _ in found[-4:]] == places, (found, places)


if __name__ == "__main__":
    main()
