//! Running other programs and saying what they said when they fail.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs to the end; standard output on success, the command line with its standard error otherwise.
pub fn run(command: &mut Command) -> Result<String> {
    feed(command, "")
}

/// As [`run`], with text on standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    let line = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading all of its input says why on standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {line}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = [stderr.trim(), stdout.trim()].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("; ");
        bail!("{line}: {}: {said}", output.status);
    }
    Ok(stdout)
}

/// The command as one would type it.
pub fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
