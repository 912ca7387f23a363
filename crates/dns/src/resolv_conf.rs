//! `/etc/resolv.conf`: whom this host asks.

use std::net::IpAddr;

/// More are not read; a resolver reads three.
const MAX_SERVERS: usize = 8;

/// Its name servers, without doubles. An address with a zone (`fe80::1%eth0`) is left out.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if !servers.contains(&address) && servers.len() < MAX_SERVERS {
            servers.push(address);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_servers_are_read() {
        let text = "# by hand\nsearch lan\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # second\n\
                    nameserver fe80::1%eth0\nnameserver 192.0.2.1\noptions ndots:5\nnameserver";
        assert_eq!(nameservers(text), ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(nameservers(&"nameserver 192.0.2.1\n".repeat(9)).len(), 1);
    }
}
