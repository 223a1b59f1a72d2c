//! `foreshadow wal dump`: the frames of a delta log or journal, and what lies between them.
//!
//! A delta log may be torn, padded or damaged: what is no frame is counted and skipped, and reading
//! goes on at the next frame that checks. A journal is read as recovery reads it, group by group.

use std::path::Path;

use io::commit::{GROUP_HEAD_LEN, GROUP_MAGIC, groups_of};
use serde::Serialize;
use wal::delta::Decoder;
use wal::frame::{Codec, Flags, Frame, FrameKind, HEADER_LEN, MAGIC, frame_len};

use super::exit::Exit;
use super::render::table;

/// What was found at an offset.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "what")]
enum Found {
    Frame(FrameLine),
    /// The head of a group of a journal: what one write of the commit thread made durable.
    Group {
        offset: u64,
        segment: u64,
        sequence: u64,
        frames: u32,
    },
    /// The rest of a journal's segment: never acknowledged, or of an earlier use of the file.
    Rest {
        offset: u64,
        bytes: u64,
    },
    /// Zero bytes: room kept for later, or the padding of a group.
    Padding {
        offset: u64,
        bytes: u64,
    },
    /// Bytes that are no frame: torn by a crash, or damaged.
    Torn {
        offset: u64,
        bytes: u64,
        reason: String,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct FrameLine {
    offset: u64,
    kind: &'static str,
    partition: String,
    epoch: u64,
    from: u64,
    to: u64,
    plain_bytes: u32,
    wire_bytes: u32,
    codec: &'static str,
    level: i8,
    flags: Vec<&'static str>,
    /// Digests and size of what the frame leads to, where it says so.
    detail: String,
}

/// Prints what is in `path`.
pub fn dump(path: &Path, json: bool) -> Exit {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!(
                "foreshadow wal dump: {} can't be read: {error}",
                path.display()
            );
            return Exit::Error;
        }
    };
    let found = scan(&bytes);
    if json {
        println!("{}", serde_json::to_string(&found).expect("text keys only"));
    } else {
        print!("{}", render(&found));
    }
    let damaged = found
        .iter()
        .rev()
        .skip(1)
        .any(|one| matches!(one, Found::Torn { .. }));
    if damaged { Exit::Error } else { Exit::Ok }
}

fn scan(bytes: &[u8]) -> Vec<Found> {
    if bytes.starts_with(&GROUP_MAGIC) {
        scan_journal(bytes)
    } else {
        scan_frames(bytes)
    }
}

/// Exactly what recovery would read of a journal's segment, and how much lies behind it.
fn scan_journal(bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut end = 0;
    for group in groups_of(bytes) {
        let head = group.head;
        found.push(Found::Group {
            offset: end as u64,
            segment: head.segment.0,
            sequence: head.sequence,
            frames: head.frames,
        });
        let mut at = end + GROUP_HEAD_LEN;
        for frame in &group.frames {
            found.push(Found::Frame(line(at as u64, frame)));
            at += frame.len();
        }
        end += head.disk_len();
    }
    if bytes.len() > end {
        found.push(Found::Rest {
            offset: end as u64,
            bytes: (bytes.len() - end) as u64,
        });
    }
    found
}

fn scan_frames(bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        let offset = at as u64;
        if zeros > 0 {
            found.push(Found::Padding {
                offset,
                bytes: zeros as u64,
            });
            at += zeros;
            continue;
        }
        match read(rest) {
            Ok(frame) => {
                at += frame.len();
                found.push(Found::Frame(line(offset, &frame)));
            }
            Err(reason) => {
                let next = (1..rest.len()).find(|next| read(&rest[*next..]).is_ok());
                let torn = next.unwrap_or(rest.len());
                found.push(Found::Torn {
                    offset,
                    bytes: torn as u64,
                    reason,
                });
                at += torn;
            }
        }
    }
    found
}

/// The frame that `bytes` begin with.
fn read(bytes: &[u8]) -> Result<Frame, String> {
    if !bytes.starts_with(&MAGIC) {
        return Err("no frame begins here".to_owned());
    }
    let len = frame_len(bytes).map_err(|error| error.to_string())?;
    let len = len.ok_or_else(|| format!("fewer than the {HEADER_LEN} bytes of a header"))?;
    let whole = bytes
        .get(..len)
        .ok_or_else(|| format!("the frame has {len} bytes, {} are there", bytes.len()))?;
    Frame::parse(whole).map_err(|error| error.to_string())
}

fn line(offset: u64, frame: &Frame) -> FrameLine {
    let header = frame.header();
    FrameLine {
        offset,
        kind: kind(header.kind),
        partition: header.partition.to_string(),
        epoch: header.epoch.0,
        from: header.from.0,
        to: header.to.0,
        plain_bytes: header.plain_len,
        wire_bytes: header.wire_len,
        codec: codec(header.codec),
        level: header.level,
        flags: flags(header.flags),
        detail: detail(frame).unwrap_or_else(|error| error.to_string()),
    }
}

fn detail(frame: &Frame) -> Result<String, wal::Error> {
    match frame.header().kind {
        FrameKind::Delta => {
            let head = Decoder::delta_head(frame)?;
            let edited = Decoder::page_numbers(frame)?.len();
            let (from, to) = (head.from.digest, head.to.digest);
            Ok(format!(
                "{edited} of {} pages, digest {from} -> {to}",
                head.page_count
            ))
        }
        FrameKind::Pages => {
            let head = Decoder::pages_head(frame)?;
            let sent = Decoder::page_numbers(frame)?.len();
            Ok(format!(
                "{sent} of {} pages, digest {}",
                head.page_count, head.at.digest
            ))
        }
        FrameKind::Message | FrameKind::Note => Ok(String::new()),
    }
}

fn kind(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Message => "message",
        FrameKind::Delta => "delta",
        FrameKind::Pages => "pages",
        FrameKind::Note => "note",
    }
}

fn codec(codec: Codec) -> &'static str {
    match codec {
        Codec::Plain => "plain",
        Codec::Zstd => "zstd",
        Codec::Prefix => "prefix",
    }
}

fn flags(flags: Flags) -> Vec<&'static str> {
    let names = [
        (Flags::FINAL, "final"),
        (Flags::LAST, "last"),
        (Flags::RESCAN, "rescan"),
    ];
    names
        .into_iter()
        .filter_map(|(flag, name)| flags.has(flag).then_some(name))
        .collect()
}

fn render(found: &[Found]) -> String {
    let head = [
        "OFFSET",
        "KIND",
        "PARTITION",
        "EPOCH",
        "LSN",
        "PLAIN",
        "WIRE",
        "CODEC",
        "FLAGS",
        "",
    ];
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|one| match one {
            Found::Frame(frame) => vec![
                frame.offset.to_string(),
                frame.kind.to_owned(),
                frame.partition.clone(),
                frame.epoch.to_string(),
                format!("{}..{}", frame.from, frame.to),
                frame.plain_bytes.to_string(),
                frame.wire_bytes.to_string(),
                format!("{} {}", frame.codec, frame.level),
                frame.flags.join(","),
                frame.detail.clone(),
            ],
            Found::Group {
                offset,
                segment,
                sequence,
                frames,
            } => {
                let detail = format!("segment {segment}, {frames} frames");
                let mut row = between(*offset, "group", GROUP_HEAD_LEN as u64, &detail);
                row[4] = sequence.to_string();
                row
            }
            Found::Rest { offset, bytes } => between(*offset, "rest", *bytes, "not in use"),
            Found::Padding { offset, bytes } => between(*offset, "padding", *bytes, ""),
            Found::Torn {
                offset,
                bytes,
                reason,
            } => between(*offset, "torn", *bytes, reason),
        })
        .collect();
    table(&head, &rows)
}

fn between(offset: u64, kind: &str, bytes: u64, reason: &str) -> Vec<String> {
    let mut row = vec![String::new(); 10];
    row[0] = offset.to_string();
    row[1] = kind.to_owned();
    row[6] = bytes.to_string();
    row[9] = reason.to_owned();
    row
}

#[cfg(test)]
mod tests {
    use wal::frame::Header;
    use wal::{Epoch, Lsn, PartitionId};

    use super::*;

    fn note(to: u64) -> Frame {
        let header = Header::plain(FrameKind::Note, PartitionId(7), Epoch(2));
        Frame::seal(
            Header {
                from: Lsn(to - 1),
                to: Lsn(to),
                ..header
            },
            &[9; 24],
        )
    }

    #[test]
    fn frames_padding_and_a_torn_tail_are_told_apart() {
        let mut bytes = note(1).bytes().to_vec();
        bytes.extend_from_slice(&[0; 40]);
        bytes.extend_from_slice(note(2).bytes());
        let whole = bytes.len();
        bytes.extend_from_slice(&note(3).bytes()[..70]);
        let found = scan(&bytes);
        assert_eq!(found.len(), 4);
        assert_eq!(
            found[1],
            Found::Padding {
                offset: 88,
                bytes: 40
            }
        );
        let reason = "the frame has 88 bytes, 70 are there".to_owned();
        assert_eq!(
            found[3],
            Found::Torn {
                offset: whole as u64,
                bytes: 70,
                reason
            }
        );
        let Found::Frame(frame) = &found[2] else {
            panic!("{:?}", found[2])
        };
        assert_eq!((frame.offset, frame.from, frame.to), (128, 1, 2));
    }

    #[test]
    fn reading_goes_on_behind_a_damaged_frame() {
        let mut bytes = note(1).bytes().to_vec();
        bytes[70] ^= 1;
        bytes.extend_from_slice(note(2).bytes());
        let found = scan(&bytes);
        assert!(
            matches!(&found[0], Found::Torn { bytes: 88, .. }),
            "{:?}",
            found[0]
        );
        assert!(matches!(&found[1], Found::Frame(_)));
    }

    #[test]
    fn a_dump_reads_as_a_table() {
        let text = render(&scan(note(4).bytes()));
        assert_eq!(
            text,
            "OFFSET  KIND  PARTITION         EPOCH  LSN   PLAIN  WIRE  CODEC    FLAGS\n\
             0       note  0000000000000007  2      3..4  24     24    plain 0\n"
        );
    }
}
