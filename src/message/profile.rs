//! A lead's LinkedIn profile: a link, if the address leads to LinkedIn, and a name.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::{Host, Url};

use crate::text::{Text, capitalized, clip};

/// Longest link, in characters. LinkedIn's own links are shorter than 150.
const MAX_LINK: usize = 300;

/// Longest name taken from a profile's address, in UTF-16 units.
const MAX_NAME: usize = 60;

/// A lead's profile, from the address that SendPilot sent.
pub(crate) struct Profile {
    link: Option<String>,
    name: Option<String>,
}

impl Profile {
    /// Reads an address in each form that SendPilot has been seen to write: an address, the same
    /// URL-encoded, or a bare `in/slug`.
    pub(crate) fn new(raw: &str) -> Self {
        let encoded = raw.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https%3A"));
        let raw = if encoded { percent_decode_str(raw).decode_utf8_lossy() } else { raw.into() };
        match Url::parse(&raw).ok().filter(is_linkedin) {
            Some(url) => Self { name: name(url.path()), link: link(&url) },
            None => Self { name: name(&raw), link: None },
        }
    }

    /// Returns an address on LinkedIn, in ASCII, without a character that has a meaning in markup.
    pub(crate) fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }

    /// Returns the name in the address, or the part after `in/` if it does not look like a name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

fn is_linkedin(url: &Url) -> bool {
    let on_linkedin = match url.host() {
        Some(Host::Domain(host)) => host == "linkedin.com" || host.ends_with(".linkedin.com"),
        _ => false,
    };
    // A user name before the host can look like the host.
    let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    url.scheme() == "https" && on_linkedin && plain
}

/// Returns the address of the host and the path alone. A profile needs no query, and LinkedIn's
/// redirects would follow one. Returns `None` if the link is too long, because a cut one is broken.
fn link(url: &Url) -> Option<String> {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'%').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let link = format!("https://{}{}", url.host_str()?, utf8_percent_encode(url.path(), ENCODED));
    Some(link).filter(|link| link.len() <= MAX_LINK)
}

/// Returns the name of the profile at this path, at most [`MAX_NAME`] long, without links.
fn name(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next()?;
    let mut segments = path.trim_start_matches('/').split('/');
    let slug = segments.next().filter(|first| *first == "in").and_then(|_| segments.next())?;
    let text = Text::new(&percent_decode_str(slug).decode_utf8_lossy());
    let name = name_in(text.as_str()).map_or_else(|| text.unlinked(), |name| Text::new(&name).unlinked());
    Some(clip(&name, MAX_NAME)).filter(|_| !slug.is_empty())
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
/// name: `studio-54`.
fn is_id(last: &str, words_before: usize) -> bool {
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_generated = (5..=9).contains(&last.len())
        && last.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && last.bytes().any(|byte| byte.is_ascii_digit());
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
