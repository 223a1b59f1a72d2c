//! Reading the WAL behind its writers.
//!
//! Only frames up to the published `mxFrame` are read: a checksum-valid commit beyond it may never
//! have happened, because its writer died before publishing it and the next one wrote over it.
//! Salts and the chain of sums are verified on the way.
//!
//! Audit: `iChange` grows by exactly one with each commit, so the commits read must be as many as
//! it grew. If they are not, transactions were missed while someone else restarted the WAL, and
//! only a scan of the pages tells what they did.

use std::collections::HashMap;

use wal::digest::PageHash;
use wal::sqlite::{
    IndexHeader, VERSION_FENCED, WAL_FRAME_HEADER_LEN, WalFrameHeader, WalHeader, lock_page,
};

use super::change::{Change, Mark};
use super::source::Source;
use super::table::{WRITE_VERSION_AT, lift_versions};
use crate::durable;
use crate::engine::change::Changed;
use crate::error::{Kind, Result};

/// Pages that may come into being without having been written by anyone before a scan is cheaper.
const GAP_PAGES_MAX: u32 = 4096;
/// How often a poll begins again because the WAL was restarted meanwhile.
const TRIES: usize = 3;

/// What came of reading towards one header.
enum Outcome {
    Nothing,
    Change(Box<Change>),
    /// The WAL is no longer the header's: look at the header again.
    Moved,
    /// Transactions were missed, for this reason.
    Lost(String),
}

/// Frames read and verified, up to the last commit among them.
struct Batch {
    bytes: Vec<u8>,
    first: u32,
    /// Frames up to and including the last commit.
    count: u32,
    page_count: u32,
    /// Where the chain stands after the last commit.
    mark: Mark,
    /// Commits that the application made.
    commits: u64,
    fenced: bool,
}

pub(super) fn poll(source: &mut Source, limit: u32) -> Result<Option<Change>> {
    let mut last = None;
    for _ in 0..TRIES {
        let Some(header) = source.shm.header_soon() else {
            return Ok(None);
        };
        match towards(source, &header, limit)? {
            Outcome::Nothing => return Ok(None),
            Outcome::Change(change) if change.commits > 0 => return Ok(Some(*change)),
            // Nothing but a fence, or its lifting: no part of any change.
            Outcome::Change(change) => source.consume(&change),
            Outcome::Moved if last != Some(header) => last = Some(header),
            Outcome::Moved => {
                source.lost = Some("published frames do not hold their checksums".into());
                return Ok(None);
            }
            Outcome::Lost(reason) => {
                source.lost = Some(reason);
                return Ok(None);
            }
        }
    }
    Ok(None)
}

fn towards(source: &mut Source, header: &IndexHeader, limit: u32) -> Result<Outcome> {
    let mark = source.mark;
    if header.salts != mark.salts {
        match follow_restart(source, header, limit)? {
            Outcome::Nothing => {}
            other => return Ok(other),
        }
    } else if header.max_frame < mark.frame {
        return Ok(Outcome::Lost(
            "the WAL became shorter without a restart".into(),
        ));
    }
    let mark = source.mark;
    if header.max_frame == mark.frame {
        let same = header.change == mark.change;
        return Ok(if same {
            Outcome::Nothing
        } else {
            Outcome::Lost(audit(&mark, header))
        });
    }
    if source
        .wal_header
        .is_none_or(|wal| wal.salts != header.salts)
    {
        match read_wal_header(source)? {
            Some(wal) if wal.salts == header.salts => source.wal_header = Some(wal),
            _ => return Ok(Outcome::Moved),
        }
    }
    let Some(batch) = read_batch(source, header, limit)? else {
        return Ok(Outcome::Moved);
    };
    if batch.count == 0 {
        return Ok(Outcome::Lost(
            "a transaction is larger than transaction_bytes_max".into(),
        ));
    }
    if batch.mark.frame == header.max_frame && batch.mark.change != header.change {
        // Repeated frames that fill a sector carry the commit flag again, and count once.
        let single = batch.mark.change.wrapping_sub(batch.mark.repeats);
        if batch.mark.repeats == 0 || single != header.change {
            return Ok(Outcome::Lost(audit(&batch.mark, header)));
        }
    }
    change_of(source, batch, header)
}

fn audit(mark: &Mark, header: &IndexHeader) -> String {
    let missed = header.change.wrapping_sub(mark.change) as i32;
    format!("the change counter is {missed} commits away from what was read")
}

/// Moves the mark to the start of a WAL that was restarted, if nothing was lost in between.
fn follow_restart(source: &mut Source, header: &IndexHeader, limit: u32) -> Result<Outcome> {
    if header.change.wrapping_sub(source.mark.change) as i32 <= -1 {
        return Ok(Outcome::Lost("the WAL-index was rebuilt".into()));
    }
    if header.max_frame == 0 && header.change != source.mark.change {
        return Ok(Outcome::Lost(audit(&source.mark, header)));
    }
    if header.max_frame > limit {
        // The audit must come before anything is handed out, and the first batch would not get
        // as far as the end: count commits ahead.
        let Some(commits) = count_commits(source, header)? else {
            return Ok(Outcome::Moved);
        };
        if header.change != source.mark.change.wrapping_add(commits) {
            return Ok(Outcome::Lost(audit(&source.mark, header)));
        }
    }
    source.frames.clear();
    source.wal_header = None;
    let change = source.mark.change;
    source.set_mark(Mark {
        salts: header.salts,
        frame: 0,
        checksum: header.frame_checksum,
        change,
        repeats: 0,
    });
    Ok(Outcome::Nothing)
}

/// Commits in the whole WAL up to the header's last frame; `None` when it moved meanwhile.
fn count_commits(source: &Source, header: &IndexHeader) -> Result<Option<u32>> {
    let mut commits = 0;
    let mut head = [0; WAL_FRAME_HEADER_LEN];
    for frame in 1..=header.max_frame {
        let offset = wal::sqlite::frame_offset(frame, source.files.page_size);
        durable::read_at(
            &source.files.wal,
            &source.files.paths.wal,
            &mut head,
            offset,
        )?;
        let parsed = WalFrameHeader::parse(&head)?;
        if parsed.salts != header.salts {
            return Ok(None);
        }
        commits += u32::from(parsed.is_commit());
    }
    Ok(Some(commits))
}

pub(super) fn read_wal_header(source: &Source) -> Result<Option<WalHeader>> {
    let mut bytes = [0; wal::sqlite::WAL_HEADER_LEN];
    let have = durable::read_at(&source.files.wal, &source.files.paths.wal, &mut bytes, 0)?;
    Ok(WalHeader::parse(&bytes[..have]).ok())
}

/// Reads and verifies frames behind the mark; `None` when they are not the header's any more, and
/// an empty batch when one transaction is above the limit of memory.
fn read_batch(source: &Source, header: &IndexHeader, limit: u32) -> Result<Option<Batch>> {
    let Some(wal) = source.wal_header else {
        return Ok(None);
    };
    let mut mark = source.mark;
    let mut sum = if mark.frame == 0 {
        wal.checksum
    } else {
        mark.checksum
    };
    let first = mark.frame + 1;
    let mut batch = Batch {
        bytes: Vec::new(),
        first,
        count: 0,
        page_count: 0,
        mark,
        commits: 0,
        fenced: source.fenced,
    };
    let frame_len = source.files.frame_len();
    let (mut begin, mut next) = (first, first);
    while batch.count == 0 && next <= header.max_frame {
        let count = limit.min(header.max_frame - next + 1);
        if batch.bytes.len() as u64 + u64::from(count) * frame_len as u64
            > source.options.transaction_bytes_max.max(frame_len as u64)
            && next > first
        {
            return Ok(Some(batch));
        }
        match source.files.read_frames(next, count, &mut batch.bytes) {
            Err(error) if error.kind() == Kind::Retry => return Ok(None),
            other => other?,
        }
        for frame in next..next + count {
            let (head, page) = split(&batch.bytes, frame_len, frame - first);
            let parsed = WalFrameHeader::parse(head)?;
            if !parsed.holds(&wal, sum, page) {
                return Ok(None);
            }
            sum = parsed.checksum;
            if !parsed.is_commit() {
                continue;
            }
            mark.frame = frame;
            mark.checksum = sum;
            mark.change = mark.change.wrapping_add(1);
            mark.repeats += u32::from(repeats(&batch, frame_len, frame, begin));
            let alone = begin == frame && parsed.page == 1;
            let now_fenced = page[WRITE_VERSION_AT] == VERSION_FENCED;
            if alone && (now_fenced || batch.fenced) {
                batch.fenced = now_fenced;
            } else {
                batch.commits += 1;
            }
            begin = frame + 1;
            batch.count = frame - first + 1;
            batch.page_count = parsed.commit_pages;
            batch.mark = mark;
        }
        next += count;
    }
    let ends = batch.mark.frame == header.max_frame;
    let agrees = sum == header.frame_checksum && batch.page_count == header.page_count;
    if next > header.max_frame && !(ends && agrees) {
        return Ok(None);
    }
    batch.bytes.truncate(batch.count as usize * frame_len);
    Ok(Some(batch))
}

/// Whether the commit at `frame` is a single frame that repeats the one before.
fn repeats(batch: &Batch, frame_len: usize, frame: u32, begin: u32) -> bool {
    if begin != frame || frame == batch.first {
        return false;
    }
    let (head, page) = split(&batch.bytes, frame_len, frame - batch.first);
    let (head_before, page_before) = split(&batch.bytes, frame_len, frame - batch.first - 1);
    head[..8] == head_before[..8] && page == page_before
}

fn split(bytes: &[u8], frame_len: usize, index: u32) -> (&[u8], &[u8]) {
    let at = index as usize * frame_len;
    bytes[at..at + frame_len].split_at(WAL_FRAME_HEADER_LEN)
}

/// Makes the change out of a batch: last image of each page, the image before it, the digest.
fn change_of(source: &Source, batch: Batch, header: &IndexHeader) -> Result<Outcome> {
    let table = source.table.as_ref().expect("poll asks for a table");
    let mut newest = HashMap::new();
    for index in 0..batch.count {
        let (head, _) = split(&batch.bytes, source.files.frame_len(), index);
        newest.insert(WalFrameHeader::parse(head)?.page, batch.first + index);
    }
    let grown = table.page_count() + 1..=batch.page_count;
    let lock = lock_page(source.files.page_size);
    let is_gap = |page: &u32| !newest.contains_key(page) && Some(*page) != lock;
    let gaps: Vec<u32> = grown
        .filter(is_gap)
        .take(GAP_PAGES_MAX as usize + 1)
        .collect();
    if gaps.len() as u32 > GAP_PAGES_MAX {
        return Ok(Outcome::Lost(
            "it grew by more unwritten pages than are read one by one".into(),
        ));
    }
    let mut to = batch.mark;
    let mut commits = batch.commits;
    if to.frame == header.max_frame {
        commits -= u64::from(to.change.wrapping_sub(header.change)).min(commits);
        to.change = header.change;
        to.repeats = 0;
    }
    let mut change = Change {
        commits,
        page_count: batch.page_count,
        rescan: false,
        page_size: source.files.page_size as usize,
        digest: table.digest(),
        from: source.mark,
        to,
        fenced: batch.fenced,
        bytes: batch.bytes,
        pages: Vec::with_capacity(newest.len() + gaps.len()),
        frames: newest.iter().map(|(page, frame)| (*page, *frame)).collect(),
    };
    for page in batch.page_count + 1..=table.page_count() {
        change.digest = change.digest.replace(table.get(page), PageHash::ABSENT);
    }
    newest.retain(|page, _| *page <= batch.page_count && Some(*page) != lock);
    for (page, frame) in newest {
        let index = (frame - batch.first) as usize;
        let at = index * source.files.frame_len() + WAL_FRAME_HEADER_LEN;
        edit(source, &mut change, page, at)?;
    }
    for page in gaps {
        let at = change.bytes.len();
        change.bytes.resize(at + change.page_size, 0);
        source.read_image(page, &mut change.bytes[at..])?;
        edit(source, &mut change, page, at)?;
    }
    change.pages.sort_unstable_by_key(|changed| changed.page);
    Ok(Outcome::Change(Box::new(change)))
}

/// Enters `page`, whose new image lies at `after`, unless it is as it was.
fn edit(source: &Source, change: &mut Change, page: u32, after: usize) -> Result<()> {
    let table = source.table.as_ref().expect("poll asks for a table");
    let len = change.page_size;
    lift_versions(page, &mut change.bytes[after..after + len]);
    let hash = PageHash::of(page, &change.bytes[after..after + len]);
    let old = table.get(page);
    if hash == old {
        return Ok(());
    }
    change.digest = change.digest.replace(old, hash);
    let mut before = None;
    if old != PageHash::ABSENT && page <= change.page_count {
        let at = change.bytes.len();
        change.bytes.resize(at + len, 0);
        source.read_image(page, &mut change.bytes[at..])?;
        // The file may be ahead of our mark after a time without the pin.
        if PageHash::of(page, &change.bytes[at..]) == old {
            before = Some(at);
        } else {
            change.bytes.truncate(at);
        }
    }
    change.pages.push(Changed {
        page,
        hash,
        before,
        after,
    });
    Ok(())
}
