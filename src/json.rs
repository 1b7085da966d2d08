//! Reads untrusted JSON more leniently, or more strictly, than serde's own types do.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Any JSON string. No Rust string can contain a lone surrogate (`"\ud83d"`), so it is replaced by
/// U+FFFD. Otherwise an emoji that was cut in half would make an event unreadable.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct LossyString(pub(crate) String);

impl<'de> Deserialize<'de> for LossyString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde_json accepts lone surrogates only if a string is read as bytes.
        deserializer.deserialize_bytes(Bytes)
    }
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = LossyString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<LossyString, E> {
        Ok(LossyString(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<LossyString, E> {
        // Nearly all strings are valid, and this check is cheaper than the replacement.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(bytes).into_owned(),
        };
        Ok(LossyString(text))
    }
}

/// The members of a JSON object in their order, including repeated names. A map would hide a
/// repeated name.
pub(crate) struct Members<Name = String, Member = Value>(pub(crate) Vec<(Name, Member)>);

impl<'de, Name: Deserialize<'de>, Member: Deserialize<'de>> Deserialize<'de> for Members<Name, Member> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object(PhantomData))
    }
}

struct Object<Name, Member>(PhantomData<(Name, Member)>);

impl<'de, Name: Deserialize<'de>, Member: Deserialize<'de>> Visitor<'de> for Object<Name, Member> {
    type Value = Members<Name, Member>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
