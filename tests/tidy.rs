//! House rules as a test: what may import what, how long things may be, what must not be named.
//!
//! Architecture invariants are absences: each rule here says what is not in some part of the tree.
//! Rules read the text, line by line; rustfmt makes that exact enough.

use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;

/// The sentence: a stage may use the stages before it.
const STAGES: [&str; 5] = ["observe", "predict", "decide", "ship", "switch"];
/// What is pure beside the stages.
const PURE: [&str; 6] = [
    "serve",
    "shard",
    "event.rs",
    "effect.rs",
    "mutation.rs",
    "units.rs",
];
/// What every pure part may use of the daemon.
const WORDS: [&str; 4] = ["event", "effect", "serve", "mutation"];
/// What only the shell may name.
const WORLD: [&str; 10] = [
    "glommio::",
    "tokio::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "Instant",
    "SystemTime",
    "use io::",
    "rand::",
];

struct File {
    path: PathBuf,
    name: String,
    text: String,
}

/// Every Rust file below the given directories, except this one.
fn files(dirs: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace");
    let mut waiting: Vec<PathBuf> = dirs.iter().map(|dir| root.join(dir)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a readable directory");
            waiting.extend(entries.map(|entry| entry.expect("a readable entry").path()));
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tidy.rs") {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            let name = path.strip_prefix(root).expect("below the root");
            let name = name.to_string_lossy().into_owned();
            files.push(File { path, name, text });
        }
    }
    files.sort_by(|one, two| one.path.cmp(&two.path));
    files
}

fn everything() -> Vec<File> {
    files(&["wal", "io", "daemon", "tests", "benches"])
}

/// The files of one part of the daemon: a directory or a file.
fn part(name: &str) -> Vec<File> {
    files(&[&format!("daemon/src/{name}")])
}

fn pure() -> Vec<File> {
    let parts = STAGES.iter().chain(&PURE);
    parts.flat_map(|name| part(name)).collect()
}

impl File {
    /// Numbered lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or(line)))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }
}

/// Fails with every line of `files` for which `is_wrong` holds.
fn forbid(files: &[File], rule: &str, is_wrong: impl Fn(&str) -> bool) {
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let lines = file.code().filter(|(_, line)| is_wrong(line));
            lines.map(|(at, line)| format!("{}: {}", file.at(at), line.trim()))
        })
        .collect();
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

/// `word` stands in `line` as a word of its own.
fn names(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let ends = word.ends_with("::") || !after.is_some_and(part_of_word);
        ends && !before.is_some_and(part_of_word)
    })
}

/// The modules of this crate that a line names by `crate::`.
fn imports(line: &str) -> Vec<String> {
    let after = line.match_indices("crate::").filter(|(at, _)| {
        let before = line[..*at].chars().next_back();
        before != Some('$')
    });
    after
        .flat_map(|(at, word)| {
            let rest = &line[at + word.len()..];
            let list = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or(list),
                None => rest.split([',', ';', ' ', ')', '>']).next().unwrap_or(rest),
            };
            let heads = list.split(',').map(|item| {
                let head = item.trim().split([':', ' ']).next().unwrap_or("");
                head.to_owned()
            });
            heads.filter(|head| !head.is_empty()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn wal_imports_nothing_of_ours_and_io_only_wal() {
    let ours = ["io::", "foreshadow::", "foreshadow_io::"];
    forbid(&files(&["wal/src"]), "wal knows nothing of ours", |line| {
        let line = line.replace("std::io::", "").replace("rustix::io::", "");
        ours.iter().any(|name| names(&line, name))
    });
    forbid(&files(&["io/src"]), "io knows only wal", |line| {
        names(line, "foreshadow::")
    });
}

#[test]
fn a_stage_uses_only_the_stages_before_it() {
    for (place, stage) in STAGES.iter().enumerate() {
        let allowed =
            |head: &str| head == *stage || WORDS.contains(&head) || STAGES[..place].contains(&head);
        let rule = format!("{stage} uses only what is to its left");
        forbid(&part(stage), &rule, |line| {
            imports(line).iter().any(|head| !allowed(head))
        });
    }
    let shell = ["runtime", "control", "cli", "config"];
    forbid(&pure(), "the pure core never names the shell", |line| {
        imports(line).iter().any(|head| shell.contains(&&**head))
    });
}

#[test]
fn the_pure_core_never_touches_the_world() {
    forbid(
        &pure(),
        "no clock, socket, file or thread in the core",
        |line| WORLD.iter().any(|name| names(line, name)) || names(line, "async fn"),
    );
}

#[test]
fn the_pure_core_has_no_hash_order() {
    let hashed = ["HashMap", "HashSet", "RandomState"];
    forbid(&pure(), "iteration has to be the same everywhere", |line| {
        hashed.iter().any(|name| names(line, name))
    });
}

#[test]
fn std_io_is_written_in_full() {
    let ours = files(&["io/src", "daemon/src"]);
    forbid(
        &ours,
        "std::io beside our io confuses every reader",
        |line| {
            let whole = ["use std::io;", "use std::io as ", "use std::io::{self"];
            whole.iter().any(|import| line.contains(import))
                || line.contains("use std::{") && names(line, "io")
        },
    );
}

#[test]
fn sqlite_itself_is_named_only_by_the_demo_and_tests() {
    let sources = files(&["wal/src", "io/src", "daemon/src"]);
    let product: Vec<File> = sources
        .into_iter()
        .filter(|file| !file.name.starts_with("daemon/src/cli/demo"))
        .collect();
    forbid(&product, "the daemon speaks the format itself", |line| {
        names(line, "rusqlite")
    });
}

#[test]
fn nothing_is_left_undone() {
    let undone = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    forbid(&everything(), "left undone", |line| {
        undone.iter().any(|word| line.contains(word))
    });
}

#[test]
fn every_file_says_first_what_it_is() {
    let mute: Vec<String> = everything()
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.name)
        .collect();
    assert!(mute.is_empty(), "the first line is `//! `: {mute:#?}");
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut long = Vec::new();
    for file in everything() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{}: {lines} lines", file.name));
        }
        for (at, line) in file.text.lines().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX {
                long.push(format!("{}: wider than {LINE_CHARS_MAX}", file.at(at + 1)));
            }
        }
        long.extend(long_functions(&file));
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

/// A function ends at the first `}` that is indented as its first line is.
fn long_functions(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut long = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let starts = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn "];
        let scoped = code.starts_with("pub(") && code.contains(" fn ");
        let is_function = starts.iter().any(|start| code.starts_with(start)) || scoped;
        if !is_function || code.ends_with(';') {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let body = lines[at..].iter().position(|line| **line == end);
        let length = body.map_or(1, |body| body + 1);
        if length > FUNCTION_LINES_MAX {
            long.push(format!("{}: a function of {length} lines", file.at(at + 1)));
        }
    }
    long
}
