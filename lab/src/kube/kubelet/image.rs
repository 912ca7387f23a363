//! The image of pods that a container runtime starts: busybox, and a page that says who answers and whom it sees.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::exec;
use crate::server::MARKER;

/// Its name.
pub const NAME: &str = "lab.selvedge.dev/busybox:1";
/// Its server's page; its body is an [`Answer`](crate::server::Answer).
pub const PAGE: &str = "/cgi-bin/who";

const BUSYBOX: &str = "/bin/busybox";
const NAMES: [&str; 7] = ["cat", "httpd", "nc", "ping", "rm", "sh", "touch"];

/// Writes the archive into a folder; `ctr images import` reads it.
pub fn write(dir: &Path) -> Result<PathBuf> {
    let [root, layout] = ["root", "layout"].map(|name| dir.join(name));
    for folder in [root.join("bin"), root.join("tmp"), root.join("www/cgi-bin"), layout.clone()] {
        std::fs::create_dir_all(&folder)?;
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox"))
        .with_context(|| format!("copy {BUSYBOX}, of the Debian package busybox-static"))?;
    NAMES.iter().try_for_each(|name| symlink("busybox", root.join("bin").join(name)))?;
    let script = root.join("www").join(PAGE.trim_start_matches('/'));
    std::fs::write(&script, page())?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let layer = layout.join("layer.tar");
    archive(&root, &layer)?;
    let sum = exec::run(Command::new("sha256sum").arg(&layer))?;
    let digest = sum.split(' ').next().context("no checksum")?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Cmd": ["/bin/busybox", "sleep", "2147483647"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    std::fs::write(layout.join("config.json"), config.to_string())?;
    std::fs::write(layout.join("manifest.json"), manifest.to_string())?;
    let image = dir.join("image.tar");
    archive(&layout, &image)?;
    Ok(image)
}

fn page() -> String {
    let answer =
        json!({"name": "$POD", "node": "$NODE", "client": "$REMOTE_ADDR:$REMOTE_PORT", "marker": MARKER}).to_string();
    format!("#!/bin/sh\nprintf 'Content-Type: application/json\\r\\n\\r\\n'\ncat <<END\n{answer}\nEND\n")
}

fn archive(folder: &Path, file: &Path) -> Result<()> {
    exec::run(Command::new("tar").arg("-cf").arg(file).arg("-C").arg(folder).arg(".")).map(drop)
}

/// As images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
