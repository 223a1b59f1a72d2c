//! What a shard tells people: the log, the event list and the counters.

use std::sync::Arc;

use wal::PartitionName;

use super::observe::{Mail, Observer};
use crate::control::events::Events;
use crate::effect::{Notice, NoticeKind};
use crate::observe::history::Happening;

/// Where a notice goes.
pub type Post = Arc<dyn Fn(Option<&PartitionName>, &Notice) + Send + Sync>;

/// Publishes notices as events, and lets the observer know of partitions that come and go.
pub fn post_to(events: Events, observer: Observer) -> Post {
    Arc::new(move |name, notice| {
        let happening = match notice.kind {
            NoticeKind::Served => Some(Happening::Came),
            NoticeKind::Released => Some(Happening::Left),
            _ => None,
        };
        if let (Some(name), Some(happening)) = (name, happening) {
            // What was dropped is counted there.
            let _ = observer.post(Mail::Moved(name.clone(), happening));
        }
        let name = name.map(PartitionName::as_str);
        events.publish(word(notice.kind), name, notice.text.clone());
    })
}

/// A shard's way to people.
#[derive(Clone)]
pub struct Noticeboard(pub Post);

impl Noticeboard {
    pub fn post(&self, name: Option<PartitionName>, notice: Notice) {
        let kind = word(notice.kind);
        match notice.kind {
            NoticeKind::Refused | NoticeKind::ShadowLost | NoticeKind::MoveAborted => {
                tracing::warn!(event = kind, "{}", notice.text);
            }
            _ => tracing::info!(event = kind, "{}", notice.text),
        }
        (self.0)(name.as_ref(), &notice);
    }
}

/// The name of a kind in logs and events.
pub fn word(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Attached => "attached",
        NoticeKind::Refused => "refused",
        NoticeKind::ShadowReady => "shadow_ready",
        NoticeKind::ShadowLost => "shadow_lost",
        NoticeKind::MoveStep => "move_step",
        NoticeKind::MoveDone => "move_done",
        NoticeKind::MoveAborted => "move_aborted",
        NoticeKind::Served => "served",
        NoticeKind::Released => "released",
        NoticeKind::Peer => "peer",
    }
}
