//! What is written to standard error, which on gateways often ends on flash: lines are limited in number and length, and
//! say nothing of where peers are. Who sets `RUST_LOG` to `debug` or more is looking for something, and gets everything.

mod limit;
mod line;

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use log::{Level, LevelFilter, Log, Metadata, Record};

use limit::{Limiter, Verdict};

/// Starts logging; at most once in a process.
pub(crate) fn init() {
    let written = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format(|out, record| writeln!(out, "{:5} {}", record.level().as_str().to_lowercase(), record.args()))
        .build();
    let level = written.filter();
    let logger =
        Frugal { written, everything: level >= LevelFilter::Debug, limiter: Mutex::default(), origin: Instant::now() };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// What goes through a connection, byte by byte: tokens and keys among it. Nobody gets that.
#[cfg(feature = "api")]
fn tells_secrets(metadata: &Metadata<'_>) -> bool {
    let part = metadata.target().split("::").next().unwrap_or_default();
    metadata.level() == Level::Trace && matches!(part, "ureq" | "ureq_proto" | "rustls")
}

struct Frugal {
    written: env_logger::Logger,
    everything: bool,
    limiter: Mutex<Limiter>,
    origin: Instant,
}

impl Log for Frugal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        #[cfg(feature = "api")]
        if tells_secrets(metadata) {
            return false;
        }
        self.written.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.written.matches(record) {
            return;
        }
        #[cfg(feature = "api")]
        if tells_secrets(record.metadata()) {
            return;
        }
        let text = line::printable(&record.args().to_string());
        if self.everything || record.level() > Level::Info {
            return self.write(record, &text);
        }
        let kind = (record.module_path_static(), record.line());
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let Verdict::Write { left_out } = limiter.judge(self.origin.elapsed(), kind) else { return };
        let text = line::without_addresses(&text);
        let written = match left_out {
            0 => text,
            n => format!("{text} ({n} more like this suppressed)"),
        };
        self.write(record, &written);
    }

    fn flush(&self) {
        self.written.flush();
    }
}

impl Frugal {
    fn write(&self, record: &Record<'_>, text: &str) {
        self.written.log(&Record::builder().metadata(record.metadata().clone()).args(format_args!("{text}")).build());
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "api")]
    #[test]
    fn what_goes_through_connections_is_not_written() {
        use log::{Level, Metadata};
        let told = |target: &str, level| super::tells_secrets(&Metadata::builder().target(target).level(level).build());
        assert!(
            told("ureq::util", Level::Trace) && told("ureq_proto", Level::Trace) && told("rustls::conn", Level::Trace)
        );
        assert!(!told("ureq::run", Level::Debug) && !told("selvedge_runtime::source", Level::Trace));
    }
}
