//! SQLite's C interface, as far as it is needed: structures and numbers of sqlite3.h, and the slots
//! of the table of sqlite3ext.h.
//!
//! Written out by hand, because the only bindings for loadable extensions are a feature of a crate
//! that this workspace also builds with SQLite inside, and Cargo would make both of one. SQLite
//! only ever appends to these structures, so their layout is the same for every version since the
//! one that is asked for here; a test compares them with the machine's own headers.

use std::ffi::{CStr, CString, c_char, c_double, c_int, c_uchar, c_void};

pub const SQLITE_OK: c_int = 0;
pub const SQLITE_ERROR: c_int = 1;
pub const SQLITE_READONLY: c_int = 8;
pub const SQLITE_NOTFOUND: c_int = 12;
pub const SQLITE_OK_LOAD_PERMANENTLY: c_int = 256;
pub const SQLITE_UTF8: c_int = 1;

pub const SQLITE_OPEN_MAIN_DB: c_int = 0x100;
pub const SQLITE_OPEN_WAL: c_int = 0x0008_0000;

pub const SQLITE_LOCK_RESERVED: c_int = 2;
pub const SQLITE_LOCK_EXCLUSIVE: c_int = 4;
pub const SQLITE_SHM_UNLOCK: c_int = 1;
pub const SQLITE_SHM_LOCK: c_int = 2;
pub const SQLITE_SHM_SHARED: c_int = 4;
pub const SQLITE_SHM_EXCLUSIVE: c_int = 8;
/// wal.c: the lock of whoever appends to the log; readers' marks begin at 3.
pub const WAL_WRITE_LOCK: c_int = 0;
pub const WAL_READ_LOCK: c_int = 3;

/// The text of a released function's parameters: opaque to us.
#[repr(C)]
pub struct Connection([u8; 0]);
#[repr(C)]
pub struct Context([u8; 0]);
#[repr(C)]
pub struct Value([u8; 0]);
/// `sqlite3_api_routines`.
#[repr(C)]
pub struct Table([u8; 0]);

/// `sqlite3_file`.
#[repr(C)]
pub struct File {
    pub methods: *const Methods,
}

/// `sqlite3_io_methods`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Methods {
    pub version: c_int,
    pub close: unsafe extern "C" fn(*mut File) -> c_int,
    pub read: unsafe extern "C" fn(*mut File, *mut c_void, c_int, i64) -> c_int,
    pub write: unsafe extern "C" fn(*mut File, *const c_void, c_int, i64) -> c_int,
    pub truncate: unsafe extern "C" fn(*mut File, i64) -> c_int,
    pub sync: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub file_size: unsafe extern "C" fn(*mut File, *mut i64) -> c_int,
    pub lock: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub unlock: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub check_reserved_lock: unsafe extern "C" fn(*mut File, *mut c_int) -> c_int,
    pub file_control: unsafe extern "C" fn(*mut File, c_int, *mut c_void) -> c_int,
    pub sector_size: unsafe extern "C" fn(*mut File) -> c_int,
    pub device_characteristics: unsafe extern "C" fn(*mut File) -> c_int,
    // Version 2.
    pub shm_map: unsafe extern "C" fn(*mut File, c_int, c_int, c_int, *mut *mut c_void) -> c_int,
    pub shm_lock: unsafe extern "C" fn(*mut File, c_int, c_int, c_int) -> c_int,
    pub shm_barrier: unsafe extern "C" fn(*mut File),
    pub shm_unmap: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    // Version 3.
    pub fetch: unsafe extern "C" fn(*mut File, i64, c_int, *mut *mut c_void) -> c_int,
    pub unfetch: unsafe extern "C" fn(*mut File, i64, *mut c_void) -> c_int,
}

pub type Open =
    unsafe extern "C" fn(*mut Vfs, *const c_char, *mut File, c_int, *mut c_int) -> c_int;
pub type Symbol = unsafe extern "C" fn();

/// `sqlite3_vfs`.
#[repr(C)]
pub struct Vfs {
    pub version: c_int,
    pub file_size: c_int,
    pub path_max: c_int,
    pub next: *mut Vfs,
    pub name: *const c_char,
    pub data: *mut c_void,
    pub open: Open,
    pub delete: unsafe extern "C" fn(*mut Vfs, *const c_char, c_int) -> c_int,
    pub access: unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_int) -> c_int,
    pub full_pathname: unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_char) -> c_int,
    pub dl_open: unsafe extern "C" fn(*mut Vfs, *const c_char) -> *mut c_void,
    pub dl_error: unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char),
    pub dl_sym: unsafe extern "C" fn(*mut Vfs, *mut c_void, *const c_char) -> Option<Symbol>,
    pub dl_close: unsafe extern "C" fn(*mut Vfs, *mut c_void),
    pub randomness: unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int,
    pub sleep: unsafe extern "C" fn(*mut Vfs, c_int) -> c_int,
    pub current_time: unsafe extern "C" fn(*mut Vfs, *mut c_double) -> c_int,
    pub last_error: unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int,
    // Version 2.
    pub current_time_64: unsafe extern "C" fn(*mut Vfs, *mut i64) -> c_int,
    // Version 3.
    pub set_system_call: unsafe extern "C" fn(*mut Vfs, *const c_char, Option<Symbol>) -> c_int,
    pub get_system_call: unsafe extern "C" fn(*mut Vfs, *const c_char) -> Option<Symbol>,
    pub next_system_call: unsafe extern "C" fn(*mut Vfs, *const c_char) -> *const c_char,
}

pub type Function = unsafe extern "C" fn(*mut Context, c_int, *mut *mut Value);
pub type Entry = unsafe extern "C" fn(*mut Connection, *mut *mut c_char, *const Table) -> c_int;

/// Which routine of the table, by its place (sqlite3ext.h).
pub mod slot {
    pub const CREATE_FUNCTION: usize = 45;
    pub const LIBVERSION_NUMBER: usize = 67;
    pub const MPRINTF: usize = 69;
    pub const RESULT_ERROR: usize = 80;
    pub const RESULT_TEXT: usize = 85;
    pub const VALUE_TEXT: usize = 109;
    pub const FILE_CONTROL: usize = 127;
    pub const VFS_FIND: usize = 141;
    pub const VFS_REGISTER: usize = 142;
    pub const CONTEXT_DB_HANDLE: usize = 149;
    pub const LOG: usize = 167;
    pub const URI_PARAMETER: usize = 189;
    pub const AUTO_EXTENSION: usize = 192;
}

/// The first version with versions 3 of both structures, and every slot above.
const VERSION_MIN: c_int = 3_008_007;

/// The routines of the SQLite that loaded us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Api(*const Table);

// SAFETY: the table is read-only after SQLite made it.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

/// The routine in a slot, of its C type.
macro_rules! routine {
    ($api:expr, $slot:expr, $type:ty) => {
        // SAFETY: the slot holds a routine of this type (sqlite3ext.h).
        unsafe { std::mem::transmute::<*const c_void, $type>($api.at($slot)) }
    };
}

impl Api {
    /// `None` for a SQLite that is too old to be guarded.
    ///
    /// # Safety
    ///
    /// `table` is a table of SQLite's routines, valid as long as the process.
    pub unsafe fn new(table: *const Table) -> Option<Api> {
        if table.is_null() {
            return None;
        }
        let api = Api(table);
        let version = routine!(
            api,
            slot::LIBVERSION_NUMBER,
            unsafe extern "C" fn() -> c_int
        );
        // SAFETY: sqlite3_libversion_number takes nothing.
        (unsafe { version() } >= VERSION_MIN).then_some(api)
    }

    fn at(self, slot: usize) -> *const c_void {
        // SAFETY: the table is an array of pointers to functions, and has this many in every
        // version that `new` lets pass.
        unsafe { *self.0.cast::<*const c_void>().add(slot) }
    }

    pub fn vfs_find(self, name: Option<&CStr>) -> *mut Vfs {
        let find = routine!(
            self,
            slot::VFS_FIND,
            unsafe extern "C" fn(*const c_char) -> *mut Vfs
        );
        // SAFETY: a name that ends with zero, or none for the default.
        unsafe { find(name.map_or(std::ptr::null(), CStr::as_ptr)) }
    }

    /// # Safety
    ///
    /// `vfs` is whole, and valid as long as the process.
    pub unsafe fn vfs_register(self, vfs: *mut Vfs, as_default: bool) -> c_int {
        let register = routine!(
            self,
            slot::VFS_REGISTER,
            unsafe extern "C" fn(*mut Vfs, c_int) -> c_int
        );
        // SAFETY: by this function's contract.
        unsafe { register(vfs, c_int::from(as_default)) }
    }

    /// # Safety
    ///
    /// `name` came to a VFS's xOpen as the name of a main database.
    pub unsafe fn uri_parameter(self, name: *const c_char, key: &CStr) -> Option<&'static CStr> {
        let get = routine!(
            self,
            slot::URI_PARAMETER,
            unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char
        );
        // SAFETY: by this function's contract; the value lives as long as the name.
        unsafe {
            let value = get(name, key.as_ptr());
            (!value.is_null()).then(|| CStr::from_ptr(value))
        }
    }

    /// Says something to whoever listens to SQLite's log (sqlite3_config, SQLITE_CONFIG_LOG).
    pub fn log(self, code: c_int, text: &str) {
        let log = routine!(
            self,
            slot::LOG,
            unsafe extern "C" fn(c_int, *const c_char, ...)
        );
        let text = c_text(text);
        // SAFETY: one text for one `%s`.
        unsafe { log(code, c"%s".as_ptr(), text.as_ptr()) }
    }

    /// Text of SQLite's own allocator, which whoever gets it frees.
    pub fn text(self, text: &str) -> *mut c_char {
        let print = routine!(
            self,
            slot::MPRINTF,
            unsafe extern "C" fn(*const c_char, ...) -> *mut c_char
        );
        let text = c_text(text);
        // SAFETY: one text for one `%s`.
        unsafe { print(c"%s".as_ptr(), text.as_ptr()) }
    }

    /// Calls `entry` for every connection that is opened from now on, in any thread.
    pub fn auto_extension(self, entry: Entry) -> c_int {
        let auto = routine!(
            self,
            slot::AUTO_EXTENSION,
            unsafe extern "C" fn(*const c_void) -> c_int
        );
        // SAFETY: SQLite calls it with the arguments of an entry point, whatever type it says.
        unsafe { auto(entry as *const c_void) }
    }

    /// # Safety
    ///
    /// `connection` is open; `function` takes `count` values, or any number if that is -1.
    pub unsafe fn create_function(
        self,
        connection: *mut Connection,
        name: &CStr,
        count: c_int,
        function: Function,
    ) -> c_int {
        type Nothing = *const c_void;
        let create = routine!(
            self,
            slot::CREATE_FUNCTION,
            unsafe extern "C" fn(
                *mut Connection,
                *const c_char,
                c_int,
                c_int,
                *const c_void,
                Option<Function>,
                Nothing,
                Nothing,
            ) -> c_int
        );
        let none = std::ptr::null();
        // SAFETY: by this function's contract; a scalar function has neither step nor final.
        unsafe {
            create(
                connection,
                name.as_ptr(),
                count,
                SQLITE_UTF8,
                none,
                Some(function),
                none,
                none,
            )
        }
    }

    /// # Safety
    ///
    /// `connection` is open, and `argument` is what `operation` wants.
    pub unsafe fn file_control(
        self,
        connection: *mut Connection,
        schema: *const c_char,
        operation: c_int,
        argument: *mut c_void,
    ) -> c_int {
        let control = routine!(
            self,
            slot::FILE_CONTROL,
            unsafe extern "C" fn(*mut Connection, *const c_char, c_int, *mut c_void) -> c_int
        );
        // SAFETY: by this function's contract.
        unsafe { control(connection, schema, operation, argument) }
    }

    /// # Safety
    ///
    /// `context` is that of a function which SQLite is calling now.
    pub unsafe fn connection_of(self, context: *mut Context) -> *mut Connection {
        let get = routine!(
            self,
            slot::CONTEXT_DB_HANDLE,
            unsafe extern "C" fn(*mut Context) -> *mut Connection
        );
        // SAFETY: by this function's contract.
        unsafe { get(context) }
    }

    /// # Safety
    ///
    /// `value` is an argument of a function which SQLite is calling now.
    pub unsafe fn value_text(self, value: *mut Value) -> *const c_char {
        let get = routine!(
            self,
            slot::VALUE_TEXT,
            unsafe extern "C" fn(*mut Value) -> *const c_uchar
        );
        // SAFETY: by this function's contract.
        unsafe { get(value) }.cast()
    }

    /// # Safety
    ///
    /// As for [`Api::connection_of`].
    pub unsafe fn result_text(self, context: *mut Context, text: &str) {
        type Free = isize;
        /// SQLITE_TRANSIENT: SQLite copies the text.
        const TRANSIENT: Free = -1;
        let result = routine!(
            self,
            slot::RESULT_TEXT,
            unsafe extern "C" fn(*mut Context, *const c_char, c_int, Free)
        );
        let text = c_text(text);
        // SAFETY: by this function's contract; -1: up to the zero.
        unsafe { result(context, text.as_ptr(), -1, TRANSIENT) }
    }

    /// # Safety
    ///
    /// As for [`Api::connection_of`].
    pub unsafe fn result_error(self, context: *mut Context, text: &str) {
        let result = routine!(
            self,
            slot::RESULT_ERROR,
            unsafe extern "C" fn(*mut Context, *const c_char, c_int)
        );
        let text = c_text(text);
        // SAFETY: by this function's contract; -1: up to the zero; SQLite copies it.
        unsafe { result(context, text.as_ptr(), -1) }
    }
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}
