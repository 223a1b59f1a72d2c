//! Tenants: which databases exist, how big they are and where they begin.

use std::time::Duration;

use super::{Cluster, Engine, Error};
use crate::cli::demo::plan::{CreatePlan, DatabasePlan};

/// Making two dozen databases of a few megabytes takes a second; this is for a busy machine.
const CREATE_LIMIT: Duration = Duration::from_secs(60);

/// Accounts in a megabyte, with 4 KiB pages.
const ACCOUNTS_PER_MEGABYTE: u64 = 10_000;

/// One tenant's database.
#[derive(Clone, PartialEq, Debug)]
pub struct Tenant {
    pub engine: Engine,
    /// Number in the ack journals.
    pub number: u32,
    /// File name, which is the partition's name.
    pub name: String,
    /// The node where it begins.
    pub node: String,
    pub page_size: u32,
    pub accounts: u64,
}

impl Tenant {
    /// A database of SQLite, tenant `number`, about `megabytes` big, beginning on `node`.
    pub fn new(number: u32, node: &str, megabytes: f64) -> Tenant {
        Tenant::of(Engine::Sqlite, number, node, megabytes)
    }

    /// The same, of any engine.
    pub fn of(engine: Engine, number: u32, node: &str, megabytes: f64) -> Tenant {
        Tenant {
            engine,
            number,
            name: format!("tenant{number:02}.{}", engine.suffix()),
            node: node.to_owned(),
            page_size: 4096,
            accounts: ((megabytes * ACCOUNTS_PER_MEGABYTE as f64) as u64).max(1),
        }
    }
}

impl Cluster {
    /// Makes the databases in their nodes' live directories, whether daemons run or not.
    pub fn create_tenants(&mut self, tenants: &[Tenant]) -> Result<(), Error> {
        let mut databases = Vec::new();
        for tenant in tenants {
            let path = self.node(&tenant.node)?.place.live().join(&tenant.name);
            let (page_size, accounts) = (tenant.page_size, tenant.accounts);
            databases.push(DatabasePlan {
                path,
                page_size,
                accounts,
            });
        }
        let plan = CreatePlan {
            engine: self.engine,
            stage: self.root().join("stage"),
            databases,
        };
        let path = self.write_plan(&format!("create-{}.json", self.tenants.len()), &plan)?;
        self.run_part("create", &path, CREATE_LIMIT)?;
        self.tenants.extend_from_slice(tenants);
        Ok(())
    }

    pub fn tenant(&self, name: &str) -> Result<&Tenant, Error> {
        let found = self.tenants.iter().find(|tenant| tenant.name == name);
        found.ok_or_else(|| Error::new(format!("no tenant {name}")))
    }
}
