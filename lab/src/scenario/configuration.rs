//! The configuration is spoilt, and mended.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::without_loss;
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
            let mut said = String::new();
            let lossless = without_loss(fabric, (NODE, "cloud-2"), |fabric| {
                replace(&folders.config, &text)?;
                said = fabric.await_status(NODE, "the error in its status", |status| {
                    let error = status.config.error.as_deref().context("no error")?;
                    ensure!(error.contains(expected), "{error:?} does not say {expected:?}");
                    Ok(error.to_owned())
                })?;
                Ok(())
            })?;
            Ok(format!("{lossless}; {said}"))
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
        let generation = config["generation"].as_u64().context("generation")? + 1;
        fabric.await_status(NODE, "the first version", |status| {
            ensure!(status.config.generation + 1 == generation, "generation {}", status.config.generation);
            Ok(())
        })?;
        config["generation"] = generation.into();
        publish(&volume, "2", &config.to_string())?;
        fabric.await_status(NODE, "the second version", |status| {
            ensure!(status.config.generation == generation, "generation {}", status.config.generation);
            Ok(String::new())
        })
    });
    Ok(())
}

/// As a kubelet: a new folder, and `..data` swapped to it by rename.
fn publish(volume: &Path, version: &str, text: &str) -> Result<()> {
    let folder = format!("..{version}");
    std::fs::create_dir_all(volume.join(&folder))?;
    std::fs::write(volume.join(&folder).join("config.json"), text)?;
    std::os::unix::fs::symlink(&folder, volume.join("..data_tmp"))?;
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data"))?;
    if !volume.join("config.json").exists() {
        std::os::unix::fs::symlink("..data/config.json", volume.join("config.json"))?;
    }
    Ok(())
}
