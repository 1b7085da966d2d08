//! Reads untrusted JSON more leniently, or more strictly, than serde's own types do.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

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
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<Name, Member>(PhantomData<(Name, Member)>);

impl<'de, Name: Deserialize<'de>, Member: Deserialize<'de>> Visitor<'de> for MembersVisitor<Name, Member> {
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

/// A JSON object whose values are parsed only when they are needed. A derived struct would also
/// accept an array. It would fail on a repeated key, and on one field of an unexpected type.
pub(crate) struct Object<'a>(Members<LossyString, &'a RawValue>);

impl<'a> Object<'a> {
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json).map(Self)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        // An event has about a dozen members, so a search is faster than a hash map. If a name is
        // repeated, the last member counts.
        let Self(Members(members)) = self;
        members.iter().rev().find(|(LossyString(other), _)| other == name).map(|(_, member)| *member)
    }

    pub(crate) fn object(&self, name: &str) -> Option<Self> {
        Self::parse(self.get(name)?.get().as_bytes()).ok()
    }

    /// Returns the member of this name if it is a string that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let LossyString(text) = serde_json::from_str(self.get(name)?.get()).ok()?;
        Some(text).filter(|text| !text.is_empty())
    }
}
