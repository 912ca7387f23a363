//! Keepers outlive clients, and end when told.

use crate::lab::{Lab, PATIENCE, answered, next, pairs};
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::seqpacket::Connection;
use selvedge_tunnel::keeper::message::{Report, Request};
use selvedge_tunnel::keeper::{Client, ClientError, Mode, Options, stop};
use std::io::ErrorKind;

#[test]
fn traffic_flows_on_while_clients_come_and_go() {
    let (lab, a, b) = Lab::joined();
    let (pid_a, pid_b) = (a.welcome().pid, b.welcome().pid);
    let ping = lab.a.ping("-c 60 -i 0.02 10.2.0.1");
    let mut clients = (a, b);
    for _ in 0..10 {
        drop(clients);
        clients = (lab.a.client(), lab.b.client());
        assert_eq!((clients.0.welcome().pid, clients.1.welcome().pid), (pid_a, pid_b));
        assert_eq!(pairs(&mut clients.0).len(), 1);
    }
    drop(clients);
    assert_eq!(answered(ping), (60, 60));
}

#[test]
fn a_new_client_takes_the_place_of_the_old_and_a_mere_connection_does_not() {
    let lab = Lab::new(Mode::Kernel);
    let mut first = lab.a.client();
    let strangers: Vec<_> =
        (0..9).map(|_| Connection::connect(lab.a.options.run_dir.join("keeper.sock")).unwrap()).collect();
    strangers[8].send(&[99, 1, 2, 3]).unwrap();
    until_closed(&strangers[8]);
    until_closed(&strangers[0]);
    assert!(pairs(&mut first).is_empty());
    let mut second = Client::connect(&lab.a.options.run_dir).unwrap().unwrap();
    let lost = loop {
        match first.recv() {
            Ok(None) => {}
            Ok(Some(report)) => panic!("{report:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(lost, ClientError::Closed), "{lost}");
    assert!(pairs(&mut second).is_empty());
}

/// Waits until the keeper has closed a connection.
fn until_closed(connection: &Connection) {
    let mut message = [0; 1000];
    loop {
        match connection.recv(&mut message) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(_) => assert_eq!(poll(&mut [Interest::readable(connection)], Some(PATIENCE)).unwrap(), 1),
        }
    }
}

#[test]
fn a_keeper_of_another_mode_is_replaced() {
    let (lab, a, _b) = Lab::joined();
    let kernel = Options { mode: Mode::Kernel, ..lab.a.options.clone() };
    let other = lab.a.spawn(&kernel).unwrap();
    assert_eq!(other.mode(), Mode::Kernel);
    assert_ne!(other.welcome().pid, a.welcome().pid);
    assert!(other.welcome().ports.iter().all(|port| port.problem.is_none()), "{:?}", other.welcome());
    let mut back = lab.a.client();
    assert!(pairs(&mut back).is_empty());
}

#[test]
fn a_keeper_of_another_version_can_still_be_sent_away() {
    let lab = Lab::new(Mode::Kernel);
    drop(lab.a.client());
    let stranger = Connection::connect(lab.a.options.run_dir.join("keeper.sock")).unwrap();
    stranger.send(&Request::Hello { version: 9999 }.encode()).unwrap();
    poll(&mut [Interest::readable(&stranger)], None).unwrap();
    let mut answer = [0; 1000];
    let len = stranger.recv(&mut answer).unwrap();
    assert!(matches!(Report::decode(&answer[..len]), Ok(Report::Welcome(_))));
    assert!(stop(&lab.a.options.run_dir).unwrap());
    assert!(!stop(&lab.a.options.run_dir).unwrap());
    assert!(Client::connect(&lab.a.options.run_dir).unwrap().is_none());
}

#[test]
fn what_cannot_be_done_is_answered_in_words() {
    let (lab, mut a, _b) = Lab::joined();
    let mut refused = |request: &Request| {
        a.send(request).unwrap();
        match next(&mut a) {
            Report::Refused { reason } => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&lab.install(&lab.a, 0x1000)), "install 00001001 of peer 2: SPI 00001001 is in use");
    let no_pair = refused(&Request::UseOutbound { peer: 2, spi_in: 0x9999 });
    assert_eq!(no_pair, "send to peer 2 on the pair of 00009999: no such pair");
    let kernel = Lab::new(Mode::Kernel);
    let mut client = kernel.a.client();
    client.send(&kernel.install(&kernel.a, 0x1000)).unwrap();
    assert_eq!(next(&mut client), Report::Refused { reason: "this keeper carries no ESP".into() });
}

#[test]
fn a_client_that_talks_nonsense_is_cut_off() {
    let lab = Lab::new(Mode::Kernel);
    let stranger = Connection::connect(lab.a.client_then_socket()).unwrap();
    stranger.send(&Request::Hello { version: selvedge_tunnel::keeper::message::VERSION }.encode()).unwrap();
    stranger.send(&[99, 1, 2, 3]).unwrap();
    until_closed(&stranger);
    assert!(pairs(&mut lab.a.client()).is_empty());
}

#[test]
fn a_taken_port_is_told_and_the_others_serve() {
    let lab = Lab::new(Mode::Kernel);
    let holder = lab.a.thread(|| std::net::UdpSocket::bind("0.0.0.0:500").unwrap()).join().unwrap();
    let client = lab.a.spawn(&lab.a.options).unwrap();
    let ports = &client.welcome().ports;
    assert_eq!(
        ports.iter().map(|port| (port.port, port.v6, port.bound)).collect::<Vec<_>>(),
        [(500, false, false), (500, true, true), (4500, false, true), (4500, true, true)]
    );
    assert!(ports[0].problem.as_ref().unwrap().contains("EADDRINUSE"), "{ports:?}");
    drop(holder);
}

#[test]
fn a_keeper_whose_device_is_taken_away_ends_and_is_replaced() {
    let (lab, mut a, _b) = Lab::joined();
    lab.a.ip("link delete selvedge0");
    let lost = loop {
        match a.recv() {
            Ok(_) => poll(&mut [Interest::readable(&a)], None).unwrap(),
            Err(error) => break error,
        };
    };
    assert!(matches!(lost, ClientError::Closed), "{lost}");
    assert!(pairs(&mut lab.a.client()).is_empty());
}
