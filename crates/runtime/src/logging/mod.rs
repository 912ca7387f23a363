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

struct Frugal {
    written: env_logger::Logger,
    everything: bool,
    limiter: Mutex<Limiter>,
    origin: Instant,
}

impl Log for Frugal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.written.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.written.matches(record) {
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
