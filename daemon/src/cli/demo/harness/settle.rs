//! Looking at the cluster as a whole: who owns what, which shadows follow, whether digests agree.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, Error, pause, wait_until};
use crate::cli::demo::acks;
use crate::cli::demo::http::percent;

/// What one node says about one partition.
#[derive(Clone, Debug)]
pub struct View {
    pub node: String,
    pub role: String,
    pub owner: String,
    pub epoch: u64,
    pub lsn: u64,
    pub digest: String,
    /// Peers whose shadows the owner calls ready.
    pub ready: Vec<String>,
}

/// Every partition, as every node that answers sees it.
pub type Views = BTreeMap<String, Vec<View>>;

impl Cluster {
    /// What all nodes say now; a dead node says nothing.
    pub fn views(&self) -> Views {
        self.views_of("/v1/partitions")
    }

    /// The node that calls itself the owner of `partition`.
    pub fn owner_of(&self, partition: &str) -> Result<String, Error> {
        wait_until(
            &format!("{partition} has one owner"),
            Duration::from_secs(10),
            || {
                let views = self.views_of(&format!("/v1/partitions?name={}", percent(partition)));
                let views = views.get(partition).map(Vec::as_slice).unwrap_or_default();
                let mut owners = views.iter().filter(|view| view.role == "owner");
                let (first, second) = (owners.next(), owners.next());
                Ok(first
                    .filter(|_| second.is_none())
                    .map(|view| view.node.clone()))
            },
        )
    }

    /// Waits until exactly one node owns `partition` and every node knows it; returns the owner.
    pub fn wait_for_one_owner(&self, partition: &str, limit: Duration) -> Result<String, Error> {
        wait_until(
            &format!("all nodes agree who owns {partition}"),
            limit,
            || {
                let views = self.views_of(&format!("/v1/partitions?name={}", percent(partition)));
                let views = views.get(partition).map(Vec::as_slice).unwrap_or_default();
                let Some(owner) = views.iter().find(|view| view.role == "owner") else {
                    return Ok(None);
                };
                let agreed = views.len() == self.nodes.len()
                    && views.iter().all(|view| view.owner == owner.node)
                    && views.iter().filter(|view| view.role == "owner").count() == 1;
                Ok(agreed.then(|| owner.node.clone()))
            },
        )
    }

    /// Waits until every tenant has an owner, a route and, with peers, a ready shadow.
    pub fn wait_for_shadows(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let missing = self.without_shadow(&self.views());
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = format!("{} tenants have no shadow: {}", missing.len(), missing[0]);
                return Err(Error::new(what));
            }
            pause(50);
        }
    }

    /// Waits until every shadow stands where its owner stands, with the same digest. What differs
    /// at the end is returned, and counted by the verdict.
    pub fn settle(&mut self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        loop {
            let views = self.views();
            self.unsettled = self.differences(&views);
            self.digests = digests(views);
            if self.unsettled.is_empty() || Instant::now() > deadline {
                return self.unsettled.clone();
            }
            pause(50);
        }
    }

    /// Waits until each of these writers has got one more acknowledgement than now.
    pub fn wait_for_progress(&self, writers: &[u32], limit: Duration) -> Result<(), Error> {
        let before = acks::counts(&self.acks());
        wait_until("every writer goes on", limit, || {
            let now = acks::counts(&self.acks());
            let goes_on = |writer: &u32| {
                let journal = self.acks().join(format!("{writer}.ack"));
                now.get(&journal) > before.get(&journal)
            };
            Ok(writers.iter().all(goes_on).then_some(()))
        })
    }

    fn views_of(&self, target: &str) -> Views {
        let mut views = Views::new();
        for node in &self.nodes {
            let Ok(Value::Array(rows)) = node.get(target) else {
                continue;
            };
            for row in rows {
                let Some(name) = row["name"].as_str() else {
                    continue;
                };
                let view = view(&node.place.name, &row);
                views.entry(name.to_owned()).or_default().push(view);
            }
        }
        views
    }

    fn without_shadow(&self, views: &Views) -> Vec<String> {
        let mut missing = Vec::new();
        for tenant in &self.tenants {
            let views = views
                .get(&tenant.name)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let owner = views.iter().find(|view| view.role == "owner");
            let warm = owner.is_some_and(|owner| !owner.ready.is_empty() || self.nodes.len() == 1);
            if !warm || !self.routes().join(&tenant.name).exists() {
                missing.push(format!("{} is seen as {views:?}", tenant.name));
            }
        }
        missing
    }

    fn differences(&self, views: &Views) -> Vec<String> {
        let mut found = Vec::new();
        for tenant in &self.tenants {
            let name = &tenant.name;
            let views = views.get(name).map(Vec::as_slice).unwrap_or_default();
            let owners: Vec<&View> = views.iter().filter(|view| view.role == "owner").collect();
            let [owner] = owners[..] else {
                found.push(format!("{name}: {} owners", owners.len()));
                continue;
            };
            let shadows: Vec<&View> = views.iter().filter(|view| view.role == "shadow").collect();
            if shadows.is_empty() && self.nodes.len() > 1 {
                found.push(format!("{name}: no shadow"));
            }
            for shadow in shadows {
                if (shadow.lsn, &shadow.digest) != (owner.lsn, &owner.digest) {
                    found.push(format!(
                        "{name}: {} at {} {}, owner {} at {} {}",
                        shadow.node, shadow.lsn, shadow.digest, owner.node, owner.lsn, owner.digest
                    ));
                }
            }
        }
        found
    }
}

/// What every owner says its digest is.
fn digests(views: Views) -> BTreeMap<String, String> {
    let owner_of = |(name, views): (String, Vec<View>)| {
        let owner = views.into_iter().find(|view| view.role == "owner")?;
        Some((name, owner.digest))
    };
    views.into_iter().filter_map(owner_of).collect()
}

fn view(node: &str, row: &Value) -> View {
    let text = |key: &str| match &row[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let shadows = row["shadows"].as_array().into_iter().flatten();
    let ready = shadows.filter(|shadow| shadow["ready"] == true);
    View {
        node: node.to_owned(),
        role: text("role"),
        owner: text("owner"),
        epoch: row["epoch"].as_u64().unwrap_or(0),
        lsn: row["lsn"].as_u64().unwrap_or(0),
        digest: text("digest"),
        ready: ready
            .filter_map(|shadow| shadow["node"].as_str().map(str::to_owned))
            .collect(),
    }
}
