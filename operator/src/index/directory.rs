//! A directory of manifests as the state of a cluster. Reads files; judges nothing but their form.
//!
//! What cannot be read leaves the last good version of that file's objects in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;

use super::yaml;
use crate::api::{self, Content, FieldError, Object, ObjectRef};
use crate::core::{ClusterState, Problem};

/// The objects of every file of one directory.
pub(crate) struct Directory {
    directory: PathBuf,
    files: BTreeMap<String, File>,
}

#[derive(Default)]
struct File {
    objects: Vec<Object<Content>>,
    problems: Vec<Problem>,
}

impl Directory {
    pub(crate) fn new(directory: &Path) -> Self {
        Directory { directory: directory.to_owned(), files: BTreeMap::new() }
    }

    /// Reads every manifest of the directory. Fails if the directory cannot be listed; then all stays as it was.
    pub(crate) fn scan(&mut self) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| is_manifest(name)));
        }
        self.files.retain(|name, _| names.contains(name));
        for name in &names {
            self.refresh(name);
        }
        Ok(())
    }

    /// Reads one file again, or forgets it if it is gone.
    pub(crate) fn refresh(&mut self, name: &str) {
        if !is_manifest(name) {
            return;
        }
        let path = self.directory.join(name);
        let read = match fs::read(&path) {
            Ok(text) => parse(name, &text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.files.remove(name);
                return;
            }
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => return,
            Err(e) => {
                let problem = Problem::error(&reference(name, 0, 0), "", format!("cannot be read: {e}"));
                File { objects: Vec::new(), problems: vec![problem] }
            }
        };
        let file = self.files.entry(name.to_owned()).or_default();
        let old = std::mem::replace(file, read);
        if !file.problems.is_empty() {
            let same =
                |a: &ObjectRef, b: &ObjectRef| (&a.kind, &a.namespace, &a.name) == (&b.kind, &b.namespace, &b.name);
            let good = file.objects.len();
            for object in old.objects {
                if !file.objects[..good].iter().any(|new| same(&new.reference, &object.reference)) {
                    file.objects.push(object);
                }
            }
        }
    }

    /// Whether every Node could be read: only then is one that is not there really gone.
    pub(crate) fn is_complete(&self) -> bool {
        let hides_nodes = |problem: &Problem| matches!(problem.object.kind.as_str(), "" | "List" | "Node" | "Outpost");
        !self.files.values().flat_map(|file| &file.problems).any(hides_nodes)
    }

    /// All objects, and what is wrong with the manifests. Of two objects with one name the first (by file name, then
    /// position) is in force.
    pub(crate) fn state(&self) -> (ClusterState, Vec<Problem>) {
        let mut state = ClusterState::default();
        let mut problems = Vec::new();
        for file in self.files.values() {
            problems.extend(file.problems.iter().cloned());
            for object in &file.objects {
                if let Err(first) = state.insert(object.clone()) {
                    let message = format!("is already defined as {first}; that one is in force");
                    problems.push(Problem::error(&object.reference, "metadata.name", message));
                }
            }
        }
        (state, problems)
    }
}

/// Files that `kubectl apply -f DIRECTORY` would take, except hidden ones.
pub(crate) fn is_manifest(name: &str) -> bool {
    !name.starts_with('.') && [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

fn reference(file: &str, document: usize, line: u64) -> ObjectRef {
    ObjectRef { file: file.to_owned(), document, line, ..ObjectRef::default() }
}

fn parse(name: &str, text: &[u8]) -> File {
    let mut file = File::default();
    let documents = yaml::documents(text);
    if documents.is_empty() {
        // An editor that truncates before it writes must not empty the cluster.
        let message = "holds no object; delete the file to remove its objects";
        file.problems.push(Problem::error(&reference(name, 0, 0), "", message));
    }
    for (i, document) in documents.into_iter().enumerate() {
        let place = reference(name, i + 1, document.line);
        match document.value {
            Ok(value) => add(&mut file, &value, &place, ""),
            Err(error) => {
                let place = ObjectRef { line: 0, ..place };
                file.problems.push(Problem::error(&place, &error.place, format!("not YAML: {}", error.message)));
            }
        }
    }
    file
}

/// Adds an object, or each item of a `List` as `kubectl get -o yaml` prints it.
fn add(file: &mut File, value: &Value, place: &ObjectRef, path: &str) {
    if value.get("kind").and_then(Value::as_str) == Some("List")
        && let Some(items) = value.get("items").and_then(Value::as_array)
    {
        for (i, item) in items.iter().enumerate() {
            add(file, item, place, &format!("{path}items[{i}]."));
        }
        return;
    }
    let ObjectRef { file: name, document, line, .. } = place.clone();
    let reference = ObjectRef { file: name, document, line, ..api::name(value) };
    match api::read(value) {
        Ok(Some(value)) => file.objects.push(Object { reference, value }),
        Ok(None) => {}
        Err(FieldError { field, message }) => {
            file.problems.push(Problem::error(&reference, format!("{path}{field}"), message));
        }
    }
}

#[cfg(test)]
mod tests;
