//! Our structures are those of SQLite's headers, as a C compiler sees them; and nothing of SQLite
//! is in the extension.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use foreshadow_guard::sqlite::{File, Methods, Vfs, slot};

const HEADER: &str = "/usr/include/sqlite3ext.h";

/// C's names, and where we have them.
fn ours() -> BTreeMap<&'static str, usize> {
    let word = size_of::<usize>();
    BTreeMap::from([
        ("size: sqlite3_file", size_of::<File>()),
        ("size: sqlite3_io_methods", size_of::<Methods>()),
        ("size: sqlite3_vfs", size_of::<Vfs>()),
        ("sqlite3_io_methods xClose", offset_of!(Methods, close)),
        ("sqlite3_io_methods xWrite", offset_of!(Methods, write)),
        ("sqlite3_io_methods xLock", offset_of!(Methods, lock)),
        (
            "sqlite3_io_methods xFileControl",
            offset_of!(Methods, file_control),
        ),
        ("sqlite3_io_methods xShmMap", offset_of!(Methods, shm_map)),
        ("sqlite3_io_methods xShmLock", offset_of!(Methods, shm_lock)),
        ("sqlite3_io_methods xUnfetch", offset_of!(Methods, unfetch)),
        ("sqlite3_vfs szOsFile", offset_of!(Vfs, file_size)),
        ("sqlite3_vfs zName", offset_of!(Vfs, name)),
        ("sqlite3_vfs pAppData", offset_of!(Vfs, data)),
        ("sqlite3_vfs xOpen", offset_of!(Vfs, open)),
        ("sqlite3_vfs xDlClose", offset_of!(Vfs, dl_close)),
        ("sqlite3_vfs xGetLastError", offset_of!(Vfs, last_error)),
        (
            "sqlite3_vfs xCurrentTimeInt64",
            offset_of!(Vfs, current_time_64),
        ),
        (
            "sqlite3_vfs xNextSystemCall",
            offset_of!(Vfs, next_system_call),
        ),
        (
            "sqlite3_api_routines create_function",
            slot::CREATE_FUNCTION * word,
        ),
        (
            "sqlite3_api_routines libversion_number",
            slot::LIBVERSION_NUMBER * word,
        ),
        ("sqlite3_api_routines mprintf", slot::MPRINTF * word),
        (
            "sqlite3_api_routines result_error",
            slot::RESULT_ERROR * word,
        ),
        ("sqlite3_api_routines result_text", slot::RESULT_TEXT * word),
        ("sqlite3_api_routines value_text", slot::VALUE_TEXT * word),
        (
            "sqlite3_api_routines file_control",
            slot::FILE_CONTROL * word,
        ),
        ("sqlite3_api_routines vfs_find", slot::VFS_FIND * word),
        (
            "sqlite3_api_routines vfs_register",
            slot::VFS_REGISTER * word,
        ),
        (
            "sqlite3_api_routines context_db_handle",
            slot::CONTEXT_DB_HANDLE * word,
        ),
        ("sqlite3_api_routines log", slot::LOG * word),
        (
            "sqlite3_api_routines uri_parameter",
            slot::URI_PARAMETER * word,
        ),
        (
            "sqlite3_api_routines auto_extension",
            slot::AUTO_EXTENSION * word,
        ),
    ])
}

/// A C program that prints the same list.
fn program(names: impl Iterator<Item = &'static str>) -> String {
    let lines = names.map(|name| {
        let value = match name.strip_prefix("size: ") {
            Some(of) => format!("sizeof(struct {of})"),
            None => format!("offsetof(struct {})", name.replace(' ', ", ")),
        };
        format!("printf(\"{name}=%zu\\n\", {value});")
    });
    let body: Vec<String> = lines.collect();
    let includes = "#include <stddef.h>\n#include <stdio.h>\n#include <sqlite3ext.h>\n";
    format!(
        "{includes}int main(void) {{ {} return 0; }}\n",
        body.join("\n")
    )
}

#[test]
fn our_structures_are_those_of_the_headers() {
    if !Path::new(HEADER).is_file() {
        println!("no {HEADER} (libsqlite3-dev): nothing to compare with");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (source, binary) = (dir.path().join("layout.c"), dir.path().join("layout"));
    let ours = ours();
    std::fs::write(&source, program(ours.keys().copied())).expect("written");
    let built = Command::new("cc")
        .arg(&source)
        .arg("-o")
        .arg(&binary)
        .status();
    assert!(built.expect("a C compiler").success());
    let output = Command::new(&binary).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let theirs = text.lines().filter_map(|line| line.split_once('='));
    let theirs = theirs.map(|(name, value)| (name, value.parse().expect("a number")));
    assert_eq!(theirs.collect::<BTreeMap<&str, usize>>(), ours);
}

#[test]
fn no_sqlite_is_in_the_extension() {
    let own = std::env::current_exe().expect("own path");
    let library = own.with_file_name("libforeshadow_guard.so");
    let bytes = std::fs::read(library).expect("built");
    for mark in [&b"SQLite format 3"[..], b"libsqlite3.so"] {
        let found = bytes.windows(mark.len()).any(|part| part == mark);
        assert!(!found, "{}", String::from_utf8_lossy(mark));
    }
    let entry = b"sqlite3_foreshadowguard_init";
    assert!(bytes.windows(entry.len()).any(|part| part == entry));
}
