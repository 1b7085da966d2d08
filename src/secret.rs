//! The signing secrets: one, or several while a rotation lasts, and never readable again once they are here.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// HMAC-SHA-256, keyed and ready to take the signed content.
pub(crate) type Keyed = Hmac<Sha256>;

/// Marks a secret whose key is the base64 that follows (Svix, Standard Webhooks).
const PREFIX: &str = "whsec_";

/// All secrets that count at this moment; at least one.
///
/// SendPilot lets the old and the new secret both work for 24 hours after a rotation, and does not say which of the two signs: hold both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Secret>);

/// One signing secret, kept as keyed MACs only, so that nothing can print it.
#[derive(Clone)]
pub(crate) struct Secret {
    /// Keys of the Svix / Standard Webhooks scheme. Two where the secret has no prefix and could be meant either way.
    pub(crate) standard: Vec<Keyed>,
    /// Key of the scheme in SendPilot's own documentation: the secret as text, prefix and all.
    pub(crate) documented: Keyed,
}

/// Why a text cannot serve as signing secrets. Never carries the text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    /// There is nothing but white space.
    #[error("holds no secret")]
    Empty,
    /// A secret was copied with the quotes around it.
    #[error("secret number {0} holds a quotation mark; leave the quotes out")]
    Quoted(usize),
    /// `whsec_` is not followed by base64 of at least one byte.
    #[error("secret number {0} starts with whsec_, but base64 does not follow; copy it again from SendPilot")]
    NotBase64(usize),
    /// JSON, but not the JSON that is read.
    #[error(r#"is JSON, but not {{"secrets":["whsec_..."]}}; put it in this form, or as plain text"#)]
    Shape,
    /// Bytes, where Secrets Manager keeps texts apart from them.
    #[error("is binary; put it as text")]
    Binary,
}

/// A stored secret in its longer form.
#[derive(Deserialize)]
struct Stored {
    secrets: Vec<String>,
}

impl Secrets {
    /// Reads one or more secrets, separated by white space.
    ///
    /// # Errors
    /// If there is none, or one of them cannot be what SendPilot shows: in quotes, or `whsec_` with no key behind it.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let secrets = text
            .split_whitespace()
            .enumerate()
            .map(|(index, secret)| match secret.contains(['"', '\'']) {
                true => Err(SecretError::Quoted(index + 1)),
                false => Secret::parse(secret).ok_or(SecretError::NotBase64(index + 1)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() { Err(SecretError::Empty) } else { Ok(Self(secrets)) }
    }

    /// Reads what Secrets Manager stores: plain text as above, or JSON, `{"secrets":["whsec_..."]}`.
    ///
    /// # Errors
    /// As above, or if it is other JSON.
    pub fn stored(value: &str) -> Result<Self, SecretError> {
        if !value.trim_start().starts_with(['{', '[']) {
            return Self::parse(value);
        }
        // The parser's own error would quote what it found.
        let Stored { secrets } = serde_json::from_str(value).map_err(|_| SecretError::Shape)?;
        Self::parse(&secrets.join(" "))
    }

    /// These, and those of the others that are not among them.
    pub fn and(mut self, others: &Self) -> Self {
        for other in others.iter() {
            if !self.0.contains(other) {
                self.0.push(other.clone());
            }
        }
        self
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }
}

impl Secret {
    fn parse(text: &str) -> Option<Self> {
        let standard = match text.strip_prefix(PREFIX) {
            Some(base64) => vec![keyed(&decode(base64)?)?],
            // Standard Webhooks libraries also decode a secret without its prefix; others take it as text.
            None => decode(text).iter().map(Vec::as_slice).chain([text.as_bytes()]).filter_map(keyed).collect(),
        };
        Some(Self { standard, documented: keyed(text.as_bytes())? })
    }
}

/// Strict, but for the padding, which people lose when they copy. An empty key would let anybody sign.
fn decode(base64: &str) -> Option<Vec<u8>> {
    let unpadded = base64.trim_end_matches('=');
    let encoding = if unpadded.len() == base64.len() { BASE64_NOPAD } else { BASE64 };
    encoding.decode(base64.as_bytes()).ok().filter(|key| !key.is_empty())
}

fn keyed(key: &[u8]) -> Option<Keyed> {
    Keyed::new_from_slice(key).ok()
}

/// By what the text of either makes of nothing, in constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.documented.clone().finalize() == other.documented.clone().finalize()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
