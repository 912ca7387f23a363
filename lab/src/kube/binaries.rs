//! The programs of others, as `lab/tools/kube/build` makes them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The file of a program: in `$SELVEDGE_KUBE_BIN`, or in `target/kube/bin`.
pub fn find(program: &str) -> Result<PathBuf> {
    there(program)
}

/// The custom resource definitions of a framework, a folder beside its programs.
pub fn shared(framework: &str) -> Result<PathBuf> {
    there(&format!("{framework}.crds"))
}

fn there(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("SELVEDGE_KUBE_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe()?;
            own.ancestors().nth(2).context("folder of this program")?.join("kube/bin")
        }
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is not there: run lab/tools/kube/build, or set SELVEDGE_KUBE_BIN", path.display());
    }
    Ok(path)
}
