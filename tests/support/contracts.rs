//! The documents in `docs/contracts/`, and validation against them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::{Draft, Retrieve, Uri, Validator};
use serde_json::{Value, json};

/// The folder of the current documents. Its folder `released/` has those of each release.
pub const CONTRACTS: &str = "docs/contracts";

/// Reads a JSON or YAML document.
pub fn document(path: impl AsRef<Path>) -> Value {
    yaml_serde::from_str(&fs::read_to_string(path.as_ref()).unwrap()).unwrap()
}

/// Reads a current document.
pub fn today(name: &str) -> Value {
    document(Path::new(CONTRACTS).join(name))
}

/// Returns a validator for the schema at this reference, which begins with a file of this folder.
/// For the current contracts, the folder is [`CONTRACTS`].
pub fn schema(folder: impl AsRef<Path>, reference: &str) -> Validator {
    validator(folder, json!({ "$ref": reference }))
}

/// Returns a validator for a schema whose references begin with a file of this folder.
pub fn validator(folder: impl AsRef<Path>, schema: Value) -> Validator {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .with_base_uri("contract:///")
        .with_retriever(Folder(folder.as_ref().into()))
        .build(&schema)
        .unwrap()
}

/// Returns the flaws of a value, one per line. The text is empty if the value is valid.
pub fn flaws(validator: &Validator, value: &Value) -> String {
    validator.iter_errors(value).map(|error| format!("{}: {error}\n", error.instance_path())).collect()
}

/// Returns the part of a document at a pointer, and follows references within the document.
pub fn part<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    let part = document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
    match part["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => self::part(document, pointer),
        None => part,
    }
}

struct Folder(PathBuf);

impl Retrieve for Folder {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let path = self.0.join(uri.path().as_str().trim_start_matches('/'));
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(yaml_serde::from_str(&text)?)
    }
}
