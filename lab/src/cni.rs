//! A small CNI runtime: runs the real plugins of a network list for one container at a time.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::exec;
use crate::netns::Netns;

const PLUGIN_FOLDERS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// A network list, as a `.conflist` file has it.
#[derive(Debug)]
pub struct Network {
    list: Value,
    data: PathBuf,
}

/// A container's place in a network.
#[derive(Debug)]
pub struct Attachment {
    /// What the plugins allocated.
    pub addresses: Vec<IpAddr>,
    container: String,
    result: Value,
}

impl Network {
    /// `data` is where host-local keeps its leases: the nodes of a laboratory are on one file system.
    pub fn parse(text: &str, data: &Path) -> Result<Self> {
        let list: Value = serde_json::from_str(text).context("network list")?;
        ensure!(list["name"].is_string() && list["plugins"].is_array(), "network list without name or plugins");
        Ok(Self { list, data: data.to_owned() })
    }

    /// The first network list by name in a folder, as a kubelet's runtime takes it.
    pub fn find(folder: &Path, data: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
        let paths = entries.flatten().map(|entry| entry.path());
        let first = paths.filter(|path| path.extension().is_some_and(|e| e == "conflist")).min();
        let path = first.with_context(|| format!("no network list in {}", folder.display()))?;
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text, data).with_context(|| path.display().to_string())
    }

    /// ADD: every plugin in order, each with the result of the one before.
    pub fn add(&self, node: &Netns, container: &Netns) -> Result<Attachment> {
        let mut result = Value::Null;
        for plugin in self.plugins() {
            let text = self.call("ADD", plugin, node, container, &result)?;
            result = serde_json::from_str(&text).with_context(|| format!("result of {}: {text:?}", plugin["type"]))?;
        }
        let addresses = result["ips"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
            .collect();
        Ok(Attachment { addresses, container: container.name().to_owned(), result })
    }

    /// DEL: every plugin in reverse order.
    pub fn del(&self, node: &Netns, container: &Netns, attachment: &Attachment) -> Result<()> {
        ensure!(attachment.container == container.name(), "{} is not {}", attachment.container, container.name());
        for plugin in self.plugins().rev() {
            self.call("DEL", plugin, node, container, &attachment.result)?;
        }
        Ok(())
    }

    fn plugins(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.list["plugins"].as_array().into_iter().flatten()
    }

    fn call(&self, verb: &str, plugin: &Value, node: &Netns, container: &Netns, previous: &Value) -> Result<String> {
        let kind = plugin["type"].as_str().context("plugin without a type")?;
        let program = PLUGIN_FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(kind))
            .find(|path| path.exists())
            .with_context(|| format!("CNI plugin {kind} in none of {}", PLUGIN_FOLDERS.join(", ")))?;
        let mut input = plugin.clone();
        input["cniVersion"] = self.list["cniVersion"].clone();
        input["name"] = self.list["name"].clone();
        if !previous.is_null() {
            input["prevResult"] = previous.clone();
        }
        if input["ipam"]["type"] == "host-local" {
            input["ipam"]["dataDir"] = json!(self.data);
        }
        let mut command = node.command(&program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container.name())
            .env("CNI_NETNS", container.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGIN_FOLDERS.join(":"));
        exec::feed(&mut command, &input.to_string()).with_context(|| format!("CNI {verb} of {}", container.name()))
    }
}
