//! What the operator wants by signal: SIGTERM and SIGINT drain, SIGHUP reads the file again.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Order, SetLevel, notify};
use crate::config::Config;

/// Orders that the runtime has not taken yet, at most.
pub const ORDERS_MAX: usize = 16;
/// A drain that takes longer is cut: whatever was promised is on disk already.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Waits for signals.
pub struct Watch {
    /// The configuration in force.
    pub config: Config,
    pub order: flume::Sender<Order>,
    pub set_level: SetLevel,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Obeys signals until the thread ends.
    pub async fn run(mut self) {
        let listen = |kind| -> Signal { signal(kind).expect("a signal that exists can be caught") };
        let mut terminate = listen(SignalKind::terminate());
        let mut interrupt = listen(SignalKind::interrupt());
        let mut hangup = listen(SignalKind::hangup());
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => self.reload(),
            }
        }
        tracing::info!(seconds_max = DRAIN_MAX.as_secs(), "draining");
        notify::stopping();
        self.give(Order::Drain);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(DRAIN_MAX) => {}
        }
        tracing::error!("the drain was cut short; the next start recovers");
        std::process::exit(1);
    }

    fn reload(&mut self) {
        notify::reloading();
        match Config::load(&self.config.path) {
            Ok(new) => self.take_over(new),
            Err(errors) => tracing::error!("the old configuration stays in force:\n{errors}"),
        }
        notify::ready();
    }

    /// Takes over what can change in a running daemon, and says what can't.
    fn take_over(&mut self, new: Config) {
        for section in self.config.restart_needed(&new) {
            tracing::warn!(section, "this change needs a restart");
        }
        if self.config.log != new.log
            && let Err(error) = (self.set_level)(&new.log.level)
        {
            tracing::error!(error, "the log keeps its level");
        }
        let in_force = self.config.reloaded(&new);
        if in_force != self.config {
            self.config = in_force.clone();
            self.give(Order::Reload(Box::new(in_force)));
        }
        tracing::info!(path = %self.config.path.display(), "configuration read again");
    }

    fn give(&self, order: Order) {
        if self.order.try_send(order).is_err() {
            tracing::warn!("the shards take no orders");
        }
    }
}
