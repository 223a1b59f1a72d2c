//! The command line as people and scripts use it: arguments in, exit code and words out.

use std::path::Path;
use std::process::{Command, Stdio};

use foreshadow::cli::demo::harness::{Cluster, Node};
use serde_json::Value;

/// What a command answered.
#[derive(Clone, Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The exit code must be this; the rest is shown when it is not.
    #[track_caller]
    pub fn exits(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Standard error must hold every one of these.
    #[track_caller]
    pub fn complains(self, words: &[&str]) -> Said {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:#?}");
        }
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Runs `foreshadow` with these words.
pub fn foreshadow(words: &[&str]) -> Said {
    run(Command::new(env!("CARGO_BIN_EXE_foreshadow")).args(words))
}

/// Runs `foreshadow` against the daemon of a node.
pub fn ask(node: &Node, words: &[&str]) -> Said {
    ask_socket(&node.place.socket(), words)
}

/// Runs `foreshadow` against a socket.
pub fn ask_socket(socket: &Path, words: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foreshadow"));
    run(command.arg("--socket").arg(socket).args(words))
}

/// The same, on a named node.
pub fn ask_at(cluster: &Cluster, node: &str, words: &[&str]) -> Said {
    ask(cluster.node(node).expect("a node of the cluster"), words)
}

/// Runs any command to its end.
pub fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
