//! The Kubernetes DNS specification 1.1.0, chapter by chapter.

mod common;

use common::*;
use selvedge_dns::{Handled, Rcode, Response, kind, question};

const NOTHING: (Rcode, Vec<String>) = (Rcode::NxDomain, Vec::new());
const EMPTY: (Rcode, Vec<String>) = (Rcode::NoError, Vec::new());

fn good(data: &[&str]) -> (Rcode, Vec<String>) {
    (Rcode::NoError, data.iter().map(|d| (*d).to_owned()).collect())
}

#[test]
fn schema_version_2_2() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.local("dns-version.cluster.local", kind::TXT), good(&["\"1.1.0\""]));
    assert_eq!(bench.local("dns-version.cluster.local", kind::A), EMPTY);
}

#[test]
fn names_are_compared_without_case_and_given_back_as_asked() {
    let mut bench = Bench::new(&[]);
    let response = bench.ask(0, "KuberNetes.DEFAULT.svc.Cluster.local", kind::A).unwrap();
    assert_eq!(response.answers, [("KuberNetes.DEFAULT.svc.Cluster.local".into(), 5, "A".into(), "10.96.0.1".into())]);
}

#[test]
fn cluster_ip_addresses_2_3_1() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.local("kubernetes.default.svc.cluster.local", kind::A), good(&["10.96.0.1"]));
    assert_eq!(bench.local("kubernetes.default.svc.cluster.local", kind::AAAA), good(&["fd00:96::1"]));
    assert_eq!(bench.local("kubernetes.default.svc.cluster.local", kind::ANY), good(&["10.96.0.1", "fd00:96::1"]));
    assert_eq!(bench.local("kubernetes.default.svc.cluster.local", kind::TXT), EMPTY);
    assert_eq!(bench.local("kubernetes.shop.svc.cluster.local", kind::A), NOTHING);
}

#[test]
fn cluster_ip_ports_2_3_2() {
    let mut bench = Bench::new(&[]);
    let target = "kubernetes.default.svc.cluster.local";
    let https = format!("_https._tcp.{target}");
    assert_eq!(bench.local(&https, kind::SRV), good(&[&format!("0 100 443 {target}")]));
    assert_eq!(bench.local(&https, kind::A), EMPTY);
    assert_eq!(bench.local(&format!("_dns._udp.{target}"), kind::SRV), good(&[&format!("0 100 53 {target}")]));
    assert_eq!(bench.local(&format!("_https._udp.{target}"), kind::SRV), NOTHING);
    assert_eq!(bench.local(&format!("_._tcp.{target}"), kind::SRV), NOTHING, "a port without a name");
    assert_eq!(bench.local(&format!("_tcp.{target}"), kind::SRV), EMPTY, "there are names below it");
    assert_eq!(bench.local(&format!("_sctp.{target}"), kind::SRV), NOTHING);
    assert_eq!(bench.local(&format!("x.{https}"), kind::SRV), NOTHING);
}

#[test]
fn cluster_ip_reverse_2_3_3() {
    let mut bench = Bench::new(&[]);
    let target = "kubernetes.default.svc.cluster.local";
    assert_eq!(bench.local("1.0.96.10.in-addr.arpa", kind::PTR), good(&[target]));
    assert_eq!(bench.local("1.0.96.10.IN-ADDR.arpa", kind::A), EMPTY);
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(bench.local(v6, kind::PTR), good(&[target]));
    assert_eq!(bench.local("2.0.96.10.in-addr.arpa", kind::PTR), NOTHING, "within the Service network");
}

#[test]
fn headless_addresses_2_4_1() {
    let mut bench = Bench::new(&[]);
    let all = good(&["10.234.1.10", "10.234.2.10", "10.234.3.10"]);
    assert_eq!(bench.local("db.shop.svc.cluster.local", kind::A), all, "the one that ends is no longer there");
    assert_eq!(bench.local("db.shop.svc.cluster.local", kind::AAAA), EMPTY);
    assert_eq!(bench.local("db-0.db.shop.svc.cluster.local", kind::A), good(&["10.234.1.10"]));
    assert_eq!(bench.local("10-234-3-10.db.shop.svc.cluster.local", kind::A), good(&["10.234.3.10"]));
    assert_eq!(bench.local("10-234-1-10.db.shop.svc.cluster.local", kind::A), NOTHING, "it has a name");
    assert_eq!(bench.local("db-3.db.shop.svc.cluster.local", kind::A), NOTHING);
    assert_eq!(bench.local("nobody.shop.svc.cluster.local", kind::A), NOTHING);
    assert_eq!(bench.local("bare.shop.svc.cluster.local", kind::A), good(&["10.234.5.5"]), "without any port");
}

#[test]
fn headless_ports_2_4_2() {
    let mut bench = Bench::new(&[]);
    let service = "db.shop.svc.cluster.local";
    let data = [
        format!("0 100 5432 10-234-3-10.{service}"),
        format!("0 100 5432 db-0.{service}"),
        format!("0 100 5433 db-1.{service}"),
    ];
    assert_eq!(bench.local(&format!("_pg._tcp.{service}"), kind::SRV), good(&data.each_ref().map(String::as_str)));
}

#[test]
fn headless_reverse_2_4_3() {
    let mut bench = Bench::new(&[]);
    let data = good(&["db-0.db.shop.svc.cluster.local"]);
    assert_eq!(bench.local("10.1.234.10.in-addr.arpa", kind::PTR), data);
}

#[test]
fn external_names_2_5() {
    let mut bench = Bench::new(&["192.0.2.1:53"]);
    assert_eq!(bench.local("away.shop.svc.cluster.local", kind::CNAME), good(&["www.example.com"]));
    let data = good(&["10.96.0.1", "kubernetes.default.svc.cluster.local"]);
    assert_eq!(bench.local("api.shop.svc.cluster.local", kind::A), data, "a name of the cluster");
    assert_eq!(bench.local("broken.shop.svc.cluster.local", kind::A), NOTHING);

    let text = "Away.shop.svc.cluster.local";
    assert_eq!(bench.ask(1, text, kind::A), None);
    let sent = bench.questions().remove(0);
    assert_eq!(question_of(&sent.payload), (name("www.example.com"), kind::A));
    bench.reply(&sent, &answer_to(&sent.payload, 0, &[(kind::A, 60, &[198, 51, 100, 7])]));
    let answers = bench.answers(text, kind::A).remove(0).1.answers;
    assert_eq!(answers[0], (text.into(), 5, "CNAME".into(), "www.example.com".into()));
    assert_eq!(answers[1], ("www.example.com".into(), 60, "A".into(), "198.51.100.7".into()));
}

#[test]
fn pods_2_6() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.local("10-234-1-2.shop.pod.cluster.local", kind::A), good(&["10.234.1.2"]));
    assert_eq!(bench.local("fd00--2.shop.pod.cluster.local", kind::AAAA), good(&["fd00::2"]));
    assert_eq!(bench.local("10-234-1-2.shop.pod.cluster.local", kind::AAAA), EMPTY);
    assert_eq!(bench.local("ten.shop.pod.cluster.local", kind::A), NOTHING);
    assert_eq!(bench.local("10-234-1.shop.pod.cluster.local", kind::A), NOTHING);
}

#[test]
fn search_paths_end_here() {
    // What a pod asks for `example.com` before it asks for that.
    let mut bench = Bench::new(&["192.0.2.1:53"]);
    for text in [
        "example.com.shop.svc.cluster.local",
        "example.com.svc.cluster.local",
        "example.com.cluster.local",
        "com.cluster.local",
        "a.b.c.d.e.f.svc.cluster.local",
        "nowhere.svc.cluster.local",
    ] {
        assert_eq!(bench.local(text, kind::A), NOTHING, "{text}");
    }
    for text in ["cluster.local", "svc.cluster.local", "shop.svc.cluster.local", "pod.cluster.local"] {
        assert_eq!(bench.local(text, kind::A), EMPTY, "{text}");
    }
    assert_eq!(bench.transmits(), [], "nobody is asked");
    assert_eq!(bench.ask(0, "cluster.local.example.com", kind::A), None);
    assert_eq!(bench.ask(0, "1.1.1.1.in-addr.arpa", kind::PTR), None);
    assert_eq!(bench.ask(0, "10.in-addr.arpa", kind::PTR), None, "no address");
}

#[test]
fn what_is_not_known_yet_is_not_denied() {
    let mut bench = Bench::without_view(&[]);
    for text in ["kubernetes.default.svc.cluster.local", "1.0.96.10.in-addr.arpa"] {
        assert_eq!(bench.ask(0, text, kind::A).unwrap().rcode, Rcode::ServFail, "{text}");
    }
}

#[test]
fn nothing_comes_with_the_authority_that_says_so() {
    let mut bench = Bench::new(&[]);
    for (text, owner) in
        [("no.shop.svc.cluster.local", "cluster.local"), ("9.0.96.10.in-addr.arpa", "0.96.10.in-addr.arpa")]
    {
        let mut out = Vec::new();
        let query = question(7, &name(text), kind::A);
        bench.server.handle_query(bench.now, 0, false, &query, &mut out);
        assert_eq!(out[8..10], [0, 1], "{text}: one authority");
        let (_, end) = selvedge_dns::Name::read(&out, 12).unwrap();
        let (found, end) = selvedge_dns::Name::read(&out, end + 4).unwrap();
        assert_eq!((found, out[end + 1]), (name(owner), kind::SOA as u8));
        assert_eq!(out[2] & 4, 4, "with authority");
    }
}

#[test]
fn endpoints_take_turns() {
    let mut bench = Bench::new(&[]);
    let mut first = |id| {
        let text = "db.shop.svc.cluster.local";
        let mut out = Vec::new();
        bench.server.handle_query(bench.now, 0, false, &question(id, &name(text), kind::A), &mut out);
        Response::read(&out, id, &name(text), kind::A).unwrap().answers.remove(0).3
    };
    assert_ne!(first(0), first(1));
}

#[test]
fn long_answers_are_for_tcp() {
    use selvedge_dns::View;
    use selvedge_model::{Protocol, Service};
    let endpoints = (0..200).map(|i| named(&format!("10.234.9.{i}"), 80, "")).collect();
    let ports = vec![port("http", Protocol::Tcp, 80, endpoints)];
    let service = Service { namespace: "a".into(), name: "b".into(), ports, ..Service::default() };
    let mut bench = Bench::new(&[]);
    bench.server.set_view(View::new(&[service]));
    for (text, kind) in [("b.a.svc.cluster.local", kind::A), ("_http._tcp.b.a.svc.cluster.local", kind::SRV)] {
        let query = question(7, &name(text), kind);
        let mut out = Vec::new();
        assert_eq!(bench.server.handle_query(bench.now, 0, false, &query, &mut out), Handled::Answered);
        assert!(out.len() <= 1232 && Response::read(&out, 7, &name(text), kind).unwrap().truncated);
        out.clear();
        bench.server.handle_query(bench.now, 0, true, &query, &mut out);
        let whole = Response::read(&out, 7, &name(text), kind).unwrap();
        assert_eq!((whole.answers.len(), whole.truncated), (200, false));
        // Without EDNS.
        let mut short = query[..query.len() - 15].to_vec();
        short[11] = 0;
        out.clear();
        bench.server.handle_query(bench.now, 0, false, &short, &mut out);
        assert!(out.len() <= 512 && out[11] == 0, "no extension for whom knows none");
    }
}
