//! The configuration is spoilt, and mended.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Lossless;
use crate::fabric::Fabric;
use crate::manifests::replace;
use crate::table::Report;

const NODE: &str = "edge-1";

/// Status names field and place, and the last good configuration stays in force.
pub fn spoilt(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    // It would mend the file.
    fabric.operator.terminate()?;
    let folders = fabric.folders(fabric.lab.node(NODE)?);
    let good = std::fs::read_to_string(&folders.config)?;
    let traffic = Lossless::start(fabric, (NODE, "cloud-2"))?;
    let spoil = |edit: &dyn Fn(&mut Value)| -> Result<String> {
        let mut config: Value = serde_json::from_str(&good)?;
        edit(&mut config);
        Ok(config.to_string())
    };
    let cases = [
        ("5a", "garbage", "\u{7f}ELF garbage".to_owned(), "line 1, column 1"),
        ("5b", "truncated", good[..good.len() / 2].to_owned(), "ends too early"),
        ("5c", "of another version", spoil(&|c| c["version"] = 99.into())?, "version"),
        (
            "5d",
            "an impossible CIDR",
            spoil(&|c| c["peers"][0]["prefixes"][0] = "10.0.0.0/33".into())?,
            "peers[0].prefixes[0]",
        ),
    ];
    for (number, what, text, expected) in cases {
        report.check(number, &format!("configuration: {what}"), || {
            replace(&folders.config, &text)?;
            let said = fabric.await_status(NODE, "the error in its status", |status| {
                let error = status.config.error.as_deref().context("no error")?;
                ensure!(error.contains(expected), "{error:?} does not say {expected:?}");
                Ok(error.to_owned())
            })?;
            traffic.goes_on()?;
            let (_, said) = said.split_once("config.json: ").unwrap_or(("", &said));
            Ok(said.to_owned())
        });
    }
    report.check("5e", "configuration: good again", || {
        replace(&folders.config, &good)?;
        fabric.await_status(NODE, "no error in its status", |status| {
            ensure!(status.config.error.is_none(), "{:?}", status.config.error);
            Ok(String::new())
        })
    });
    report.check("5f", "configuration: exchanged as a ConfigMap volume does", || {
        let volume = fabric.lab.dir.join("volume");
        publish(&volume, "1", &good)?;
        let mut folders = folders.clone();
        folders.config = volume.join("config.json");
        fabric.kill(NODE)?;
        fabric.start_program_with(NODE, &folders)?;
        let mut config: Value = serde_json::from_str(&good)?;
        let generation = config["generation"].as_u64().context("generation")?;
        let in_force = |fabric: &Fabric, generation: u64| {
            fabric.await_status(NODE, "the version that was published", |status| {
                ensure!(status.config.generation == generation, "generation {}", status.config.generation);
                Ok(String::new())
            })
        };
        in_force(fabric, generation)?;
        for version in 1..=2 {
            config["generation"] = (generation + version).into();
            publish(&volume, &(version + 1).to_string(), &config.to_string())?;
            in_force(fabric, generation + version)?;
        }
        fabric.kill(NODE)?;
        fabric.start_program(NODE)?;
        in_force(fabric, generation)
    });
    report.check("5g", "through all of it", || traffic.stop());
    fabric.start_operator()
}

/// As a kubelet: a new folder, `..data` swapped to it by rename, and the old folder removed.
fn publish(volume: &Path, version: &str, text: &str) -> Result<()> {
    let folder = format!("..{version}");
    let before = std::fs::read_link(volume.join("..data")).ok();
    std::fs::create_dir_all(volume.join(&folder))?;
    std::fs::write(volume.join(&folder).join("config.json"), text)?;
    std::os::unix::fs::symlink(&folder, volume.join("..data_tmp"))?;
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data"))?;
    if !volume.join("config.json").exists() {
        std::os::unix::fs::symlink("..data/config.json", volume.join("config.json"))?;
    }
    before.map_or(Ok(()), |before| std::fs::remove_dir_all(volume.join(before))).context("remove the old version")
}
