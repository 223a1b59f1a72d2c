//! The VFS: opens files, guarded where they are a database or its log, and passes everything else
//! on to the VFS that was the default before.

use std::ffi::{CStr, OsStr, c_char, c_double, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::file::{GuardedFile, OFFSET, beneath};
use crate::guarded::Guarded;
use crate::sqlite::{
    Api, File, SQLITE_ERROR, SQLITE_OK, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_WAL, Symbol, Vfs,
};

/// Also for `?vfs=`.
pub const NAME: &CStr = c"foreshadow_guard";
/// A parameter of the URI, or the environment, with the value `require`: no lease, no writes.
const PARAMETER: &CStr = c"foreshadow_guard";
const VARIABLE: &str = "FORESHADOW_GUARD";
const REQUIRE: &str = "require";

/// Behind `Vfs::data`.
struct Beneath {
    api: Api,
    vfs: *mut Vfs,
}

/// Makes the guard the default VFS of the SQLite behind `api`. The second time nothing happens.
pub fn register(api: Api) -> Result<(), &'static str> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poison| poison.into_inner());
    if !api.vfs_find(Some(NAME)).is_null() {
        return Ok(());
    }
    let real = api.vfs_find(None);
    if real.is_null() {
        return Err("this SQLite has no VFS");
    }
    let data = Box::into_raw(Box::new(Beneath { api, vfs: real }));
    // SAFETY: SQLite's default VFS; it stays registered.
    let (version, file_size, path_max) =
        unsafe { ((*real).version, (*real).file_size, (*real).path_max) };
    // Both live as long as the process: SQLite keeps the VFS.
    let vfs = Box::into_raw(Box::new(Vfs {
        version: version.clamp(1, 3),
        file_size: file_size + OFFSET as c_int,
        path_max,
        next: std::ptr::null_mut(),
        name: NAME.as_ptr(),
        data: data.cast(),
        open,
        delete,
        access,
        full_pathname,
        dl_open,
        dl_error,
        dl_sym,
        dl_close,
        randomness,
        sleep,
        current_time,
        last_error,
        current_time_64,
        set_system_call,
        get_system_call,
        next_system_call,
    }));
    // SAFETY: whole, and never freed.
    match unsafe { api.vfs_register(vfs, true) } {
        SQLITE_OK => Ok(()),
        _ => Err("SQLite did not take the VFS"),
    }
}

/// # Safety
///
/// `vfs` is one that [`register`] made.
unsafe fn data<'a>(vfs: *mut Vfs) -> &'a Beneath {
    // SAFETY: by this function's contract; never freed.
    unsafe { &*(*vfs).data.cast::<Beneath>() }
}

/// Calls the same method of the VFS beneath.
macro_rules! pass {
    ($vfs:expr, $method:ident $(, $of:expr)*) => {{
        // SAFETY: SQLite calls our VFS with its own arguments; a method of a later version is only
        // called if the VFS beneath has it.
        unsafe {
            let real = data($vfs).vfs;
            ((*real).$method)(real $(, $of)*)
        }
    }};
}

unsafe extern "C" fn open(
    vfs: *mut Vfs,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let is_database = flags & SQLITE_OPEN_MAIN_DB != 0;
    let is_log = flags & SQLITE_OPEN_WAL != 0;
    if name.is_null() || !(is_database || is_log) {
        // Journals and temporary files: theirs alone, in the memory for ours.
        return pass!(vfs, open, name, file, flags, flags_out);
    }
    // SAFETY: SQLite calls our VFS.
    let api = unsafe { data(vfs) }.api;
    // SAFETY: memory for a file of ours; without methods SQLite does not close it (sqlite3.h).
    unsafe { (*file).methods = std::ptr::null() };
    let Ok(guarded) = catch_unwind(|| find(api, name, is_log)) else {
        return SQLITE_ERROR;
    };
    let real = beneath(file);
    let code = pass!(vfs, open, name, real, flags, flags_out);
    // SAFETY: xOpen sets the methods, whatever it returns.
    if !unsafe { (*real).methods }.is_null() {
        // SAFETY: memory for a file of ours, and the file beneath is open.
        unsafe { GuardedFile::put(file, api, guarded, is_log) };
    }
    code
}

/// The guard of the database whose file or log is called `name`.
fn find(api: Api, name: *const c_char, is_log: bool) -> Arc<Guarded> {
    // SAFETY: SQLite's xOpen has a name that ends with zero.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    if is_log {
        // wal.c: the log is called as its database, with this at the end.
        let database = bytes.strip_suffix(b"-wal").unwrap_or(bytes);
        return Guarded::of(Path::new(OsStr::from_bytes(database)));
    }
    let guarded = Guarded::of(Path::new(OsStr::from_bytes(bytes)));
    // SAFETY: the name of a main database, as it came to xOpen.
    let asked = unsafe { api.uri_parameter(name, PARAMETER) };
    let by_uri = asked.is_some_and(|value| value.to_bytes() == REQUIRE.as_bytes());
    if by_uri || std::env::var_os(VARIABLE).is_some_and(|value| value == REQUIRE) {
        guarded.require();
    }
    guarded
}

unsafe extern "C" fn delete(vfs: *mut Vfs, name: *const c_char, sync: c_int) -> c_int {
    pass!(vfs, delete, name, sync)
}

unsafe extern "C" fn access(
    vfs: *mut Vfs,
    name: *const c_char,
    how: c_int,
    into: *mut c_int,
) -> c_int {
    pass!(vfs, access, name, how, into)
}

unsafe extern "C" fn full_pathname(
    vfs: *mut Vfs,
    name: *const c_char,
    len: c_int,
    into: *mut c_char,
) -> c_int {
    pass!(vfs, full_pathname, name, len, into)
}

unsafe extern "C" fn dl_open(vfs: *mut Vfs, name: *const c_char) -> *mut c_void {
    pass!(vfs, dl_open, name)
}

unsafe extern "C" fn dl_error(vfs: *mut Vfs, len: c_int, into: *mut c_char) {
    pass!(vfs, dl_error, len, into);
}

unsafe extern "C" fn dl_sym(
    vfs: *mut Vfs,
    library: *mut c_void,
    name: *const c_char,
) -> Option<Symbol> {
    pass!(vfs, dl_sym, library, name)
}

unsafe extern "C" fn dl_close(vfs: *mut Vfs, library: *mut c_void) {
    pass!(vfs, dl_close, library);
}

unsafe extern "C" fn randomness(vfs: *mut Vfs, len: c_int, into: *mut c_char) -> c_int {
    pass!(vfs, randomness, len, into)
}

unsafe extern "C" fn sleep(vfs: *mut Vfs, microseconds: c_int) -> c_int {
    pass!(vfs, sleep, microseconds)
}

unsafe extern "C" fn current_time(vfs: *mut Vfs, into: *mut c_double) -> c_int {
    pass!(vfs, current_time, into)
}

unsafe extern "C" fn last_error(vfs: *mut Vfs, len: c_int, into: *mut c_char) -> c_int {
    pass!(vfs, last_error, len, into)
}

unsafe extern "C" fn current_time_64(vfs: *mut Vfs, into: *mut i64) -> c_int {
    pass!(vfs, current_time_64, into)
}

unsafe extern "C" fn set_system_call(
    vfs: *mut Vfs,
    name: *const c_char,
    call: Option<Symbol>,
) -> c_int {
    pass!(vfs, set_system_call, name, call)
}

unsafe extern "C" fn get_system_call(vfs: *mut Vfs, name: *const c_char) -> Option<Symbol> {
    pass!(vfs, get_system_call, name)
}

unsafe extern "C" fn next_system_call(vfs: *mut Vfs, name: *const c_char) -> *const c_char {
    pass!(vfs, next_system_call, name)
}
