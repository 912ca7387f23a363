use selvedge_model::gateway::{FieldMatch, ListenerProtocol, MatchKind, TextMatch, TlsVersion};

use super::*;

fn listener(sites: Vec<model::Site>) -> Listener {
    Listener {
        name: "test".into(),
        port: 80,
        protocol: ListenerProtocol::Http,
        interfaces: vec![],
        addresses: vec![],
        excluded: vec![],
        min_tls: TlsVersion::default(),
        sites,
    }
}

fn rule(name: &str, hosts: &[&str], matches: Vec<Match>) -> Rule {
    Rule { name: name.into(), hosts: hosts.iter().map(|h| h.to_string()).collect(), matches, ..Rule::default() }
}

fn path(kind: MatchKind, value: &str) -> Match {
    Match { path: Some(TextMatch { kind, value: value.into() }), ..Match::default() }
}

fn field(name: &str, kind: MatchKind, value: &str) -> FieldMatch {
    FieldMatch { name: name.into(), kind, value: value.into() }
}

fn get(host: &str, path: &str, fields: &[(&str, &str)]) -> Request {
    Request {
        method: "GET".into(),
        authority: host.into(),
        path: path.into(),
        fields: fields.iter().map(|(n, v)| (*n, v.as_bytes())).collect(),
        upgrade: None,
    }
}

fn found(table: &Table, request: &Request) -> String {
    let site = table.site(request.host()).map(|i| &table.sites()[i]);
    site.and_then(|site| site.find(request)).map_or("-".into(), |found| found.rule.name.clone())
}

#[test]
fn precedence_is_that_of_gateway_api() {
    let method = Match { method: Some("GET".into()), ..path(MatchKind::Prefix, "/b") };
    let one = Match { headers: vec![field("X", MatchKind::Exact, "1")], ..path(MatchKind::Prefix, "/b") };
    let two = Match {
        headers: vec![field("x", MatchKind::Exact, "1"), field("y", MatchKind::Exact, "2")],
        ..path(MatchKind::Prefix, "/c")
    };
    let two_of_one = Match { headers: vec![field("x", MatchKind::Exact, "1")], ..path(MatchKind::Prefix, "/c") };
    let query = Match { query: vec![field("q", MatchKind::Exact, "a b")], ..path(MatchKind::Prefix, "/d") };
    let (table, problems) = Table::new(&listener(vec![model::Site {
        rules: vec![
            rule("any", &[], vec![]),
            rule("prefix", &[], vec![path(MatchKind::Prefix, "/a")]),
            rule("longer", &[], vec![path(MatchKind::Prefix, "/a/b")]),
            rule("exact", &[], vec![path(MatchKind::Exact, "/a/b/c")]),
            rule("regex", &[], vec![path(MatchKind::Regex, "/a/b/[c-z]+")]),
            rule("header", &[], vec![one]),
            rule("method", &[], vec![method]),
            rule("one of two", &[], vec![two_of_one]),
            rule("two", &[], vec![two]),
            rule("query", &[], vec![query]),
            rule("exact host", &["a.example"], vec![]),
            rule("wildcard", &["*.example"], vec![path(MatchKind::Exact, "/a/b/c")]),
            rule("same", &[], vec![path(MatchKind::Prefix, "/s")]),
            rule("same, later", &[], vec![path(MatchKind::Prefix, "/s/")]),
        ],
        ..model::Site::default()
    }]));
    assert_eq!(problems, [] as [String; 0]);
    for (request, name) in [
        (get("x", "/", &[]), "any"),
        (get("x", "/a", &[]), "prefix"),
        (get("x", "/ab", &[]), "any"),
        (get("x", "/a/b/1", &[]), "longer"),
        (get("x", "/a/b/c", &[]), "exact"),
        (get("x", "/a/b/c?q", &[]), "exact"),
        (get("x", "/a/b/d", &[]), "regex"),
        (get("x", "/b", &[("x", "1")]), "method"),
        (get("x", "/c", &[("x", "1"), ("y", "2")]), "two"),
        (get("x", "/c", &[("x", "1")]), "one of two"),
        (get("x", "/c", &[("x", "2")]), "any"),
        (get("x", "/d?p=1&q=a+b", &[]), "query"),
        (get("x", "/d?q=a%20b", &[]), "query"),
        (get("x", "/d?q=c&q=a+b", &[]), "any"),
        (get("a.example", "/a/b/c", &[]), "exact host"),
        (get("a.example:8080", "/", &[]), "exact host"),
        (get("b.example", "/a/b/c", &[]), "wildcard"),
        (get("b.example", "/a", &[]), "prefix"),
        (get("x", "/s", &[]), "same"),
    ] {
        assert_eq!(found(&table, &request), name, "{} {}", request.authority, request.path);
    }
}

#[test]
fn the_most_specific_site_answers_and_no_other() {
    let site = |host: &str, name: &str, exact: &str| model::Site {
        host: host.into(),
        rules: vec![rule(name, &[], vec![path(MatchKind::Prefix, exact)])],
        ..model::Site::default()
    };
    let (table, _) = Table::new(&listener(vec![
        site("*.example", "wildcard", "/"),
        site("*.b.example", "deeper", "/"),
        site("a.example", "exact", "/only"),
    ]));
    for (host, path, name) in [
        ("a.example", "/only", "exact"),
        ("a.example", "/", "-"),
        ("c.example", "/", "wildcard"),
        ("x.b.example", "/", "deeper"),
        ("other", "/", "-"),
    ] {
        assert_eq!(found(&table, &get(host, path, &[])), name, "{host}{path}");
    }
}

#[test]
fn rules_in_order_are_tried_in_order() {
    let (table, problems) = Table::new(&listener(vec![model::Site {
        in_order: true,
        rules: vec![
            rule("broken", &[], vec![path(MatchKind::Regex, "(")]),
            rule("first", &[], vec![path(MatchKind::Beginning, "/a")]),
            rule("second", &[], vec![path(MatchKind::Exact, "/ab")]),
        ],
        ..model::Site::default()
    }]));
    assert_eq!(found(&table, &get("x", "/ab", &[])), "first");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("broken: \"(\" has a group without an end"), "{problems:?}");
}
