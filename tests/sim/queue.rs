//! What is going to happen, by time and then in the order in which it was asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wal::Time;

use super::world::Happening;

/// Small entries are sorted; what happens lies beside them.
#[derive(Default)]
pub struct Queue {
    order: BinaryHeap<Reverse<(Time, u64, usize)>>,
    slots: Vec<Option<Happening>>,
    free: Vec<usize>,
}

impl Queue {
    pub fn push(&mut self, time: Time, number: u64, happening: Happening) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(happening);
        self.order.push(Reverse((time, number, slot)));
    }

    /// The next one, if it is not after `end`.
    pub fn pop(&mut self, end: Time) -> Option<(Time, Happening)> {
        let Reverse((time, _, _)) = *self.order.peek()?;
        if time > end {
            return None;
        }
        let Reverse((time, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        Some((time, self.slots[slot].take()?))
    }
}
