//! A followed file that grows in pieces, is rotated in every way, and holds what is no line.

use std::fs::{self, OpenOptions};
use std::io::Write;

use super::*;
use crate::observe::Settings;
use crate::observe::access::KEY_LEN_MAX;

struct Log {
    path: PathBuf,
    follower: Follower,
    observatory: Observatory,
    _dir: tempfile::TempDir,
}

impl Log {
    /// A followed file, with these lines before it is followed; no file without any.
    fn with(lines: Option<&str>) -> Log {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("access.log");
        if let Some(lines) = lines {
            fs::write(&path, lines).expect("written");
        }
        let mut follower = Follower::default();
        follower.add(&path, Format::Json);
        follower.begin();
        let settings = Settings {
            bin_seconds: 60,
            bytes_max: 1 << 20,
            top: 100,
        };
        Log {
            path,
            follower,
            observatory: Observatory::new(settings, 0),
            _dir: dir,
        }
    }

    fn write(&self, text: &str) {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path);
        let mut file = file.expect("opens");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// Accepted and malformed lines so far.
    fn read(&mut self) -> (u64, u64) {
        while self.follower.pump(0, &mut self.observatory) {}
        let tally = self.follower.files[0].source.tally();
        (tally.accepted, tally.malformed)
    }
}

fn line(key: &str) -> String {
    format!("{{\"key\":\"{key}\"}}\n")
}

#[test]
fn what_was_there_before_is_not_read_and_what_comes_is() {
    let mut log = Log::with(Some(&line("old")));
    assert_eq!(log.read(), (0, 0));
    log.write(&(line("a") + &line("b") + "nonsense\n\n"));
    assert_eq!(log.read(), (2, 1));
    assert_eq!(log.read(), (2, 1), "and only once");
}

#[test]
fn a_line_in_pieces_waits_for_its_end() {
    let mut log = Log::with(Some(""));
    let text = line("whole");
    let (head, tail) = text.split_at(4);
    log.write(head);
    assert_eq!(log.read(), (0, 0));
    log.write(&tail[..2]);
    assert_eq!(log.read(), (0, 0));
    log.write(&(tail[2..].to_owned() + &line("next")));
    assert_eq!(log.read(), (2, 0));
}

#[test]
fn a_rotated_file_is_read_to_its_end_and_then_the_new_one() {
    let mut log = Log::with(Some(""));
    log.write(&line("a"));
    assert_eq!(log.read(), (1, 0));
    let old = log.path.with_extension("log.1");
    fs::rename(&log.path, &old).expect("renamed");
    let mut file = OpenOptions::new().append(true).open(&old).expect("opens");
    // Its last line has no end, and never will.
    write!(file, "{}{}", line("b"), line("c").trim_end()).expect("written");
    assert_eq!(
        log.read(),
        (2, 0),
        "the old one goes on while there is no new one"
    );
    log.write(&line("d"));
    assert_eq!(log.read(), (4, 0));
}

#[test]
fn a_file_that_is_cut_is_read_from_its_beginning() {
    let mut log = Log::with(Some(""));
    log.write(&(line("a") + &line("b") + "{\"key"));
    assert_eq!(log.read(), (2, 0));
    fs::write(&log.path, "").expect("cut");
    log.read();
    log.write(&line("c"));
    assert_eq!(log.read(), (3, 0));
}

#[test]
fn a_file_that_comes_later_is_read_whole() {
    let mut log = Log::with(None);
    assert_eq!(log.read(), (0, 0));
    log.write(&line("a"));
    assert_eq!(log.read(), (1, 0));
    fs::remove_file(&log.path).expect("removed");
    assert_eq!(log.read(), (1, 0));
    log.write(&line("b"));
    assert_eq!(log.read(), (2, 0), "it went and came back");
}

#[test]
fn a_line_without_an_end_is_one_malformed_line() {
    let mut log = Log::with(Some(""));
    log.write(&"x".repeat(3 * LINE_LEN_MAX));
    assert_eq!(log.read(), (0, 1));
    log.write(&("y\n".to_owned() + &line("a") + &line(&"k".repeat(KEY_LEN_MAX + 1))));
    assert_eq!(log.read(), (1, 2));
}
