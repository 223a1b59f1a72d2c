"""Writing with the machine's own SQLite: the same rows as sqlite/writer.rs, through Python's sqlite3
module, so that two versions write side by side.
"""
import os
import sqlite3

from refusal import Refusal

BUSY, LOCKED = 5, 6


def version():
    return sqlite3.sqlite_version


def code_of(error):
    """The primary result code; Python before 3.11 offers only the message."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF
    return BUSY if "locked" in str(error) else -1


class Book:
    def __init__(self, plan, own):
        self.plan, self.connection = plan, None
        self.route = os.path.join(plan["routes"], own["file"])

    def open(self):
        if self.connection is None:
            connection = sqlite3.connect(
                self.route, timeout=self.plan["busy_ms"] / 1000.0, isolation_level=None
            )
            self.connection = connection
            connection.execute("PRAGMA synchronous=" + self.plan["synchronous"])
        return self.connection

    def let_go(self):
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # A fenced connection may refuse to close cleanly; it is dropped either way.

    def enter(self, row, doubtful):
        try:
            return self.transact(row, doubtful)
        except sqlite3.Error as error:
            code = code_of(error)
            name = str(getattr(error, "sqlite_errorname", None) or error)
            remedy = "wait" if code in (BUSY, LOCKED) else "wonder" if code == 1 else "reopen"
            raise Refusal(name, remedy) from error

    def transact(self, row, doubtful):
        connection = self.open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            if doubtful and connection.execute(
                "SELECT 1 FROM ledger WHERE writer=? AND seq=?", row[:2]
            ).fetchone():
                connection.execute("ROLLBACK")
                return True
            connection.execute(
                "INSERT INTO ledger(writer, seq, generation, account, amount) VALUES(?,?,?,?,?)", row
            )
            connection.execute(
                "UPDATE accounts SET balance = balance + ? WHERE id = ?", (row[4], row[3])
            )
            connection.execute("COMMIT")
            return False
        except sqlite3.Error:
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK")
                except sqlite3.Error:
                    pass  # The error that brought us here is the one that counts.
            raise
