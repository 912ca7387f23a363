//! Which certificates are out there, so that those of a name can be revoked: a revocation list has their serial numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Serial number of a certificate of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial([u8; Serial::LEN]);

impl Serial {
    const LEN: usize = 16;

    /// A serial number from random bytes: positive, and as long in DER as it looks.
    pub(crate) fn new(mut random: [u8; Serial::LEN]) -> Serial {
        random[0] = random[0] & 0x3f | 0x40;
        Serial(random)
    }

    /// As a certificate has it; `None` for one that is not ours.
    pub(crate) fn read(bytes: &[u8]) -> Option<Serial> {
        bytes.try_into().ok().map(Serial)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 2 * Serial::LEN);
        number.map(|n| Serial(n.to_be_bytes())).ok_or_else(|| serde::de::Error::custom("is no serial number"))
    }
}

/// What is remembered of one certificate until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its end, in seconds since 1970.
    pub(crate) until: u64,
    /// Its key is the device's own: the operator sees only now and then what the device has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) device: bool,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The certificates that have not ended, by the name they were issued to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Issued(BTreeMap<String, BTreeMap<Serial, Entry>>);

impl Issued {
    /// Remembers a certificate that ends at `until`.
    pub(crate) fn record(&mut self, name: &str, serial: Serial, until: u64, device: bool) {
        self.0.entry(name.to_owned()).or_default().entry(serial).or_insert(Entry { until, device, revoked: None });
    }

    /// Takes over what another one knows.
    pub(crate) fn merge(&mut self, other: &Issued) {
        for (name, certificates) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            for (serial, entry) in certificates {
                let known = known.entry(*serial).or_insert(*entry);
                known.revoked = known.revoked.or(entry.revoked);
            }
        }
    }

    /// The names of devices that hold a good certificate.
    pub(crate) fn devices(&self, now: u64) -> impl Iterator<Item = &String> {
        let good = move |entry: &Entry| entry.device && entry.revoked.is_none() && entry.until > now;
        self.0.iter().filter(move |(_, certificates)| certificates.values().any(good)).map(|(name, _)| name)
    }

    /// Revokes all there is of these names, and forgets what has ended. Whoever is no longer among the names gets good
    /// certificates again; the old ones stay revoked.
    pub(crate) fn revoke(&mut self, names: &BTreeSet<String>, now: u64) {
        for (name, certificates) in &mut self.0 {
            certificates.retain(|_, entry| entry.until > now);
            if names.contains(name) {
                certificates.values_mut().for_each(|entry| entry.revoked = entry.revoked.or(Some(now)));
            }
        }
        self.0.retain(|_, certificates| !certificates.is_empty());
    }

    /// The same in so many parts, each name always in the same one.
    pub(crate) fn split(&self, parts: usize) -> Vec<Issued> {
        let mut split = vec![Issued::default(); parts];
        for (name, certificates) in &self.0 {
            let sum = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            if let Some(part) = split.get_mut(sum % parts.max(1)) {
                part.0.insert(name.clone(), certificates.clone());
            }
        }
        split
    }

    pub(crate) fn is_revoked(&self, name: &str, serial: &Serial) -> bool {
        self.0.get(name).and_then(|certificates| certificates.get(serial)).is_some_and(|entry| entry.revoked.is_some())
    }

    /// What belongs on a revocation list, and since when.
    pub(crate) fn revoked(&self) -> Vec<(Serial, u64)> {
        let all = self.0.values().flatten();
        let mut revoked: Vec<_> = all.filter_map(|(serial, entry)| Some((*serial, entry.revoked?))).collect();
        revoked.sort_unstable();
        revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(n: u8) -> Serial {
        Serial::new([n; 16])
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn all_certificates_of_a_name_are_revoked_until_they_end() {
        let mut issued = Issued::default();
        issued.record("c.a", serial(1), 100, false);
        issued.record("c.a", serial(2), 200, false);
        issued.record("c.b", serial(3), 200, false);
        issued.revoke(&names(&["c.a"]), 50);
        assert_eq!(issued.revoked(), [(serial(1), 50), (serial(2), 50)]);
        assert!(issued.is_revoked("c.a", &serial(1)));
        assert!(!issued.is_revoked("c.b", &serial(3)));
        issued.revoke(&names(&["c.a"]), 60);
        assert_eq!(issued.revoked(), [(serial(1), 50), (serial(2), 50)], "since when does not change");
        issued.revoke(&names(&[]), 100);
        assert_eq!(issued.revoked(), [(serial(2), 50)], "what is revoked stays so");
        issued.record("c.a", serial(4), 300, false);
        assert!(!issued.is_revoked("c.a", &serial(4)));
        issued.revoke(&names(&[]), 200);
        assert_eq!(serde_json::to_string(&issued).unwrap().matches("until").count(), 1);
    }

    #[test]
    fn devices_are_those_with_a_good_certificate() {
        let mut issued = Issued::default();
        issued.record("c.a", serial(1), 100, true);
        issued.record("c.b", serial(2), 100, false);
        issued.record("c.c", serial(3), 100, true);
        issued.revoke(&names(&["c.c"]), 50);
        assert_eq!(issued.devices(99).collect::<Vec<_>>(), ["c.a"]);
        assert_eq!(issued.devices(100).count(), 0);
    }

    #[test]
    fn what_two_know_is_known_together() {
        let (mut one, mut two) = (Issued::default(), Issued::default());
        one.record("c.a", serial(1), 100, true);
        two.merge(&one);
        two.record("c.a", serial(2), 100, false);
        one.revoke(&names(&["c.a"]), 50);
        two.merge(&one);
        assert!(two.is_revoked("c.a", &serial(1)) && !two.is_revoked("c.a", &serial(2)));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut issued = Issued::default();
        issued.record("c.a", serial(1), 100, false);
        issued.revoke(&names(&["c.a"]), 50);
        let text = serde_json::to_string(&issued).unwrap();
        assert_eq!(text, r#"{"c.a":{"41010101010101010101010101010101":{"until":100,"revoked":50}}}"#);
        assert_eq!(serde_json::from_str::<Issued>(&text).unwrap(), issued);
        assert!(serde_json::from_str::<Issued>(r#"{"c.a":{"41":{"until":100}}}"#).is_err());
    }
}
