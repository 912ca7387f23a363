//! The verb `ssh-config`.

use std::fmt::Write as _;
use std::path::Path;

use selvedge_model::NodeConfig;

use super::destination::{node_part, nodes};
use crate::cli::Program;
use crate::{Error, Options, Result, source};

/// Blocks for `~/.ssh/config`, one for each node with a tunnel to this one, or only for `node`.
pub(crate) fn config(options: &Options, program: &Program, node: Option<&str>) -> Result<String> {
    let kept = options.state_dir.join("config.json");
    // An API delivers no file, but what it delivered is kept.
    let (config, _) =
        source::read_config(&options.config).or_else(|error| source::read_config(&kept).map_err(|_| error))?;
    let own = std::env::current_exe().ok();
    let own = own.as_deref().unwrap_or(Path::new(program.name));
    let standard = Options::new(program.folder, program.cni_dir).run_dir == options.run_dir;
    let elsewhere = if standard { String::new() } else { format!(" --run-dir {}", options.run_dir.display()) };
    blocks(&config, node, &format!("{} connect{elsewhere} %h %p", own.display()))
}

fn blocks(config: &NodeConfig, node: Option<&str>, command: &str) -> Result<String> {
    let mut text = String::new();
    for (name, _) in
        nodes(config).filter(|(name, _)| node.is_none_or(|wanted| wanted == *name || wanted == node_part(name)))
    {
        // Writing to a String cannot fail. Nodes behind different NATs may have one address, but no two have one name.
        let _ = write!(
            text,
            "Host {} {name}\n    HostName {name}\n    HostKeyAlias {name}\n    ProxyCommand {command}\n",
            node_part(name)
        );
    }
    match node {
        Some(node) if text.is_empty() => Err(Error::new(format!("{node}: no node with a tunnel to this one"))),
        None if text.is_empty() => Err(Error::new("no node has a tunnel to this one")),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_block() {
        let config = NodeConfig::parse(
            r#"{"version": 1, "generation": 1, "name": "dev.edge-1", "node": "edge-1", "role": "edge",
            "podCidrs": [], "local": {"prefixes": [], "nodeAddresses": []},
            "peers": [
                {"name": "dev.connector", "via": "tunnel", "addresses": ["203.0.113.10"], "port": 4500,
                 "initiate": true, "prefixes": ["10.244.0.0/16"], "nodeAddresses": ["172.16.0.10"]},
                {"name": "dev.edge-2", "via": "tunnel", "addresses": [], "port": 4500, "initiate": false,
                 "prefixes": ["10.234.1.0/24"], "nodeAddresses": ["192.168.12.2"]}],
            "services": {"mode": "off", "balance": "random", "cidrs": [], "list": []},
            "datapath": "auto", "firewall": "auto"}"#,
        );
        let config = config.unwrap();
        let text = "Host edge-2 dev.edge-2\n    HostName dev.edge-2\n    HostKeyAlias dev.edge-2\n    \
                    ProxyCommand prog connect %h %p\n";
        for node in [None, Some("edge-2"), Some("dev.edge-2")] {
            assert_eq!(blocks(&config, node, "prog connect %h %p").unwrap(), text);
        }
        let error = blocks(&config, Some("edge-9"), "prog").unwrap_err().to_string();
        assert!(error.contains("edge-9"), "{error}");
    }
}
