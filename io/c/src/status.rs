//! Results as C knows them: a number, and a message in the caller's memory.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wal::log::Error;

const MESSAGE_LEN: usize = 248;

/// The numbers of `foreshadow_wal.h`.
pub mod code {
    pub const OK: i32 = 0;
    pub const SYSTEM: i32 = 1;
    pub const IN_USE: i32 = 2;
    pub const SEALED: i32 = 3;
    pub const LEASE_OVER: i32 = 4;
    pub const NOT_MIRRORED: i32 = 5;
    pub const TOO_LONG: i32 = 6;
    pub const DAMAGED: i32 = 7;
    pub const GONE: i32 = 8;
    pub const VERSION: i32 = 9;
    pub const NOT_A_LOG: i32 = 10;
    pub const BROKEN: i32 = 11;
    pub const NO_SPACE: i32 = 12;
    pub const ARGUMENT: i32 = 13;
    pub const PANIC: i32 = 14;
    pub const END: i32 = 15;
}

/// `foreshadow_error`.
#[repr(C)]
#[derive(Debug)]
pub struct ErrorOut {
    code: i32,
    system: i32,
    message: [c_char; MESSAGE_LEN],
}

/// Why a function of the C interface failed.
#[derive(Debug)]
pub struct Status {
    code: i32,
    system: i32,
    message: String,
}

impl Status {
    pub fn argument(message: &str) -> Status {
        Status {
            code: code::ARGUMENT,
            system: 0,
            message: message.to_owned(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let system = match &error {
            Error::System { code, .. } => *code,
            _ => 0,
        };
        let code = match &error {
            error if error.is_no_space() => code::NO_SPACE,
            Error::System { .. } => code::SYSTEM,
            Error::InUse { .. } => code::IN_USE,
            Error::Sealed { .. } => code::SEALED,
            Error::LeaseOver => code::LEASE_OVER,
            Error::NotMirrored { .. } => code::NOT_MIRRORED,
            Error::TooLong { .. } => code::TOO_LONG,
            Error::Damaged { .. } => code::DAMAGED,
            Error::Gone { .. } => code::GONE,
            Error::Version { .. } => code::VERSION,
            Error::NotALog { .. } => code::NOT_A_LOG,
            Error::Broken { .. } => code::BROKEN,
        };
        Status {
            code,
            system,
            message: error.to_string(),
        }
    }
}

/// Runs `work` and tells C what came of it.
pub fn guard(error: Option<&mut ErrorOut>, work: impl FnOnce() -> Result<i32, Status>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Status {
            code: code::PANIC,
            system: 0,
            message: "a bug in libforeshadow_wal; see its message on standard error".to_owned(),
        })
    });
    let status = match outcome {
        Ok(code) => return code,
        Err(status) => status,
    };
    if let Some(error) = error {
        (error.code, error.system) = (status.code, status.system);
        error.message = [0; MESSAGE_LEN];
        let mut end = status.message.len().min(MESSAGE_LEN - 1);
        while !status.message.is_char_boundary(end) {
            end -= 1;
        }
        for (place, byte) in error
            .message
            .iter_mut()
            .zip(&status.message.as_bytes()[..end])
        {
            *place = *byte as c_char;
        }
    }
    status.code
}
