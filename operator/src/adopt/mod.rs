//! From the objects of FabEdge to ours: every pod network, public address and community stays what it is.
//!
//! Nothing is written to the cluster: what comes out is manifests for a person to read and apply, and a report. That the
//! addresses stay is not promised but tried: the result is compiled, and every node's networks are compared.

mod convert;
mod fabedge;
mod settings;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::index::{is_manifest, yaml};

#[cfg(test)]
use convert::Adopted;
pub(crate) use convert::adopt;

/// Every object of a directory of manifests. The error names the file and the place.
pub(crate) fn objects(directory: &Path) -> Result<Vec<Value>, String> {
    let entries = fs::read_dir(directory).map_err(|e| e.to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| e.to_string())?.file_name();
        names.extend(name.into_string().ok().filter(|name| is_manifest(name)));
    }
    names.sort();
    let mut objects = Vec::new();
    for name in names {
        let text = fs::read(directory.join(&name)).map_err(|e| format!("{name}: {e}"))?;
        for document in yaml::documents(&text) {
            match document.value {
                Ok(value) => flatten(value, &mut objects),
                Err(e) => return Err(format!("{name}: {}: not YAML: {}", e.place, e.message)),
            }
        }
    }
    Ok(objects)
}

/// A `List`, as `kubectl get -o yaml` prints it, is its items.
fn flatten(value: Value, into: &mut Vec<Value>) {
    match value {
        Value::Object(mut map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
            let items = map.remove("items");
            items.as_ref().and_then(Value::as_array).into_iter().flatten().for_each(|item| flatten(item.clone(), into));
        }
        other => into.push(other),
    }
}
