//! What the service manager is told: ready, how it goes, alive, reloading, stopping.
//!
//! All of it goes to `$NOTIFY_SOCKET` and is nothing without one. The watchdog is fed only when the
//! shards answer a question, so a daemon that merely exists is restarted.

use std::time::Duration;

use sd_notify::NotifyState;

/// How often the status line is told anew.
pub const STATUS_EVERY: Duration = Duration::from_secs(15);

/// The daemon serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The daemon is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    // sd_notify(3): RELOADING=1 must come with MONOTONIC_USEC.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager was not told of the reload"),
    }
}

/// The daemon has begun to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// How often [`alive`] must be told, if at all: half of what the unit allows.
pub fn watchdog_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
