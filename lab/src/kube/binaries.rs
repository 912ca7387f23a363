//! The programs of others, as `lab/tools/kube/build` makes them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The file of a program: in `$SELVEDGE_KUBE_BIN`, or in `target/kube/bin`.
pub fn find(program: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("SELVEDGE_KUBE_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe()?;
            own.ancestors().nth(2).context("folder of this program")?.join("kube/bin")
        }
    };
    let path = folder.join(program);
    if !path.exists() {
        bail!("{} is not there: run lab/tools/kube/build, or set SELVEDGE_KUBE_BIN", path.display());
    }
    Ok(path)
}
