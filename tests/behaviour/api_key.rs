//! Which stored values are an API key of SendPilot.

use opportunity_alerts::secrets::api_key::{ApiKey, ApiKeyError};
use serde::Deserialize;

/// A value in `api_keys.json`. The doctor's test reads the same file, because the doctor applies
/// the same rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// `None` if the value is binary.
    value: Option<String>,
    /// The key in the value, if the value is usable.
    key: Option<String>,
    /// The reason for which the value is refused.
    fault: Option<String>,
}

#[test]
fn reads_a_key_or_says_what_is_wrong_with_the_value() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("../support/api_keys.json")).unwrap();
    for Row { value, key, fault } in rows {
        let parsed = value.as_deref().map_or(Err(ApiKeyError::Binary), ApiKey::parse);
        assert_eq!(parsed.as_ref().err().map(ToString::to_string), fault, "{value:?}");
        // A plain key is its own text.
        assert_eq!(parsed.ok(), key.as_deref().map(|key| ApiKey::parse(key).unwrap()), "{value:?}");
    }
}
