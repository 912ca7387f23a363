use super::*;
use crate::{EndpointSlice, ListReader, Service};

fn object(name: &str, version: u64, ip: &str) -> String {
    format!(
        r#"{{"metadata":{{"namespace":"a","name":"{name}","resourceVersion":"{version}"}},"spec":{{"clusterIP":"{ip}"}}}}"#
    )
}

fn head(version: u64) -> ListHead {
    ListHead { kind: Service::LIST.to_owned(), version, partial: false, self_link: false }
}

fn list(store: &mut Store<Service>, flavour: Flavour, head: &ListHead, items: &[String]) -> Believed {
    let mut listing = store.begin(false);
    items.iter().for_each(|text| store.item(&mut listing, text));
    store.end(listing, flavour, head)
}

fn event(store: &mut Store<Service>, kind: &str, object: &str) -> bool {
    store.event(Event::read(&format!(r#"{{"type":"{kind}","object":{object}}}"#)))
}

/// Names with the last number of their address.
fn names(store: &Store<Service>) -> Vec<String> {
    store.iter().map(|(key, _, kept)| format!("{} {}", key.1, kept.split(' ').next().unwrap())).collect()
}

#[test]
fn empty_without_a_version_means_not_known() {
    let text = r#"{"apiVersion":"v1","items":[],"kind":"ServiceList"}"#;
    for flavour in [Flavour::KubeEdge, Flavour::SuperEdge, Flavour::OpenYurt, Flavour::Kubernetes] {
        let mut store = Store::default();
        let mut reader = ListReader::default();
        reader.feed(text.as_bytes(), |_| ()).unwrap();
        let nothing = reader.finish().unwrap();
        assert_eq!(list(&mut store, flavour, &nothing, &[]), Believed::Unknown);
        assert!(!store.is_known());
        list(&mut store, flavour, &head(5), &[object("x", 3, "10.0.0.1")]);
        assert_eq!(list(&mut store, flavour, &nothing, &[]), Believed::Unknown);
        assert_eq!(names(&store), ["x 10.0.0.1"]);
        // The same with a version is an answer.
        assert_eq!(list(&mut store, flavour, &head(6), &[]), Believed::Yes);
        assert_eq!(names(&store).len(), 0);
    }
}

#[test]
fn what_was_deleted_while_cut_off_goes_with_the_next_list_and_stays_away() {
    let mut store = Store::default();
    list(&mut store, Flavour::KubeEdge, &head(10), &[object("x", 3, "10.0.0.1"), object("y", 4, "10.0.0.2")]);
    // Cut off: the local store shows both.
    let local = ListHead { self_link: true, ..head(12) };
    let both = [object("x", 3, "10.0.0.1"), object("y", 4, "10.0.0.2")];
    assert_eq!(list(&mut store, Flavour::KubeEdge, &local, &both), Believed::Local);
    // Connected again.
    assert_eq!(list(&mut store, Flavour::KubeEdge, &head(20), &both[..1]), Believed::Yes);
    assert_eq!(names(&store), ["x 10.0.0.1"]);
    // A new watch and a list of the local store still show it.
    assert!(event(&mut store, "ADDED", &both[1]));
    assert_eq!(list(&mut store, Flavour::KubeEdge, &local, &both), Believed::Local);
    assert!(event(&mut store, "ADDED", &both[1]));
    assert_eq!(names(&store), ["x 10.0.0.1"]);
    // Made anew, it is another one.
    assert!(event(&mut store, "ADDED", &object("y", 21, "10.0.0.3")));
    assert_eq!(names(&store), ["x 10.0.0.1", "y 10.0.0.3"]);
}

#[test]
fn a_list_of_the_cloud_brings_back_what_an_earlier_one_lacked() {
    let mut store = Store::default();
    list(&mut store, Flavour::KubeEdge, &head(10), &[]);
    assert_eq!(list(&mut store, Flavour::KubeEdge, &head(11), &[object("x", 3, "10.0.0.1")]), Believed::Yes);
    assert_eq!(names(&store), ["x 10.0.0.1"]);
    assert!(store.take_changed());
}

#[test]
fn what_was_deleted_is_not_told_back_to_life() {
    let mut store = Store::default();
    list(&mut store, Flavour::KubeEdge, &head(10), &[]);
    event(&mut store, "ADDED", &object("x", 15, "10.0.0.1"));
    event(&mut store, "DELETED", &object("x", 16, "10.0.0.1"));
    event(&mut store, "ADDED", &object("x", 15, "10.0.0.1"));
    assert_eq!(names(&store).len(), 0);
    // A deletion that is older than what is known concerns another one of that name.
    event(&mut store, "ADDED", &object("x", 18, "10.0.0.2"));
    event(&mut store, "DELETED", &object("x", 16, "10.0.0.1"));
    assert_eq!(names(&store), ["x 10.0.0.2"]);
}

#[test]
fn of_duplicates_the_highest_version_stays() {
    let doubled = [object("x", 7, "10.0.0.2"), object("x", 3, "10.0.0.1"), object("x", 7, "10.0.0.2")];
    for turn in 0..3 {
        let mut items = doubled.to_vec();
        items.rotate_left(turn);
        let mut store = Store::default();
        list(&mut store, Flavour::SuperEdge, &head(9), &items);
        assert_eq!(names(&store), ["x 10.0.0.2"]);
        // And what a watch replays is older still.
        event(&mut store, "MODIFIED", &object("x", 5, "10.0.0.9"));
        assert_eq!(names(&store), ["x 10.0.0.2"]);
    }
}

#[test]
fn an_old_list_removes_nothing() {
    let mut store = Store::default();
    list(&mut store, Flavour::SuperEdge, &head(10), &[object("x", 3, "10.0.0.1"), object("y", 9, "10.0.0.2")]);
    for _ in 0..3 {
        let old = [object("x", 3, "10.0.0.1")];
        assert_eq!(list(&mut store, Flavour::SuperEdge, &head(8), &old), Believed::Older);
    }
    assert_eq!(names(&store), ["x 10.0.0.1", "y 10.0.0.2"]);
}

#[test]
fn a_restored_cluster_is_believed_once_it_goes_on() {
    let mut store = Store::default();
    list(&mut store, Flavour::OpenYurt, &head(900), &[object("x", 800, "10.0.0.1"), object("y", 9, "10.0.0.2")]);
    let restored = [object("x", 300, "10.0.0.3")];
    assert_eq!(list(&mut store, Flavour::OpenYurt, &head(500), &restored), Believed::Older);
    assert_eq!(list(&mut store, Flavour::OpenYurt, &head(510), &restored), Believed::Yes);
    list(&mut store, Flavour::OpenYurt, &head(511), &restored);
    assert_eq!(names(&store), ["x 10.0.0.3"]);
}

#[test]
fn a_part_of_a_list_removes_nothing() {
    let mut store = Store::default();
    list(&mut store, Flavour::SuperEdge, &head(10), &[object("x", 3, "10.0.0.1")]);
    let part = ListHead { partial: true, ..head(11) };
    assert_eq!(list(&mut store, Flavour::SuperEdge, &part, &[object("y", 11, "10.0.0.2")]), Believed::Partial);
    assert_eq!(names(&store), ["x 10.0.0.1", "y 10.0.0.2"]);
}

#[test]
fn the_kind_of_a_list_only_tells_where_it_comes_from() {
    let mut store: Store<EndpointSlice> = Store::default();
    let guessed = ListHead { kind: "EndpointslicesList".into(), ..head(5) };
    let listing = store.begin(true);
    assert_eq!(store.end(listing, Flavour::KubeEdge, &guessed), Believed::Local);
    let listing = store.begin(false);
    assert_eq!(store.end(listing, Flavour::OpenYurt, &guessed), Believed::Yes);
}

#[test]
fn an_end_is_no_empty_list() {
    let mut store = Store::default();
    list(&mut store, Flavour::SuperEdge, &head(10), &[object("x", 3, "10.0.0.1")]);
    // A watch of a cache that is cut off: nothing, and over.
    assert_eq!(names(&store), ["x 10.0.0.1"]);
    assert!(!store.event(Event::Expired));
    assert!(!store.event(Event::Failed("over".into())));
    assert_eq!(names(&store), ["x 10.0.0.1"]);
}

#[test]
fn one_bad_object_keeps_its_last_good_state() {
    let mut store = Store::default();
    list(&mut store, Flavour::Kubernetes, &head(10), &[object("x", 3, "10.0.0.1"), object("y", 4, "10.0.0.2")]);
    let mut listing = store.begin(false);
    store.item(&mut listing, &object("x", 11, "ten"));
    store.item(&mut listing, &object("z", 12, "10.0.0.3"));
    assert_eq!(listing.problem.as_deref(), Some("a/x: spec.clusterIP: \"ten\" is not an IP address"));
    store.end(listing, Flavour::Kubernetes, &head(13));
    assert_eq!(names(&store), ["x 10.0.0.1", "z 10.0.0.3"]);
}

#[test]
fn what_loses_its_address_is_gone() {
    let mut store = Store::default();
    list(&mut store, Flavour::Kubernetes, &head(10), &[object("x", 3, "10.0.0.1"), object("y", 4, "10.0.0.2")]);
    event(&mut store, "MODIFIED", &object("x", 11, ""));
    list(&mut store, Flavour::Kubernetes, &head(13), &[object("y", 12, "")]);
    assert_eq!(names(&store).len(), 0);
}

#[test]
fn nothing_changes_unless_something_does() {
    let mut store = Store::default();
    let items = [object("x", 3, "10.0.0.1")];
    list(&mut store, Flavour::Kubernetes, &head(10), &items);
    assert!(store.take_changed());
    list(&mut store, Flavour::Kubernetes, &head(11), &items);
    event(&mut store, "MODIFIED", &object("x", 12, "10.0.0.1"));
    event(&mut store, "DELETED", &object("other", 13, "10.0.0.9"));
    assert!(!store.take_changed());
    event(&mut store, "MODIFIED", &object("x", 14, "10.0.0.2"));
    assert!(store.take_changed());
    event(&mut store, "DELETED", &object("x", 15, "10.0.0.2"));
    assert!(store.take_changed());
}

#[test]
fn what_was_kept_gives_way_to_a_list() {
    let mut store: Store<Service> = Store::default();
    let (meta, service) = Service::read(&object("x", 30, "10.0.0.1")).unwrap();
    store.restore(meta, &service.unwrap());
    assert!(store.is_known());
    // The local store remembers what was deleted before.
    event(&mut store, "ADDED", &object("ghost", 20, "10.0.0.2"));
    assert_eq!(names(&store), ["x 10.0.0.1"]);
    list(&mut store, Flavour::KubeEdge, &head(40), &[object("y", 35, "10.0.0.3")]);
    assert_eq!(names(&store), ["y 10.0.0.3"]);
}

/// KubeEdge's lists of EndpointSlices.
mod names_only {
    use super::*;

    fn slice(name: &str, version: u64, addresses: &[&str]) -> String {
        let endpoints: Vec<_> = addresses.iter().map(|a| format!(r#"{{"addresses":["{a}"]}}"#)).collect();
        format!(
            r#"{{"metadata":{{"namespace":"a","name":"{name}","resourceVersion":"{version}","labels":{{
            "kubernetes.io/service-name":"web"}}}},"endpoints":[{}]}}"#,
            endpoints.join(",")
        )
        .replace('\n', " ")
    }

    fn head(version: u64) -> ListHead {
        ListHead { kind: EndpointSlice::LIST.to_owned(), version, partial: false, self_link: false }
    }

    fn list(store: &mut Store<EndpointSlice>, head: &ListHead, items: &[String]) -> (Believed, Vec<String>) {
        let mut listing = store.begin(Flavour::KubeEdge.lists_only_names_of_slices());
        items.iter().for_each(|text| store.item(&mut listing, text));
        let believed = store.end(listing, Flavour::KubeEdge, head);
        (believed, store.missing().into_iter().map(|meta| meta.key.1).collect())
    }

    fn got(store: &mut Store<EndpointSlice>, text: &str) {
        let (meta, slice) = EndpointSlice::read(text).unwrap();
        store.got(meta, slice);
    }

    fn addresses(store: &Store<EndpointSlice>) -> Vec<String> {
        let slices = store.iter().map(|(_, _, kept)| EndpointSlice::restore(kept).unwrap());
        slices.flat_map(|slice| slice.endpoints).map(|e| e.addresses[0].to_string()).collect()
    }

    #[test]
    fn contents_of_a_list_are_never_believed() {
        let mut store = Store::default();
        let corrupted = [slice("w1", 5, &["127.0.0.1"])];
        assert_eq!(list(&mut store, &head(10), &corrupted), (Believed::Yes, vec!["w1".to_owned()]));
        assert!(addresses(&store).is_empty() && !store.is_known());
        got(&mut store, &slice("w1", 5, &["10.1.0.5", "10.1.0.6"]));
        store.complete();
        assert!(store.is_known());
        // What is known in that version is not asked for again, and not spoilt.
        assert_eq!(list(&mut store, &head(11), &corrupted), (Believed::Yes, vec![]));
        assert_eq!(addresses(&store), ["10.1.0.5", "10.1.0.6"]);
        // Nor is anything else of it true.
        let of_nobody = corrupted[0].replace("service-name", "other");
        assert_eq!(list(&mut store, &head(12), &[of_nobody]), (Believed::Yes, vec![]));
        assert_eq!(addresses(&store), ["10.1.0.5", "10.1.0.6"]);
        // A new version is.
        assert_eq!(list(&mut store, &head(13), &[slice("w1", 12, &["127.0.0.1"])]).1, ["w1"]);
        assert_eq!(addresses(&store), ["10.1.0.5", "10.1.0.6"]);
    }

    #[test]
    fn a_watch_may_bring_what_was_listed() {
        let mut store = Store::default();
        list(&mut store, &head(10), &[slice("w1", 5, &["127.0.0.1"]), slice("w2", 6, &["127.0.0.1"])]);
        let event = |text: &str| Event::read(&format!(r#"{{"type":"ADDED","object":{text}}}"#));
        // An older state first, then the one that was listed, then one that was not.
        for (text, missing) in [
            (slice("w1", 4, &["10.1.0.4"]), 2),
            (slice("w1", 5, &["10.1.0.5"]), 1),
            (slice("ghost", 3, &["10.1.0.9"]), 1),
        ] {
            assert!(store.event(event(&text)));
            assert_eq!(store.missing().len(), missing);
        }
        assert_eq!(addresses(&store), ["10.1.0.5"]);
    }

    #[test]
    fn versions_that_cannot_be_compared_make_no_list_true() {
        let mut store = Store::default();
        let text = |addresses: &[&str]| slice("w1", 5, addresses).replace("\"5\"", "\"five\"");
        list(&mut store, &head(10), &[text(&["127.0.0.1"])]);
        got(&mut store, &text(&["10.1.0.5"]));
        assert_eq!(list(&mut store, &head(11), &[text(&["127.0.0.1"])]), (Believed::Yes, vec!["w1".to_owned()]));
        assert_eq!(addresses(&store), ["10.1.0.5"]);
    }

    #[test]
    fn nothing_is_asked_for_by_an_impossible_name() {
        let mut store = Store::default();
        let items = [slice("../../secrets/x", 5, &[]), slice("", 5, &[]), "7".to_owned()];
        assert_eq!(list(&mut store, &head(10), &items), (Believed::Yes, vec![]));
    }

    #[test]
    fn names_that_are_gone_are_dropped() {
        let mut store = Store::default();
        list(&mut store, &head(10), &[slice("w1", 5, &["127.0.0.1"]), slice("w2", 6, &["127.0.0.1"])]);
        got(&mut store, &slice("w1", 5, &["10.1.0.5"]));
        got(&mut store, &slice("w2", 6, &["10.1.0.6"]));
        assert_eq!(list(&mut store, &head(20), &[slice("w2", 6, &["127.0.0.1"])]), (Believed::Yes, vec![]));
        assert_eq!(addresses(&store), ["10.1.0.6"]);
        // The local store still has it: it is not asked for.
        let local = ListHead { self_link: true, kind: "EndpointslicesList".into(), ..head(20) };
        let both = [slice("w1", 5, &["10.1.0.5"]), slice("w2", 6, &["10.1.0.6"])];
        assert_eq!(list(&mut store, &local, &both), (Believed::Local, vec![]));
        assert_eq!(addresses(&store), ["10.1.0.6"]);
    }

    #[test]
    fn a_first_boot_cut_off_takes_what_there_is() {
        let mut store = Store::default();
        let local = ListHead { self_link: true, kind: "EndpointslicesList".into(), ..head(20) };
        let items = [slice("w1", 5, &["10.1.0.5"])];
        assert_eq!(list(&mut store, &local, &items), (Believed::Local, vec!["w1".to_owned()]));
        got(&mut store, &items[0]);
        store.complete();
        assert_eq!(addresses(&store), ["10.1.0.5"]);
    }
}
