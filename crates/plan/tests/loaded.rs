//! The text in the real programs: what is loaded reads back as wanted, what others made stays.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::netns::Netns;
use common::*;
use selvedge_plan::firewall::Ruleset;
use selvedge_plan::*;

const FLAVOURS: [(&str, Family); 4] = [
    ("iptables-nft", Family::V4),
    ("iptables-legacy", Family::V4),
    ("ip6tables-nft", Family::V6),
    ("ip6tables-legacy", Family::V6),
];

const FOREIGN: &str = "*filter\n:OTHERS - [0:0]\n-A FORWARD -j OTHERS\n-A FORWARD -j REJECT\n-A OTHERS -i eth7 -j ACCEPT\nCOMMIT\n\
    *nat\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n*mangle\n-A FORWARD -i eth7 -j ACCEPT\nCOMMIT\n*raw\n-A PREROUTING -i eth7 -j ACCEPT\nCOMMIT\n";

/// An edge that sends everything through its tunnel.
const EVERYTHING: &str = r#"{"version": 1, "generation": 1, "name": "a.edge-1", "node": "edge-1", "role": "edge",
    "podCidrs": [], "local": {"prefixes": []},
    "services": {"mode": "kernel", "cidrs": [], "list": []}, "peers": [
    {"name": "a.connector", "via": "tunnel", "addresses": ["203.0.113.10"], "prefixes": ["0.0.0.0/0", "::/0"]}]}"#;

fn rulesets() -> Vec<Ruleset> {
    let mut round_robin = config(EDGE);
    round_robin.services.balance = selvedge_model::Balance::RoundRobin;
    vec![
        Plan::new(&config(EDGE), &edge_facts(Datapath::User)).ruleset,
        Plan::new(&round_robin, &edge_facts(Datapath::Kernel)).ruleset,
        Plan::new(&config(EDGE), &Facts { bridge_netfilter: false, ..edge_facts(Datapath::User) }).ruleset,
        Plan::new(&config(EDGE), &edge_facts(Datapath::User)).ruleset.spelt(),
        Plan::new(&config(EDGE), &Facts { reports: true, ..edge_facts(Datapath::User) }).ruleset,
        Plan::new(&config(EVERYTHING), &Facts::default()).ruleset.spelt(),
        Plan::new(&config(CONNECTOR), &connector_facts()).ruleset,
        Plan::new(&config(CLOUD), &cloud_facts()).ruleset,
        Plan::new(&config(CLOUD), &Facts::default()).ruleset,
        serving(ALL_KINDS),
    ]
}

fn serving(list: &str) -> Ruleset {
    Plan::new(&with_services(list), &edge_facts(Datapath::User)).ruleset
}

/// One flavour of iptables with ipset, in a namespace.
struct Iptables {
    netns: Netns,
    program: &'static str,
    family: Family,
}

impl Iptables {
    fn new(program: &'static str, family: Family) -> Self {
        Iptables { netns: Netns::new(), program, family }
    }

    /// Without comments and the counters of base chains.
    fn save(&self) -> String {
        let text = self.netns.run(&format!("{}-save", self.program));
        let plain = text.lines().filter(|line| !line.starts_with('#'));
        plain
            .map(|line| if line.starts_with(':') { line.split('[').next().unwrap() } else { line })
            .fold(String::new(), |t, l| t + l + "\n")
    }

    fn restore(&self, text: &str) {
        self.netns.feed(&format!("{}-restore --noflush", self.program), text);
    }

    /// Whether there was something to do.
    fn apply(&self, ruleset: &Ruleset) -> bool {
        let sets = ipset::update(&self.netns.run("ipset save"), ruleset);
        let rules = iptables::update(&self.save(), &iptables::tables(ruleset, self.family));
        if let Some(text) = &sets {
            self.netns.feed("ipset -exist restore", text);
        }
        if let Some(text) = &rules {
            self.restore(text);
        }
        let stale = ipset::cleanup(&self.netns.run("ipset save"), ruleset);
        if let Some(text) = &stale {
            self.netns.feed("ipset -exist restore", text);
        }
        sets.is_some() || rules.is_some() || stale.is_some()
    }

    fn remove(&self) {
        if let Some(text) = iptables::remove(&self.save()) {
            self.restore(&text);
        }
        if let Some(text) = ipset::remove(&self.netns.run("ipset save")) {
            self.netns.feed("ipset restore", &text);
        }
    }

    fn chain(&self, table: &str, chain: &str) -> Vec<String> {
        let text = self.netns.run(&format!("{} -t {table} -S {chain}", self.program));
        text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
    }
}

#[test]
fn iptables_reads_back_what_was_written() {
    for (program, family) in FLAVOURS {
        let iptables = Iptables::new(program, family);
        iptables.restore(FOREIGN);
        iptables.netns.run("ipset create OTHERS hash:net family inet");
        let before = iptables.save();
        for (i, ruleset) in rulesets().iter().enumerate() {
            iptables.apply(ruleset);
            assert!(iptables.chain("nat", "SELVEDGE-POSTROUTING").len() > 2, "{program} {i}");
            assert!(!iptables.apply(ruleset), "{program} {i}: {}", iptables.save());
        }
        iptables.remove();
        assert_eq!(iptables.save(), before, "{program}");
        assert_eq!(iptables.netns.run("ipset list -n"), "OTHERS\n");
    }
}

#[test]
fn iptables_jumps_stay_first_and_single() {
    for (program, family) in FLAVOURS {
        let iptables = Iptables::new(program, family);
        iptables.restore(FOREIGN);
        let ruleset = &rulesets()[0];
        iptables.apply(ruleset);
        let ours = "-A FORWARD -j SELVEDGE-FORWARD";
        assert_eq!(iptables.chain("filter", "FORWARD")[0], ours);

        iptables.restore("*filter\n-I FORWARD 1 -i eth9 -j DROP\nCOMMIT\n");
        assert!(iptables.apply(ruleset), "{program}");
        iptables.restore("*filter\n-A FORWARD -j SELVEDGE-FORWARD\nCOMMIT\n");
        assert!(iptables.apply(ruleset), "{program}");
        let forward = iptables.chain("filter", "FORWARD");
        assert_eq!(forward.len(), 4, "{program}: {forward:?}");
        assert_eq!(forward[..3], [ours, "-A FORWARD -i eth9 -j DROP", "-A FORWARD -j OTHERS"]);

        iptables.restore("*nat\n-D POSTROUTING -j SELVEDGE-POSTROUTING\nCOMMIT\n");
        assert!(iptables.apply(ruleset));
        assert_eq!(iptables.chain("nat", "POSTROUTING")[0], "-A POSTROUTING -j SELVEDGE-POSTROUTING");

        iptables.restore("*filter\n:SELVEDGE-INPUT - [0:0]\nCOMMIT\n");
        assert!(iptables.apply(ruleset));
        assert_eq!(iptables.chain("filter", "SELVEDGE-INPUT").len(), 5);
        assert!(!iptables.apply(ruleset), "{program}");
    }
}

#[test]
fn iptables_changes_only_what_changed() {
    for (program, family) in [FLAVOURS[0], FLAVOURS[1]] {
        let iptables = Iptables::new(program, family);
        let first = &rulesets()[0];
        iptables.apply(first);
        let mut second = config(EDGE);
        second.services.list.remove(1);
        second.peers[1].prefixes[0] = "10.234.9.0/24".parse().unwrap();
        let second = Plan::new(&second, &edge_facts(Datapath::User)).ruleset;
        let text = iptables::update(&iptables.save(), &iptables::tables(&second, family)).unwrap();
        let touched: Vec<&str> = text.lines().filter(|l| l.starts_with([':', '*'])).collect();
        assert_eq!(touched.len(), 3, "{text}");
        assert_eq!(touched[..2], ["*nat", ":SELVEDGE-SERVICES - [0:0]"]);
        assert!(touched[2].starts_with(":SELVEDGE-SVC-"));
        let sets = ipset::update(&iptables.netns.run("ipset save"), &second).unwrap();
        assert_eq!(sets.lines().count(), 4, "{sets}");
        iptables.apply(&second);
        assert!(!iptables.apply(&second), "{program}");
    }
}

#[test]
fn ipset_takes_a_prefix_of_length_zero() {
    let netns = Netns::new();
    let text = r#"{"version": 1, "generation": 1, "name": "a.edge-1", "node": "edge-1", "role": "edge", "podCidrs": [],
        "local": {"prefixes": []},
        "peers": [{"name": "a.connector", "via": "tunnel", "prefixes": ["0.0.0.0/0", "::/0"]}]}"#;
    let ruleset = Plan::new(&config(text), &Facts::default()).ruleset;
    netns.feed("ipset -exist restore", &ipset::update("", &ruleset).unwrap());
    assert_eq!(ipset::update(&netns.run("ipset save"), &ruleset), None);
    netns.feed("nft -f -", &nft::replace(&ruleset));
}

#[test]
fn nft_replaces_and_removes_its_own_table_only() {
    let netns = Netns::new();
    netns.feed(
        "nft -f -",
        "table inet fw4 {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n",
    );
    let before = netns.run("nft list ruleset");
    let list = || netns.try_feed("nft list table inet selvedge", "").unwrap_or_default();
    for ruleset in &rulesets() {
        assert!(!list().contains(&nft::digest(ruleset)));
        netns.feed("nft -f -", &nft::replace(ruleset));
        assert!(list().contains(&nft::digest(ruleset)));
        netns.feed("nft -f -", &nft::replace(ruleset));
        assert_eq!(list().matches("chain digest-").count(), 1);
    }
    netns.feed("nft -f -", nft::remove());
    assert_eq!(netns.run("nft list ruleset"), before);
    netns.feed("nft -f -", nft::remove());
}

/// Blocks of a table in any order, and elements in any order within them.
fn content(list: &str) -> Vec<Vec<String>> {
    let words = |block: &str| {
        let mut words: Vec<String> = block.replace(['\n', '\t'], " ").split(',').map(|w| w.trim().to_owned()).collect();
        if block.contains("elements") {
            words = words.join(" ").split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
            words.sort();
        }
        words
    };
    let mut blocks: Vec<_> = list.split("\n\t}\n").map(words).collect();
    blocks.sort();
    blocks
}

/// From everything to one less, step by step, and back.
fn steps() -> Vec<Ruleset> {
    let all = with_services(ALL_KINDS).services.list;
    let mut steps = vec![serving(ALL_KINDS)];
    for i in 0..all.len() {
        let mut fewer = with_services(ALL_KINDS);
        fewer.services.list.remove(i);
        steps.push(Plan::new(&fewer, &edge_facts(Datapath::User)).ruleset);
        let mut weaker = with_services(ALL_KINDS);
        for port in &mut weaker.services.list[i].ports {
            port.endpoints.pop();
        }
        steps.push(Plan::new(&weaker, &edge_facts(Datapath::User)).ruleset);
    }
    steps.push(serving("[]"));
    steps.push(serving(ALL_KINDS));
    steps
}

#[test]
fn nft_brought_from_one_to_another_is_as_if_made_anew() {
    let (changed, anew) = (Netns::new(), Netns::new());
    let steps = steps();
    changed.feed("nft -f -", &nft::replace(&steps[0]));
    for pair in steps.windows(2) {
        let [before, after] = pair else { panic!() };
        let text = nft::update(before, after).unwrap();
        changed.feed("nft -f -", &text);
        anew.feed("nft -f -", &nft::replace(after));
        let list = |netns: &Netns| netns.run("nft list table inet selvedge");
        assert_eq!(content(&list(&changed)), content(&list(&anew)), "{text}");
    }
    let other = Plan::new(&config(CONNECTOR), &connector_facts()).ruleset;
    assert_eq!(nft::update(&steps[0], &other), None);
}

#[test]
fn nft_touches_only_the_service_that_changed() {
    let [before, after] = [ALL_KINDS.to_owned(), ALL_KINDS.replace("10.244.1.77", "10.244.1.78")].map(|l| serving(&l));
    let text = nft::update(&before, &after).unwrap();
    let chains = text.matches("\tchain ").count();
    assert_eq!((chains, text.matches(" element ").count()), (2, 0), "{text}");
    let same = nft::update(&before, &before).unwrap();
    assert!(!same.contains("chain"), "{same}");
}

#[test]
fn iptables_brought_from_one_to_another_is_as_if_made_anew() {
    for (program, family) in FLAVOURS {
        let iptables = Iptables::new(program, family);
        let steps = steps();
        iptables.apply(&steps[0]);
        for pair in steps.windows(2) {
            let [before, after] = [&pair[0], &pair[1]].map(|ruleset| iptables::tables(ruleset, family));
            let text = iptables::change(&before, &after).unwrap();
            if !text.is_empty() {
                iptables.restore(&text);
            }
            assert_eq!(iptables::update(&iptables.save(), &after), None, "{program}: {text}");
        }
    }
}
