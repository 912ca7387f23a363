//! Whatever an API near the node says as a list, as a watch, about one object or about itself is judged, in any pieces, and
//! what is kept of it reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_edgeapi::{
    ConfigMap, EndpointSlice, Event, Flavour, Head, Lines, ListReader, Object, One, Secret, Service, Store, View,
    judge, read_kept,
};

const FLAVOURS: [Flavour; 4] = [Flavour::KubeEdge, Flavour::SuperEdge, Flavour::OpenYurt, Flavour::Kubernetes];

fuzz_target!(|input: (u8, u16, Vec<Vec<u8>>)| {
    let (choice, status, pieces) = input;
    let flavour = FLAVOURS[usize::from(choice % 4)];
    let mut view = View::default();
    for _ in 0..2 {
        read(&mut view.services, flavour, &pieces, false);
        read(&mut view.slices, flavour, &pieces, choice & 4 != 0);
    }
    let networks = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let list = view.list(&networks);
    let kept = view.keep();
    let again = read_kept(std::str::from_utf8(&kept).unwrap());
    assert_eq!(again.list(&networks), list);
    assert_eq!(again.keep(), kept);

    let body = pieces.concat();
    judge(flavour, Head { status, json: choice & 8 != 0, retry_after: None }, &body);
    if let Ok(text) = std::str::from_utf8(&body) {
        let _ = One::default().judge("s", "n", text, false);
        let _ = One::read_kept(text);
        let _ = ConfigMap::read(text);
        let _ = Secret::read(text);
    }
});

fn read<T: Object>(store: &mut Store<T>, flavour: Flavour, pieces: &[Vec<u8>], names_only: bool) {
    let mut listing = store.begin(names_only);
    let mut reader = ListReader::default();
    let all = pieces.iter().try_for_each(|piece| reader.feed(piece, |item| store.item(&mut listing, item)));
    if let (Ok(()), Ok(head)) = (all, reader.finish()) {
        store.end(listing, flavour, &head);
        for meta in store.missing() {
            assert!(!meta.key.1.is_empty() && !meta.show().contains(char::is_whitespace));
        }
    }
    let mut lines = Lines::default();
    for piece in pieces {
        if lines
            .feed(piece, |line| {
                store.event(Event::read(line));
            })
            .is_err()
        {
            break;
        }
    }
}
