//! Whatever comes from the network is answered within bounds, or not at all.

mod common;

use common::*;
use proptest::prelude::*;
use selvedge_dns::{Handled, Response, kind, question};

proptest! {
    #[test]
    fn questions_that_were_changed_on_the_way(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        tcp in any::<bool>(),
    ) {
        let mut bench = Bench::new(&UPSTREAMS);
        let mut query = question(7, &name("_pg._tcp.db.shop.svc.cluster.local"), kind::SRV);
        for (index, octet) in &flips {
            let at = index.index(query.len());
            query[at] = *octet;
        }
        if flips.len() > 3 {
            query.truncate(cut.index(query.len()));
        }
        let mut out = Vec::new();
        match bench.server.handle_query(bench.now, 0, tcp, &query, &mut out) {
            Handled::Answered => {
                prop_assert!(out.len() >= 12 && out[..2] == query[..2] && out[2] & 0x80 != 0);
                prop_assert!(tcp || out.len() <= 1232);
            }
            Handled::Waiting | Handled::Ignored => prop_assert!(out.is_empty()),
        }
    }

    #[test]
    fn answers_of_a_server_that_means_harm(body in prop::collection::vec(any::<u8>(), 0..200), counts in any::<[u8; 4]>()) {
        let mut bench = Bench::new(&UPSTREAMS[..1]);
        bench.ask(1, "a.b", kind::A);
        let sent = bench.questions().remove(0);
        let mut message = answer_to(&sent.payload, counts[0] & 7, &[]);
        message[7] = counts[1];
        message[9] = counts[2];
        message[11] = counts[3];
        message.extend_from_slice(&body);
        bench.reply(&sent, &message);
        for _ in 0..6 {
            bench.pass(1000);
            bench.transmits();
            while let Some((_, out)) = bench.server.poll_answer(bench.now) {
                prop_assert!(Response::read(&out, 7, &name("a.b"), kind::A).is_some());
            }
        }
        prop_assert_eq!(bench.server.poll_timeout(), None);
    }
}
