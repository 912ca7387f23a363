//! IKE relayed, keepalives sent.

use crate::lab::{End, Lab, PATIENCE, next};
use selvedge_tunnel::keeper::message::{Ike, Keepalive, Report, Request, SendIke};
use selvedge_tunnel::keeper::{Client, Mode};
use std::net::{SocketAddr, UdpSocket};

fn send(from: &End, client: &Client, port: u16, to: &str, payload: &[u8]) {
    let remote: SocketAddr = to.parse().unwrap();
    let local = if remote.is_ipv4() { format!("192.0.2.{}", from.n + 10) } else { format!("2001:db8::{}", from.n) };
    let local = Some(local.parse().unwrap());
    let payload = payload.to_vec();
    client.send(&Request::SendIke(SendIke { local, local_port: port, remote, marker: port == 4500, payload })).unwrap();
}

fn ike(local: &str, remote: &str, payload: &[u8]) -> Report {
    Report::Ike(Ike { local: local.parse().unwrap(), remote: remote.parse().unwrap(), payload: payload.to_vec() })
}

#[test]
fn datagrams_pass_both_ports_and_families_in_both_modes() {
    for mode in [Mode::Kernel, Mode::User] {
        let lab = Lab::new(mode);
        let (a, mut b) = (lab.a.client(), lab.b.client());
        send(&lab.a, &a, 500, "192.0.2.2:500", b"one");
        assert_eq!(next(&mut b), ike("192.0.2.2:500", "192.0.2.11:500", b"one"));
        send(&lab.a, &a, 4500, "192.0.2.12:4500", b"two");
        assert_eq!(next(&mut b), ike("192.0.2.12:4500", "192.0.2.11:4500", b"two"));
        send(&lab.a, &a, 4500, "[2001:db8::2]:4500", b"three");
        assert_eq!(next(&mut b), ike("[2001:db8::2]:4500", "[2001:db8::1]:4500", b"three"));
        send(&lab.a, &a, 500, "[2001:db8::2]:500", &[7; 3000]);
        assert_eq!(next(&mut b), ike("[2001:db8::2]:500", "[2001:db8::1]:500", &[7; 3000]));
    }
}

#[test]
fn what_was_sent_before_the_end_leaves() {
    let lab = Lab::new(Mode::Kernel);
    let (a, mut b) = (lab.a.client(), lab.b.client());
    for nth in 0..50 {
        send(&lab.a, &a, 4500, "192.0.2.2:4500", &[nth]);
    }
    a.stop().unwrap();
    for nth in 0..50 {
        assert_eq!(next(&mut b), ike("192.0.2.2:4500", "192.0.2.11:4500", &[nth]));
    }
    assert!(Client::connect(&lab.a.options.run_dir).unwrap().is_none());
}

#[test]
fn what_comes_while_there_is_no_client_is_told_to_the_next() {
    for mode in [Mode::Kernel, Mode::User] {
        let lab = Lab::new(mode);
        let a = lab.a.client();
        drop(lab.b.client());
        for nth in 0..100 {
            send(&lab.a, &a, 4500, "192.0.2.2:4500", &[nth]);
        }
        send(&lab.a, &a, 500, "192.0.2.2:500", b"last");
        // A keeper answers in order: once it has taken all, they are on their way.
        a.send(&Request::List).unwrap();
        next(&mut { a });

        let mut b = lab.b.client();
        let mut missing = vec![ike("192.0.2.2:500", "192.0.2.11:500", b"last")];
        missing.extend((40..100).map(|nth| ike("192.0.2.2:4500", "192.0.2.11:4500", &[nth])));
        while !missing.is_empty() {
            let report = next(&mut b);
            missing.retain(|wanted| *wanted != report);
        }
    }
}

#[test]
fn silence_is_broken_by_keepalives() {
    for mode in [Mode::Kernel, Mode::User] {
        let lab = Lab::new(mode);
        let a = lab.a.client();
        let (ready, listening) = std::sync::mpsc::channel();
        let listener = lab.b.thread(move || {
            let socket = UdpSocket::bind("192.0.2.2:7777").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            ready.send(()).unwrap();
            let mut got = [0; 100];
            let (len, from) = socket.recv_from(&mut got).unwrap();
            (got[..len].to_vec(), from)
        });
        listening.recv().unwrap();
        let remote = "192.0.2.2:7777".parse().unwrap();
        let keepalive = Keepalive { remote, local: Some("192.0.2.11".parse().unwrap()), interval_s: 1 };
        a.send(&Request::SetKeepalives { keepalives: vec![keepalive], more: false }).unwrap();
        drop(a);
        assert_eq!(listener.join().unwrap(), (vec![0xff], "192.0.2.11:4500".parse().unwrap()));
    }
}

#[test]
fn a_client_that_does_not_read_loses_nothing_of_what_the_sockets_hold() {
    let lab = Lab::new(Mode::Kernel);
    let (a, mut b) = (lab.a.client(), lab.b.client());
    for nth in 0..1000_u16 {
        send(&lab.a, &a, 4500, "192.0.2.2:4500", &nth.to_be_bytes());
    }
    a.send(&Request::List).unwrap();
    next(&mut { a });
    for nth in 0..1000_u16 {
        assert_eq!(next(&mut b), ike("192.0.2.2:4500", "192.0.2.11:4500", &nth.to_be_bytes()));
    }
}
