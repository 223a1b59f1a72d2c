//! Frames to pages.

use super::body::{delta_body, pages_body};
use super::{DeltaHead, PagesHead};
use crate::compress::Unpacker;
use crate::error::Error;
use crate::frame::{Codec, Frame, FrameKind};

/// Fills in the current image of a page.
pub type FillImage<'a> = dyn FnMut(u32, &mut [u8]) -> Result<(), Error> + 'a;
/// Takes the new image of a page.
pub type TakeImage<'a> = dyn FnMut(u32, &[u8]) -> Result<(), Error> + 'a;

/// Reads deltas and pages frames; keeps its zstd context and buffers between calls.
pub struct Decoder {
    unpacker: Unpacker,
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder {
            unpacker: Unpacker::new(),
        }
    }

    /// What a delta says about itself, without expanding it.
    pub fn delta_head(frame: &Frame) -> Result<DeltaHead, Error> {
        delta_body(frame)?.head(frame)
    }

    /// What a pages frame says about itself, without expanding it.
    pub fn pages_head(frame: &Frame) -> Result<PagesHead, Error> {
        pages_body(frame)?.head(frame)
    }

    /// The numbers of the pages that a delta or a pages frame holds, without expanding it.
    pub fn page_numbers(frame: &Frame) -> Result<Vec<u32>, Error> {
        if frame.header().kind == FrameKind::Pages {
            let body = pages_body(frame)?;
            body.head(frame)?;
            return Ok(body.pages.iter().map(|page| page.to_native()).collect());
        }
        let body = delta_body(frame)?;
        body.check(frame, &body.head(frame)?)?;
        Ok(body.pages.iter().map(|page| page.to_native()).collect())
    }

    /// Expands a delta. `before` fills in the receiver's current image of a page (handed zeroed:
    /// leave it so where there is none); `after` takes the new image. Pages come in ascending
    /// order; all `before` calls of a group precede its `after` calls. Where an error is returned,
    /// `after` may have been called for some of the pages.
    pub fn delta(
        &mut self,
        frame: &Frame,
        before: &mut FillImage<'_>,
        after: &mut TakeImage<'_>,
    ) -> Result<DeltaHead, Error> {
        let body = delta_body(frame)?;
        let head = body.head(frame)?;
        body.check(frame, &head)?;
        let size = head.page_size as usize;
        let groups = body.pages.chunks(body.group_pages.to_native() as usize);
        let mut start = 0;
        for (group, end) in groups.zip(body.blob_ends.iter()) {
            let end = end.to_native() as usize;
            self.unpacker.clear_prefix();
            for page in group
                .iter()
                .filter(|page| body.fresh.binary_search(page).is_err())
            {
                before(page.to_native(), self.unpacker.extend_prefix(size))?;
            }
            let plain = self
                .unpacker
                .unpack(&body.blob[start..end], group.len() * size)?;
            for (page, image) in group.iter().zip(plain.chunks_exact(size)) {
                after(page.to_native(), image)?;
            }
            start = end;
        }
        Ok(head)
    }

    /// Expands a frame of whole pages into `sink`, in ascending order.
    pub fn pages(&mut self, frame: &Frame, sink: &mut TakeImage<'_>) -> Result<PagesHead, Error> {
        let body = pages_body(frame)?;
        let head = body.head(frame)?;
        let size = head.page_size as usize;
        if body.pages.is_empty() {
            return Ok(head);
        }
        let plain = match frame.header().codec {
            Codec::Plain => &body.blob[..],
            _ => {
                self.unpacker.clear_prefix();
                self.unpacker.unpack(&body.blob, body.pages.len() * size)?
            }
        };
        for (page, image) in body.pages.iter().zip(plain.chunks_exact(size)) {
            sink(page.to_native(), image)?;
        }
        Ok(head)
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}
