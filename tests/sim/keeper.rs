//! The coordinator: its memory outlives everything, its answers may be late or lost.

use std::collections::BTreeMap;

use foreshadow::control::coordinator::{
    Act, Conflict, OwnerRecord, Request as Asked, Revision, decide,
};
use foreshadow::effect::Request;
use foreshadow::event::{Failure, Outcome, Task};
use foreshadow::runtime::errands;
use wal::{Epoch, NodeId, PartitionId, PartitionName, Time};

#[derive(Default)]
pub struct Keeper {
    pub records: BTreeMap<PartitionId, OwnerRecord>,
    revision: u64,
    /// It does not answer; its records are durable.
    pub down_until: Time,
}

impl Keeper {
    /// As runtime/errands.rs asks; the decision is the coordinator's own.
    pub fn ask(
        &mut self,
        node: NodeId,
        name: &PartitionName,
        task: Task,
        request: Request,
    ) -> Result<Outcome, Failure> {
        let answer = self.one(name, errands::act(node, request));
        errands::outcome(node, task, answer)
    }

    fn one(&mut self, name: &PartitionName, act: Act) -> Result<OwnerRecord, Conflict> {
        let id = name.id();
        let request = Asked {
            name: name.clone(),
            act,
        };
        let next = Revision(self.revision + 1);
        if let Some(record) = decide(self.records.get(&id), &request, next)? {
            self.revision += 1;
            self.records.insert(id, record);
        }
        Ok(self.records[&id].clone())
    }

    pub fn epoch(&self, id: PartitionId) -> Epoch {
        self.records
            .get(&id)
            .map_or(Epoch(0), |record| record.epoch)
    }
}
