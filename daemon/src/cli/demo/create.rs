//! Makes tenant databases: built aside, closed, then renamed into place whole, so that a daemon
//! which watches the directory never meets half a database.

use std::fs;
use std::path::Path;

use super::harness::Error;
use super::plan::CreatePlan;

/// Makes every database of the plan.
pub fn run(plan: &CreatePlan) -> Result<(), Error> {
    fs::create_dir_all(&plan.stage).map_err(|error| Error::at("create", &plan.stage, error))?;
    for (index, database) in plan.databases.iter().enumerate() {
        let staged = plan.stage.join(format!("{}-{index}", std::process::id()));
        plan.engine.create(&staged, database)?;
        publish(&staged, &database.path)?;
    }
    Ok(())
}

fn publish(staged: &Path, path: &Path) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|error| Error::at("create", dir, error))?;
    }
    fs::rename(staged, path).map_err(|error| Error::at("rename into", path, error))
}
