//! How a verb ends: the exit codes, the same for every verb.

use std::process::ExitCode;

use super::client::Failure;
use crate::serve::problem::ProblemKind;

/// Exit codes; documented in `--help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Something failed.
    Error = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// It can't be done as things stand; nothing was changed.
    Precondition = 3,
    /// It was begun and taken back; the source serves as before.
    RolledBack = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<&Failure> for Exit {
    fn from(failure: &Failure) -> Exit {
        match failure {
            Failure::Refused(problem) => match problem.kind {
                ProblemKind::Precondition => Exit::Precondition,
                ProblemKind::BadRequest => Exit::Usage,
                _ => Exit::Error,
            },
            Failure::Unreachable { .. } | Failure::Garbled { .. } => Exit::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::problem::Problem;

    #[test]
    fn a_failed_precondition_has_its_own_code() {
        let refused = |problem| Exit::from(&Failure::Refused(problem));
        assert_eq!(
            refused(Problem::precondition("the shadow is not warm")),
            Exit::Precondition
        );
        assert_eq!(refused(Problem::busy("another move")), Exit::Error);
        assert_eq!(Exit::RolledBack as u8, 4);
    }
}
