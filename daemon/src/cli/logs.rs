//! The log: for people on a terminal, for journald under systemd.
//!
//! journald adds the time and the process itself; it takes a line's priority from a `<N>` in front
//! (sd-daemon(3)). `JOURNAL_STREAM` is set when standard error goes there (systemd.exec(5)).

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::control::SetLevel;

/// Starts the log at `level`; the answer changes the level later.
pub fn start(level: &str) -> SetLevel {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    let filter = EnvFilter::new(level);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        let builder = builder.event_format(Journal);
        let builder = builder.with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        set_level(move |filter| handle.reload(filter))
    } else {
        let builder = builder.with_ansi(std::io::stderr().is_terminal());
        let builder = builder.with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        set_level(move |filter| handle.reload(filter))
    }
}

fn set_level(
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + 'static,
) -> SetLevel {
    Box::new(move |level| {
        let filter = level
            .parse::<EnvFilter>()
            .map_err(|error| error.to_string())?;
        reload(filter).map_err(|error| error.to_string())
    })
}

/// `<6>foreshadow::ship: text field=value`
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write!(
            writer,
            "<{}>{}: ",
            priority(*metadata.level()),
            metadata.target()
        )?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// syslog(3) priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journald_reads_the_priority_in_front() {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Journal)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "foreshadow::ship", peer = "node-b", "link lost");
        });
        let text = String::from_utf8(page.0.lock().expect("not poisoned").clone()).expect("text");
        assert_eq!(text, "<4>foreshadow::ship: link lost peer=\"node-b\"\n");
    }
}
