//! What `[observe]` means, and the exact words for what is wrong with it.

use std::path::Path;

use wal::Span;

use super::observe::*;
use super::tests::{RIGHT, parse_in, wrong_after_right};
use super::units::Size;
use crate::observe::haproxy::{Field, Rules};

fn right(text: &str) -> ObserveConfig {
    let dir = tempfile::tempdir().expect("a directory");
    let config = parse_in(dir.path(), &format!("{RIGHT}{text}"));
    config.expect("right").observe
}

#[test]
fn everything_is_observed_unless_told_otherwise() {
    assert_eq!(right(""), ObserveConfig::default());
    assert_eq!(
        right("[observe]\nmax_bytes = \"1MiB\"\n").top,
        183,
        "what fits"
    );
}

#[test]
fn everything_can_be_set() {
    let observe = right(
        "[observe]\nbin = \"1s\"\nload_every = \"1s\"\nmax_bytes = \"8MiB\"\ntop = 500\n\
         segments = false\nsocket = \"/run/a.sock\"\n\
         [[observe.follow]]\npath = \"/var/log/${NODE}\"\n\
         [[observe.follow]]\nsocket = \"/run/h.sock\"\nformat = \"haproxy\"\nkey = \"path:2\"\n\
         user = \"query:u\"\nregion = \"captured:1\"\npartition = \"backend\"\n\
         partition_suffix = \".db\"\ntask = \"method\"\n",
    );
    let rules = Rules {
        key: Field::PathPart(2),
        user: Some(Field::Query("u".to_owned())),
        region: Some(Field::Captured(1)),
        partition: Some(Field::Backend),
        partition_suffix: ".db".to_owned(),
        task: Some(Field::Method),
    };
    let follow = [
        Follow {
            feed: Feed::File("/var/log/node-a".into()),
            format: Format::Json,
        },
        Follow {
            feed: Feed::Socket("/run/h.sock".into()),
            format: Format::Haproxy(rules),
        },
    ];
    assert_eq!(
        observe,
        ObserveConfig {
            bin: Span::secs(1),
            load_every: Span::secs(1),
            bytes_max: Size::mib(8),
            top: 500,
            segments: false,
            socket: Some(Path::new("/run/a.sock").to_owned()),
            follow: follow.into(),
        }
    );
    assert_eq!(observe.bin_seconds(), 1);
}

#[test]
fn what_is_wrong_is_said() {
    for (text, words) in [
        ("bin = \"500ms\"", "observe.bin: 500ms is out of bounds"),
        (
            "bin = \"1500ms\"",
            "observe.bin: is no whole number of seconds",
        ),
        ("bin = \"25h\"", "help: write 1s to 1d"),
        ("load_every = \"0\"", "help: write 1s to 1h"),
        ("max_bytes = \"1KiB\"", "help: write 1MiB to 16GiB"),
        ("top = 0", "observe.top: 0 keys don't fit"),
        ("top = 1000000", "or raise observe.max_bytes"),
        ("topp = 1", "did you mean top?"),
        ("socket = \"a.sock\"", "is not an absolute path"),
        (
            "[[observe.follow]]\nformat = \"json\"",
            "has neither path nor socket",
        ),
        (
            "[[observe.follow]]\npath = \"/a\"\nsocket = \"/b\"",
            "or both",
        ),
        (
            "[[observe.follow]]\npath = \"/a\"\nformat = \"clf\"",
            "\"clf\" is not known",
        ),
        (
            "[[observe.follow]]\npath = \"/a\"\nkey = \"path\"",
            "is a rule for format",
        ),
        (
            "[[observe.follow]]\npath = \"/a\"\nformat = \"haproxy\"\nkey = \"path:0\"",
            "observe.follow.key: \"path:0\" is no part of a line",
        ),
        (
            "[[observe.follow]]\nfile = \"/a\"",
            "[observe.follow] knows path",
        ),
    ] {
        let said = wrong_after_right(&format!("[observe]\n{text}\n"));
        assert!(said.contains(words), "{text}:\n{said}");
    }
}
