//! Which of two texts are the same, without keeping either.

use std::fmt;

use ring::digest::{Context, SHA256};
use serde::Serialize;

/// The first half of a SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

pub(crate) fn digest(text: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(text);
    finish(context)
}

/// Of a value as it is written.
pub(super) fn digest_json(value: &impl Serialize) -> Digest {
    // None of the values of a configuration can fail to be written.
    digest(&serde_json::to_vec(value).unwrap_or_default())
}

/// Of parts that are known by theirs, in their order.
pub(super) fn digest_all<'a>(parts: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.into_iter().for_each(|part| context.update(&part.0.to_be_bytes()));
    finish(context)
}

fn finish(context: Context) -> Digest {
    let hash = context.finish();
    Digest(hash.as_ref().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte)))
}
