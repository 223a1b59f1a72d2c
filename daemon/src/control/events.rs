//! What happened on this node: the newest events, and whoever wants to hear the next ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use crate::serve::query::EventId;
use crate::serve::reply::EventReply;

/// Events kept for those who ask later.
pub const EVENTS_KEPT: usize = 256;
/// Events that a slow listener may be behind before it misses some.
const LISTENER_LAG_MAX: usize = 1024;

/// The events of a node; cheap to clone, usable from every thread.
#[derive(Clone, Debug)]
pub struct Events {
    kept: Arc<Mutex<Kept>>,
    told: broadcast::Sender<EventReply>,
}

#[derive(Default, Debug)]
struct Kept {
    newest: EventId,
    events: VecDeque<EventReply>,
}

impl Default for Events {
    fn default() -> Events {
        Events {
            kept: Arc::default(),
            told: broadcast::channel(LISTENER_LAG_MAX).0,
        }
    }
}

impl Events {
    /// Tells everybody; never blocks on a listener.
    pub fn publish(&self, kind: &str, partition: Option<&str>, text: impl Into<String>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut kept = self.lock();
        kept.newest.0 += 1;
        let event = EventReply {
            id: kept.newest,
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            kind: kind.to_owned(),
            partition: partition.map(str::to_owned),
            text: text.into(),
        };
        if kept.events.len() == EVENTS_KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Nobody listens: the event is kept for who asks later.
        let _ = self.told.send(event);
    }

    /// The events after `after` that are still kept, oldest first.
    pub fn recent(&self, after: Option<EventId>) -> Vec<EventReply> {
        let after = after.unwrap_or_default();
        self.lock()
            .events
            .iter()
            .filter(|event| event.id > after)
            .cloned()
            .collect()
    }

    /// The kept events after `after` and, without a gap, those to come.
    pub fn follow(
        &self,
        after: Option<EventId>,
    ) -> (Vec<EventReply>, broadcast::Receiver<EventReply>) {
        let kept = self.lock();
        let after = after.unwrap_or(kept.newest);
        let missed = kept
            .events
            .iter()
            .filter(|event| event.id > after)
            .cloned()
            .collect();
        (missed, self.told.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic while publishing leaves the list whole: ids grow before anything is pushed.
        self.kept
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_kept_in_order() {
        let events = Events::default();
        for index in 0..EVENTS_KEPT + 10 {
            events.publish("test", None, index.to_string());
        }
        let recent = events.recent(None);
        assert_eq!(recent.len(), EVENTS_KEPT);
        assert_eq!((recent[0].id, recent[0].text.as_str()), (EventId(11), "10"));
        assert_eq!(events.recent(Some(EventId(265))).len(), 1);
    }

    #[test]
    fn a_follower_misses_nothing_in_between() {
        let events = Events::default();
        events.publish("one", Some("a.db"), "");
        let (missed, mut coming) = events.follow(Some(EventId(0)));
        events.publish("two", None, "");
        assert_eq!(missed.len(), 1);
        assert_eq!(coming.try_recv().expect("told").kind, "two");
        assert!(
            events.follow(None).0.is_empty(),
            "who names no event hears only what comes"
        );
    }
}
