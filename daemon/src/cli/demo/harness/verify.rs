//! The verdict: hands every file of every tenant to the verifier, which runs in a child of its own.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cluster, Error, Tenant, Verdict};
use crate::cli::demo::plan::{VerifyPlan, VerifyTenant};

/// Copying and checking two dozen small databases takes a few seconds; hundreds of moves take more.
const VERIFY_LIMIT: Duration = Duration::from_secs(300);

impl Cluster {
    /// Checks every acknowledged write against the files on disk. Call it when the writers have
    /// stopped, after [`Cluster::settle`] and [`Cluster::stop`].
    pub fn verify(&mut self) -> Result<Verdict, Error> {
        let mut tenants = Vec::new();
        for tenant in &self.tenants {
            tenants.push(self.files_of(tenant)?);
        }
        let (acks, scratch) = (self.acks(), self.root().join("scratch"));
        let verdict = self.root().join("plans/verdict.json");
        let plan = VerifyPlan {
            engine: self.engine,
            acks,
            scratch,
            verdict: verdict.clone(),
            tenants,
        };
        let path = self.write_plan("verify.json", &plan)?;
        self.run_part("verify", &path, VERIFY_LIMIT)?;
        let json = fs::read(&verdict).map_err(|error| Error::at("read", &verdict, error))?;
        let found = serde_json::from_slice(&json);
        let mut found: Verdict = found.map_err(|error| Error::new(format!("verdict: {error}")))?;
        found.digest_failures += self.unsettled.len() as u64;
        self.unsettled
            .iter()
            .for_each(|line| found.note(line.clone()));
        Ok(found)
    }

    fn files_of(&self, tenant: &Tenant) -> Result<VerifyTenant, Error> {
        let route = self.routes().join(&tenant.name);
        let database =
            fs::canonicalize(&route).map_err(|error| Error::at("follow", &route, error))?;
        let mine = self
            .evidence
            .iter()
            .filter(|old| old.partition == tenant.name);
        let evidence: Vec<PathBuf> = mine.map(|old| old.link.clone()).collect();
        let mut seen: HashSet<u64> = evidence.iter().filter_map(|path| inode(path)).collect();
        seen.extend(inode(&database));
        let mut copies = Vec::new();
        for path in self
            .nodes
            .iter()
            .flat_map(|node| files_named(&node.place.dir, &tenant.name))
        {
            if inode(&path).is_some_and(|number| seen.insert(number)) {
                copies.push(path);
            }
        }
        copies.sort();
        let (number, name) = (tenant.number, tenant.name.clone());
        let settled = self.unsettled.is_empty();
        Ok(VerifyTenant {
            digest: self.digests.get(&name).filter(|_| settled).cloned(),
            tenant: number,
            name,
            database,
            evidence,
            copies,
        })
    }
}

/// `live/<name>` and every `gen/<n>/<name>` below a node's directory.
fn files_named(dir: &Path, name: &str) -> Vec<PathBuf> {
    let generations = fs::read_dir(dir.join("gen"))
        .into_iter()
        .flatten()
        .flatten();
    let mut paths: Vec<PathBuf> = generations.map(|entry| entry.path().join(name)).collect();
    paths.push(dir.join("live").join(name));
    paths.retain(|path| path.is_file());
    paths
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}
