//! Tells applications where a partition is: `<dir>/<partition>` is a symlink to the live database.
//!
//! A route is replaced by rename(2), so a reader sees the old one or the new one and never none.
//! Publishing is tried again until it works or is overtaken: by a newer path, or by news that the
//! partition is served elsewhere. The daemon publishes every route anew at start, which is how a
//! crash in between heals.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use io::failpoint::{self, Step};
use tokio::time::Instant;
use wal::PartitionName;

/// Routes waiting to be published, at most; then the teller waits.
const ORDERS_MAX: usize = 64 << 10;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Takes news about routes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Routes {
    orders: Option<flume::Sender<Order>>,
}

#[derive(Debug)]
enum Order {
    Publish {
        partition: PartitionName,
        path: PathBuf,
    },
    Forget {
        partition: PartitionName,
    },
}

impl Routes {
    /// The end that is told, and the publisher to be run; none without a directory.
    pub fn new(dir: Option<&Path>) -> (Routes, Option<Publisher>) {
        let Some(dir) = dir else {
            return (Routes { orders: None }, None);
        };
        let (orders, waiting) = flume::bounded(ORDERS_MAX);
        let pending = BTreeMap::new();
        let publisher = Publisher {
            dir: dir.to_owned(),
            waiting,
            pending,
        };
        (
            Routes {
                orders: Some(orders),
            },
            Some(publisher),
        )
    }

    /// `partition` is served here, at `path`.
    pub fn publish(&self, partition: PartitionName, path: PathBuf) {
        self.order(Order::Publish { partition, path });
    }

    /// `partition` is served elsewhere: whoever serves it tells where.
    pub fn forget(&self, partition: PartitionName) {
        self.order(Order::Forget { partition });
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The publisher stops only with the daemon; the next start publishes anew.
            let _ = orders.send(order);
        }
    }
}

/// Keeps the directory of routes.
#[derive(Debug)]
pub struct Publisher {
    dir: PathBuf,
    waiting: flume::Receiver<Order>,
    /// Routes that could not be published yet.
    pending: BTreeMap<PartitionName, Pending>,
}

#[derive(Debug)]
struct Pending {
    path: PathBuf,
    due: Instant,
    wait: Duration,
}

impl Publisher {
    /// Publishes until every [`Routes`] is dropped.
    pub async fn run(mut self) {
        loop {
            let due = self.pending.values().map(|pending| pending.due).min();
            let order = match due {
                None => self.waiting.recv_async().await.map(Some),
                Some(due) => match tokio::time::timeout_at(due, self.waiting.recv_async()).await {
                    Ok(order) => order.map(Some),
                    Err(_) => Ok(None),
                },
            };
            match order {
                Err(flume::RecvError::Disconnected) => return,
                Ok(Some(Order::Forget { partition })) => {
                    self.pending.remove(&partition);
                }
                Ok(Some(Order::Publish { partition, path })) => {
                    self.attempt(partition, path, RETRY_MIN);
                }
                Ok(None) => self.retry(),
            }
        }
    }

    fn retry(&mut self) {
        let now = Instant::now();
        let due = self.pending.extract_if(.., |_, pending| pending.due <= now);
        for (partition, pending) in due.collect::<Vec<_>>() {
            self.attempt(partition, pending.path, (pending.wait * 2).min(RETRY_MAX));
        }
    }

    fn attempt(&mut self, partition: PartitionName, path: PathBuf, wait: Duration) {
        match publish(&self.dir, &partition, &path) {
            Ok(()) => {
                self.pending.remove(&partition);
            }
            Err(error) => {
                let dir = self.dir.display();
                tracing::warn!(%partition, %error, %dir, "route not published");
                let due = Instant::now() + wait;
                self.pending.insert(partition, Pending { path, due, wait });
            }
        }
    }
}

/// Puts one route in place.
pub fn publish(dir: &Path, partition: &PartitionName, path: &Path) -> std::io::Result<()> {
    let route = dir.join(partition.as_str());
    if std::fs::read_link(&route).is_ok_and(|current| current == path) {
        return Ok(());
    }
    let parent = route
        .parent()
        .expect("a partition's name is below the directory");
    std::fs::create_dir_all(parent)?;
    let file_name = route
        .file_name()
        .expect("a partition's name ends in a file name");
    let hidden = format!(".{}.{}", file_name.to_string_lossy(), std::process::id());
    let temporary = parent.join(hidden);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => symlink(path, &temporary)?,
    }
    failpoint::pass(Step::RouteLinked).map_err(std::io::Error::other)?;
    std::fs::rename(&temporary, &route)?;
    failpoint::pass(Step::RoutePublished).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PartitionName {
        PartitionName::new(text).expect("valid")
    }

    #[test]
    fn a_route_is_replaced_and_never_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        let partition = name("eu/t.db");
        publish(dir.path(), &partition, Path::new("/a/t.db")).expect("published");
        let route = dir.path().join("eu/t.db");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::read_link(&route).expect("a route");
                }
            });
            for turn in 0..200 {
                let path = PathBuf::from(format!("/{turn}/t.db"));
                publish(dir.path(), &partition, &path).expect("published");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(
            std::fs::read_link(&route).expect("a route"),
            Path::new("/199/t.db")
        );
        assert_eq!(
            std::fs::read_dir(dir.path().join("eu"))
                .expect("lists")
                .count(),
            1
        );
    }

    #[test]
    fn a_route_that_can_not_be_published_is_tried_again() {
        let outer = tempfile::tempdir().expect("a directory");
        let dir = outer.path().join("routes");
        std::fs::write(&dir, "in the way").expect("writes");
        let (routes, publisher) = Routes::new(Some(&dir));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a runtime").block_on(async {
            let publisher = tokio::spawn(publisher.expect("a directory is set").run());
            routes.publish(name("t.db"), "/a/t.db".into());
            routes.publish(name("gone.db"), "/a/gone.db".into());
            tokio::time::sleep(Duration::from_millis(10)).await;
            routes.forget(name("gone.db"));
            std::fs::remove_file(&dir).expect("removes");
            tokio::time::sleep(Duration::from_millis(150)).await;
            drop(routes);
            publisher.await.expect("ends");
        });
        assert_eq!(
            std::fs::read_link(dir.join("t.db")).expect("published"),
            Path::new("/a/t.db")
        );
        assert!(
            std::fs::read_link(dir.join("gone.db")).is_err(),
            "served elsewhere by now"
        );
    }
}
