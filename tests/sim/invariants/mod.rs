//! What must hold after every step, one file each (DESIGN, I1 to I10); what does not concern
//! databases, shadows and moves comes with the parts that it concerns.

mod abort;
mod acknowledged;
mod epochs;
mod liveness;
mod one_writer;
mod prefix;
mod repeated;

use std::collections::BTreeMap;

use wal::{Epoch, PartitionId};

use super::world::World;
pub use liveness::check_end;
pub use repeated::check_again;

/// What has to be remembered from step to step.
#[derive(Default)]
pub struct Memory {
    pub epochs: BTreeMap<PartitionId, Epoch>,
    pub served: BTreeMap<PartitionId, Epoch>,
}

/// The first promise that is broken.
pub fn check(world: &mut World) -> Result<(), String> {
    if world.touched.is_empty() {
        return Ok(());
    }
    one_writer::check(world)?;
    acknowledged::check(world)?;
    prefix::check(world)?;
    abort::check(world)?;
    epochs::check(world)?;
    world.touched.clear();
    Ok(())
}
