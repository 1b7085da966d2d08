//! A JSON string as JSON allows it: a lone surrogate (`"\ud83d"`), which no Rust string can hold, is replaced by U+FFFD.
//!
//! Emoji that somebody cut in half must not make an event unreadable.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// Any JSON string, and nothing else.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lossy(pub(crate) String);

impl Borrow<str> for Lossy {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde_json hands out a string with lone surrogates only to who asks for bytes.
        deserializer.deserialize_bytes(Bytes)
    }
}

struct Bytes;

impl de::Visitor<'_> for Bytes {
    type Value = Lossy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Lossy, E> {
        Ok(Lossy(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Lossy, E> {
        Ok(Lossy(String::from_utf8_lossy(bytes).into_owned()))
    }
}
