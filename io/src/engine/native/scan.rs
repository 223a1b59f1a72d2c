//! Hashing every page of a log's image, off the tail's thread: for the first table, and after
//! something was missed.

use std::ops::ControlFlow;
use std::sync::Arc;

use wal::digest::PageHash;
use wal::log::{Control, Scanner};

use super::image::{Content, Image, PAGE};
use crate::error::{Error, Kind, Result};

/// A scan to run on another thread. What it reads is held by its source.
#[derive(Debug)]
pub struct ScanTask {
    pub(super) control: Arc<Control>,
    pub(super) image: Image,
}

/// The result of a scan, to be handed to [`super::Source::adopt`].
#[derive(Debug)]
pub struct Scan {
    pub(super) image: Image,
    pub(super) hashes: Vec<PageHash>,
}

impl ScanTask {
    /// Reads the log and hashes its pages; every group is verified. `progress` hears of pages done
    /// and in all, and may break off.
    pub fn run(self, progress: &mut dyn FnMut(u32, u32) -> ControlFlow<()>) -> Result<Scan> {
        let ScanTask { control, image } = self;
        let pages = image.page_count();
        let mut hashes = hashes_by_rule(&image);
        let mut scanner = Scanner::from(&*control, image.first)?;
        let mut done = 0;
        while scanner.position() < image.lsn {
            let Some(group) = scanner.next_group()? else {
                break;
            };
            let mut page = image.page_at(group.header.lsn).unwrap_or(0);
            let (whole, rest) = group.bytes().as_chunks::<PAGE>();
            for block in whole {
                hashes[page as usize - 1] = PageHash::of(page, block);
                page += 1;
            }
            if !rest.is_empty() {
                let mut block = [0; PAGE];
                block[..rest.len()].copy_from_slice(rest);
                hashes[page as usize - 1] = PageHash::of(page, &block);
            }
            done += whole.len() as u32 + 1;
            if progress(done.min(pages), pages).is_break() {
                let subject = image.layout.path.display().to_string();
                return Err(Error::new(
                    Kind::Retry,
                    "scan",
                    subject,
                    "it was broken off",
                ));
            }
        }
        Ok(Scan { image, hashes })
    }
}

/// The hashes of all pages but those of groups.
fn hashes_by_rule(image: &Image) -> Vec<PageHash> {
    let zeros = [0; PAGE];
    let contents = image.contents();
    let hash = |(index, content): (usize, &Content)| {
        let page = index as u32 + 1;
        match content {
            _ if page == Image::gap() => PageHash::ABSENT,
            Content::State => PageHash::of(page, &image.state_page()),
            Content::Head(number) => PageHash::of(page, &image.layout.head(*number)),
            Content::Zeros | Content::Block => PageHash::of(page, &zeros),
        }
    };
    contents.iter().enumerate().map(hash).collect()
}
