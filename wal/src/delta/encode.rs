//! Pages to frames.

use rkyv::rancor::Error as Refusal;
use rkyv::util::AlignedVec;

use super::body::{DELTA, DeltaBody, PAGES, PagesBody, refused};
use super::{
    DeltaHead, GROUP_BYTES_MAX, PAGES_BYTES_MAX, PageEdit, PagesHead, check_page_size, check_pages,
};
use crate::compress::Packer;
use crate::error::Error;
use crate::frame::{Codec, Frame, FrameKind, Header, PLAIN_LEN_MAX, WIRE_LEN_MAX};

/// Room that a body needs beside its blob and page numbers.
const BODY_LEN: usize = 128;

/// Makes deltas and pages frames; keeps its zstd context and buffers between calls.
pub struct Encoder {
    level: i8,
    packer: Packer,
    plain: Vec<u8>,
    body: DeltaBody,
    pages: PagesBody,
}

impl Encoder {
    /// `level` is zstd's; negative levels are faster.
    pub fn new(level: i8) -> Encoder {
        Encoder {
            level,
            packer: Packer::new(level),
            plain: Vec::new(),
            body: DeltaBody::default(),
            pages: PagesBody::default(),
        }
    }

    /// The zstd level of what is made from now on.
    pub fn set_level(&mut self, level: i8) {
        self.level = level;
        self.packer.set_level(level);
    }

    /// A delta of `edits`, in groups of at most `group_pages` pages, fewer where pages are large.
    /// Edits may come in any order, each page once; edits beyond `head.page_count` are left out,
    /// because a truncated page is not part of the database.
    ///
    /// Refuses with [`Error::TooLong`] what does not fit one frame: such a change travels as
    /// pages instead.
    pub fn delta(
        &mut self,
        head: &DeltaHead,
        edits: &[PageEdit<'_>],
        group_pages: usize,
    ) -> Result<Frame, Error> {
        check_page_size(DELTA, head.page_size)?;
        check_positions(head)?;
        let size = head.page_size as usize;
        let mut kept: Vec<&PageEdit<'_>> = edits
            .iter()
            .filter(|edit| edit.page <= head.page_count)
            .collect();
        kept.sort_unstable_by_key(|edit| edit.page);
        check_pages(
            DELTA,
            head.page_size,
            head.page_count,
            kept.iter().map(|edit| edit.page),
        )?;
        let plain_len = plain_len(DELTA, kept.len(), size, PLAIN_LEN_MAX as usize)?;
        let group_pages = group_pages.clamp(1, GROUP_BYTES_MAX / size);
        self.start_body(head, group_pages);
        for group in kept.chunks(group_pages) {
            self.pack_group(group, size)?;
        }
        let header = Header {
            flags: head.flags,
            from: head.from.lsn,
            to: head.to.lsn,
            plain_len,
            codec: Codec::Prefix,
            level: self.level,
            ..Header::plain(FrameKind::Delta, head.partition, head.to.epoch)
        };
        let lists = self.body.blob_ends.len() + self.body.pages.len() + self.body.fresh.len();
        let bytes = Frame::begin(self.body.blob.len() + 4 * lists + BODY_LEN);
        Frame::finish(header, archive(DELTA, &self.body, bytes)?)
    }

    /// A frame of whole `pages`, ascending, at most [`PAGES_BYTES_MAX`] bytes of them.
    pub fn pages(&mut self, head: &PagesHead, pages: &[(u32, &[u8])]) -> Result<Frame, Error> {
        self.pages_with(Codec::Zstd, head, pages)
    }

    /// Like [`Encoder::pages`], with the images as they are: where the link is faster than zstd.
    pub fn plain_pages(
        &mut self,
        head: &PagesHead,
        pages: &[(u32, &[u8])],
    ) -> Result<Frame, Error> {
        self.pages_with(Codec::Plain, head, pages)
    }

    fn pages_with(
        &mut self,
        codec: Codec,
        head: &PagesHead,
        pages: &[(u32, &[u8])],
    ) -> Result<Frame, Error> {
        check_page_size(PAGES, head.page_size)?;
        let size = head.page_size as usize;
        check_pages(
            PAGES,
            head.page_size,
            head.page_count,
            pages.iter().map(|(page, _)| *page),
        )?;
        let plain_len = plain_len(PAGES, pages.len(), size, PAGES_BYTES_MAX)?;
        self.plain.clear();
        self.pages.pages.clear();
        for (page, image) in pages {
            push_image(&mut self.plain, PAGES, image, size)?;
            self.pages.pages.push(*page);
        }
        self.pages.blob.clear();
        self.pages.digest = head.at.digest.0;
        self.pages.page_size = head.page_size;
        self.pages.page_count = head.page_count;
        self.packer.clear_prefix();
        if codec == Codec::Plain {
            self.pages.blob.extend_from_slice(&self.plain);
        } else if !pages.is_empty() {
            self.packer.pack(&self.plain, &mut self.pages.blob)?;
        }
        let header = Header {
            flags: head.flags,
            from: head.at.lsn,
            to: head.at.lsn,
            plain_len,
            codec,
            level: match codec {
                Codec::Plain => 0,
                _ => self.level,
            },
            ..Header::plain(FrameKind::Pages, head.partition, head.at.epoch)
        };
        let bytes = Frame::begin(self.pages.blob.len() + 4 * pages.len() + BODY_LEN);
        Frame::finish(header, archive(PAGES, &self.pages, bytes)?)
    }

    fn start_body(&mut self, head: &DeltaHead, group_pages: usize) {
        self.body.blob.clear();
        self.body.blob_ends.clear();
        self.body.pages.clear();
        self.body.fresh.clear();
        self.body.from_epoch = head.from.epoch.0;
        self.body.from_digest = head.from.digest.0;
        self.body.to_digest = head.to.digest.0;
        self.body.page_size = head.page_size;
        self.body.page_count = head.page_count;
        self.body.group_pages = group_pages as u32;
    }

    fn pack_group(&mut self, group: &[&PageEdit<'_>], size: usize) -> Result<(), Error> {
        self.plain.clear();
        self.packer.clear_prefix();
        for edit in group {
            self.body.pages.push(edit.page);
            push_image(&mut self.plain, DELTA, edit.after, size)?;
            match edit.before {
                Some(before) if before.len() == size => self.packer.extend_prefix(before),
                Some(before) => return Err(refused(DELTA, "image length", before.len() as u64)),
                None => self.body.fresh.push(edit.page),
            }
        }
        self.packer.pack(&self.plain, &mut self.body.blob)?;
        if self.body.blob.len() > WIRE_LEN_MAX as usize {
            let declared = self.body.blob.len() as u64;
            return Err(Error::TooLong {
                what: DELTA,
                declared,
                max: u64::from(WIRE_LEN_MAX),
            });
        }
        self.body.blob_ends.push(self.body.blob.len() as u32);
        Ok(())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// A delta does not run backwards, neither in its log nor in ownership.
fn check_positions(head: &DeltaHead) -> Result<(), Error> {
    if head.from.lsn > head.to.lsn {
        return Err(refused(DELTA, "from", head.from.lsn.0));
    }
    if head.from.epoch > head.to.epoch {
        return Err(refused(DELTA, "from_epoch", head.from.epoch.0));
    }
    Ok(())
}

fn plain_len(what: &'static str, pages: usize, size: usize, max: usize) -> Result<u32, Error> {
    match pages.checked_mul(size) {
        Some(len) if len <= max => Ok(len as u32),
        _ => {
            let declared = (pages as u64).saturating_mul(size as u64);
            Err(Error::TooLong {
                what,
                declared,
                max: max as u64,
            })
        }
    }
}

fn push_image(
    plain: &mut Vec<u8>,
    what: &'static str,
    image: &[u8],
    size: usize,
) -> Result<(), Error> {
    if image.len() != size {
        return Err(refused(what, "image length", image.len() as u64));
    }
    plain.extend_from_slice(image);
    Ok(())
}

fn archive<T>(what: &'static str, body: &T, bytes: AlignedVec<16>) -> Result<AlignedVec<16>, Error>
where
    T: for<'a> rkyv::Serialize<
            rkyv::api::high::HighSerializer<
                AlignedVec<16>,
                rkyv::ser::allocator::ArenaHandle<'a>,
                Refusal,
            >,
        >,
{
    rkyv::api::high::to_bytes_in::<_, Refusal>(body, bytes).map_err(|refusal| Error::Archive {
        what,
        reason: refusal.to_string(),
    })
}
