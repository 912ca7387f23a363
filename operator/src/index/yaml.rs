//! Manifest text to JSON values, one per document, as `kubectl` reads it.

use serde_json::Value;
use serde_saphyr::{Error, Spanned};

/// One non-empty document of a file.
pub(crate) struct Document {
    /// Line where its content starts, from 1; 0 if unknown.
    pub(crate) line: u64,
    pub(crate) value: Result<Value, SyntaxError>,
}

/// Why a document is no YAML.
pub(crate) struct SyntaxError {
    /// `line 3, column 7`, or empty.
    pub(crate) place: String,
    pub(crate) message: String,
}

/// All documents up to the first one after which the rest of the text has no meaning.
pub(crate) fn documents(mut text: &[u8]) -> Vec<Document> {
    // Manifests are the administrator's own and may list a large cluster: only what a small text could multiply to is
    // bounded tightly (aliases, by the library's defaults).
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_events: 200_000_000,
            max_nodes: 100_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    let documents: Vec<Result<Spanned<Value>, Error>> =
        serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut text, options).collect();
    documents
        .into_iter()
        .map(|document| match document {
            Ok(spanned) => Document { line: spanned.referenced.line(), value: Ok(spanned.value) },
            Err(error) => {
                let location = error.location();
                let place = location.map(|at| format!("line {}, column {}", at.line(), at.column()));
                let error = SyntaxError { place: place.unwrap_or_default(), message: plain(&error) };
                Document { line: location.map_or(0, |at| at.line()), value: Err(error) }
            }
        })
        .collect()
}

/// The message without the place, which is told apart from it.
fn plain(error: &Error) -> String {
    let text = error.without_snippet().to_string();
    let end = text.find(" at line ").or_else(|| text.find('\n')).unwrap_or(text.len());
    text[..end].trim_end_matches([':', ' ']).to_owned()
}
