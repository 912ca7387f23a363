//! OpenAPI schemas of the small types of fields: what an API server can check before the operator does. Bounds on the
//! length of lists keep the cost of checking bounded.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::fields::Word;

/// Letters, digits and separators of CIDR notation; whether it is a network is for the operator to say.
const NETWORK: &str = "^[0-9a-fA-F:.]+/[0-9]{1,3}$";
const ADDRESS: &str = "^[0-9a-fA-F:.]+$";
const NODE_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const FABRIC_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$";

pub(super) fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 64, "items": {"type": "string", "pattern": NETWORK, "maxLength": 43}})
}

pub(super) fn some_networks(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = networks(generator);
    schema.insert("minItems".to_owned(), 1.into());
    schema
}

pub(super) fn addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 16, "items": {"type": "string", "pattern": ADDRESS, "maxLength": 45}})
}

/// An address, perhaps with a port; perhaps over TLS.
const SERVER: &str = "^(tls://[0-9a-fA-F:.\\[\\]]+(#[-_.:A-Za-z0-9]+)?|[0-9a-fA-F:.\\[\\]]+)$";
const DOMAIN: &str = "^[-_A-Za-z0-9]{1,63}(\\.[-_A-Za-z0-9]{1,63})*$";

pub(super) fn servers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 8, "items": {"type": "string", "pattern": SERVER, "maxLength": 320}})
}

pub(super) fn domain(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": DOMAIN, "maxLength": 253})
}

pub(super) fn fabric_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 4096,
        "items": {"type": "string", "pattern": FABRIC_NAME, "maxLength": 253},
    })
}

pub(super) fn node_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 4096,
        "items": {"type": "string", "pattern": NODE_NAME, "maxLength": 253},
    })
}

pub(super) fn integer<const LEAST: i64, const MOST: i64>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": LEAST, "maximum": MOST})
}

pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0})
}

pub(super) fn plain_name<const LONGEST: usize>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[-_A-Za-z0-9][-_.A-Za-z0-9]*$", "maxLength": LONGEST})
}

pub(super) fn word<T: Word>(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
    json_schema!({"type": "string", "enum": words})
}

pub(super) fn condition_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["True", "False", "Unknown"]})
}
