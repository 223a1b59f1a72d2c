"""Moves a live database the way a mover with nothing but the file formats would: `fence.py OLD NEW
first|late`. Used by tests only, as a second opinion on the fence that the daemon writes.

The fence is a last transaction in the WAL that sets byte 18 of page 1, the write version, to 3. It is
appended by hand under the WRITE lock of an ordinary BEGIN IMMEDIATE. Files opened raw stay open until
the process ends: closing one would drop SQLite's POSIX locks.
"""
import os
import sqlite3
import struct
import sys
import time


def checksum(data, seed, order):
    """The WAL checksum (SQLite file format, section 4.2)."""
    s0, s1 = seed
    words = struct.unpack(order + "%dI" % (len(data) // 4), data)
    for a, b in zip(words[::2], words[1::2]):
        s0 = (s0 + a + s1) & 0xFFFFFFFF
        s1 = (s1 + b + s0) & 0xFFFFFFFF
    return s0, s1


def fence(path):
    keeper = sqlite3.connect(path, timeout=60, isolation_level=None)
    keeper.execute("BEGIN IMMEDIATE")
    log, index = os.open(path + "-wal", os.O_RDWR), os.open(path + "-shm", os.O_RDWR)
    header = struct.unpack("=IIIBBHIIII", os.pread(index, 32, 0))
    version, _, change, init, big, size, last, pages, c0, c1 = header
    order = ">" if struct.unpack(">I", os.pread(log, 4, 0))[0] & 1 else "<"
    page, frame_len = None, 24 + size
    for number in range(last, 0, -1):
        if struct.unpack(">I", os.pread(log, 4, 32 + (number - 1) * frame_len))[0] == 1:
            page = os.pread(log, size, 32 + (number - 1) * frame_len + 24)
            break
    if page is None:
        page = os.pread(os.open(path, os.O_RDONLY), size, 0)
    page = page[:18] + b"\x03" + page[19:]
    head = struct.pack(">II", 1, pages)
    c0, c1 = checksum(page, checksum(head, (c0, c1), order), order)
    salts = os.pread(log, 8, 16)
    frame = head + salts + struct.pack(">II", c0, c1) + page
    os.pwrite(log, frame, 32 + last * frame_len)
    last += 1
    # The WAL-index: blocks of 32 KiB, page numbers in front and a hash table behind; the first block
    # holds 34 entries less, for its header.
    block, nth, first = 0, last, 136
    if last > 4062:
        block, nth, first = (last - 4063) // 4096 + 1, (last - 4063) % 4096 + 1, 0
    base = 32768 * block
    if os.fstat(index).st_size < base + 32768:
        os.ftruncate(index, base + 32768)
    os.pwrite(index, struct.pack("=I", 1), base + first + 4 * (nth - 1))
    slot = 383 & 8191
    while os.pread(index, 2, base + 16384 + 2 * slot) != b"\0\0":
        slot = (slot + 1) & 8191
    os.pwrite(index, struct.pack("=H", nth), base + 16384 + 2 * slot)
    head = struct.pack("=IIIBBHIIII", version, 0, change + 1, init, big, size, last, pages, c0, c1)
    head += os.pread(index, 8, 32)
    head += struct.pack("=II", *checksum(head, (0, 0), "="))
    os.pwrite(index, head, 48)
    os.pwrite(index, head, 0)
    keeper.execute("ROLLBACK")


def copy(old, new):
    reader = sqlite3.connect(old, timeout=60, isolation_level=None)
    reader.execute("VACUUM INTO '%s'" % new)
    sqlite3.connect(new).execute("PRAGMA journal_mode=WAL")


old, new, when = sys.argv[1:]
if when == "first":
    fence(old)
copy(old, new)
if when == "late":
    time.sleep(0.1)
    fence(old)
