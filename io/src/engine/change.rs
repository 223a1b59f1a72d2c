//! The pages of a change: where their images lie in the bytes that were read.

use wal::delta::PageEdit;
use wal::digest::PageHash;

/// One page of a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    pub page: u32,
    pub hash: PageHash,
    pub before: Option<usize>,
    pub after: usize,
}

/// The changed pages, in their order, with their images in `bytes`.
pub(super) fn edits<'a>(pages: &[Changed], bytes: &'a [u8], page_size: usize) -> Vec<PageEdit<'a>> {
    let image = |at: usize| &bytes[at..at + page_size];
    let edit = |changed: &Changed| PageEdit {
        page: changed.page,
        before: changed.before.map(image),
        after: image(changed.after),
    };
    pages.iter().map(edit).collect()
}
