//! A lead's LinkedIn profile: a link, if the address leads to LinkedIn, and a name.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::{Host, ParseError, Url};

use crate::text::{Text, capitalized, clip, trim};

/// Longest link, in characters. LinkedIn's own links are shorter than 150.
const MAX_LINK: usize = 300;

/// Longest name taken from a profile's address, in UTF-16 units.
const MAX_NAME: usize = 60;

/// Longest part of a slug with a digit that a person can read, in characters. LinkedIn's own ids,
/// such as `ACwAABx9fQkBm3Zt0Qv7hYp4Lk2NdEwXyZ1aBcD`, have longer parts.
const MAX_MIXED: usize = 15;

/// A lead's profile, from the address that SendPilot sent.
pub(crate) struct Profile {
    link: Option<String>,
    name: Option<String>,
}

impl Profile {
    /// Reads an address in each form that people and SendPilot write: with a scheme, without a
    /// scheme, URL-encoded, or a bare `in/slug`.
    pub(crate) fn new(raw: &str) -> Self {
        let starts = |with: &str| raw.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        let encoded = starts("https%3A") || starts("http%3A");
        let raw = if encoded { percent_decode_str(raw).decode_utf8_lossy() } else { raw.into() };
        let url = parse(&raw).filter(is_linkedin);
        Self { link: url.as_ref().and_then(link), name: url.as_ref().and_then(name) }
    }

    /// Returns an address on LinkedIn, in ASCII, without a character that has a meaning in markup.
    pub(crate) fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }

    /// Returns the name in the address, or the part after `in/` if it does not look like a name.
    /// Returns `None` if the part is an id that no person can read.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Parses an address. Adds a missing scheme, and to a bare `in/slug` LinkedIn's host.
fn parse(raw: &str) -> Option<Url> {
    let raw = trim(raw);
    let parsed = Url::parse(raw);
    if parsed != Err(ParseError::RelativeUrlWithoutBase) {
        return parsed.ok();
    }
    let raw = raw.trim_start_matches('/');
    let host = if raw.starts_with("in/") { "www.linkedin.com/" } else { "" };
    Url::parse(&format!("https://{host}{raw}")).ok()
}

fn is_linkedin(url: &Url) -> bool {
    let on_linkedin = match url.host() {
        Some(Host::Domain(host)) => host == "linkedin.com" || host.ends_with(".linkedin.com"),
        _ => false,
    };
    // A user name before the host can look like the host.
    let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    matches!(url.scheme(), "https" | "http") && on_linkedin && plain
}

/// Returns the https address of the host and the path alone. A profile needs no query, and
/// LinkedIn's redirects would follow one. Returns `None` if the link is too long, because a cut one
/// is broken.
fn link(url: &Url) -> Option<String> {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'%').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let link = format!("https://{}{}", url.host_str()?, utf8_percent_encode(url.path(), ENCODED));
    Some(link).filter(|link| link.len() <= MAX_LINK)
}

/// Returns the name of the profile at this address, at most [`MAX_NAME`] long, without links.
fn name(url: &Url) -> Option<String> {
    let mut segments = url.path_segments()?;
    let slug = segments.next().filter(|first| *first == "in").and_then(|_| segments.next())?;
    let slug = Text::new(&percent_decode_str(slug).decode_utf8_lossy());
    if !is_readable(slug.as_str()) {
        return None;
    }
    let name = name_in(slug.as_str()).map_or(slug, |name| Text::new(&name));
    Some(clip(&name.unlinked(), MAX_NAME))
}

/// Whether a slug says more to a person than the lead's id.
fn is_readable(slug: &str) -> bool {
    let is_id = |part: &str| part.chars().count() > MAX_MIXED && part.contains(char::is_numeric);
    slug.contains(char::is_alphabetic) && !slug.split('-').any(is_id)
}

/// Returns the name in a slug: `john-doe-4b7a912` is "John Doe". Returns `None` if a part of the
/// slug is not a word. The address does not say where a name has another capital, as in McDonald,
/// so only the first letter of each part becomes one.
fn name_in(slug: &str) -> Option<String> {
    let mut words: Vec<_> = slug.split('-').filter(|part| !part.is_empty()).collect();
    if words.last().is_some_and(|last| is_id(last, words.len() - 1)) {
        words.pop();
    }
    let are_words = !words.is_empty() && words.iter().all(|word| is_word(word));
    are_words.then(|| words.into_iter().map(capitalized).collect::<Vec<_>>().join(" "))
}

/// Whether the last part of a slug only makes the slug unique. LinkedIn appends five to nine
/// letters and digits. People append a number. After a single word, a number can belong to the
/// name: `studio-54`. Three letters or more before a number are a word: `john-doe123`.
fn is_id(last: &str, words_before: usize) -> bool {
    let letters = last.trim_end_matches(|character: char| character.is_ascii_digit());
    let is_number = letters.is_empty();
    let has_word = letters.len() > 2 && is_word(letters);
    let is_generated = (5..=9).contains(&last.len())
        && last.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && last.bytes().any(|byte| byte.is_ascii_digit())
        && !has_word;
    is_generated && words_before > 0 || is_number && words_before > 1
}

/// Whether a part of a slug can be a part of a name. Outside ASCII, a mark can belong to a letter,
/// and std cannot tell marks from symbols.
fn is_word(part: &str) -> bool {
    let is_part = |c: char| match c {
        '\0'..='\x7F' => c.is_ascii_alphabetic() || c == '\'',
        _ => !c.is_numeric() && !c.is_whitespace(),
    };
    part.chars().all(is_part) && part.contains(char::is_alphabetic)
}
