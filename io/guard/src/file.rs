//! A guarded file: every call is passed on to the file of the VFS beneath, which lies behind ours
//! in the same piece of memory. Three calls are checked before.
//!
//! | call | of | is checked when |
//! |---|---|---|
//! | xShmLock | the database | it takes the log's write lock, within a read transaction |
//! | xWrite | the log | always: only a transaction writes there |
//! | xLock | the database | it goes to RESERVED, or from there on to EXCLUSIVE (no log) |
//!
//! The write lock alone, without a reader's mark, is taken to rebuild the WAL-index or to begin the
//! log anew; readers need that, and it commits nothing. Some builds of SQLite begin a write
//! transaction so, too: its first write to the log is refused.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::guarded::{Guarded, Verdict};
use crate::sqlite::{
    Api, File, Methods, SQLITE_LOCK_EXCLUSIVE, SQLITE_LOCK_RESERVED, SQLITE_NOTFOUND, SQLITE_OK,
    SQLITE_READONLY, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_LOCK, SQLITE_SHM_SHARED, SQLITE_SHM_UNLOCK,
    WAL_READ_LOCK, WAL_WRITE_LOCK,
};

/// Our own file control, above those of SQLite (sqlite3.h: "opcodes less than 100 are reserved"):
/// puts a [`Verdict`] into the `Option<Verdict>` that its argument points to.
pub const LEASE_CONTROL: c_int = 0x4653_4c45;

/// What lies in the memory of an open file, the file of the VFS beneath behind it.
#[repr(C)]
pub struct GuardedFile {
    file: File,
    api: Api,
    guarded: Option<Arc<Guarded>>,
    is_log: bool,
    /// Reader's marks held in the WAL-index.
    marks: u32,
    /// The lock held on the database.
    level: c_int,
}

/// How much memory is before the file of the VFS beneath: it is aligned as ours is.
pub const OFFSET: usize = size_of::<GuardedFile>();

impl GuardedFile {
    /// Makes `file` ours, in front of the file of the VFS beneath, which is open.
    ///
    /// # Safety
    ///
    /// `file` is memory for a file of our VFS, and no reference to what is in it exists.
    pub unsafe fn put(file: *mut File, api: Api, guarded: Arc<Guarded>, is_log: bool) {
        // SAFETY: the file beneath is open, so it has methods.
        let version = unsafe { (*(*beneath(file)).methods).version };
        let ours = GuardedFile {
            file: File {
                methods: methods(version),
            },
            api,
            guarded: Some(guarded),
            is_log,
            marks: 0,
            level: 0,
        };
        // SAFETY: by this function's contract.
        unsafe { file.cast::<GuardedFile>().write(ours) }
    }

    /// `SQLITE_OK`, or what refuses a write.
    fn check(&self) -> c_int {
        let Some(guarded) = &self.guarded else {
            return SQLITE_OK;
        };
        let checked = catch_unwind(AssertUnwindSafe(|| match guarded.check() {
            Verdict::Granted(_) => true,
            Verdict::Unguarded => true,
            Verdict::Refused(refusal) => {
                if guarded.is_news(&refusal) {
                    let text = format!("foreshadow_guard: writes are refused: {refusal}");
                    self.api.log(SQLITE_READONLY, &text);
                }
                false
            }
        }));
        match checked {
            Ok(true) => SQLITE_OK,
            Ok(false) | Err(_) => SQLITE_READONLY,
        }
    }
}

/// The file of the VFS beneath.
pub fn beneath(file: *mut File) -> *mut File {
    file.wrapping_byte_add(OFFSET)
}

/// What this file is to us.
///
/// # Safety
///
/// SQLite calls a method of a file that [`GuardedFile::put`] made; it never calls two at once for
/// one file.
unsafe fn ours<'a>(file: *mut File) -> &'a mut GuardedFile {
    // SAFETY: by this function's contract.
    unsafe { &mut *file.cast::<GuardedFile>() }
}

/// Calls the same method of the file beneath.
macro_rules! pass {
    ($file:expr, $method:ident $(, $of:expr)*) => {{
        let real = beneath($file);
        // SAFETY: the file beneath is open as long as ours, and these are SQLite's own arguments;
        // a method of a later version is only called if that file has it.
        unsafe { ((*(*real).methods).$method)(real $(, $of)*) }
    }};
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    let code = pass!(file, close);
    // SAFETY: the last call for this file.
    unsafe { ours(file) }.guarded = None;
    code
}

unsafe extern "C" fn read(file: *mut File, into: *mut c_void, len: c_int, at: i64) -> c_int {
    pass!(file, read, into, len, at)
}

unsafe extern "C" fn write(file: *mut File, from: *const c_void, len: c_int, at: i64) -> c_int {
    // SAFETY: SQLite calls.
    let ours = unsafe { ours(file) };
    if ours.is_log {
        let code = ours.check();
        if code != SQLITE_OK {
            return code;
        }
    }
    pass!(file, write, from, len, at)
}

unsafe extern "C" fn truncate(file: *mut File, len: i64) -> c_int {
    pass!(file, truncate, len)
}

unsafe extern "C" fn sync(file: *mut File, flags: c_int) -> c_int {
    pass!(file, sync, flags)
}

unsafe extern "C" fn file_size(file: *mut File, into: *mut i64) -> c_int {
    pass!(file, file_size, into)
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: SQLite calls.
    let ours = unsafe { ours(file) };
    // From SHARED straight to EXCLUSIVE: a hot journal is played back, or the log is put away.
    let writes = level == SQLITE_LOCK_RESERVED
        || level == SQLITE_LOCK_EXCLUSIVE && ours.level == SQLITE_LOCK_RESERVED;
    if writes {
        let code = ours.check();
        if code != SQLITE_OK {
            return code;
        }
    }
    let code = pass!(file, lock, level);
    if code == SQLITE_OK {
        ours.level = level;
    }
    code
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    let code = pass!(file, unlock, level);
    // SAFETY: SQLite calls.
    unsafe { ours(file) }.level = level;
    code
}

unsafe extern "C" fn check_reserved_lock(file: *mut File, into: *mut c_int) -> c_int {
    pass!(file, check_reserved_lock, into)
}

unsafe extern "C" fn file_control(file: *mut File, operation: c_int, of: *mut c_void) -> c_int {
    if operation != LEASE_CONTROL {
        return pass!(file, file_control, operation, of);
    }
    // SAFETY: SQLite calls.
    let Some(guarded) = &unsafe { ours(file) }.guarded else {
        return SQLITE_NOTFOUND;
    };
    match catch_unwind(AssertUnwindSafe(|| guarded.check())) {
        Ok(verdict) => {
            // SAFETY: who uses our file control passes a pointer to this type.
            unsafe { *of.cast::<Option<Verdict>>() = Some(verdict) };
            SQLITE_OK
        }
        Err(_) => SQLITE_NOTFOUND,
    }
}

unsafe extern "C" fn sector_size(file: *mut File) -> c_int {
    pass!(file, sector_size)
}

unsafe extern "C" fn device_characteristics(file: *mut File) -> c_int {
    pass!(file, device_characteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut File,
    region: c_int,
    len: c_int,
    extend: c_int,
    into: *mut *mut c_void,
) -> c_int {
    pass!(file, shm_map, region, len, extend, into)
}

unsafe extern "C" fn shm_lock(file: *mut File, first: c_int, count: c_int, how: c_int) -> c_int {
    // SAFETY: SQLite calls.
    let ours = unsafe { ours(file) };
    let takes = how & SQLITE_SHM_LOCK != 0;
    if first == WAL_WRITE_LOCK && takes && how & SQLITE_SHM_EXCLUSIVE != 0 && ours.marks > 0 {
        let code = ours.check();
        if code != SQLITE_OK {
            return code;
        }
    }
    let code = pass!(file, shm_lock, first, count, how);
    if code == SQLITE_OK && first >= WAL_READ_LOCK && how & SQLITE_SHM_SHARED != 0 {
        let mark = 1 << (first & 31);
        if takes {
            ours.marks |= mark;
        } else if how & SQLITE_SHM_UNLOCK != 0 {
            ours.marks &= !mark;
        }
    }
    code
}

unsafe extern "C" fn shm_barrier(file: *mut File) {
    pass!(file, shm_barrier);
}

unsafe extern "C" fn shm_unmap(file: *mut File, delete: c_int) -> c_int {
    let code = pass!(file, shm_unmap, delete);
    // SAFETY: SQLite calls.
    unsafe { ours(file) }.marks = 0;
    code
}

unsafe extern "C" fn fetch(file: *mut File, at: i64, len: c_int, into: *mut *mut c_void) -> c_int {
    pass!(file, fetch, at, len, into)
}

unsafe extern "C" fn unfetch(file: *mut File, at: i64, page: *mut c_void) -> c_int {
    pass!(file, unfetch, at, page)
}

const fn of_version(version: c_int) -> Methods {
    Methods {
        version,
        close,
        read,
        write,
        truncate,
        sync,
        file_size,
        lock,
        unlock,
        check_reserved_lock,
        file_control,
        sector_size,
        device_characteristics,
        shm_map,
        shm_lock,
        shm_barrier,
        shm_unmap,
        fetch,
        unfetch,
    }
}

/// Methods of no later version than those of the file beneath: SQLite looks at nothing above.
fn methods(version: c_int) -> *const Methods {
    static OF: [Methods; 3] = [of_version(1), of_version(2), of_version(3)];
    &OF[(version.clamp(1, 3) - 1) as usize]
}
