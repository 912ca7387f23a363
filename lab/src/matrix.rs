//! The 48 rows: for each a real TCP connection whose answer is checked, and a ping.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use crate::fabric::Fabric;
use crate::manifests::{SERVICE_PORT, Service};
use crate::probe::{self, DEADLINE};
use crate::server::PORT;
use crate::table::Report;
use crate::topology::{Lab, Net};

const TABLE: &str = include_str!("../matrix/superedge-48.csv");

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its number.
    pub id: u32,
    direction: String,
    client_net: Net,
    client_node: String,
    target_net: Net,
    target: String,
}

/// The table.
pub fn rows() -> Result<Vec<Row>> {
    TABLE.lines().filter(|line| !line.starts_with(['#', 'i'])).map(|line| row(line).context(line)).collect()
}

/// Runs the rows whose numbers `wanted` accepts.
pub fn run(report: &mut Report, fabric: &Fabric, wanted: impl Fn(u32) -> bool) -> Result<()> {
    for row in rows()?.iter().filter(|row| wanted(row.id)) {
        report.check(&row.id.to_string(), &row.to_string(), || check(&fabric.lab, row));
    }
    Ok(())
}

/// Numbers and ranges, such as `1,5-8`.
pub fn selection(text: &str) -> Result<Vec<std::ops::RangeInclusive<u32>>> {
    text.split(',')
        .map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Ok(from.trim().parse()?..=to.trim().parse()?)
        })
        .collect::<Result<_>>()
        .with_context(|| format!("{text:?} is not of the form 1,5-8"))
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |net| if net == Net::Pod { "pod" } else { "host" };
        write!(f, "{:<4} {:<8} -> {:<4} ", word(self.client_net), self.client_node, word(self.target_net))?;
        match self.service() {
            Some(service) => write!(f, "by Service {}", service.name),
            None => f.write_str(&self.target),
        }
    }
}

impl Row {
    /// The Service whose endpoints are on the far side, for a row that goes by cluster IP.
    fn service(&self) -> Option<&'static Service> {
        let side = match (self.direction.as_str(), self.client_node.as_str()) {
            _ if self.target != "clusterip" => return None,
            ("edge-to-cloud", _) => "cloud",
            ("edge-to-edge", "edge-1") => "edge-2",
            ("edge-to-edge", _) => "edge-1",
            _ => "edge",
        };
        Service::named(&format!("{side}-{}", if self.target_net == Net::Pod { "pod" } else { "host" })).ok()
    }
}

fn check(lab: &Lab, row: &Row) -> Result<String> {
    let client = lab.place(row.client_net, &row.client_node)?;
    let (target, nodes) = match row.service() {
        Some(service) => (SocketAddr::new(service.cluster_ip(true), SERVICE_PORT), service.nodes.to_vec()),
        None => {
            let place = lab.place(row.target_net, &row.target)?;
            (SocketAddr::new(place.address(true)?, PORT), vec![row.target.as_str()])
        }
    };
    let answer = probe::who_tcp(client.ns, target, DEADLINE)?;
    ensure!(nodes.contains(&answer.node.as_str()), "{} answered for {}", answer.name, nodes.join(" or "));
    let server = lab.place(row.target_net, &answer.node)?;
    ensure!(answer.name == server.name, "{} answered instead of {}", answer.name, server.name);
    let time = probe::ping(client.ns, server.address(true)?, DEADLINE)?;
    Ok(format!("{}, ping {:.1} ms", answer.name, time.as_secs_f64() * 1000.0))
}

fn row(line: &str) -> Result<Row> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let &[id, direction, client_net, client_node, target_net, target] = fields.as_slice() else {
        bail!("6 fields are needed");
    };
    let net = |word: &str| match word {
        "pod" => Ok(Net::Pod),
        "host" => Ok(Net::Host),
        _ => bail!("{word:?} is neither pod nor host"),
    };
    Ok(Row {
        id: id.parse()?,
        direction: direction.to_owned(),
        client_net: net(client_net)?,
        client_node: client_node.to_owned(),
        target_net: net(target_net)?,
        target: target.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_48_rows_in_order() {
        let ids: Vec<u32> = rows().unwrap().iter().map(|row| row.id).collect();
        assert_eq!(ids, (1..=48).collect::<Vec<_>>());
    }

    #[test]
    fn cluster_ip_rows_go_to_the_far_side() {
        let rows = rows().unwrap();
        let service = |id: usize| rows[id - 1].service().map(|service| service.name);
        assert_eq!(service(1), None);
        assert_eq!(service(3), Some("edge-host"));
        assert_eq!(service(4), Some("edge-pod"));
        assert_eq!(service(33), Some("cloud-host"));
        assert_eq!(service(38), Some("edge-1-host"));
        assert_eq!(service(48), Some("edge-2-pod"));
        assert_eq!(rows.iter().filter(|row| row.service().is_some()).count(), 18);
    }

    #[test]
    fn selections_name_numbers_and_ranges() {
        assert_eq!(selection("1,5-8").unwrap(), [1..=1, 5..=8]);
        assert!(selection("a").is_err());
    }
}
