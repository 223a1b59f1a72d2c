//! The examples run as a stranger would run them: Python by ctypes, C with the header.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::tempdir;

/// The shared library, built as tests are: no test target depends on a library for C by itself.
fn library() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--quiet",
        "--profile",
        "test",
        "-p",
        env!("CARGO_PKG_NAME"),
    ]);
    run(&mut build);
    let exe = std::env::current_exe().expect("this test");
    let profile = exe.ancestors().nth(2).expect("a directory of the profile");
    profile.join("libforeshadow_wal.so")
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}{errors}");
    said
}

#[test]
fn python_appends_and_reads_by_ctypes() {
    let dir = tempdir().expect("a directory");
    let mut python = Command::new("python3");
    let log = dir.path().join("log");
    python.arg(example("append.py")).arg(library()).arg(&log);
    let said = run(&mut python);
    assert!(said.contains("one at a time (code 2)"), "{said}");
    assert!(
        said.contains("at most") && said.contains("(code 6)"),
        "{said}"
    );
    assert!(said.contains("kind 7: 4 bytes b'four'"), "{said}");
    let again = run(&mut python);
    assert_eq!(
        again.matches("b'four'").count(),
        2,
        "the log goes on: {again}"
    );
}

#[test]
fn c_appends_and_reads_with_the_header() {
    let dir = tempdir().expect("a directory");
    let library = library();
    let place = library.parent().expect("a directory");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let program = dir.path().join("append");
    let mut compile = Command::new("cc");
    compile.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o"]);
    compile
        .arg(&program)
        .arg(example("append.c"))
        .arg("-I")
        .arg(include);
    compile.arg("-L").arg(place).arg("-lforeshadow_wal");
    run(&mut compile);
    let mut append = Command::new(&program);
    append
        .arg(dir.path().join("log"))
        .env("LD_LIBRARY_PATH", place);
    let said = run(&mut append);
    assert!(
        said.contains("kind 1: hello\n") && said.contains("kind 2: from C\n"),
        "{said}"
    );
}
