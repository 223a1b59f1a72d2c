//! Peers that send what is no frame, or go in the middle of one.

use std::io::Write;
use std::net::TcpStream;

use super::*;

/// What a link says about raw bytes from a peer that then closes.
fn answer_to(bytes: Vec<u8>) -> (Vec<Frame>, Reason) {
    let (address, heard, collecting) = collector(Span::ZERO);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(WAIT)).unwrap();
    // The link may cut the connection while we write: that is its answer.
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let said = heard.recv_timeout(WAIT).unwrap();
    finish(collecting);
    said
}

#[test]
fn a_peer_that_disconnects_inside_a_record_is_lost_not_corrupt() {
    let whole = record(&frame(Class::Live, 1, 5000));
    for cut in [2, 40, 100, whole.len() - 1] {
        let bytes = [&whole[..], &whole[..cut]].concat();
        let (frames, reason) = answer_to(bytes);
        assert_eq!(frames.len(), 1);
        let Reason::Lost(error) = reason else {
            panic!("cut at {cut}: {reason}")
        };
        assert!(error.to_string().contains("middle of a record"), "{error}");
        assert_eq!(error.kind(), Kind::Retry);
    }
}

#[test]
fn damaged_or_oversized_records_end_the_link_with_a_clear_error() {
    let good = record(&frame(Class::Live, 1, 5000));
    let mut flipped = record(&frame(Class::Live, 2, 5000));
    flipped[2000] ^= 1;
    let oversize = RecordHead {
        len: 17 << 20,
        squeezed: false,
    }
    .encode()
    .to_vec();
    let mut disagreeing = record(&frame(Class::Live, 3, 5000));
    disagreeing[..4].copy_from_slice(
        &RecordHead {
            len: 9 << 20,
            squeezed: false,
        }
        .encode(),
    );
    let garbage = [
        &RecordHead {
            len: 100,
            squeezed: true,
        }
        .encode()[..],
        &[0xa5; 100],
    ]
    .concat();
    let batch = RecordHead {
        len: 1 << 20,
        squeezed: true,
    }
    .encode()
    .to_vec();
    let cases = [
        (flipped, "checksum"),
        (oversize, "declares 17825792 bytes"),
        (
            disagreeing,
            "a record of 9437184 bytes with a frame of 5064",
        ),
        (garbage, "decompress"),
        (batch, "a squeezed record of 1048576 bytes"),
        (vec![0; 8], "length holds 0"),
    ];
    for (bad, words) in cases {
        let (frames, reason) = answer_to([&good[..], &bad].concat());
        assert_eq!(frames.len(), 1, "what came before is kept ({words})");
        let Reason::Corrupt(error) = reason else {
            panic!("{words}: {reason}")
        };
        assert!(
            error.to_string().contains(words),
            "{error} should say {words:?}"
        );
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}
