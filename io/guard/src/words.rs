//! `foreshadow_lease([schema])`: what the guard of a connection says, in words for people.
//!
//! SQLite gives every connection that is opened after the extension was loaded this function.

use std::ffi::{c_char, c_int};
use std::panic::catch_unwind;
use std::sync::OnceLock;

use crate::file::LEASE_CONTROL;
use crate::guarded::Verdict;
use crate::sqlite::{Api, Connection, Context, SQLITE_ERROR, SQLITE_OK, Table, Value};

/// The SQLite that loaded us first. A function is called without a word about which one calls: in a
/// process with several of them only the connections of this one get it.
static FIRST: OnceLock<Api> = OnceLock::new();

/// Gives the function to connections opened from now on.
pub fn register(api: Api) -> Result<(), &'static str> {
    if *FIRST.get_or_init(|| api) != api {
        return Ok(());
    }
    match api.auto_extension(greet) {
        SQLITE_OK => Ok(()),
        _ => Err("SQLite did not take the function foreshadow_lease"),
    }
}

/// A connection was opened.
unsafe extern "C" fn greet(
    connection: *mut Connection,
    _error: *mut *mut c_char,
    table: *const Table,
) -> c_int {
    // SAFETY: SQLite's own table.
    let Some(api) = (unsafe { Api::new(table) }) else {
        return SQLITE_ERROR;
    };
    // SAFETY: the connection is open, and the function looks at how many values it got.
    unsafe { api.create_function(connection, c"foreshadow_lease", -1, tell) }
}

unsafe extern "C" fn tell(context: *mut Context, count: c_int, values: *mut *mut Value) {
    let told = catch_unwind(|| {
        let Some(api) = FIRST.get().copied() else {
            return;
        };
        // SAFETY: SQLite calls the function with as many values as it says, and our file control
        // gets what it wants.
        unsafe {
            let schema = match count {
                0 => c"main".as_ptr(),
                1 => api.value_text(*values),
                _ => return api.result_error(context, "foreshadow_lease([schema])"),
            };
            let mut verdict: Option<Verdict> = None;
            let connection = api.connection_of(context);
            let into = (&raw mut verdict).cast();
            api.file_control(connection, schema, LEASE_CONTROL, into);
            api.result_text(context, &words(verdict));
        }
    });
    // What panicked has no words: the result stays NULL.
    drop(told);
}

fn words(verdict: Option<Verdict>) -> String {
    match verdict {
        Some(Verdict::Granted(valid)) => {
            let left = valid.left / 1_000_000;
            format!("granted: epoch {}, {left} ms left", valid.epoch)
        }
        Some(Verdict::Unguarded) => {
            "not guarded: there is no lease beside this database".to_owned()
        }
        Some(Verdict::Refused(refusal)) => format!("refused: {refusal}"),
        None => "not guarded: this connection was opened before the extension was loaded, or \
                 with another VFS"
            .to_owned(),
    }
}
