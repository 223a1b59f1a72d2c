//! A native log under light watch: its control page is mapped and nothing of it is open but the
//! lock that says who tails, so a log at rest costs one descriptor.
//!
//! Segments from the consumed position on stay held, so nothing is missed while it rests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal::Lsn;
use wal::log::{Control, Glance};

use super::image::Image;
use super::source::{Name, Source};
use crate::engine::table::Table;
use crate::error::Result;

/// A log of which only commits are noticed.
#[derive(Debug)]
pub struct Watch {
    pub(in crate::engine) glance: Arc<Glance>,
    path: PathBuf,
    name: Name,
    image: Image,
    table: Option<Table>,
    tail: std::fs::File,
}

impl Watch {
    /// The log's file: whoever commits writes to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it was left.
    pub fn seen(&self) -> Lsn {
        self.image.lsn
    }

    /// Whether anything was committed since it was left.
    pub fn committed(&self) -> bool {
        self.glance.word().lsn != self.image.lsn
    }

    /// Whether the name still leads to the log; `Fatal` if not.
    pub fn verify_names(&self) -> Result<()> {
        self.name.verify()
    }

    /// Attaches in full again, where it was left; `Fatal` if another log is there now.
    pub fn upgrade(self) -> Result<Source> {
        self.name.verify()?;
        let control = Arc::new(Control::open(&self.path)?);
        self.name.verify_is(control.place()?)?;
        Source::resume(control, self.name, self.image, self.table, self.tail)
    }
}

impl Source {
    /// Lets go of all but the control page. Tasks that are out must have come back.
    pub fn cool(mut self) -> Result<Watch> {
        self.thaw();
        Ok(Watch {
            glance: Arc::new(self.control.glance()?),
            path: self.control.path().to_owned(),
            name: self.name,
            image: self.image,
            table: self.table,
            tail: self.tail,
        })
    }
}
