"""Durable puts of one thread into RocksDB: arguments are the database, seconds, recycled logs (0
or 1); prints the nanoseconds of each put. Python's own part is 2 to 3 microseconds of each."""

import os
import sys
import time

from rocksdict import Options, Rdict, WriteOptions

path, seconds, recycled = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
options = Options(raw_mode=True)
options.create_if_missing(True)
# Logs that are written over instead of grown need no new length in the file system's journal.
options.set_recycle_log_file_num(recycled)
database = Rdict(path, options)
write = WriteOptions()
write.sync = True
# The first log ends here; with recycling the next ones are old ones.
database.flush()
body = os.urandom(128)
took = []
end = time.monotonic() + seconds
number = 0
while time.monotonic() < end:
    number += 1
    begun = time.perf_counter_ns()
    database.put(number.to_bytes(8, "big"), body, write)
    took.append(time.perf_counter_ns() - begun)
database.close()
print("\n".join(map(str, took)))
