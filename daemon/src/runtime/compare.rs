//! Copies that are being filled: what the peer holds, what differs, what goes next.
//!
//! The owner keeps the hash of every page at the peer: first as told, then as sent. So each round
//! needs no new exchange, and a page that changed after it was sent differs again by itself.

use std::collections::VecDeque;

use io::failpoint::{self, Step};
use io::ring::Ring;
use io::throttle::{Burst, Rate, Throttle};
use wal::delta::{Encoder, PagesHead};
use wal::digest::PageHash;
use wal::frame::{Flags, Frame};
use wal::lsn::Lsn;
use wal::sqlite::lock_page;
use wal::{Digest, NodeId, PartitionId, Span, Time};

use super::codecs::packing;
use super::host::Host;
use super::links::BULK_MAX;
use super::lives::{Live, failure_of};
use super::pools::Where;
use crate::effect::Class;
use crate::event::{Failure, LinkId, Outcome, Ticket};
use crate::ship::codec::Codec;

/// Live bytes that may wait in a link, which serves all partitions, before deltas are held back.
const LIVE_WAITING_MAX: usize = 8 << 20;
/// Deltas of one shipment; a receiver holds a few such in flight.
const FRAMES_PER_SHIP_MAX: usize = 2048;
/// Wait before a copy looks again for room in the link or tokens in the bucket.
const LOOK_AGAIN: Span = Span::millis(2);

/// What a peer holds of a partition.
#[derive(Default, Debug)]
pub struct PeerTable {
    hashes: Vec<PageHash>,
    /// Where the search for differing pages goes on.
    cursor: u32,
    /// Pages still to be looked at in this round.
    left: u64,
    /// All of the peer's table arrived.
    whole: bool,
}

/// A copy that waits for its turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    ticket: Ticket,
    link: LinkId,
    last: bool,
    at: Time,
}

/// The copies that wait for room or tokens.
#[derive(Default, Debug)]
pub struct Copying {
    turns: VecDeque<Turn>,
    /// Deltas that wait for room in their link, and when to look again.
    ships: VecDeque<(Time, HeldShip)>,
}

/// An effect to ship deltas that could not be carried out yet.
#[derive(Clone, Copy, Debug)]
struct HeldShip {
    ticket: Ticket,
    link: LinkId,
    from: Lsn,
    bytes_max: u64,
}

impl Copying {
    pub fn is_copying(&self, partition: PartitionId) -> bool {
        self.turns
            .iter()
            .any(|turn| turn.ticket.partition == partition)
    }

    pub fn deadline(&self) -> Option<Time> {
        let turns = self.turns.iter().map(|turn| turn.at);
        turns.chain(self.ships.iter().map(|(at, _)| *at)).min()
    }

    pub fn forget(&mut self, partition: PartitionId) {
        self.turns.retain(|turn| turn.ticket.partition != partition);
    }
}

/// A token bucket that holds a tenth of a second.
pub fn throttle(bytes_per_second: u64) -> Throttle {
    let burst = Burst((bytes_per_second / 10).max(2 * BULK_MAX as u64));
    Throttle::new(Rate(bytes_per_second), burst, io::reactor::now())
}

impl Host {
    /// Takes in a part of a peer's table.
    pub fn compare(
        &mut self,
        ticket: Ticket,
        peer: NodeId,
        first: u32,
        hashes: Vec<u64>,
        last: bool,
    ) {
        self.warm(ticket.partition);
        let Some(live) = self.lives.by_id.get_mut(&ticket.partition) else {
            return;
        };
        let table = live.peers.entry(peer).or_default();
        if first <= 1 {
            *table = PeerTable::default();
        }
        if first as usize != table.hashes.len() + 1 {
            let reason = "the peer's table of page hashes has a gap".to_owned();
            return self.done(ticket, Err(Failure::Refused(reason)));
        }
        table.hashes.extend(hashes.into_iter().map(PageHash));
        if last {
            table.whole = true;
            table.cursor = 0;
            let pages_left = count_differing(live, peer);
            self.done(ticket, Ok(Outcome::Copied { pages_left }));
        }
    }

    pub fn begin_copy(&mut self, ticket: Ticket, link: LinkId, last: bool) {
        let at = self.now;
        self.lives.copying.turns.push_back(Turn {
            ticket,
            link,
            last,
            at,
        });
        self.continue_copies();
    }

    /// Lets every copy whose time has come go on by one frame.
    pub fn continue_copies(&mut self) {
        for _ in 0..self.lives.copying.turns.len() {
            let Some(mut turn) = self.lives.copying.turns.pop_front() else {
                return;
            };
            if turn.at > self.now {
                self.lives.copying.turns.push_back(turn);
                continue;
            }
            let room = !self.links.is_up(turn.link) || self.links.has_bulk_room(turn.link);
            // Tokens are taken for a whole chunk; what the chunk falls short of was not worth
            // asking.
            let at = match room {
                true => {
                    let (_, len) = self.links.bulk(turn.link);
                    self.lives.throttle.take(self.now, len).err()
                }
                false => Some(self.now + LOOK_AGAIN),
            };
            match at {
                Some(at) => {
                    turn.at = at;
                    self.lives.copying.turns.push_back(turn);
                }
                None => self.copy_pages(turn),
            }
        }
    }

    fn copy_pages(&mut self, turn: Turn) {
        let id = turn.ticket.partition;
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            let gone = Failure::Gone("the database is not attached".to_owned());
            return self.done(turn.ticket, Err(gone));
        };
        let (codec, len) = self.links.bulk(turn.link);
        let batch = match live.next_pages(turn.link.peer, len, turn.last) {
            Ok(batch) => batch,
            Err(error) => return self.done(turn.ticket, Err(failure_of(&error))),
        };
        let head = PagesHead {
            partition: id,
            at: live.position,
            page_size: live.source.page_size(),
            page_count: live.source.page_count(),
            flags: Flags::NONE,
        };
        let (pages_left, position) = (batch.pages_left, live.position);
        let work = move || packing(|| batch.encode(&head, codec, len, turn.last));
        self.offload(Where::Compute, work, move |host, frames| {
            let sent = match frames {
                Ok(Ok(frames)) => frames
                    .into_iter()
                    .all(|frame| host.links.send(turn.link, Class::Bulk, frame)),
                Ok(Err(error)) => {
                    let reason = error.to_string();
                    return host.done(turn.ticket, Err(Failure::Refused(reason)));
                }
                Err(panic) => return host.done(turn.ticket, Err(Failure::Refused(panic))),
            };
            let result = match (sent, turn.last) {
                (false, _) => Err(Failure::Gone("the link is gone".to_owned())),
                (true, true) => Ok(Outcome::CopiedAll(position)),
                (true, false) => Ok(Outcome::Copied { pages_left }),
            };
            host.done(turn.ticket, result);
        });
    }

    /// Hands deltas to a link; with a digest, first checks that the peer's position is ours.
    #[expect(clippy::too_many_arguments, reason = "the fields of one effect")]
    pub fn ship(
        &mut self,
        ring: &mut Ring,
        ticket: Ticket,
        link: LinkId,
        class: Class,
        from: Lsn,
        digest: Option<Digest>,
        bytes_max: u64,
    ) {
        let id = ticket.partition;
        self.warm(id);
        let Some(live) = self.lives.by_id.get(&id) else {
            let gone = Failure::Gone("the database is not attached".to_owned());
            return self.done(ticket, Err(gone));
        };
        if let Some(digest) = digest {
            let known = live
                .known_position(from)
                .is_some_and(|known| known.digest == digest);
            let result = if known {
                Ok(Outcome::Shipped { to: from, bytes: 0 })
            } else {
                Err(Failure::Gone(format!("{from} is not in the log any more")))
            };
            return self.done(ticket, result);
        }
        if class == Class::Live && self.links.live_waiting(link) > LIVE_WAITING_MAX {
            // The link serves all partitions: this one goes on when there is room again.
            let (at, ship) = (
                self.now + LOOK_AGAIN,
                HeldShip {
                    ticket,
                    link,
                    from,
                    bytes_max,
                },
            );
            self.lives.copying.ships.push_back((at, ship));
            return;
        }
        let frames = match live
            .log
            .frames_after(from, usize::try_from(bytes_max).unwrap_or(usize::MAX))
        {
            Ok(Some(frames)) => frames,
            Ok(None) => {
                let reason = format!("the log does not reach back to {from}");
                return self.done(ticket, Err(Failure::Gone(reason)));
            }
            Err(error) => return self.done(ticket, Err(Failure::Gone(error.to_string()))),
        };
        let (mut to, mut bytes) = (from, 0);
        for frame in frames.into_iter().take(FRAMES_PER_SHIP_MAX) {
            failpoint::reach(Step::ShipSend);
            let (end, len) = (frame.header().to, frame.len() as u64);
            if !self.send(ring, link, class, frame) {
                break;
            }
            (to, bytes) = (end, bytes + len);
        }
        self.shipped(id, to);
        self.done(ticket, Ok(Outcome::Shipped { to, bytes }));
    }
}

impl Host {
    /// Lets partitions go on whose link had no room.
    pub fn continue_ships(&mut self, ring: &mut Ring) {
        let held = std::mem::take(&mut self.lives.copying.ships);
        for (at, ship) in held {
            if at > self.now {
                self.lives.copying.ships.push_back((at, ship));
                continue;
            }
            let HeldShip {
                ticket,
                link,
                from,
                bytes_max,
            } = ship;
            self.ship(ring, ticket, link, Class::Live, from, None, bytes_max);
        }
    }
}

/// Pages read for one or more frames.
struct Batch {
    pages: Vec<(u32, Vec<u8>)>,
    pages_left: u64,
}

impl Batch {
    /// The frames; the last one says so when this is the end of a copy.
    fn encode(
        &self,
        head: &PagesHead,
        codec: Codec,
        len: usize,
        last: bool,
    ) -> Result<Vec<Frame>, wal::Error> {
        let mut encoder = Encoder::new(codec.level());
        let per_frame = (len / head.page_size as usize).max(1);
        let mut chunks: Vec<&[(u32, Vec<u8>)]> = self.pages.chunks(per_frame).collect();
        if chunks.is_empty() && last {
            chunks.push(&[]);
        }
        let count = chunks.len();
        let mut frames = Vec::with_capacity(count);
        for (index, chunk) in chunks.into_iter().enumerate() {
            let pages: Vec<(u32, &[u8])> = chunk
                .iter()
                .map(|(page, image)| (*page, image.as_slice()))
                .collect();
            let flags = if last && index + 1 == count {
                Flags::LAST
            } else {
                Flags::NONE
            };
            let head = PagesHead { flags, ..*head };
            frames.push(match codec {
                Codec::Plain => encoder.plain_pages(&head, &pages)?,
                _ => encoder.pages(&head, &pages)?,
            });
        }
        Ok(frames)
    }
}

impl Live {
    /// The position at `lsn`, if the log still knows it or it is the newest.
    fn known_position(&self, lsn: Lsn) -> Option<wal::Position> {
        if self.position.lsn == lsn {
            Some(self.position)
        } else {
            self.log.position_at(lsn)
        }
    }

    /// Reads the next `len` bytes of pages that differ at `peer`, and notes them as sent. With
    /// `all`, every one.
    fn next_pages(&mut self, peer: NodeId, len: usize, all: bool) -> io::Result<Batch> {
        let size = self.source.page_size() as usize;
        let lock = lock_page(size as u32);
        let limit = if all { usize::MAX } else { (len / size).max(1) };
        let count = self.source.page_count();
        let table = self.peers.entry(peer).or_default();
        table.hashes.resize(count as usize, PageHash::ABSENT);
        if all {
            table.cursor = 0;
        }
        let mut pages = Vec::new();
        let ours = self.source.hashes();
        while table.cursor < count && pages.len() < limit {
            let at = table.cursor as usize;
            let page = table.cursor + 1;
            table.cursor += 1;
            if table.hashes[at] == ours[at] || Some(page) == lock {
                continue;
            }
            let mut image = vec![0; size];
            self.source.read_page(page, &mut image)?;
            table.hashes[at] = ours[at];
            pages.push((page, image));
        }
        table.left = table.left.saturating_sub(pages.len() as u64);
        if table.cursor >= count {
            table.cursor = 0;
            table.left = differing(ours, &table.hashes, lock);
        }
        Ok(Batch {
            pages,
            pages_left: table.left,
        })
    }
}

fn count_differing(live: &mut Live, peer: NodeId) -> u64 {
    let lock = lock_page(live.source.page_size());
    let Some(table) = live.peers.get_mut(&peer) else {
        return 0;
    };
    table.left = differing(live.source.hashes(), &table.hashes, lock);
    table.left
}

fn differing(ours: &[PageHash], theirs: &[PageHash], lock: Option<u32>) -> u64 {
    let at_peer = |index: usize| theirs.get(index).copied().unwrap_or(PageHash::ABSENT);
    let pages = ours.iter().enumerate();
    let differs = |(index, hash): &(usize, &PageHash)| {
        **hash != at_peer(*index) && Some(*index as u32 + 1) != lock
    };
    pages.filter(differs).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_only_one_side_has_differ_except_the_lock_page() {
        let hash = |n| PageHash(n);
        let ours = [hash(1), hash(2), hash(3), hash(4)];
        assert_eq!(differing(&ours, &[], None), 4);
        assert_eq!(differing(&ours, &[hash(1), hash(9)], None), 3);
        assert_eq!(differing(&ours, &[hash(1), hash(9)], Some(3)), 2);
        assert_eq!(differing(&ours, &ours, None), 0);
    }
}
