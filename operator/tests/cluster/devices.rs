//! Devices that enrol.

#[allow(dead_code, unreachable_pub, unused_imports, reason = "shared with the tests of the server")]
#[path = "../../src/server/tests/client.rs"]
mod client;

use crate::support::{Operator, Proxy, World, cluster, eventually, ours};
use client::{Answer, Client, Identity};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// Asks for a certificate with a new key.
async fn enrol(operator: &Operator, trust: &str, secret: &str) -> (Answer, KeyPair) {
    let address = operator.feed().await;
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let body = json!({"node": "gw-1", "secret": secret, "csr": csr}).to_string();
    let trust = trust.to_owned();
    let ask = move || Client::connect(address, &trust, None).unwrap().request("POST", "/v1/enroll", "", &body);
    (tokio::task::spawn_blocking(ask).await.unwrap(), key)
}

async fn config(operator: &Operator, trust: &str, identity: &Identity, headers: &str) -> Answer {
    try_config(operator, trust, identity, headers).await.unwrap()
}

/// An operator that does not lead answers nobody.
async fn try_config(operator: &Operator, trust: &str, identity: &Identity, headers: &str) -> std::io::Result<Answer> {
    let address = operator.feed().await;
    let identity = Identity { chain: identity.chain.clone(), key: identity.key.clone() };
    let (trust, headers) = (trust.to_owned(), headers.to_owned());
    let ask = move || Client::connect(address, &trust, Some(&identity))?.try_request("GET", "/v1/config", &headers, "");
    tokio::task::spawn_blocking(ask).await.unwrap()
}

/// A file of a Secret.
async fn file(world: &World, secret: &str, file: &str) -> String {
    let secret = world.secrets().get(secret).await.unwrap();
    let data = secret.data.unwrap_or_default();
    data.get(file).map(|bytes| String::from_utf8(bytes.0.clone()).unwrap()).unwrap_or_default()
}

fn outpost(network: &str) -> Value {
    ours("Outpost", "gw-1", json!({"lanPrefixes": [network]}))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn an_outpost_enrols_follows_and_is_revoked_and_authorities_change() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let operator = world.operator_with("a", &proxy, &["--feed-listen", "127.0.0.1:0"]);
    world.apply(outpost("192.168.77.0/24")).await;
    world.settled().await;
    eventually("configuration of gw-1", async || world.config("gw-1").await.map(drop).ok_or("none")).await;
    assert!(world.secrets().get_opt("selvedge-node-gw-1").await.unwrap().is_none(), "its key is its own");
    let trust = file(&world, "selvedge-ca", "ca.crt").await;

    // Of two who come with one token at once, one gets in.
    let secret = operator.token("gw-1");
    let (one, two) = tokio::join!(enrol(&operator, &trust, &secret), enrol(&operator, &trust, &secret));
    let mut statuses = [one.0.status, two.0.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
    let (answer, key) = if one.0.status == 200 { one } else { two };
    let issue: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(issue["name"], "beijing.gw-1");
    let identity = Identity { chain: issue["certificate"].as_str().unwrap().to_owned(), key: key.serialize_pem() };
    let kept = file(&world, "selvedge-enrol-gw-1", "token.json").await;
    assert!(!kept.is_empty() && !kept.contains(&secret), "{kept}");

    // A change ends the wait.
    let first = config(&operator, &trust, &identity, "").await;
    assert!(first.body.contains("192.168.77.0/24"), "{}", first.body);
    world.apply(outpost("192.168.78.0/24")).await;
    let etag = format!("If-None-Match: {}\r\n", first.header("etag").unwrap());
    let second = config(&operator, &trust, &identity, &etag).await;
    assert!(second.body.contains("192.168.78.0/24"), "{}", second.body);

    // Another authority waits for the device; revoked, it is not waited for.
    let mut changed = cluster();
    changed["metadata"]["annotations"] = json!({"selvedge.dev/rotate-ca": "1"});
    changed["spec"]["rotationGraceSeconds"] = json!(0);
    world.apply(changed.clone()).await;
    let both = async || file(&world, "selvedge-node-edge-1", "ca.crt").await;
    eventually("both authorities", async || {
        let both = both().await;
        if both.len() > trust.len() && both.starts_with(&trust) { Ok(()) } else { Err(both) }
    })
    .await;
    assert_eq!(config(&operator, &trust, &identity, "").await.status, 200);
    assert!(both().await.starts_with(&trust), "the device has not been seen with it");
    changed["spec"]["revoked"] = json!(["gw-1"]);
    world.apply(changed).await;
    eventually("one authority, and what it has revoked", async || {
        let now = both().await;
        let one = now.matches("BEGIN CERTIFICATE").count() == 1 && now != trust;
        let revoked = file(&world, "selvedge-node-edge-1", "crl.pem").await;
        if one && revoked.matches("BEGIN X509 CRL").count() == 1 { Ok(()) } else { Err(now + &revoked) }
    })
    .await;
    let refused = enrol(&operator, &both().await, &operator.token("gw-1")).await.0;
    assert_eq!(refused.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn what_is_revoked_is_known_to_the_next_operator() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let mut operator = world.operator_with("a", &proxy, &["--feed-listen", "127.0.0.1:0"]);
    world.apply(outpost("192.168.77.0/24")).await;
    world.settled().await;
    eventually("configuration of gw-1", async || world.config("gw-1").await.map(drop).ok_or("none")).await;
    let trust = file(&world, "selvedge-ca", "ca.crt").await;
    let (answer, key) = enrol(&operator, &trust, &operator.token("gw-1")).await;
    let issue: Value = serde_json::from_str(&answer.body).unwrap();
    let identity = Identity { chain: issue["certificate"].as_str().unwrap().to_owned(), key: key.serialize_pem() };
    assert!(operator.stop());
    let next = world.operator_with("b", &proxy, &["--feed-listen", "127.0.0.1:0"]);
    let answered = async |status: u16| {
        eventually("the answer", async || {
            let answer = try_config(&next, &trust, &identity, "").await;
            if answer.as_ref().is_ok_and(|answer| answer.status == status) {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
    };
    answered(200).await;
    let mut changed = cluster();
    changed["spec"]["revoked"] = json!(["gw-1"]);
    world.apply(changed).await;
    answered(403).await;
    // Forgiven, but not the certificate from before.
    world.apply(cluster()).await;
    let token = next.token("gw-1");
    eventually("another certificate", async || {
        let (again, _) = enrol(&next, &trust, &token).await;
        if again.status == 200 { Ok(()) } else { Err(format!("{again:?}")) }
    })
    .await;
    answered(403).await;
    let list = file(&world, "selvedge-node-edge-1", "crl.pem").await;
    assert_eq!(list.matches("BEGIN X509 CRL").count(), 1);
}
