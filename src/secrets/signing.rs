//! Parses the signing secrets: one, or several during a rotation. A parsed secret cannot be turned
//! back into text.
//!
//! A value is used as a whole or refused as a whole. If one word of a bad value became a key,
//! anyone could guess this word and sign with it. Or genuine events would get 401, because the key
//! is wrong.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::json::Members;

/// HMAC-SHA-256 with a key, ready for the signed content.
pub(crate) type Keyed = Hmac<Sha256>;

/// Marks a secret whose key is the base64 that follows (Svix, Standard Webhooks).
const PREFIX: &str = "whsec_";

/// The starts of a word whose [`PREFIX`] is misspelt or cut off, in any letter case.
const MISSPELT: [&str; 3] = ["whsec", "hsec_", "sec_"];

/// Minimum length of a key behind `whsec_` in bytes, and of a secret without `whsec_` in
/// characters. Standard Webhooks asks for 24 bytes. A shorter key than this is a placeholder, or a
/// part of a key.
pub const MIN_LENGTH: usize = 16;

/// The secrets that are valid at this moment, at least one.
///
/// For 24 hours after a rotation, the old and the new secret are both valid. SendPilot does not say
/// with which of the two it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Secret>);

/// One signing secret, kept as keyed MACs only, so that nothing can print it.
#[derive(Clone)]
pub(crate) struct Secret {
    /// The keys of the Svix / Standard Webhooks scheme. A secret without a prefix has two, because
    /// it can be base64 or text.
    pub(crate) standard: Vec<Keyed>,
    /// The keys of the scheme in SendPilot's own documentation: the secret as text, including the
    /// prefix. There are two if the prefix or the padding of the base64 is missing, because
    /// SendPilot signs with the whole text.
    pub(crate) documented: Vec<Keyed>,
}

/// Why a value cannot be used as signing secrets. The message gives the position of the faulty word
/// and says what to remove or do. It never quotes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The value is empty, or only white space.
    #[error("holds no secret")]
    Empty,
    /// The secret has a character that no secret contains.
    #[error("secret number {0} holds {1}; remove it, or copy the secret again from SendPilot")]
    Character(usize, Foreign),
    /// The secret was copied with the quotes around it.
    #[error("secret number {0} holds a quotation mark; leave the quotes out")]
    Quoted(usize),
    /// A placeholder such as `<secret>`, or a secret in angle brackets.
    #[error(
        "secret number {0} holds an angle bracket; leave the brackets out, and replace a placeholder by the secret"
    )]
    Bracketed(usize),
    /// `$NAME` or `%NAME%`, which no shell has replaced. Anyone can guess the name.
    #[error("secret number {0} is the name of a variable; store the value of the variable")]
    Variable(usize),
    /// The ARN of a secret, instead of the secret.
    #[error("secret number {0} is an ARN; store SendPilot's webhook secret itself")]
    Arn(usize),
    /// An address, such as the webhook's URL.
    #[error("secret number {0} is an address; store SendPilot's webhook secret")]
    Address(usize),
    /// The key of SendPilot's API.
    #[error("secret number {0} is an API key of SendPilot; store the webhook's signing secret")]
    ApiKey(usize),
    /// `v1,whsec_...`, `NAME=whsec_...`, or two secrets with no white space between them.
    #[error(
        "secret number {0} holds whsec_ behind other characters; remove what is before whsec_, and put white space \
         between secrets"
    )]
    Misplaced(usize),
    /// `Whsec_...`, `whsec-...`, or a prefix without its first letters.
    #[error("secret number {0} must start with exactly whsec_, in small letters; copy it again from SendPilot")]
    Misspelt(usize),
    /// A comment, a label or a name beside a secret.
    #[error(
        "secret number {0} does not start with whsec_, but another word does; remove comments, labels, and white \
         space inside a secret"
    )]
    Stray(usize),
    /// `whsec_...`, or the asterisks that a page shows for a secret.
    #[error("secret number {0} holds *** or ..., as a placeholder or a masked copy does; copy the whole secret")]
    Masked(usize),
    /// `whsec_` is not followed by base64.
    #[error(
        "secret number {0} starts with whsec_, but base64 does not follow: it is a placeholder, or characters were \
         added or lost; copy it again from SendPilot"
    )]
    NotBase64(usize),
    /// `whsec_` is followed by base64 of fewer than [`MIN_LENGTH`] bytes.
    #[error(
        "secret number {0} starts with whsec_, but fewer than 16 bytes follow: it is a placeholder, or too short a \
         copy; copy the whole secret from SendPilot"
    )]
    FewBytes(usize),
    /// A text of fewer than [`MIN_LENGTH`] characters.
    #[error("secret number {0} is too short, with fewer than 16 characters; copy the whole secret from SendPilot")]
    FewCharacters(usize),
    /// JSON, but not the JSON that is read.
    #[error(
        r#"is JSON, but not {{"secrets":["whsec_..."]}} or {{"NAME":"whsec_..."}}; use one of these forms, or plain text"#
    )]
    Shape,
    /// A binary secret. Secrets Manager keeps binary secrets apart from text.
    #[error("is binary; store it as text")]
    Binary,
}

/// The kind of a character outside printable ASCII. Most of these characters are invisible, so the
/// message names the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// U+FEFF, which some editors write at the start of a file.
    ByteOrderMark,
    /// Zero-width and direction characters.
    Invisible,
    /// White space outside ASCII, such as a non-breaking space. `split_ascii_whitespace` does not
    /// split there.
    Space,
    /// Typographic quotation marks, which word processors use instead of straight ones.
    Quote,
    /// A control character.
    Control,
    /// Any other character: letters of other alphabets, full-width letters, bullets, dashes.
    Other,
}

impl Foreign {
    pub(super) fn from_char(character: char) -> Option<Self> {
        match character {
            '!'..='~' => None,
            '\u{feff}' => Some(Self::ByteOrderMark),
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => {
                Some(Self::Invisible)
            }
            '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e007f}' => Some(Self::Invisible),
            '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{2028}' | '\u{2029}' => Some(Self::Space),
            '\u{202f}' | '\u{205f}' | '\u{3000}' => Some(Self::Space),
            '\u{ab}' | '\u{bb}' | '\u{2018}'..='\u{201f}' | '\u{2032}'..='\u{2037}' => Some(Self::Quote),
            '\u{2039}' | '\u{203a}' | '\u{300c}'..='\u{300f}' | '\u{ff02}' | '\u{ff07}' => Some(Self::Quote),
            '\0'..=' ' | '\u{7f}'..='\u{9f}' => Some(Self::Control),
            _ => Some(Self::Other),
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByteOrderMark => "a byte order mark",
            Self::Invisible => "an invisible character outside ASCII",
            Self::Space => "a non-breaking space or other white space outside ASCII",
            Self::Quote => "a typographic quotation mark",
            Self::Control => "a control character",
            Self::Other => "a character outside ASCII",
        })
    }
}

impl Secrets {
    /// Parses one or more secrets, separated by ASCII white space, or JSON in one of the forms that
    /// the message of [`SecretError::Shape`] shows.
    ///
    /// # Errors
    /// If there is no secret, or one of them cannot be a secret of SendPilot. Then none of them is
    /// used.
    pub fn parse(value: &str) -> Result<Self, SecretError> {
        if !value.trim_ascii_start().starts_with(['{', '[']) {
            return Self::from_words(value);
        }
        // The parser's own error would quote the value.
        let Members(members) = serde_json::from_str(value).map_err(|_| SecretError::Shape)?;
        Self::from_words(&text_in(&members).ok_or(SecretError::Shape)?)
    }

    fn from_words(text: &str) -> Result<Self, SecretError> {
        let words = text.split_ascii_whitespace();
        let prefixed = words.clone().any(|word| word.starts_with(PREFIX));
        let secrets = words
            .enumerate()
            .map(|(index, word)| Secret::parse(word, index + 1, prefixed))
            .collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() { Err(SecretError::Empty) } else { Ok(Self(secrets)) }
    }

    /// Adds the secrets of `others` that are not among these.
    pub fn and(mut self, others: &Self) -> Self {
        for other in others.iter() {
            if !self.0.contains(other) {
                self.0.push(other.clone());
            }
        }
        self
    }

    /// Returns the number of secrets.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }
}

/// Returns the text of the member `secrets`, a string or a list of strings. If there is no such
/// member, returns the only member, a string: the Key/value tab of Secrets Manager's console stores
/// one pair in this form.
fn text_in(members: &[(String, Value)]) -> Option<String> {
    let mut named = members.iter().filter(|(name, _)| name == "secrets");
    match (named.next(), named.next(), members) {
        (Some((_, Value::Array(secrets))), None, _) => {
            let secrets: Option<Vec<&str>> = secrets.iter().map(Value::as_str).collect();
            Some(secrets?.join(" "))
        }
        (Some((_, Value::String(secrets))), None, _) | (None, None, [(_, Value::String(secrets))]) => {
            Some(secrets.clone())
        }
        _ => None,
    }
}

impl Secret {
    /// Parses the word at this position. `prefixed` says whether any word of the value starts with
    /// [`PREFIX`]. If so, every word must.
    fn parse(word: &str, position: usize, prefixed: bool) -> Result<Self, SecretError> {
        refuse_copying_accidents(word, position)?;
        let (standard, whole) = match word.strip_prefix(PREFIX) {
            Some(base64) => {
                let key = decode(base64).ok_or(SecretError::NotBase64(position))?;
                if key.len() < MIN_LENGTH {
                    return Err(SecretError::FewBytes(position));
                }
                let padded = format!("{PREFIX}{}", BASE64.encode(&key));
                (vec![key], Some(padded).filter(|padded| padded != word))
            }
            None if prefixed => return Err(SecretError::Stray(position)),
            None if word.len() < MIN_LENGTH => return Err(SecretError::FewCharacters(position)),
            // The libraries of Standard Webhooks decode a secret without its prefix. Others use it
            // as text.
            None => {
                let decoded = decode(word).filter(|key| key.len() >= MIN_LENGTH);
                let with_prefix = decoded.as_ref().map(|key| format!("{PREFIX}{}", BASE64.encode(key)));
                (decoded.into_iter().chain([word.into()]).collect(), with_prefix)
            }
        };
        let documented = [word].into_iter().chain(whole.as_deref());
        Ok(Self {
            standard: standard.iter().filter_map(|key| keyed(key)).collect(),
            documented: documented.filter_map(|text| keyed(text.as_bytes())).collect(),
        })
    }
}

/// Refuses text that people often copy together with a secret, or instead of it.
fn refuse_copying_accidents(word: &str, position: usize) -> Result<(), SecretError> {
    if let Some(foreign) = word.chars().find_map(Foreign::from_char) {
        return Err(SecretError::Character(position, foreign));
    }
    let lower = word.to_ascii_lowercase();
    let error = if word.contains(['"', '\'', '`']) {
        SecretError::Quoted
    } else if word.starts_with('<') || word.ends_with('>') {
        SecretError::Bracketed
    } else if is_variable(word) {
        SecretError::Variable
    } else if lower.starts_with("arn:") || lower.contains("arn:aws") {
        SecretError::Arn
    } else if word.contains("://") {
        SecretError::Address
    } else if lower.contains("sp_live_") {
        SecretError::ApiKey
    } else if lower.rfind(PREFIX).is_some_and(|at| at > 0) {
        SecretError::Misplaced
    } else if !word.starts_with(PREFIX) && MISSPELT.iter().any(|start| lower.starts_with(start)) {
        SecretError::Misspelt
    } else if word.contains("***") || word.contains("...") {
        SecretError::Masked
    } else {
        return Ok(());
    };
    Err(error(position))
}

/// Returns whether a word is `$NAME`, `${NAME}`, `$env:NAME`, the start of `$(command ...)`, or
/// `%NAME%`.
fn is_variable(word: &str) -> bool {
    let name = word.strip_prefix('$').or_else(|| word.strip_prefix('%')?.strip_suffix('%'));
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || "_:{}()".contains(c)))
}

/// Decodes strictly, except that the padding may be missing, because copies often lack it.
fn decode(base64: &str) -> Option<Vec<u8>> {
    let unpadded = base64.trim_end_matches('=');
    let encoding = if unpadded.len() == base64.len() { BASE64_NOPAD } else { BASE64 };
    encoding.decode(base64.as_bytes()).ok().filter(|key| !key.is_empty())
}

fn keyed(key: &[u8]) -> Option<Keyed> {
    Keyed::new_from_slice(key).ok()
}

/// Compares the MACs of an empty message in constant time, because the secret itself is not kept.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let [one, two] = [self, other].map(|secret| secret.documented.iter().map(|mac| mac.clone().finalize()));
        one.eq(two)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
