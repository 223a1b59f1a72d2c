//! An unmodified application: the machine's own `sqlite3`, in a process of its own, with the
//! extension loaded first.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// SQLite's code for a database that may not be written.
pub const READONLY: i32 = 8;

/// A running `sqlite3`; killed when dropped.
pub struct Application {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    commands: u64,
}

/// What a statement came to, with the times around it (see [`lease::now`]).
#[derive(Clone, Debug)]
pub struct Answer {
    /// The lines that it printed, or SQLite's code and words.
    pub result: Result<String, (i32, String)>,
    pub sent: u64,
    pub answered: u64,
}

impl Answer {
    #[track_caller]
    pub fn must(self) -> String {
        match self.result {
            Ok(text) => text,
            Err(error) => panic!("refused: {error:?}"),
        }
    }

    pub fn code(&self) -> Option<i32> {
        self.result.as_ref().err().map(|(code, _)| *code)
    }

    #[track_caller]
    pub fn is_refused(&self) {
        assert_eq!(self.code(), Some(READONLY), "{self:?}");
    }
}

/// The extension as Cargo built it for this test.
pub fn extension() -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let library = own.with_file_name("libforeshadow_guard.so");
    assert!(library.is_file(), "{} is not built", library.display());
    library
}

impl Application {
    /// Loads the extension and opens the database.
    pub fn guarded(path: &Path) -> Application {
        let mut application = Application::idle();
        let load = format!(".load {}", extension().display());
        application.run(&load).must();
        application.open(path);
        application
    }

    fn idle() -> Application {
        // Lines leave as they are printed, and errors among them.
        let mut command = Command::new("sh");
        command.args(["-c", "exec stdbuf -oL sqlite3 -batch 2>&1"]);
        // Nobody's ~/.sqliterc.
        command.env("HOME", "/nonexistent");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sqlite3 and stdbuf");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Application {
            child,
            input,
            output,
            commands: 0,
        }
    }

    /// Closes what is open and opens this instead.
    pub fn open(&mut self, path: &Path) {
        // What can't be opened shows with the first statement.
        let _ = self.run(&format!(".open {}", path.display()));
        let _ = self.run(".timeout 5000");
        let _ = self.run("pragma synchronous = normal;");
    }

    /// One statement, or one command of the shell.
    pub fn run(&mut self, sql: &str) -> Answer {
        self.commands += 1;
        let mark = format!("#{}", self.commands);
        let sent = lease::now();
        writeln!(self.input, "{sql}\n.print {mark}").expect("it reads");
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let count = self.output.read_line(&mut line).expect("it answers");
            assert!(count > 0, "sqlite3 ended: {text}");
            if line.trim_end() == mark {
                break;
            }
            text.push_str(&line);
        }
        Answer {
            result: result(text.trim_end()),
            sent,
            answered: lease::now(),
        }
    }

    pub fn number(&mut self, sql: &str) -> i64 {
        let text = self.run(sql).must();
        text.parse().unwrap_or_else(|_| panic!("{sql}: {text}"))
    }
}

/// The shell says `Runtime error near line 3: attempt to write a readonly database (8)`.
fn result(text: &str) -> Result<String, (i32, String)> {
    let said = text.lines().find(|line| {
        let begins = ["Error", "Runtime error", "Parse error"];
        begins.iter().any(|begin| line.starts_with(begin))
    });
    let Some(line) = said else {
        return Ok(text.to_owned());
    };
    let code = line
        .rsplit_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    let code = code.and_then(|code| code.parse().ok()).unwrap_or(1);
    Err((code, line.to_owned()))
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
