//! The archived layouts of the two page payloads, and the structural checks that reading needs.
//!
//! The blob comes first and the fixed fields last: then every relative pointer but the blob's own
//! is the same in consecutive frames of one shape, and the link squeezer removes them.

use rkyv::rancor::Error as Refusal;
use rkyv::{Archive, Serialize};

use super::{DeltaHead, GROUP_BYTES_MAX, PAGES_BYTES_MAX, PagesHead, check_page_size, check_pages};
use crate::digest::Digest;
use crate::error::Error;
use crate::frame::{Codec, Frame, FrameKind};
use crate::lsn::{Epoch, Position};

pub(super) const DELTA: &str = "delta";
pub(super) const PAGES: &str = "pages frame";

/// Payload of a delta frame.
#[derive(Archive, Serialize, Default)]
pub(super) struct DeltaBody {
    /// The compressed groups, one after another.
    pub blob: Vec<u8>,
    /// Where each group ends in `blob`.
    pub blob_ends: Vec<u32>,
    /// All changed pages, ascending; `group_pages` of them form a group, the last may be shorter.
    pub pages: Vec<u32>,
    /// Those of `pages` whose previous image is not part of the prefix.
    pub fresh: Vec<u32>,
    pub from_epoch: u64,
    pub from_digest: u64,
    pub to_digest: u64,
    pub page_size: u32,
    pub page_count: u32,
    pub group_pages: u32,
}

/// Payload of a pages frame.
#[derive(Archive, Serialize, Default)]
pub(super) struct PagesBody {
    /// All pages, compressed as one or as they are.
    pub blob: Vec<u8>,
    pub pages: Vec<u32>,
    pub digest: u64,
    pub page_size: u32,
    pub page_count: u32,
}

/// The archived body of a delta frame, valid as memory; its numbers are not yet believed.
pub(super) fn delta_body(frame: &Frame) -> Result<&ArchivedDeltaBody, Error> {
    frame.expect(FrameKind::Delta)?;
    check_codec(frame, DELTA, &[Codec::Prefix])?;
    rkyv::access::<ArchivedDeltaBody, Refusal>(frame.payload()).map_err(|refusal| Error::Archive {
        what: DELTA,
        reason: refusal.to_string(),
    })
}

/// The archived body of a pages frame, valid as memory; its numbers are not yet believed.
pub(super) fn pages_body(frame: &Frame) -> Result<&ArchivedPagesBody, Error> {
    frame.expect(FrameKind::Pages)?;
    check_codec(frame, PAGES, &[Codec::Zstd, Codec::Plain])?;
    rkyv::access::<ArchivedPagesBody, Refusal>(frame.payload()).map_err(|refusal| Error::Archive {
        what: PAGES,
        reason: refusal.to_string(),
    })
}

impl ArchivedDeltaBody {
    /// The head, with page size and page count bounded.
    pub(super) fn head(&self, frame: &Frame) -> Result<DeltaHead, Error> {
        let header = frame.header();
        let page_size = self.page_size.to_native();
        check_page_size(DELTA, page_size)?;
        let from_digest = Digest(self.from_digest.to_native());
        let to_digest = Digest(self.to_digest.to_native());
        let from_epoch = Epoch(self.from_epoch.to_native());
        if from_epoch > header.epoch {
            return Err(refused(DELTA, "from_epoch", from_epoch.0));
        }
        Ok(DeltaHead {
            partition: header.partition,
            from: Position {
                epoch: from_epoch,
                lsn: header.from,
                digest: from_digest,
            },
            to: Position {
                epoch: header.epoch,
                lsn: header.to,
                digest: to_digest,
            },
            page_size,
            page_count: self.page_count.to_native(),
            flags: header.flags,
        })
    }

    /// Everything about groups and offsets that decoding relies on.
    pub(super) fn check(&self, frame: &Frame, head: &DeltaHead) -> Result<(), Error> {
        let size = u64::from(head.page_size);
        let count = self.pages.len() as u64;
        check_plain_len(frame, DELTA, count * size)?;
        let group_pages = self.group_pages.to_native();
        if group_pages == 0 || u64::from(group_pages) * size > GROUP_BYTES_MAX as u64 {
            return Err(refused(DELTA, "group_pages", u64::from(group_pages)));
        }
        if self.blob_ends.len() as u64 != count.div_ceil(u64::from(group_pages)) {
            return Err(refused(DELTA, "blob_ends", self.blob_ends.len() as u64));
        }
        check_ends(
            self.blob_ends.iter().map(|end| end.to_native()),
            self.blob.len(),
        )?;
        let pages = self.pages.iter().map(|page| page.to_native());
        check_pages(DELTA, head.page_size, head.page_count, pages)?;
        let fresh = self.fresh.iter().map(|page| page.to_native());
        check_pages(DELTA, head.page_size, head.page_count, fresh)?;
        let known = |page: &&_| self.pages.binary_search(page).is_err();
        match self.fresh.iter().find(known) {
            Some(stranger) => Err(refused(DELTA, "fresh", u64::from(stranger.to_native()))),
            None => Ok(()),
        }
    }
}

impl ArchivedPagesBody {
    /// The head, with all that decoding relies on checked.
    pub(super) fn head(&self, frame: &Frame) -> Result<PagesHead, Error> {
        let header = frame.header();
        let page_size = self.page_size.to_native();
        let page_count = self.page_count.to_native();
        check_page_size(PAGES, page_size)?;
        let plain_len = self.pages.len() as u64 * u64::from(page_size);
        if header.codec == Codec::Plain {
            // The header's length is that of the payload then: the blob has to be all images.
            if self.blob.len() as u64 != plain_len {
                return Err(refused(PAGES, "blob", self.blob.len() as u64));
            }
        } else {
            check_plain_len(frame, PAGES, plain_len)?;
        }
        if plain_len > PAGES_BYTES_MAX as u64 {
            return Err(Error::TooLong {
                what: PAGES,
                declared: plain_len,
                max: PAGES_BYTES_MAX as u64,
            });
        }
        if header.from != header.to {
            return Err(refused(PAGES, "from", header.from.0));
        }
        check_pages(
            PAGES,
            page_size,
            page_count,
            self.pages.iter().map(|page| page.to_native()),
        )?;
        let digest = Digest(self.digest.to_native());
        Ok(PagesHead {
            partition: header.partition,
            at: Position {
                epoch: header.epoch,
                lsn: header.to,
                digest,
            },
            page_size,
            page_count,
            flags: header.flags,
        })
    }
}

fn check_codec(frame: &Frame, what: &'static str, known: &[Codec]) -> Result<(), Error> {
    let found = frame.header().codec;
    if known.contains(&found) {
        Ok(())
    } else {
        Err(refused(what, "codec", found as u64))
    }
}

fn check_plain_len(frame: &Frame, what: &'static str, plain_len: u64) -> Result<(), Error> {
    let declared = u64::from(frame.header().plain_len);
    if declared == plain_len {
        Ok(())
    } else {
        Err(refused(what, "plain_len", declared))
    }
}

/// Group ends ascend strictly and the last one is the end of the blob.
fn check_ends(ends: impl Iterator<Item = u32>, blob_len: usize) -> Result<(), Error> {
    let mut last = 0;
    for end in ends {
        if end <= last {
            return Err(refused(DELTA, "blob_end", u64::from(end)));
        }
        last = end;
    }
    if last as usize == blob_len {
        Ok(())
    } else {
        Err(refused(DELTA, "blob", blob_len as u64))
    }
}

pub(super) fn refused(what: &'static str, field: &'static str, value: u64) -> Error {
    Error::Field { what, field, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Header;
    use crate::ids::PartitionId;

    /// A plain pages frame of one page of 512 bytes, with a blob of `len` bytes.
    fn plain(len: usize) -> Frame {
        let body = PagesBody {
            blob: vec![7; len],
            pages: vec![1],
            digest: 0,
            page_size: 512,
            page_count: 1,
        };
        let header = Header::plain(FrameKind::Pages, PartitionId(1), Epoch(1));
        Frame::seal(header, &rkyv::to_bytes::<Refusal>(&body).unwrap())
    }

    #[test]
    fn a_plain_blob_that_is_not_all_of_its_images_is_refused() {
        let check = |frame: &Frame| pages_body(frame).unwrap().head(frame).map(|_| ());
        assert!(check(&plain(512)).is_ok());
        for len in [0, 511, 513, 1024] {
            let refusal = check(&plain(len));
            assert!(
                matches!(refusal, Err(Error::Field { field: "blob", .. })),
                "{len}"
            );
        }
    }
}
