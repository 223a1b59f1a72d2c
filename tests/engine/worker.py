"""An application on the system's SQLite: the same commands as in worker.rs."""
import os
import sqlite3
import sys
import time

connection = sqlite3.connect(os.environ["FORESHADOW_TEST_WORKER"], isolation_level=None, timeout=5)


def run(sql):
    rows = connection.execute(sql).fetchall()
    return str(rows[0][0]) if rows else ""


def many(rest, timed):
    limit, sql = rest.split(" ", 1)
    begin, count = time.monotonic(), 0
    while (time.monotonic() - begin) * 1000 < int(limit) if timed else count < int(limit):
        run(sql)
        count += 1
    return str(count)


print("@ok ready")
for line in sys.stdin:
    verb, _, rest = line.rstrip("\n").partition(" ")
    try:
        if verb == "x":
            print("@ok", run(rest))
        elif verb in ("loop", "flood"):
            print("@ok", many(rest, verb == "flood"))
        else:
            break
    except sqlite3.Error as error:
        print("@err", error.sqlite_errorcode)
connection.close()
print("@ok closed")
