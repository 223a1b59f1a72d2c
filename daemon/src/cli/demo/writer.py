"""Writers of the demo in Python: the same plan file, rows and ack journals as the writers in writer.rs.
What they write into is the engine's own: its book.py, which lies beside this file.
"""
import json
import os
import random
import struct
import sys
import threading
import time

import book
from refusal import Refusal

GIVE_UP_SECONDS = 10.0
STOP = threading.Event()


class Writer(threading.Thread):
    def __init__(self, plan, own):
        super().__init__()
        self.own = own
        self.book = book.Book(plan, own)
        self.random = random.Random(plan["seed"] * 1000003 + own["writer"])
        self.tally = {"reopened": 0, "busy": 0, "doubtful": 0, "strange": 0, "stuck": 0, "errors": {}}
        path = os.path.join(plan["acks"], "%d.ack" % own["writer"])
        self.resumed = os.path.exists(path)
        self.seq = last_seq(path) + 1
        self.journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def row(self):
        """writer, seq, generation, account, amount"""
        account = self.random.randrange(self.own["accounts"]) + 1
        amount = self.random.randrange(2001) - 1000
        return (self.own["writer"], self.seq, self.tally["reopened"], account, amount)

    def write(self, doubtful, start):
        """Tries until the row of this seq is committed; False if given up."""
        while True:
            try:
                self.tally["doubtful"] += self.book.enter(self.row(), doubtful)
                return True
            except Refusal as refusal:
                self.after(refusal)
            doubtful = True
            if STOP.is_set() and time.monotonic_ns() - start > GIVE_UP_SECONDS * 1e9:
                return False

    def after(self, refusal):
        if refusal.remedy == "wait":
            self.tally["busy"] += 1
            time.sleep(refusal.seconds)
            return
        self.tally["strange"] += refusal.remedy == "wonder"
        self.tally["errors"][refusal.name] = self.tally["errors"].get(refusal.name, 0) + 1
        self.tally["reopened"] += 1
        self.book.let_go()
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
            if not self.write(doubtful, start):
                self.tally["stuck"] += 1
                break
            end = time.monotonic_ns()
            own = self.own
            os.write(
                self.journal,
                struct.pack("<IIQQQQ", own["writer"], own["tenant"], self.seq, due, start, end),
            )
            self.seq, doubtful = self.seq + 1, False
            if rate is None:
                due = end
        self.book.let_go()


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
    total = {"version": book.version(), "errors": {}}
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
