"""Writers of the demo with the machine's own SQLite: the same plan file, schema and ack journals as
the writers in writer.rs, through Python's sqlite3 module, so that two versions write side by side.
"""
import json
import os
import random
import sqlite3
import struct
import sys
import threading
import time

BUSY, LOCKED = 5, 6
GIVE_UP_SECONDS = 10.0
STOP = threading.Event()


def code_of(error):
    """The primary result code; Python before 3.11 offers only the message."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF
    return BUSY if "locked" in str(error) else -1


class Writer(threading.Thread):
    def __init__(self, plan, own):
        super().__init__()
        self.plan, self.own = plan, own
        self.route = os.path.join(plan["routes"], own["file"])
        self.random = random.Random(plan["seed"] * 1000003 + own["writer"])
        self.tally = {"reopened": 0, "busy": 0, "doubtful": 0, "strange": 0, "stuck": 0, "errors": {}}
        self.connection = None
        path = os.path.join(plan["acks"], "%d.ack" % own["writer"])
        self.resumed = os.path.exists(path)
        self.seq = last_seq(path) + 1
        self.journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def open(self):
        if self.connection is None:
            connection = sqlite3.connect(
                self.route, timeout=self.plan["busy_ms"] / 1000.0, isolation_level=None
            )
            self.connection = connection
            connection.execute("PRAGMA synchronous=" + self.plan["synchronous"])
        return self.connection

    def close(self):
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # A fenced connection may refuse to close cleanly; it is dropped either way.

    def transact(self, doubtful):
        connection, own = self.open(), self.own
        connection.execute("BEGIN IMMEDIATE")
        try:
            if doubtful and connection.execute(
                "SELECT 1 FROM ledger WHERE writer=? AND seq=?", (own["writer"], self.seq)
            ).fetchone():
                self.tally["doubtful"] += 1
                connection.execute("ROLLBACK")
                return
            account = self.random.randrange(own["accounts"]) + 1
            amount = self.random.randrange(2001) - 1000
            connection.execute(
                "INSERT INTO ledger(writer, seq, generation, account, amount) VALUES(?,?,?,?,?)",
                (own["writer"], self.seq, self.tally["reopened"], account, amount),
            )
            connection.execute(
                "UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, account)
            )
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK")
                except sqlite3.Error:
                    pass  # The error that brought us here is the one that counts.
            raise

    def retry(self, error):
        code = code_of(error)
        if code in (BUSY, LOCKED):
            self.tally["busy"] += 1
            return
        key = str(getattr(error, "sqlite_errorname", None) or error)
        self.tally["errors"][key] = self.tally["errors"].get(key, 0) + 1
        if code == 1:
            self.tally["strange"] += 1
        self.close()
        self.tally["reopened"] += 1
        time.sleep(0.0002 + 0.0008 * self.random.random())

    def run(self):
        think_us, rate = self.own["pace"].get("think_us"), self.own["pace"].get("rate")
        due = time.monotonic_ns()
        doubtful = self.resumed
        while not STOP.is_set():
            if rate is not None:
                due += int(self.random.expovariate(rate) * 1e9)
                STOP.wait(max(0.0, (due - time.monotonic_ns()) / 1e9))
            elif think_us:
                time.sleep(think_us / 1e6)
            if STOP.is_set():
                break
            start = time.monotonic_ns()
            while True:
                try:
                    self.transact(doubtful)
                    break
                except sqlite3.Error as error:
                    doubtful = True
                    self.retry(error)
                    if STOP.is_set() and time.monotonic_ns() - start > GIVE_UP_SECONDS * 1e9:
                        self.tally["stuck"] += 1
                        self.close()
                        return
            end = time.monotonic_ns()
            own = self.own
            os.write(
                self.journal,
                struct.pack("<IIQQQQ", own["writer"], own["tenant"], self.seq, due, start, end),
            )
            self.seq, doubtful = self.seq + 1, False
            if rate is None:
                due = end
        self.close()


def last_seq(path):
    """The last acknowledged number of a journal, 0 if there is none; cuts a torn record off."""
    try:
        with open(path, "r+b") as journal:
            whole = len(data := journal.read()) // 40
            journal.truncate(40 * whole)
            return struct.unpack_from("<Q", data, 40 * (whole - 1) + 8)[0] if whole else 0
    except FileNotFoundError:
        return 0


def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    writers = [Writer(plan, own) for own in plan["writers"]]
    for writer in writers:
        writer.start()
    sys.stdin.buffer.read()  # The orchestrator closes our stdin to stop us, or has died.
    STOP.set()
    for writer in writers:
        writer.join()
    total = {"version": sqlite3.sqlite_version, "errors": {}}
    for writer in writers:
        for key, value in writer.tally.items():
            if key == "errors":
                for name, count in value.items():
                    total["errors"][name] = total["errors"].get(name, 0) + count
            else:
                total[key] = total.get(key, 0) + value
    with open(plan["tally"], "w") as file:
        json.dump(total, file)


main()
