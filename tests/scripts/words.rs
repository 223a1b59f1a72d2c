//! Effects and messages as lines of text.

use foreshadow::effect::{Effect, EngineOperation, Note, Request, ShadowOperation};
use wal::Position;
use wal::message::{Message, Standing};

use crate::world::World;

/// What a script says about an effect; `None` for what would only be noise.
pub fn line(world: &World, effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Engine { operation, .. } => format!("engine: {}", engine(operation)),
        Effect::Shadow { operation, .. } => format!("copy: {}", shadow(operation)),
        Effect::Send { link, message, .. } => {
            format!(
                "-> {}: {}",
                world.name_of(link.peer),
                message_line(message)?
            )
        }
        Effect::Ship {
            from, digest: None, ..
        } => format!("ships what follows {from}"),
        Effect::Ship { from, .. } => format!("looks for {from} in its log"),
        Effect::Copy { last: true, .. } => "copies the last pages".to_owned(),
        Effect::Copy { .. } => "copies pages".to_owned(),
        Effect::Compare { .. } => "compares hashes".to_owned(),
        Effect::SendHashes { .. } => "tells its hashes".to_owned(),
        Effect::Record { note, .. } => format!("notes {}", note_line(world, note)),
        Effect::Coordinate { request, .. } => match request {
            Request::Claim => "claims".to_owned(),
            Request::Reserve { to } => format!("reserves an epoch for {}", world.name_of(*to)),
            Request::Pass { epoch, .. } => format!("tells the coordinator of epoch {epoch}"),
            Request::Seize { .. } => "seizes it at the coordinator".to_owned(),
        },
        Effect::Route { .. } => "tells routing".to_owned(),
        Effect::Hangup { reason, .. } => format!("hangs up: {reason}"),
        Effect::Publish { notice } if !notice.text.contains("connected") => {
            format!("says {:?}: {}", notice.kind, plain(world, &notice.text))
        }
        Effect::Reply { reply, .. } => match reply {
            Ok(_) => return None,
            Err(problem) => format!("refuses: {}", plain(world, &problem.detail)),
        },
        Effect::Publish { .. } | Effect::Dial { .. } => return None,
    })
}

/// Node numbers as names, digests left out.
fn plain(world: &World, text: &str) -> String {
    let mut text = text.to_owned();
    for node in world.nodes.values() {
        text = text.replace(&node.settings.node.to_string(), &node.name);
    }
    let words = text.split(' ').map(|word| match word.split_once(':') {
        Some((place, digest)) if digest.len() >= 16 => place.to_owned(),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn at(position: &Position) -> String {
    format!("{}/{}", position.epoch, position.lsn)
}

fn engine(operation: &EngineOperation) -> String {
    match operation {
        EngineOperation::Attach { epoch } => format!("attach under epoch {epoch}"),
        EngineOperation::Detach => "detach".to_owned(),
        EngineOperation::Freeze { .. } => "freeze".to_owned(),
        EngineOperation::Thaw => "thaw".to_owned(),
        EngineOperation::Fence => "fence".to_owned(),
        EngineOperation::Lift => "lift the fence".to_owned(),
        EngineOperation::Retire { keep: true, .. } => "retire, keep a shadow".to_owned(),
        EngineOperation::Retire { .. } => "retire".to_owned(),
    }
}

fn shadow(operation: &ShadowOperation) -> String {
    match operation {
        ShadowOperation::Create { .. } => "create".to_owned(),
        ShadowOperation::Fill { .. } => "fill".to_owned(),
        ShadowOperation::Accept { .. } => "accept".to_owned(),
        ShadowOperation::Restart => "restart".to_owned(),
        ShadowOperation::PrepareLanding { epoch } => format!("prepare to land in {epoch}"),
        ShadowOperation::SyncLanding => "sync".to_owned(),
        ShadowOperation::Remap { epoch, position } => {
            format!("remap at {} under epoch {epoch}", at(position))
        }
        ShadowOperation::Abandon => "abandon the landing".to_owned(),
        ShadowOperation::Discard => "discard".to_owned(),
    }
}

fn note_line(world: &World, note: &Note) -> String {
    match note {
        Note::Intent { epoch, to } => format!("Intent {epoch} for {}", world.name_of(*to)),
        Note::Released { epoch, to } => format!("Released {epoch} to {}", world.name_of(*to)),
        Note::Prepared { epoch, from } => format!("Prepared {epoch} from {}", world.name_of(*from)),
        Note::Abandoned { epoch } => format!("Abandoned {epoch}"),
        Note::Seized { epoch, from } => format!("Seized {epoch} from {}", world.name_of(*from)),
        Note::Landed { epoch, position } => format!("Landed {epoch} at {}", at(position)),
        Note::Shadow { node, wanted } => {
            let verb = if *wanted { "wanted" } else { "not wanted" };
            format!("Shadow at {} {verb}", world.name_of(*node))
        }
    }
}

fn message_line(message: &Message) -> Option<String> {
    Some(match message {
        Message::Offer { at: position, .. } => format!("Offer {}", at(position)),
        Message::Stand { standing, .. } => match standing {
            Standing::At(position) => format!("Stand at {}", at(position)),
            other => format!("Stand {other:?}"),
        },
        Message::Decline { reason, .. } => format!("Decline: {reason}"),
        Message::AskHashes { .. } => "AskHashes".to_owned(),
        Message::Hashes { .. } => "Hashes".to_owned(),
        Message::Ack { durable, .. } => format!("Ack {}", at(durable)),
        Message::Lost { reason, .. } => format!("Lost: {}", reason.split(' ').count()),
        Message::Discard { .. } => "Discard".to_owned(),
        Message::Wanted { .. } => "Wanted".to_owned(),
        Message::Prepare { epoch, .. } => format!("Prepare {epoch}"),
        Message::Prepared { epoch, .. } => format!("Prepared {epoch}"),
        Message::Unable { epoch, reason, .. } => format!("Unable {epoch}: {reason}"),
        Message::Finish {
            epoch, position, ..
        } => format!("Finish {epoch} at {}", at(position)),
        Message::Ready {
            epoch, position, ..
        } => format!("Ready {epoch} at {}", at(position)),
        Message::Abort { epoch, .. } => format!("Abort {epoch}"),
        Message::Grant { epoch, .. } => format!("Grant {epoch}"),
        Message::Serving { epoch, lsn, .. } => format!("Serving {epoch} from {lsn}"),
        Message::Ask { epoch, .. } => format!("Ask {epoch}"),
        Message::Tell { epoch, verdict, .. } => format!("Tell {epoch} {verdict:?}"),
        Message::Ping { .. }
        | Message::Pong { .. }
        | Message::Hello(_)
        | Message::Refuse { .. } => return None,
    })
}
