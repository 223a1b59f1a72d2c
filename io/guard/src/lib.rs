//! The lease guard: a loadable extension of SQLite that takes writes only under a valid lease.
//!
//! It registers a VFS, `foreshadow_guard`, around the default one and makes it the default: every
//! connection that is opened afterwards in this process is guarded. SQL and applications stay as
//! they are; a write without a lease is answered as SQLite answers for a fenced database,
//! `SQLITE_READONLY`.
//!
//! | module | what it does |
//! |---|---|
//! | [`sqlite`] | the structures of SQLite's public headers, and the calls that are needed |
//! | [`vfs`] | the VFS: opens files, guarded where they are a database or its log |
//! | [`file`] | the files: everything is passed on; locks and log writes are checked before |
//! | [`guarded`] | one database of this process: its lease, and what was found wrong with it |
//! | [`words`] | `foreshadow_lease()`: what a connection's guard says |
//!
//! Invariants: SQLite is not linked in, it is spoken to through the table that it hands over. No
//! panic crosses into C: what might, is caught, and refuses. When in doubt a write is refused.

pub mod file;
pub mod guarded;
pub mod sqlite;
pub mod vfs;
pub mod words;

use std::ffi::{c_char, c_int};
use std::panic::catch_unwind;

use sqlite::{Api, SQLITE_ERROR, SQLITE_OK_LOAD_PERMANENTLY, Table};

/// What SQLite calls when it loads `libforeshadow_guard.so`.
///
/// # Safety
///
/// As sqlite3ext.h has it: `table` is SQLite's table of routines, valid as long as the process, and
/// `error` may be set to text of `sqlite3_mprintf`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_foreshadowguard_init(
    _connection: *mut sqlite::Connection,
    error: *mut *mut c_char,
    table: *const Table,
) -> c_int {
    // SAFETY: the table is SQLite's, by this function's contract.
    let Some(api) = (unsafe { Api::new(table) }) else {
        return SQLITE_ERROR;
    };
    let registered = catch_unwind(|| vfs::register(api).and_then(|()| words::register(api)));
    match registered {
        Ok(Ok(())) => SQLITE_OK_LOAD_PERMANENTLY,
        failed => {
            let reason = failed.map_or("it panicked", |result| result.err().unwrap_or_default());
            if !error.is_null() {
                // SAFETY: SQLite frees what is put here, which is of its own allocator.
                unsafe { *error = api.text(&format!("foreshadow_guard: {reason}")) };
            }
            SQLITE_ERROR
        }
    }
}
