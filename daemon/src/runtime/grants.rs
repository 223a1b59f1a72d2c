//! Which databases of this shard may be written by guarded applications.
//!
//! A grant carries the incarnation under which it was known that the database is this node's: when
//! the coordinator was asked, or before a landing was prepared. If another incarnation began
//! meanwhile, the grant is none. So a daemon that stood still for longer than its lease, with news
//! of a new owner waiting for it unread, grants nothing before it has asked again.
//!
//! A grant that can't be taken back ends the incarnation: everybody else's is given anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lease::Grant;
use lease::database::Terms;
use wal::lsn::Epoch;
use wal::{NodeId, PartitionId};

use super::host::Host;
use super::mail::Mail;
use super::setup::Setup;
use crate::control::coordinator::{Act, OwnerRecord, Request as Asked};
use crate::effect::Request;

/// What this shard has granted.
#[derive(Default)]
pub struct Grants {
    incarnation: u64,
    /// The incarnation under which ownership was asked for, of what is not served yet.
    asked: BTreeMap<PartitionId, u64>,
    served: BTreeMap<PartitionId, Served>,
}

/// A database that this node serves.
struct Served {
    database: PathBuf,
    place: usize,
    epoch: Epoch,
    grant: Option<Grant>,
    /// Of the grant; 0: there is none.
    incarnation: u64,
    /// The coordinator is being asked.
    asking: bool,
    /// The page could not be written, and it was said.
    failed: bool,
}

impl Grants {
    pub fn new(setup: &Setup) -> Grants {
        let incarnation = setup
            .leases
            .as_ref()
            .map_or(0, |leases| leases.incarnation());
        Grants {
            incarnation,
            ..Grants::default()
        }
    }

    /// The answer may make this node the owner.
    pub fn asks_the_coordinator(&mut self, id: PartitionId, request: &Request) {
        if matches!(request, Request::Claim | Request::Seize { .. }) {
            self.is_granted_soon(id);
        }
    }

    /// What follows may make this node the owner.
    pub fn is_granted_soon(&mut self, id: PartitionId) {
        if self.incarnation != 0 {
            self.asked.insert(id, self.incarnation);
        }
    }
}

impl Host {
    /// This node is the owner under `epoch` and serves `database`, or is about to.
    pub fn grant_served(&mut self, id: PartitionId, place: usize, database: PathBuf, epoch: Epoch) {
        if page_of(&self.setup, place).is_none() {
            return;
        }
        let known = self.grants.asked.remove(&id);
        if let Some(served) = self.grants.served.get(&id) {
            let same = served.database == database && served.epoch == epoch;
            if same && served.incarnation == self.grants.incarnation {
                return;
            }
            self.take_grant_back(id);
        }
        let served = Served {
            database,
            place,
            epoch,
            grant: None,
            incarnation: 0,
            asking: false,
            failed: false,
        };
        self.grants.served.insert(id, served);
        match known {
            Some(known) if known == self.grants.incarnation => self.give(id, known),
            _ => self.ask_before_granting(id),
        }
    }

    /// A fence was taken back that was never granted: this node was the owner all the time.
    pub fn grant_again(&mut self, id: PartitionId) {
        let Some(live) = self.lives.by_id.get(&id) else {
            return;
        };
        let (place, database) = (live.place, live.source.path().to_owned());
        let epoch = live.position.epoch;
        self.grants.is_granted_soon(id);
        self.grant_served(id, place, database, epoch);
    }

    /// Nobody who is guarded writes from here on.
    pub fn take_grant_back(&mut self, id: PartitionId) {
        let Some(served) = self.grants.served.remove(&id) else {
            return;
        };
        let Some(Err(error)) = served.grant.as_ref().map(Grant::take_back) else {
            return;
        };
        // Who wrote a database that was deleted loses nothing more.
        if served.database.exists()
            && let Some(leases) = &self.setup.leases
        {
            tracing::warn!(%error, "a grant can't be taken back; all are void and given anew");
            leases.begin();
        }
    }

    /// Called for each renewal of the lease.
    pub fn look_after_grants(&mut self) {
        let Some(leases) = &self.setup.leases else {
            return;
        };
        self.grants.incarnation = leases.incarnation();
        let void = |served: &Served| served.incarnation != self.grants.incarnation;
        let served = self.grants.served.iter();
        let ids: Vec<PartitionId> = served
            .filter(|(_, served)| void(served) && !served.asking)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.ask_before_granting(id);
        }
    }

    fn ask_before_granting(&mut self, id: PartitionId) {
        let (node, under) = (self.setup.config.node.id, self.grants.incarnation);
        let name = self.name_of(id);
        let (Some(name), Some(served)) = (name, self.grants.served.get_mut(&id)) else {
            return;
        };
        served.asking = true;
        let (act, mailbox) = (Act::Claim { node }, self.mailbox.clone());
        let asked = Asked { name, act };
        self.setup.desk.submit(asked, move |answer| {
            let record = answer.ok().and_then(Result::ok);
            mailbox.post(Mail::Finished(Box::new(move |host| {
                host.heard_before_granting(id, under, record);
            })));
        });
    }

    /// The coordinator answered, or could not: then the next renewal asks again.
    fn heard_before_granting(&mut self, id: PartitionId, under: u64, record: Option<OwnerRecord>) {
        let (node, current) = (self.setup.config.node.id, self.grants.incarnation);
        let Some(served) = self.grants.served.get_mut(&id) else {
            return;
        };
        served.asking = false;
        let ours = record.is_some_and(|record| is_ours(node, served.epoch, &record));
        if ours && under == current {
            self.give(id, under);
        }
    }

    fn give(&mut self, id: PartitionId, incarnation: u64) {
        let Some(served) = self.grants.served.get_mut(&id) else {
            return;
        };
        if served.incarnation == incarnation {
            return;
        }
        let Some(terms) = terms(&self.setup, served.place, id, served.epoch) else {
            return;
        };
        match Grant::give(&served.database, terms, incarnation) {
            Ok(grant) => {
                served.grant = Some(grant);
                served.incarnation = incarnation;
                served.failed = false;
            }
            // The next renewal tries again.
            Err(error) => {
                if !std::mem::replace(&mut served.failed, true) {
                    tracing::error!(%error, "a database has no lease, and is not guarded");
                }
            }
        }
    }
}

/// What the coordinator knows may be older than what this node was granted, never the same age and
/// another's.
fn is_ours(node: NodeId, epoch: Epoch, record: &OwnerRecord) -> bool {
    record.epoch < epoch || record.epoch == epoch && record.owner == node
}

/// Makes the page beside a database, off the shard's thread, so that granting is a store. Where
/// nothing is guarded, one that was left from before goes: it would refuse for ever.
pub fn prepare(setup: &Setup, place: usize, id: PartitionId, epoch: Epoch, database: &Path) {
    let done = match terms(setup, place, id, epoch) {
        Some(terms) => Grant::prepare(database, terms),
        None => Grant::remove(database),
    };
    if let Err(error) = done {
        tracing::error!(%error, "the lease of a database");
    }
}

fn terms(setup: &Setup, place: usize, id: PartitionId, epoch: Epoch) -> Option<Terms<'_>> {
    Some(Terms {
        partition: id.0,
        epoch: epoch.0,
        node: page_of(setup, place)?,
    })
}

fn page_of(setup: &Setup, place: usize) -> Option<&Path> {
    Some(setup.leases.as_ref()?.page(place)?.path())
}
