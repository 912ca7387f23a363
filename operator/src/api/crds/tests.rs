use std::fs;
use std::path::Path;

use super::definitions;

#[test]
fn committed_definitions_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    for (plural, yaml) in definitions().unwrap() {
        let path = folder.join(format!("{plural}.yaml"));
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, yaml, "{}: run `selvedge-operator crds --out deploy/crds`", path.display());
    }
}
