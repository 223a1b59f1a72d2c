//! The native change log for C: what `include/foreshadow_wal.h` declares.
//!
//! Every function catches panics: unwinding must not cross into C. Pointers are checked for NULL;
//! that they point to what the header says is the caller's part.

mod status;

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use status::{ErrorOut, code};
use status::{Status, guard};
use wal::log::{Appender, Control, Durability, Kind, Options, Scanner};
use wal::{Lsn, PartitionId};

/// `foreshadow_options`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OptionsIn {
    size: u32,
    segment_bytes: u32,
    groups_in_flight: u32,
    mirror_timeout_ms: u32,
    id: u64,
    must_exist: u32,
    zero: u32,
}

/// `foreshadow_record`.
#[repr(C)]
#[derive(Debug)]
pub struct RecordInOut {
    lsn: u64,
    data: *const c_void,
    len: usize,
    kind: u16,
}

/// `foreshadow_log`.
#[derive(Debug)]
pub struct Log(Appender);

/// `foreshadow_scan`.
#[derive(Debug)]
pub struct Scan {
    scanner: Scanner<Box<Control>>,
    /// The group that records are handed out of.
    bytes: Vec<u8>,
    records: VecDeque<(u64, u16, Range<usize>)>,
}

/// The path that a C string names.
///
/// # Safety
/// `file` is NULL or points to bytes that end with 0 and stay while this runs.
unsafe fn path<'a>(file: *const c_char) -> Result<&'a Path, Status> {
    if file.is_null() {
        return Err(Status::argument("path is NULL"));
    }
    // SAFETY: not NULL; the rest is this function's own condition.
    let text = unsafe { CStr::from_ptr(file) };
    let text = text.to_str();
    let text = text.map_err(|_| Status::argument("path is not UTF-8"))?;
    Ok(Path::new(text))
}

fn options(given: OptionsIn) -> Result<Options, Status> {
    if given.size as usize != size_of::<OptionsIn>() {
        let reason = "options.size is not sizeof(foreshadow_options) of this library";
        return Err(Status::argument(reason));
    }
    if given.zero != 0 {
        return Err(Status::argument("options.zero is not 0"));
    }
    let mut options = Options {
        id: PartitionId(given.id),
        create: given.must_exist == 0,
        ..Options::default()
    };
    if given.segment_bytes != 0 {
        options.segment_bytes = given.segment_bytes;
    }
    if given.groups_in_flight != 0 {
        options.groups_in_flight = given.groups_in_flight;
    }
    if given.mirror_timeout_ms != 0 {
        let timeout = Duration::from_millis(u64::from(given.mirror_timeout_ms));
        options.durability = Durability::Mirrored { timeout };
    }
    Ok(options)
}

/// Opens the log at `file`, or makes it.
///
/// # Safety
/// Pointers are NULL or as the header says; `log` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_log_open(
    file: *const c_char,
    given: *const OptionsIn,
    log: *mut *mut Log,
    error: *mut ErrorOut,
) -> i32 {
    let open = || {
        // SAFETY: the caller's condition.
        let (file, given) = unsafe { (path(file)?, given.as_ref()) };
        if log.is_null() {
            return Err(Status::argument("log is NULL"));
        }
        let options = given.map_or(Ok(Options::default()), |given| options(*given))?;
        let opened = Box::new(Log(Appender::open(file, &options)?));
        // SAFETY: not NULL, and writable by the caller's condition.
        unsafe { log.write(Box::into_raw(opened)) };
        Ok(code::OK)
    };
    // SAFETY: the caller's condition.
    guard(unsafe { error.as_mut() }, open)
}

/// Appends records as one batch.
///
/// # Safety
/// `log` is open; `records` points to `count` records whose data is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_log_append(
    log: *mut Log,
    records: *mut RecordInOut,
    count: usize,
    error: *mut ErrorOut,
) -> i32 {
    let append = || {
        // SAFETY: the caller's condition.
        let log = unsafe { log.as_ref() };
        let log = log.ok_or_else(|| Status::argument("log is NULL"))?;
        if records.is_null() {
            return Err(Status::argument("records is NULL"));
        }
        // SAFETY: not NULL; `count` of them by the caller's condition.
        let records = unsafe { std::slice::from_raw_parts_mut(records, count) };
        let mut batch = Vec::with_capacity(count);
        for record in records.iter() {
            if record.data.is_null() && record.len > 0 {
                return Err(Status::argument("the data of a record is NULL"));
            }
            let bytes = match record.len {
                0 => &[][..],
                // SAFETY: not NULL; `len` readable bytes by the caller's condition.
                len => unsafe { std::slice::from_raw_parts(record.data.cast::<u8>(), len) },
            };
            batch.push((Kind(record.kind), bytes));
        }
        let mut places = Vec::with_capacity(count);
        log.0.append_batch(&batch, |lsn| places.push(lsn.0))?;
        for (record, place) in records.iter_mut().zip(places) {
            record.lsn = place;
        }
        Ok(code::OK)
    };
    // SAFETY: the caller's condition.
    guard(unsafe { error.as_mut() }, append)
}

/// Everything below is acknowledged; 0 for NULL.
///
/// # Safety
/// `log` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_log_position(log: *const Log) -> u64 {
    // SAFETY: the caller's condition.
    let log = unsafe { log.as_ref() };
    log.map_or(0, |log| log.0.position().0)
}

/// Lets segments below `lsn` be used again.
///
/// # Safety
/// `log` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_log_release(
    log: *mut Log,
    lsn: u64,
    error: *mut ErrorOut,
) -> i32 {
    let release = || {
        // SAFETY: the caller's condition.
        let log = unsafe { log.as_ref() };
        let log = log.ok_or_else(|| Status::argument("log is NULL"))?;
        log.0.release(Lsn(lsn))?;
        Ok(code::OK)
    };
    // SAFETY: the caller's condition.
    guard(unsafe { error.as_mut() }, release)
}

/// Closes the log.
///
/// # Safety
/// `log` is NULL or open, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_log_close(log: *mut Log) {
    if !log.is_null() {
        // SAFETY: it came from `Box::into_raw`, and the caller gives it back.
        let closed = unsafe { Box::from_raw(log) };
        guard(None, move || {
            drop(closed);
            Ok(code::OK)
        });
    }
}

/// Opens a reader.
///
/// # Safety
/// Pointers are NULL or as the header says; `scan` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_scan_open(
    file: *const c_char,
    lsn: u64,
    scan: *mut *mut Scan,
    error: *mut ErrorOut,
) -> i32 {
    let open = || {
        // SAFETY: the caller's condition.
        let file = PathBuf::from(unsafe { path(file)? });
        if scan.is_null() {
            return Err(Status::argument("scan is NULL"));
        }
        let control = Box::new(Control::open(&file)?);
        let scanner = match lsn {
            0 => Scanner::new(control)?,
            at => Scanner::from(control, Lsn(at))?,
        };
        let opened = Box::new(Scan {
            scanner,
            bytes: Vec::new(),
            records: VecDeque::new(),
        });
        // SAFETY: not NULL, and writable by the caller's condition.
        unsafe { scan.write(Box::into_raw(opened)) };
        Ok(code::OK)
    };
    // SAFETY: the caller's condition.
    guard(unsafe { error.as_mut() }, open)
}

/// The next record.
///
/// # Safety
/// `scan` is open and used by this thread alone; `record` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_scan_next(
    scan: *mut Scan,
    record: *mut RecordInOut,
    error: *mut ErrorOut,
) -> i32 {
    let next = || {
        // SAFETY: the caller's condition.
        let (scan, record) = unsafe { (scan.as_mut(), record.as_mut()) };
        let scan = scan.ok_or_else(|| Status::argument("scan is NULL"))?;
        let record = record.ok_or_else(|| Status::argument("record is NULL"))?;
        match scan.next_record()? {
            None => Ok(code::END),
            Some((lsn, kind, place)) => {
                let bytes = &scan.bytes[place];
                *record = RecordInOut {
                    lsn,
                    data: bytes.as_ptr().cast(),
                    len: bytes.len(),
                    kind,
                };
                Ok(code::OK)
            }
        }
    };
    // SAFETY: the caller's condition.
    guard(unsafe { error.as_mut() }, next)
}

impl Scan {
    fn next_record(&mut self) -> Result<Option<(u64, u16, Range<usize>)>, Status> {
        while self.records.is_empty() {
            let Some(group) = self.scanner.next_group()? else {
                return Ok(None);
            };
            self.bytes.clear();
            self.bytes.extend_from_slice(group.bytes());
            let base = group.header.lsn.0;
            self.records.extend(group.records().map(|record| {
                let begin = (record.lsn.0 - base) as usize + wal::log::group::RECORD_HEAD;
                let place = begin..begin + record.payload.len();
                (record.lsn.0, record.kind.0, place)
            }));
        }
        Ok(self.records.pop_front())
    }
}

/// Ends a scan.
///
/// # Safety
/// `scan` is NULL or open, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreshadow_scan_close(scan: *mut Scan) {
    if !scan.is_null() {
        // SAFETY: it came from `Box::into_raw`, and the caller gives it back.
        drop(unsafe { Box::from_raw(scan) });
    }
}
