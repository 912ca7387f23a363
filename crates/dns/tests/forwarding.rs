//! Names outside the cluster: whom to ask, what is kept, and what is refused.

mod common;

use common::*;
use selvedge_dns::{Handled, Rcode, Settings, State, kind, question};

const TEXT: &str = "www.example.com";
const ADDRESS: [u8; 4] = [198, 51, 100, 7];

fn a(ttl: u32) -> [(u16, u32, &'static [u8]); 1] {
    [(kind::A, ttl, &ADDRESS)]
}

#[test]
fn an_answer_is_kept_for_its_time() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let [sent] = &bench.questions()[..] else { panic!() };
    assert_eq!((sent.upstream.clone(), sent.tcp), (addr(UPSTREAMS[0]), false));
    bench.now += std::time::Duration::from_millis(12);
    bench.reply(sent, &answer_to(&sent.payload, 0, &a(60)));
    let [(1, response)] = &bench.answers(TEXT, kind::A)[..] else { panic!() };
    assert_eq!(response.origin.as_deref(), Some("upstream 192.0.2.1:53, 12 ms"));
    assert!(bench.server.poll_timeout().is_some(), "the search for a loop is out");
    bench.pass(3000);
    assert_eq!(bench.server.poll_timeout(), None, "nothing to wake up for");
    bench.pass(40_000);
    let kept = bench.ask(2, "WWW.example.com", kind::A).expect("kept");
    assert_eq!(kept.origin.as_deref(), Some("cache"));
    assert_eq!(kept.answers, [("WWW.example.com".into(), 17, "A".into(), "198.51.100.7".into())]);
    bench.pass(17_000);
    assert_eq!(bench.ask(3, TEXT, kind::A), None, "asked again");
}

#[test]
fn equal_questions_are_asked_once() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    for client in 0..40 {
        let answer = bench.ask(client, TEXT, kind::A);
        assert_eq!(answer.is_some(), client >= 32, "no more than that wait");
    }
    assert_eq!(bench.ask(99, TEXT, kind::AAAA), None);
    let sent = bench.questions();
    assert_eq!(sent.len(), 2);
    bench.reply(&sent[0], &answer_to(&sent[0].payload, 0, &a(60)));
    assert_eq!(bench.answers(TEXT, kind::A).len(), 32);
}

#[test]
fn a_second_server_is_asked_when_the_first_is_slow() {
    let mut bench = Bench::new(&UPSTREAMS);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let first = bench.questions().remove(0);
    bench.pass(199);
    assert_eq!(bench.questions(), []);
    bench.pass(1);
    let second = bench.questions().remove(0);
    assert_eq!((first.upstream.clone(), second.upstream.clone()), (addr(UPSTREAMS[0]), addr(UPSTREAMS[1])));
    bench.reply(&second, &answer_to(&second.payload, 0, &a(60)));
    assert_eq!(bench.answers(TEXT, kind::A).len(), 1);
    bench.reply(&first, &answer_to(&first.payload, 0, &a(60)));
    assert_eq!(bench.answers(TEXT, kind::A).len(), 0, "once is enough");
    assert_eq!(bench.server.upstreams()[0].rtt.unwrap().as_millis(), 200, "but it is noted how long it took");
    // The faster one is asked first from now on.
    assert_eq!(bench.ask(1, "other.example.com", kind::A), None);
    assert_eq!(bench.questions()[0].upstream, addr(UPSTREAMS[1]));
}

#[test]
fn one_that_refuses_leads_to_the_next_at_once() {
    let mut bench = Bench::new(&UPSTREAMS);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let first = bench.questions().remove(0);
    bench.reply(&first, &answer_to(&first.payload, 2, &[]));
    let second = bench.questions().remove(0);
    bench.server.handle_failure(bench.now, second.exchange);
    let [(1, response)] = &bench.answers(TEXT, kind::A)[..] else { panic!() };
    assert_eq!(response.rcode, Rcode::ServFail);
}

#[test]
fn what_does_not_fit_is_asked_over_tcp() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let udp = bench.questions().remove(0);
    let mut cut = answer_to(&udp.payload, 0, &[]);
    cut[2] |= 2;
    bench.reply(&udp, &cut);
    assert!(!bench.server.is_open(udp.exchange));
    let tcp = bench.questions().remove(0);
    assert!(tcp.tcp);
    bench.reply(&tcp, &answer_to(&tcp.payload, 0, &a(60)));
    assert_eq!(bench.answers(TEXT, kind::A)[0].1.answers.len(), 1);
}

#[test]
fn a_server_that_knows_no_extensions_is_asked_without() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let first = bench.questions().remove(0);
    assert_eq!(first.payload[11], 1);
    bench.reply(&first, &answer_to(&first.payload, 1, &[]));
    let second = bench.questions().remove(0);
    assert_eq!(second.payload[11], 0);
    bench.reply(&second, &answer_to(&second.payload, 0, &a(60)));
    assert_eq!(bench.answers(TEXT, kind::A).len(), 1);
}

#[test]
fn only_the_answer_to_the_question_counts() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let sent = bench.questions().remove(0);
    let good = answer_to(&sent.payload, 0, &a(60));
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut other_name = good.clone();
    other_name[13] = b'x';
    let question = {
        let mut message = good.clone();
        message[2] &= 0x7f;
        message
    };
    for wrong in [&other_id[..], &other_name, &question, &good[..good.len() - 1], b""] {
        bench.reply(&sent, wrong);
        assert_eq!(bench.answers(TEXT, kind::A).len(), 0);
    }
    bench.reply(&sent, &good);
    assert_eq!(bench.answers(TEXT, kind::A).len(), 1);

    assert_eq!(bench.ask(1, "b.example.com", kind::A), None);
    let sent = bench.questions().remove(0);
    for _ in 0..17 {
        bench.reply(&sent, &other_id);
    }
    assert!(!bench.server.is_open(sent.exchange), "somebody guesses");
}

#[test]
fn stale_answers_are_better_than_none() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let sent = bench.questions().remove(0);
    bench.reply(&sent, &answer_to(&sent.payload, 0, &a(60)));
    assert_eq!(bench.answers(TEXT, kind::A).len(), 1);
    bench.pass(100_000);

    // Silent: after 1.8 s, while it is still asked.
    assert_eq!(bench.ask(2, TEXT, kind::A), None);
    let mut silent = bench.questions();
    bench.pass(1799);
    silent.extend(bench.questions());
    assert_eq!(bench.answers(TEXT, kind::A).len(), 0);
    bench.pass(1);
    let [(2, response)] = &bench.answers(TEXT, kind::A)[..] else { panic!() };
    assert_eq!((response.origin.as_deref(), response.answers[0].1), (Some("stale"), 30));
    for _ in 0..40 {
        bench.pass(100);
        silent.extend(bench.questions());
    }
    assert_eq!(silent.len(), 3, "asked three times");
    assert_eq!(bench.server.upstreams()[0].state, State::Down);

    // Gone: at once.
    let response = bench.ask(3, TEXT, kind::A).expect("at once");
    assert_eq!((response.rcode, response.origin.as_deref()), (Rcode::NoError, Some("stale")));
    assert_eq!(bench.ask(3, "new.example.com", kind::A).expect("at once").rcode, Rcode::ServFail);
    assert_eq!(bench.server.counters().stale, 2);

    // Back: it is looked for when somebody asks.
    bench.pass(2000);
    assert_eq!(bench.ask(4, TEXT, kind::A), None);
    let sent = bench.questions().remove(0);
    bench.reply(&sent, &answer_to(&sent.payload, 0, &a(60)));
    assert_eq!(bench.server.upstreams()[0].state, State::Up);
    assert_eq!(bench.answers(TEXT, kind::A)[0].1.answers[0].1, 60);
}

#[test]
fn nothing_is_kept_as_long_as_the_authority_says() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let sent = bench.questions().remove(0);
    let mut soa = vec![0, 0];
    soa.extend([[0, 0, 0, 1]; 4].concat());
    soa.extend([0, 0, 0, 30]);
    let mut message = answer_to(&sent.payload, 3, &[(kind::SOA, 3600, &soa)]);
    message.swap(7, 9);
    bench.reply(&sent, &message);
    assert_eq!(bench.answers(TEXT, kind::A)[0].1.rcode, Rcode::NxDomain);
    bench.pass(29_000);
    assert_eq!(bench.ask(2, TEXT, kind::A).expect("kept").rcode, Rcode::NxDomain);
    bench.pass(1000);
    assert_eq!(bench.ask(3, TEXT, kind::A), None);
}

#[test]
fn strangers_do_not_lead_into_the_cluster() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    let mut mapped = [0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 234, 1, 1]);
    for (kind, data) in [(kind::A, &[10, 96, 0, 1][..]), (kind::AAAA, &mapped)] {
        assert_eq!(bench.ask(1, TEXT, kind), None, "nothing is kept of it");
        let sent = bench.questions().remove(0);
        bench.reply(&sent, &answer_to(&sent.payload, 0, &[(1, 60, &ADDRESS), (kind, 60, data)]));
        let response = &bench.answers(TEXT, kind)[0].1;
        assert_eq!((response.rcode, response.answers.len()), (Rcode::ServFail, 0));
        assert_eq!(bench.ask(1, TEXT, kind), None, "nothing is kept of it");
        let sent = bench.questions().remove(0);
        bench.reply(&sent, &answer_to(&sent.payload, 0, &[]));
        bench.answers(TEXT, kind);
    }
    assert_eq!(bench.server.counters().rebound, 2);
}

#[test]
fn stubs_are_asked_for_their_names_and_trusted() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    let stubs = vec![
        (name("Corp.example"), vec![addr("192.0.2.50:5353")]),
        (name("deep.corp.example"), vec![addr("192.0.2.51:53")]),
    ];
    bench.server.set(Settings { stubs, ..settings(&UPSTREAMS[..1]) });
    for (text, upstream) in [
        ("corp.example", "192.0.2.50:5353"),
        ("a.CORP.example", "192.0.2.50:5353"),
        ("a.deep.corp.example", "192.0.2.51:53"),
        ("acorp.example", UPSTREAMS[0]),
    ] {
        assert_eq!(bench.ask(1, text, kind::A), None);
        assert_eq!(bench.questions()[0].upstream, addr(upstream), "{text}");
    }
    assert_eq!(bench.ask(1, "b.corp.example", kind::A), None);
    let sent = bench.questions().remove(0);
    bench.reply(&sent, &answer_to(&sent.payload, 0, &[(1, 60, &[10, 96, 0, 1])]));
    assert_eq!(bench.answers("b.corp.example", kind::A)[0].1.answers.len(), 1);
}

#[test]
fn a_loop_is_found_and_left() {
    let mut bench = Bench::new(&UPSTREAMS);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let probe = bench.transmits().into_iter().find(|t| question_of(&t.payload).1 == kind::HINFO).unwrap();
    let mut out = Vec::new();
    let back = bench.server.handle_query(bench.now, 9, false, &probe.payload, &mut out);
    assert_eq!((back, out[3] & 0xf), (Handled::Answered, 5));
    bench.reply(&probe, &answer_to(&probe.payload, 5, &[]));
    assert_eq!(bench.server.upstreams()[0].state, State::Loop);
    // The question that was sent there, too.
    assert_eq!(bench.ask(9, TEXT, kind::A), None, "it waits with the first");
    assert_eq!(bench.questions(), []);
    // Only the other one is asked from now on.
    assert_eq!(bench.ask(1, "b.example.com", kind::A), None);
    assert_eq!(bench.questions()[0].upstream, addr(UPSTREAMS[1]));
    // Later it is looked at again, and it has been put right.
    bench.pass(60_000);
    assert_eq!(bench.ask(1, "c.example.com", kind::A), None);
    let again = bench.transmits().into_iter().find(|t| t.upstream == addr(UPSTREAMS[0])).unwrap();
    bench.reply(&again, &answer_to(&again.payload, 3, &[]));
    assert_ne!(bench.server.upstreams()[0].state, State::Loop);
}

#[test]
fn whoever_waits_for_servers_that_are_no_longer_asked_is_told() {
    let mut bench = Bench::new(&UPSTREAMS[..1]);
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    let sent = bench.questions().remove(0);
    bench.server.set(settings(&UPSTREAMS[1..]));
    let [(1, response)] = &bench.answers(TEXT, kind::A)[..] else { panic!() };
    assert_eq!(response.rcode, Rcode::ServFail);
    assert!(!bench.server.is_open(sent.exchange));
    assert_eq!(bench.ask(1, TEXT, kind::A), None);
    assert_eq!(bench.questions()[0].upstream, addr(UPSTREAMS[1]));
}

#[test]
fn without_upstreams_the_answer_is_at_once() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.ask(1, TEXT, kind::A).unwrap().rcode, Rcode::ServFail);
}

#[test]
fn odd_questions_get_the_answer_they_deserve() {
    let mut bench = Bench::new(&UPSTREAMS);
    let good = question(7, &name(TEXT), kind::A);
    let mut ask = |change: &dyn Fn(&mut Vec<u8>)| {
        let (mut query, mut out) = (good.clone(), Vec::new());
        change(&mut query);
        let handled = bench.server.handle_query(bench.now, 0, false, &query, &mut out);
        (handled, out.get(3).map(|code| code & 0xf))
    };
    let answered = |rcode| (Handled::Answered, Some(rcode));
    let end = good.len();
    assert_eq!(ask(&|q| q[2] |= 0x80), (Handled::Ignored, None), "an answer");
    assert_eq!(ask(&|q| q.truncate(11)), (Handled::Ignored, None), "not even a header");
    assert_eq!(ask(&|q| q.truncate(20)), answered(1));
    assert_eq!(ask(&|q| q[5] = 2), answered(1), "two questions");
    assert_eq!(ask(&|q| q[2] |= 5 << 3), answered(4), "an update");
    assert_eq!(ask(&|q| q[end - 16] = 3), answered(5), "another class");
    assert_eq!(ask(&|q| q[end - 19..end - 17].copy_from_slice(&[0, 252])), answered(4), "a transfer");
    assert_eq!(
        ask(&|q| q[end - 9] = 1),
        answered(0),
        "version 1 of the extension: 16, of which these are the low bits"
    );
    assert_eq!(ask(&|q| q[11] = 2), answered(1), "a record that is not there");
}

#[test]
fn over_tls_all_questions_look_alike_and_an_answer_tells_how_fast_it_is() {
    let mut bench = Bench::new(&["tls://192.0.2.1"]);
    for text in [TEXT, "a-much-longer-name-than-the-other-one.example"] {
        bench.ask(1, text, kind::A);
    }
    let sent = bench.transmits();
    assert!(sent.iter().all(|sent| sent.tcp && sent.payload.len() == 128), "{sent:?}");
    assert_eq!(
        sent.iter().filter(|sent| question_of(&sent.payload).1 == kind::HINFO).count(),
        1,
        "loops are looked for"
    );
    bench.pass(30);
    let first = sent.iter().find(|sent| question_of(&sent.payload).0 == name(TEXT)).unwrap();
    bench.reply(first, &answer_to(&first.payload, 0, &a(60)));
    let upstream = &bench.server.upstreams()[0];
    assert_eq!((upstream.state, upstream.rtt), (State::Up, Some(std::time::Duration::from_millis(30))));
}
