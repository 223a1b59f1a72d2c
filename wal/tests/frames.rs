//! Frames and deltas against a hostile world: round trips, damage, and arbitrary bytes.

use foreshadow_wal::compress::{Squeezer, Unsqueezer};
use foreshadow_wal::delta::{
    Decoder, DeltaHead, Encoder, GROUP_BYTES_MAX, PAGES_BYTES_MAX, PageEdit, PagesHead,
};
use foreshadow_wal::frame::{
    Codec, Flags, Frame, FrameKind, HEADER_LEN, Header, WIRE_LEN_MAX, frame_len,
};
use foreshadow_wal::{Digest, Epoch, Error, Lsn, PartitionId, Position};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Pages of a small database, before and after.
type Pages = BTreeMap<u32, Vec<u8>>;

fn head(page_size: u32, page_count: u32) -> DeltaHead {
    let position = |lsn: u64| Position {
        epoch: Epoch(3),
        lsn: Lsn(lsn),
        digest: Digest(!lsn),
    };
    DeltaHead {
        partition: PartitionId(0xfeed),
        from: position(41),
        to: position(43),
        page_size,
        page_count,
        flags: Flags::FINAL,
    }
}

/// Decodes `frame` on top of `before`; what it wrote.
fn decode(frame: &Frame, before: &Pages) -> Result<(DeltaHead, Pages), Error> {
    let mut after = Pages::new();
    let head = Decoder::new().delta(
        frame,
        &mut |page, image| {
            if let Some(old) = before.get(&page) {
                image.copy_from_slice(old);
            }
            Ok(())
        },
        &mut |page, image| {
            after.insert(page, image.to_vec());
            Ok(())
        },
    )?;
    Ok((head, after))
}

/// Looks at every part of a frame that a receiver might; must not panic.
fn digest_everything(bytes: &[u8]) {
    let _may_be_refused = frame_len(bytes);
    let Ok(frame) = Frame::parse(bytes) else {
        return;
    };
    let _may_be_refused = Decoder::delta_head(&frame);
    let _may_be_refused = Decoder::page_numbers(&frame);
    let _may_be_refused = decode(&frame, &Pages::new());
    let _may_be_refused = Decoder::new().pages(&frame, &mut |_, _| Ok(()));
}

/// A page with structure (repeats) and noise, as database pages have.
fn page(page_size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..page_size)
        .map(|at| if at % 64 < 40 { b'x' } else { noise() as u8 })
        .collect()
}

fn small_delta() -> (Frame, Pages) {
    let (one, two) = (page(512, 1), page(512, 2));
    let mut changed = one.clone();
    changed[100] ^= 0x55;
    let edits = [
        PageEdit {
            page: 2,
            before: Some(&one),
            after: &changed,
        },
        PageEdit {
            page: 9,
            before: None,
            after: &two,
        },
    ];
    let frame = Encoder::new(1)
        .delta(&head(512, 12), &edits, 4)
        .expect("a delta");
    (frame, Pages::from([(2, one)]))
}

/// An edit: page, was it there, and how many bytes of it change.
fn edits() -> impl Strategy<Value = BTreeMap<u32, (bool, usize)>> {
    prop::collection::btree_map(1_u32..200, (any::<bool>(), 0_usize..40), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_delta_decodes_to_the_images_it_was_made_of(
        size_log in 9_u32..=16, edits in edits(), group in 0_usize..100, level in -3_i8..4,
    ) {
        let size = 1_usize << size_log;
        let before: Pages = edits.keys().map(|n| (*n, page(size, *n))).collect();
        let mut after = before.clone();
        for (n, (_, changes)) in &edits {
            let image = after.get_mut(n).expect("the same pages");
            for change in 0..*changes {
                let at = (change * 7_919 + *n as usize) % size;
                image[at] = image[at].wrapping_add(1);
            }
        }
        let list: Vec<PageEdit<'_>> = edits.iter().map(|(n, (known, _))| PageEdit {
            page: *n, before: known.then(|| &before[n][..]), after: &after[n],
        }).collect();
        let head = head(size as u32, 200);
        let frame = Encoder::new(level).delta(&head, &list, group).expect("fits one frame");
        let again = Frame::parse(frame.bytes()).expect("its own bytes");
        prop_assert_eq!(&again, &frame);
        prop_assert_eq!(frame_len(frame.bytes()).expect("a header"), Some(frame.len()));
        prop_assert_eq!(Decoder::delta_head(&again).expect("a delta"), head);
        let (decoded, pages) = decode(&again, &before).expect("decodes");
        prop_assert_eq!(decoded, head);
        prop_assert_eq!(pages, after);
    }

    #[test]
    fn pages_decode_to_the_images_they_were_made_of(
        size_log in 9_u32..=16, numbers in prop::collection::btree_set(1_u32..5_000, 0..20),
    ) {
        let size = 1_usize << size_log;
        let images: Vec<(u32, Vec<u8>)> = numbers.iter().take(PAGES_BYTES_MAX / size)
            .map(|n| (*n, page(size, *n))).collect();
        let list: Vec<(u32, &[u8])> = images.iter().map(|(n, image)| (*n, &image[..])).collect();
        let at = Position { epoch: Epoch(1), lsn: Lsn(9), digest: Digest(77) };
        let head = PagesHead { partition: PartitionId(5), at, page_size: size as u32,
            page_count: 5_000, flags: Flags::LAST };
        let fast = Encoder::new(-5).pages(&head, &list).expect("fits");
        let plain = Encoder::new(1).plain_pages(&head, &list).expect("fits");
        for frame in [Encoder::new(1).pages(&head, &list).expect("fits"), fast, plain] {
            let mut seen = Vec::new();
            let found = Decoder::new().pages(&Frame::parse(frame.bytes()).expect("a frame"),
                &mut |n, image| { seen.push((n, image.to_vec())); Ok(()) }).expect("decodes");
            prop_assert_eq!(found, head);
            prop_assert_eq!(&seen, &images);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        digest_everything(&bytes);
        for kind in [FrameKind::Delta, FrameKind::Pages] {
            for codec in [Codec::Plain, Codec::Zstd, Codec::Prefix] {
                let header = Header { codec, plain_len: 1024,
                    ..Header::plain(kind, PartitionId(1), Epoch(1)) };
                digest_everything(Frame::seal(header, &bytes).bytes());
            }
        }
        let mut out = Vec::new();
        let _may_be_refused = Unsqueezer::new().unsqueeze(&bytes, 1000, &mut out);
        prop_assert!(out.len() <= 1001);
    }

    #[test]
    fn a_damaged_payload_with_a_true_checksum_never_panics_a_decoder(
        at in any::<prop::sample::Index>(), value in any::<u8>(), plain_len in 0_u32..4096,
    ) {
        let (frame, _) = small_delta();
        let mut payload = frame.payload().to_vec();
        let at = at.index(payload.len());
        payload[at] = value;
        digest_everything(Frame::seal(frame.header(), &payload).bytes());
        let header = Header { plain_len, ..frame.header() };
        digest_everything(Frame::seal(header, &payload).bytes());
    }

    #[test]
    fn a_link_gives_back_what_it_squeezed(
        batches in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..20),
    ) {
        let (mut squeezer, mut unsqueezer) = (Squeezer::new(), Unsqueezer::new());
        for batch in batches {
            let (mut wire, mut plain) = (Vec::new(), vec![1, 2, 3]);
            squeezer.squeeze(&batch, &mut wire).expect("squeezed");
            unsqueezer.unsqueeze(&wire, batch.len(), &mut plain).expect("unsqueezed");
            prop_assert_eq!(&plain[3..], &batch[..]);
        }
    }
}

/// The frames of [`small_delta`] and of its first page as version 1 wrote them.
const DELTA_V1: &[u8] = include_bytes!("fixtures/delta-v1.frame");
const PAGES_V1: &[u8] = include_bytes!("fixtures/pages-v1.frame");

#[test]
fn frames_of_version_1_stay_readable() {
    let (frame, before) = small_delta();
    let (expected_head, expected) = decode(&frame, &before).expect("decodes");
    let fixture = Frame::parse(DELTA_V1).expect("a frame of version 1");
    let (head, pages) = decode(&fixture, &before).expect("decodes");
    assert_eq!((head, pages), (expected_head, expected));

    let fixture = Frame::parse(PAGES_V1).expect("a frame of version 1");
    assert_eq!(fixture.header(), small_pages().header());
    let mut seen = Vec::new();
    let sink = &mut |n, image: &[u8]| {
        seen.push((n, image.to_vec()));
        Ok(())
    };
    Decoder::new().pages(&fixture, sink).expect("decodes");
    assert_eq!(seen, [(2, page(512, 1))]);
}

fn small_pages() -> Frame {
    let at = Position {
        epoch: Epoch(3),
        lsn: Lsn(41),
        digest: Digest(!41),
    };
    let head = PagesHead {
        partition: PartitionId(0xfeed),
        at,
        page_size: 512,
        page_count: 12,
        flags: Flags::LAST,
    };
    Encoder::new(1)
        .pages(&head, &[(2, &page(512, 1))])
        .expect("one page")
}

/// The byte table of wal/README.md, field by field, on a frame of version 1.
#[test]
fn the_bytes_are_where_the_format_says() {
    let u32_at = |at: usize| u32::from_le_bytes(DELTA_V1[at..at + 4].try_into().expect("four"));
    let u64_at = |at: usize| u64::from_le_bytes(DELTA_V1[at..at + 8].try_into().expect("eight"));
    assert_eq!(DELTA_V1[..8], *b"FSHW\x01\x02\x01\x00");
    assert_eq!(
        [u64_at(8), u64_at(16), u64_at(24), u64_at(32)],
        [0xfeed, 3, 41, 43]
    );
    assert_eq!([u32_at(40), u32_at(44)], [1024, DELTA_V1.len() as u32 - 64]);
    assert_eq!(DELTA_V1[48..60], [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let covered = [&DELTA_V1[..60], &DELTA_V1[64..]].concat();
    assert_eq!(u32_at(60), crc32fast::hash(&covered));

    let fixed = DELTA_V1.len() - 72;
    let list = |field: usize| {
        let at = fixed + field;
        let start = at
            .checked_add_signed(u32_at(at) as i32 as isize)
            .expect("inside");
        (start, u32_at(at + 4) as usize)
    };
    let words = |field: usize| {
        let (start, len) = list(field);
        (0..len)
            .map(|n| u32_at(start + 4 * n))
            .collect::<Vec<u32>>()
    };
    let (blob_start, blob_len) = list(0);
    assert_eq!(blob_start, HEADER_LEN);
    assert_eq!(words(8), [blob_len as u32]);
    assert_eq!((words(16), words(24)), (vec![2, 9], vec![9]));
    assert_eq!(
        [u64_at(fixed + 32), u64_at(fixed + 40), u64_at(fixed + 48)],
        [3, !41, !43]
    );
    assert_eq!(
        [u32_at(fixed + 56), u32_at(fixed + 60), u32_at(fixed + 64)],
        [512, 12, 4]
    );
    assert_eq!(u32_at(fixed + 68), 0);
}

#[test]
fn every_flipped_bit_of_a_frame_is_found() {
    let (frame, _) = small_delta();
    for bit in 0..frame.len() * 8 {
        let mut bytes = frame.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Frame::parse(&bytes).is_err(),
            "bit {bit} of {}",
            frame.len()
        );
    }
}

#[test]
fn every_truncation_and_every_longer_input_is_refused() {
    let (frame, _) = small_delta();
    for len in 0..frame.len() {
        let error = Frame::parse(&frame.bytes()[..len]).expect_err("cut short");
        assert!(matches!(error, Error::Short { .. }), "{len}: {error}");
    }
    let longer = [frame.bytes(), &[0]].concat();
    assert!(Frame::parse(&longer).is_err());
}

#[test]
fn a_delta_on_another_base_is_not_the_same_pages() {
    let (frame, before) = small_delta();
    let (_, right) = decode(&frame, &before).expect("decodes");
    // Where zstd does not notice, the digest will: the images differ.
    if let Ok((_, wrong)) = decode(&frame, &Pages::from([(2, page(512, 99))])) {
        assert_ne!(right, wrong);
    }
}

#[test]
fn a_delta_without_pages_carries_a_truncation() {
    let frame = Encoder::new(1)
        .delta(&head(4096, 3), &[], 16)
        .expect("a delta");
    let (found, pages) = decode(&frame, &Pages::new()).expect("decodes");
    assert_eq!((found.page_count, pages.len()), (3, 0));
}

#[test]
fn edits_beyond_the_end_are_left_out_and_doubles_are_refused() {
    let image = page(512, 1);
    let edit = |page| PageEdit {
        page,
        before: None,
        after: &image,
    };
    let frame = Encoder::new(1)
        .delta(&head(512, 3), &[edit(9), edit(2)], 16)
        .expect("a delta");
    assert_eq!(Decoder::page_numbers(&frame).expect("a delta"), [2]);
    assert!(
        Encoder::new(1)
            .delta(&head(512, 3), &[edit(2), edit(2)], 16)
            .is_err()
    );
}

#[test]
fn pages_that_look_like_a_trained_dictionary_do_not_disturb_zstd() {
    let mut before = vec![0; 512];
    before[..4].copy_from_slice(&0xEC30_A437_u32.to_le_bytes());
    let after = vec![7; 512];
    let edits = [PageEdit {
        page: 1,
        before: Some(&before),
        after: &after,
    }];
    let frame = Encoder::new(1)
        .delta(&head(512, 1), &edits, 1)
        .expect("a delta");
    let (_, pages) = decode(&frame, &Pages::from([(1, before)])).expect("decodes");
    assert_eq!(pages[&1], after);
}

#[test]
fn noise_survives_at_the_largest_group() {
    let mut state = 1_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    let images: Vec<Vec<u8>> = (0..40)
        .map(|_| (0..4096).map(|_| noise()).collect())
        .collect();
    let edits: Vec<PageEdit<'_>> = images
        .iter()
        .zip(1..)
        .map(|(image, page)| PageEdit {
            page,
            before: Some(&images[0]),
            after: image,
        })
        .collect();
    let frame = Encoder::new(1)
        .delta(&head(4096, 40), &edits, usize::MAX)
        .expect("a delta");
    assert!(frame.len() > 39 * 4096, "noise does not shrink");
    let before: Pages = (1..=40).map(|n| (n, images[0].clone())).collect();
    let (_, pages) = decode(&frame, &before).expect("decodes");
    assert!(
        images
            .iter()
            .zip(1..)
            .all(|(image, page)| pages[&page] == *image)
    );
    assert_eq!(GROUP_BYTES_MAX % 4096, 0);
}

#[test]
fn a_length_above_the_limit_is_refused_before_anything_is_read() {
    let (frame, _) = small_delta();
    let mut bytes = frame.bytes()[..HEADER_LEN].to_vec();
    bytes[44..48].copy_from_slice(&(WIRE_LEN_MAX + 1).to_le_bytes());
    assert!(matches!(frame_len(&bytes), Err(Error::TooLong { .. })));
    assert!(matches!(frame_len(&bytes[..63]), Ok(None)));
}

#[test]
fn a_squeezed_record_can_not_expand_beyond_its_cap() {
    let (mut squeezer, mut wire) = (Squeezer::new(), Vec::new());
    squeezer
        .squeeze(&vec![0; 10 << 20], &mut wire)
        .expect("squeezed");
    let mut out = Vec::new();
    let error = Unsqueezer::new()
        .unsqueeze(&wire, 100_000, &mut out)
        .expect_err("too long");
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    assert!(out.capacity() < 1 << 20);
}

#[test]
fn a_payload_lies_at_a_multiple_of_16() {
    for len in 0..64 {
        let header = Header::plain(FrameKind::Note, PartitionId(1), Epoch(1));
        let frame = Frame::seal(header, &vec![0; len]);
        let parsed = Frame::parse(frame.bytes()).expect("a frame");
        assert_eq!(parsed.payload().as_ptr() as usize % 16, 0);
        assert_eq!(parsed.header().plain_len, len as u32);
    }
}
