//! The node's counters at one moment, from /proc, or from the cgroup where the daemon is in a
//! container: the root of a container's cgroup has `memory.current`, that of a machine has not
//! (Documentation/admin-guide/cgroup-v2.rst).
//!
//! What can't be read is absent, and said once at debug level.

use std::collections::BTreeMap;
use std::path::Path;

use procfs::{CpuPressure, CurrentSI, FromRead, IoPressure, KernelStats, MemoryPressure};
use procfs::{Current, Meminfo};
use wal::Time;

use crate::observe::load::Reading;

/// The root of what this process sees of the cgroups.
const CGROUP: &str = "/sys/fs/cgroup";
/// Devices in memory are no disks.
const NO_DISKS: [&str; 3] = ["loop", "ram", "zram"];

/// Reads the counters.
#[derive(Debug)]
pub struct Node {
    in_container: bool,
    cores: u64,
    /// What could not be read was told.
    told: bool,
}

impl Node {
    pub fn of_here() -> Node {
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        Node {
            in_container: Path::new(CGROUP).join("memory.current").exists(),
            cores: cores as u64,
            told: false,
        }
    }

    /// The counters at `now`.
    pub fn read(&mut self, now: Time) -> Reading {
        let mut missing = Vec::new();
        let mut found = Reading {
            disks: noted(disks(), "disks", &mut missing).unwrap_or_default(),
            links: noted(links(), "links", &mut missing).unwrap_or_default(),
            ..Reading::default()
        };
        if self.in_container {
            found.cpu = cgroup_cpu(now, self.cores);
            found.memory = cgroup_memory();
            found.pressure = cgroup_pressure();
        }
        found.cpu = found.cpu.or_else(|| noted(cpu(), "cpu", &mut missing));
        found.memory = found
            .memory
            .or_else(|| noted(memory(), "memory", &mut missing));
        let whole = [
            CpuPressure::current().map(|pressure| pressure.some.total),
            MemoryPressure::current().map(|pressure| pressure.some.total),
            IoPressure::current().map(|pressure| pressure.some.total),
        ];
        for (index, total) in whole.into_iter().enumerate() {
            let total = noted(total, "pressure", &mut missing);
            found.pressure[index] = found.pressure[index].or(total);
        }
        if !missing.is_empty() && !std::mem::replace(&mut self.told, true) {
            tracing::debug!(?missing, "not to be read here");
        }
        found
    }
}

/// The value, or a note that it is not to be had.
fn noted<T>(
    value: procfs::ProcResult<T>,
    what: &'static str,
    missing: &mut Vec<&'static str>,
) -> Option<T> {
    value.inspect_err(|_| missing.push(what)).ok()
}

/// Ticks used and possible, over all processors. What a guest used is part of `user`.
fn cpu() -> procfs::ProcResult<(u64, u64)> {
    let all = KernelStats::current()?.total;
    let resting = all.idle + all.iowait.unwrap_or(0);
    let irq = all.irq.unwrap_or(0) + all.softirq.unwrap_or(0) + all.steal.unwrap_or(0);
    let used = all.user + all.nice + all.system + irq;
    Ok((used, used + resting))
}

fn memory() -> procfs::ProcResult<f64> {
    let info = Meminfo::current()?;
    let free = info.mem_available.unwrap_or(info.mem_free);
    Ok(1.0 - free as f64 / info.mem_total as f64)
}

fn disks() -> procfs::ProcResult<BTreeMap<String, u64>> {
    let disks = procfs::diskstats()?.into_iter();
    let real = disks.filter(|disk| !NO_DISKS.iter().any(|name| disk.name.starts_with(name)));
    Ok(real
        .map(|disk| (disk.name, disk.time_in_progress))
        .collect())
}

fn links() -> procfs::ProcResult<BTreeMap<String, (u64, u64)>> {
    let links = procfs::net::dev_status()?.into_iter();
    let far = links.filter(|(name, _)| name != "lo");
    Ok(far
        .map(|(name, link)| (name, (link.sent_bytes, link.recv_bytes)))
        .collect())
}

/// Microseconds used, and possible under the container's quota.
fn cgroup_cpu(now: Time, cores: u64) -> Option<(u64, u64)> {
    let used = member("cpu.stat", "usage_usec")?;
    let max = text("cpu.max")?;
    let mut words = max.split_ascii_whitespace();
    let (quota, period) = (words.next()?, words.next()?.parse::<f64>().ok()?);
    let share = quota.parse::<f64>().map(|quota| quota / period);
    let possible = now.0 as f64 / 1e3 * share.unwrap_or(cores as f64);
    Some((used, possible as u64))
}

/// Without what the page cache can give back at once.
fn cgroup_memory() -> Option<f64> {
    let number = |name| text(name)?.trim().parse::<f64>().ok();
    let used = number("memory.current")? - member("memory.stat", "inactive_file")? as f64;
    // "max" is no limit: the machine's memory is.
    Some(used / number("memory.max")?)
}

fn cgroup_pressure() -> [Option<u64>; 3] {
    let path = |name: &str| Path::new(CGROUP).join(name);
    [
        CpuPressure::from_file(path("cpu.pressure"))
            .ok()
            .map(|pressure| pressure.some.total),
        MemoryPressure::from_file(path("memory.pressure"))
            .ok()
            .map(|pressure| pressure.some.total),
        IoPressure::from_file(path("io.pressure"))
            .ok()
            .map(|pressure| pressure.some.total),
    ]
}

fn text(name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(CGROUP).join(name)).ok()
}

/// The number behind a name in a file of lines `name number`.
fn member(file: &str, name: &str) -> Option<u64> {
    let text = text(file)?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines.find(|(key, _)| *key == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::load::{Gauge, Load};

    #[test]
    fn this_machine_can_be_read_and_work_is_seen() {
        let (mut node, mut load) = (Node::of_here(), Load::default());
        load.add(io::reactor::now(), node.read(io::reactor::now()));
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 200 {
            std::hint::spin_loop();
        }
        load.add(io::reactor::now(), node.read(io::reactor::now()));
        let newest = load.newest();
        assert!(newest[&Gauge::Cpu] > 0.0, "{newest:?}");
        assert!(newest[&Gauge::Memory] > 0.0, "{newest:?}");
    }
}
