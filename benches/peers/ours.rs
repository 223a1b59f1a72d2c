//! Two daemons with default settings, databases put before them, and their shadows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Error, Tenant};

use crate::Scene;
use crate::stage::has_ready_shadow;
use crate::wait::until;

pub const OWNER: &str = "node-a";
const SHADOW_LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);

/// Starts two daemons in the directory `name`.
pub fn start(scene: &Scene<'_>, name: &str) -> Result<Cluster, Error> {
    Cluster::start(&scene.stage.options(name, 2))
}

/// Starts two daemons and waits until `seed` is shadowed as the first tenant; its name.
pub fn start_with(scene: &Scene<'_>, name: &str, seed: &Path) -> Result<Cluster, Error> {
    let mut cluster = start(scene, name)?;
    let tenant = Tenant::new(0, OWNER, 1.0);
    put(seed, &live(&cluster, &tenant.name))?;
    wait_for_shadow(&cluster, OWNER, &tenant.name)?;
    cluster.tenants.push(tenant);
    Ok(cluster)
}

/// Where the owner finds databases.
pub fn live(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.nodes[0].place.live().join(name)
}

/// Puts a copy of `seed` there at once and whole.
pub fn put(seed: &Path, to: &Path) -> Result<(), Error> {
    let part = to.with_extension("part");
    fs::copy(seed, &part).map_err(|error| Error::at("copy", seed, error))?;
    fs::rename(&part, to).map_err(|error| Error::at("rename", &part, error))
}

pub fn wait_for_shadow(cluster: &Cluster, owner: &str, name: &str) -> Result<(), Error> {
    until("a ready shadow", SHADOW_LIMIT, LOOK, || {
        Ok(has_ready_shadow(cluster, owner, name).then_some(()))
    })
}
