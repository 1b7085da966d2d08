//! A lead's LinkedIn profile. It is a link only if it leads to LinkedIn.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::{Host, Url};

use crate::text::Text;

/// Longest link, in characters. Profiles have less than 150.
const MAX_LINK: usize = 300;

/// Longest name taken from a profile's address, in UTF-16 units.
const MAX_NAME: usize = 60;

/// A lead's profile, from the address that SendPilot sent.
pub(crate) struct Profile {
    link: Option<String>,
    name: Option<Text>,
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

    /// Returns the part after `in/`, decoded.
    pub(crate) fn name(&self) -> Option<String> {
        self.name.as_ref().map(Text::unlinked)
    }
}

fn is_linkedin(url: &Url) -> bool {
    let on_linkedin = match url.host() {
        Some(Host::Domain(host)) => host == "linkedin.com" || host.ends_with(".linkedin.com"),
        _ => false,
    };
    // A user name before the host is a deception.
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

fn name(path: &str) -> Option<Text> {
    let path = path.split(['?', '#']).next()?;
    let mut segments = path.trim_start_matches('/').split('/');
    let slug = segments.next().filter(|first| *first == "in").and_then(|_| segments.next())?;
    let name = Text::new(&percent_decode_str(slug).decode_utf8_lossy()).clipped(MAX_NAME);
    Some(name).filter(|_| !slug.is_empty())
}
