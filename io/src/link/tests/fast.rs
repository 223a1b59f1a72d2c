//! What a link does with large frames: sends that are tried without a copy, and its own rate.

use super::*;
use crate::link::Verdict;

#[test]
fn the_first_large_send_is_a_trial_and_on_the_loopback_the_last() {
    let (address, heard, collecting) = collector(Span::ZERO);
    let (said, told) = channel();
    let sending = on_shard("sender", move |mut context| {
        let said = said.clone();
        async move {
            let mut peer = Peer::connect(address);
            let live = |number, len| frame(Class::Live, number, len);
            peer.link.enqueue(Class::Live, live(0, 100)).unwrap();
            while peer.link.queued_bytes(Class::Live) > 0 {
                assert!(peer.turn(&mut context, Span::secs(1)).await?);
            }
            assert_eq!(peer.link.zero_copy(), Verdict::Untried);
            for number in 1..40 {
                let next = live(number, 300_000);
                while peer.link.enqueue(Class::Live, next.clone()).is_err() {
                    assert!(peer.turn(&mut context, Span::secs(1)).await?);
                }
            }
            while peer.link.zero_copy() != Verdict::Copied {
                assert!(peer.turn(&mut context, Span::millis(10)).await?);
            }
            peer.link.enqueue(Class::Live, live(40, 300_000)).unwrap();
            peer.link.close(now());
            while peer.turn(&mut context, Span::secs(1)).await? {}
            said.send((peer.link.pace().rate(), peer.closed.unwrap()))
                .unwrap();
            Ok(())
        }
    });
    let (frames, reason) = heard.recv_timeout(WAIT).unwrap();
    assert!(matches!(reason, Reason::PeerFinished), "{reason}");
    finish(sending);
    finish(collecting);
    let (rate, reason) = told.recv().unwrap();
    assert!(matches!(reason, Reason::Finished), "{reason}");
    assert!(rate.is_some_and(|rate| rate.0 > 1 << 20), "{rate:?}");
    assert_eq!(frames.len(), 41);
    for (number, got) in frames.iter().enumerate() {
        let len = if number == 0 { 100 } else { 300_000 };
        assert!(*got == frame(Class::Live, number as u64, len), "{number}");
    }
}

#[test]
fn an_urgent_frame_waits_for_one_send_whose_length_follows_the_link() {
    let mut outbox = outbox::Outbox::new(Bounds::default());
    for number in 0..20 {
        let bulk = frame(Class::Bulk, number, 30_000);
        outbox.enqueue(Class::Bulk, bulk).unwrap();
    }
    let slow = outbox.next_send(64 << 10).unwrap().unwrap();
    assert!((60_000..=66 << 10).contains(&slow.len()), "{}", slow.len());
    let urgent = frame(Class::Urgent, 0, 5000);
    outbox.enqueue(Class::Urgent, urgent.clone()).unwrap();
    let next = outbox.next_send(64 << 10).unwrap().unwrap();
    assert!(next.len() <= 66 << 10);
    assert_eq!(outbox.queued_bytes(Class::Urgent), 0, "it went first");
    let fast = outbox.next_send(1 << 20).unwrap().unwrap();
    assert!(fast.len() > 256 << 10, "{}", fast.len());
}
