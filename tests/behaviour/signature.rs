//! Both signature schemes, several secrets, every reason for a rejection, and signatures of other
//! libraries.

use std::collections::BTreeSet;

use crate::support::requests::{SECRET, documented, headers, secrets, standard};
use lambda_http::http::{HeaderMap, HeaderValue};
use opportunity_alerts::config::{self, ConfigError};
use opportunity_alerts::secrets::keyring::Source;
use opportunity_alerts::secrets::signing::{MIN_LENGTH, SecretError, Secrets};
use opportunity_alerts::sendpilot::signature::{MAX_AGE_DOCUMENTED, MAX_SKEW, Rejection, verify};
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use serde::Deserialize;
use testkit::sendpilot::OTHER;

const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
const NOW: u64 = 1_649_367_553;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn refused(pairs: &[(String, String)], body: &[u8]) -> Rejection {
    verify(&headers(pairs), body, &secrets(), at(NOW)).unwrap_err()
}

fn set(pairs: &mut [(String, String)], name: &str, value: &str) {
    pairs.iter_mut().find(|(header, _)| header.ends_with(name)).unwrap().1 = value.into();
}

#[test]
fn verifies_the_published_vector() {
    let vector = [
        ("svix-id".into(), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".into()),
        ("svix-timestamp".into(), "1649367553".into()),
        ("svix-signature".into(), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=".into()),
    ];
    let headers = headers(&vector);
    let verified = verify(&headers, BODY, &secrets(), at(NOW)).unwrap();
    assert_eq!((verified.body(), verified.message_id()), (BODY, Some("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk")));
}

#[test]
fn accepts_both_header_families_and_the_documented_header() {
    for pairs in [
        standard("svix", SECRET, "msg_1", NOW, BODY),
        standard("webhook", SECRET, "msg_1", NOW, BODY),
        documented(SECRET, NOW, BODY),
    ] {
        assert!(verify(&headers(&pairs), BODY, &secrets(), at(NOW)).is_ok(), "{pairs:?}");
    }
}

#[test]
fn recognizes_the_documented_header_by_its_content() {
    let [(_, value)] = &documented(SECRET, NOW, BODY)[..] else { panic!() };
    let bare = value.strip_prefix("v1,").unwrap();
    for (name, value) in
        [("webhook-signature", bare), ("webhook-signature", &bare.replace(',', ", ")), ("svix-signature", value)]
    {
        let headers = headers(&[(name.into(), value.into())]);
        let verified = verify(&headers, BODY, &secrets(), at(NOW)).unwrap();
        assert_eq!(verified.message_id(), None);
    }
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let good = &standard("svix", SECRET, "msg_1", NOW, BODY)[2].1;
    let stranger = &standard("svix", OTHER, "msg_1", NOW, BODY)[2].1;
    for value in [
        format!("{stranger} {good}"),
        format!("v1a,abc {good} v2,xyz"),
        format!("v1,!!! {good}"),
        format!("{stranger},{good}"),
    ] {
        let mut pairs = standard("svix", SECRET, "msg_1", NOW, BODY);
        set(&mut pairs, "-signature", &value);
        assert!(verify(&headers(&pairs), BODY, &secrets(), at(NOW)).is_ok(), "{value}");
    }
    // The documented scheme does not say how a header carries two signatures: as two whole values,
    // or as one time with two signatures.
    let [good, stranger] = [SECRET, OTHER].map(|secret| documented(secret, NOW, BODY)[0].1.clone());
    let second = &good[good.find("s=").unwrap()..];
    let stale = &documented(SECRET, 1, BODY)[0].1;
    for value in [
        format!("{stranger} {good}"),
        format!("{good},{stranger}"),
        format!("{stranger},{second}"),
        format!("{stale} {good}"),
    ] {
        let headers = headers(&[("webhook-signature".into(), value.clone())]);
        assert!(verify(&headers, BODY, &secrets(), at(NOW)).is_ok(), "{value}");
    }
    // Both headers at once; a stranger signed one of them.
    let mut both = standard("svix", OTHER, "msg_1", NOW, BODY);
    both.extend(documented(SECRET, NOW, BODY));
    assert!(verify(&headers(&both), BODY, &secrets(), at(NOW)).is_ok());
}

#[test]
fn either_secret_signs_during_a_rotation() {
    let rotating = Secrets::parse(&format!("{OTHER}\n  {SECRET}")).unwrap();
    for secret in [SECRET, OTHER] {
        for pairs in [standard("svix", secret, "msg_1", NOW, BODY), documented(secret, NOW, BODY)] {
            assert!(verify(&headers(&pairs), BODY, &rotating, at(NOW)).is_ok());
        }
    }
    assert_eq!(refused(&standard("svix", OTHER, "msg_1", NOW, BODY), BODY), Rejection::Mismatch);
}

/// The crate `standardwebhooks` signs in the test. The signature of the crate `svix` 2.9.1 is
/// stored: its `Webhook::sign` always gives the same result, and the crate needs a second TLS
/// library, which would compile longer than any other dependency.
#[test]
fn accepts_what_other_libraries_sign() {
    let standardwebhooks = standardwebhooks::Webhook::new(SECRET).unwrap();
    for (body, by_svix) in [
        (&b""[..], "v1,YOFvQL0DIVpcYVmw/ew/d6p8BOxXiGJsT8zTi42Tt/s="),
        (b"{}", "v1,RXMNLuw3R4zypQbeMgLoSsUwAIjLuIQqbO41kN0PuLk="),
        (BODY, "v1,lw9JfsKYfV50/vLHB/opOoIbZ53h230PR3UEUAjawvI="),
        ("{\"n\":\"\u{fc}\u{1F600}\"}".as_bytes(), "v1,BfVOQsFmDGkmacCX5kmJk4D6SAxwanOjcCTgB51ZSzA="),
    ] {
        let by_standardwebhooks = standardwebhooks.sign("msg_1", NOW as i64, body).unwrap();
        for (family, signature) in [("svix", by_svix), ("webhook", &by_standardwebhooks)] {
            let mut pairs = standard(family, SECRET, "msg_1", NOW, body);
            set(&mut pairs, "-signature", signature);
            assert!(verify(&headers(&pairs), body, &secrets(), at(NOW)).is_ok(), "{family}");
        }
    }
}

#[test]
fn every_rejection_has_its_own_reason() {
    assert_eq!(refused(&[], BODY), Rejection::Unsigned);
    for (missing, rejection) in [
        ("svix-id", Rejection::Incomplete("svix-id")),
        ("svix-timestamp", Rejection::Incomplete("svix-timestamp")),
        ("svix-signature", Rejection::Unsigned),
    ] {
        let mut pairs = standard("svix", SECRET, "msg_1", NOW, BODY);
        pairs.retain(|(name, _)| name != missing);
        assert_eq!(refused(&pairs, BODY), rejection);
    }
    for id in ["", "msg.1", "."] {
        assert_eq!(refused(&standard("svix", SECRET, id, NOW, BODY), BODY), Rejection::BadId("svix-id"), "{id}");
    }
    for timestamp in ["", " ", "+1649367553", "-1", "1649367553.0", "0x1", "1e9", "\u{661}", "99999999999999999999"] {
        let mut pairs = standard("svix", SECRET, "msg_1", NOW, BODY);
        pairs[1].1 = "0".into();
        let mut map = headers(&pairs);
        map.insert("svix-timestamp", HeaderValue::from_bytes(timestamp.as_bytes()).unwrap());
        let rejection = verify(&map, BODY, &secrets(), at(NOW)).unwrap_err();
        assert_eq!(rejection, Rejection::BadTimestamp, "{timestamp}");
    }
    for signature in
        ["", "v1", "v1,", "v1,AAAA", "v1,not base64", "v2,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=", "t=1", "s=00"]
    {
        let mut pairs = standard("svix", SECRET, "msg_1", NOW, BODY);
        set(&mut pairs, "-signature", signature);
        assert_eq!(refused(&pairs, BODY), Rejection::BadSignature, "{signature}");
    }
    let hex = "00".repeat(32);
    for signature in [
        "t=1,s=",
        "t=1,s=00",
        &format!("s={hex},t=1"),
        &format!("v2,t=1,s={hex}"),
        &format!("t=1,s={}", "0G".repeat(32)),
    ] {
        assert_eq!(
            refused(&[("webhook-signature".into(), signature.into())], BODY),
            Rejection::BadSignature,
            "{signature}"
        );
    }
    let no_number = format!("v1,t=x,s={hex}");
    assert_eq!(refused(&[("webhook-signature".into(), no_number)], BODY), Rejection::BadTimestamp);
    assert_eq!(refused(&standard("svix", OTHER, "msg_1", NOW, BODY), BODY), Rejection::Mismatch);
    assert_eq!(refused(&documented(OTHER, NOW, BODY), BODY), Rejection::Mismatch);
    assert_eq!(refused(&standard("svix", SECRET, "msg_1", NOW, BODY), b"other"), Rejection::Mismatch);
}

#[test]
fn accepts_a_signature_within_its_schemes_age_limit() {
    let (fresh, retried) = (MAX_SKEW.as_secs(), MAX_AGE_DOCUMENTED.as_secs());
    let standard = |seconds| {
        verify(&headers(&standard("svix", SECRET, "msg_1", seconds, BODY)), BODY, &secrets(), at(NOW)).map(|_| ())
    };
    let documented =
        |seconds| verify(&headers(&documented(SECRET, seconds, BODY)), BODY, &secrets(), at(NOW)).map(|_| ());
    assert_eq!([standard(NOW - fresh), standard(NOW + fresh)], [Ok(()), Ok(())]);
    assert_eq!([documented(NOW - retried), documented(NOW + fresh)], [Ok(()), Ok(())]);
    assert_eq!([standard(NOW - fresh - 1), documented(NOW - retried - 1)], [Err(Rejection::Stale); 2]);
    assert_eq!([standard(NOW + fresh + 1), documented(NOW + fresh + 1)], [Err(Rejection::Early); 2]);
    assert_eq!(
        [standard(0), standard(u64::MAX), documented(u64::MAX)],
        [Err(Rejection::Stale), Err(Rejection::Early), Err(Rejection::Early)]
    );
}

#[test]
fn accepts_hexadecimal_in_capitals_and_mixed() {
    let [(name, value)] = &documented(SECRET, NOW, BODY)[..] else { panic!() };
    let (head, hex) = value.split_once("s=").unwrap();
    let mixed: String =
        hex.char_indices().map(|(at, c)| if at % 3 == 0 { c.to_ascii_uppercase() } else { c }).collect();
    for hex in [hex.to_uppercase(), mixed] {
        let headers = headers(&[(name.clone(), format!("{head}s={hex}"))]);
        assert!(verify(&headers, BODY, &secrets(), at(NOW)).is_ok(), "{hex}");
    }
}

#[test]
fn reports_a_genuine_timestamp_in_another_unit_than_seconds() {
    for (unit, per_second) in [("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000)] {
        // Timestamps of today, of yesterday, and of a clock that is years ahead.
        for seconds in [NOW, NOW - 86_400, NOW + 100_000_000] {
            let timestamp = seconds * per_second + per_second / 2;
            for pairs in [standard("svix", SECRET, "msg_1", timestamp, BODY), documented(SECRET, timestamp, BODY)] {
                let rejection = refused(&pairs, BODY);
                assert_eq!((rejection, rejection.reason()), (Rejection::NotSeconds(unit), "stale"));
                let detail = rejection.to_string();
                assert!(detail.contains("must be in Unix seconds") && detail.contains(unit), "{detail}");
            }
            for pairs in [standard("svix", OTHER, "msg_1", timestamp, BODY), documented(OTHER, timestamp, BODY)] {
                assert_eq!(
                    refused(&pairs, BODY),
                    Rejection::Mismatch,
                    "a stranger should learn nothing about the timestamp"
                );
            }
        }
    }
    for seconds in [NOW + MAX_SKEW.as_secs() + 1, NOW * 100, u64::MAX] {
        assert_eq!(refused(&documented(SECRET, seconds, BODY), BODY), Rejection::Early);
    }
}

#[test]
fn only_a_genuine_signature_is_called_stale() {
    assert_eq!(refused(&standard("svix", OTHER, "msg_1", 1, BODY), BODY), Rejection::Mismatch);
}

#[test]
fn the_genuine_one_of_two_headers_gives_the_reason() {
    for (first, second) in [(SECRET, OTHER), (OTHER, SECRET)] {
        let mut both = standard("svix", first, "msg_1", 1, BODY);
        both.extend(standard("webhook", second, "msg_1", 1, BODY));
        assert_eq!(refused(&both, BODY), Rejection::Stale);
    }
}

#[test]
fn refuses_unusable_secrets_and_never_shows_a_secret() {
    assert_eq!(Secrets::parse(" \n").unwrap_err(), SecretError::Empty);
    for bad in ["whsec_", "whsec_=", "whsec_!!", "whsec_MfKQ9", "whsec_AB"] {
        assert_eq!(Secrets::parse(&format!("{SECRET} {bad}")).unwrap_err(), SecretError::NotBase64(2), "{bad}");
    }
    for quoted in [format!("\"{SECRET}\""), format!("'{SECRET}'")] {
        assert_eq!(Secrets::parse(&quoted).unwrap_err(), SecretError::Quoted(1));
    }
    let shown = format!("{:?}", Secrets::parse(&format!("{SECRET} {OTHER}")).unwrap());
    assert_eq!(shown, "Secrets([Secret, Secret])");
}

/// A value in `secrets.json`. The doctor's test reads the same file, because the doctor applies the
/// same rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// `None` if the value is binary.
    value: Option<String>,
    /// The secrets in the value, if the value is usable.
    #[serde(default)]
    secrets: Vec<String>,
    /// The reason for which the value is refused.
    fault: Option<String>,
}

fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("../support/secrets.json")).unwrap()
}

/// Returns signature headers made with this secret, in each scheme.
fn signed_by(secret: &str) -> [Vec<(String, String)>; 2] {
    let key = match secret.strip_prefix("whsec_") {
        Some(base64) => data_encoding::BASE64_NOPAD.decode(base64.trim_end_matches('=').as_bytes()).unwrap(),
        None => secret.as_bytes().to_vec(),
    };
    let standard_form = format!("whsec_{}", data_encoding::BASE64.encode(&key));
    [standard("svix", &standard_form, "msg_1", NOW, BODY), documented(secret, NOW, BODY)]
}

#[test]
fn refusals_name_position_and_fault_but_not_the_text() {
    let mut faults = BTreeSet::new();
    for Row { value, secrets, fault } in rows() {
        let Some(value) = value else {
            assert_eq!(Some(SecretError::Binary.to_string()), fault);
            continue;
        };
        match (Secrets::parse(&value), &fault) {
            (Ok(read), None) => {
                assert_eq!(read.count(), secrets.len(), "{value:?}");
                for pairs in secrets.iter().flat_map(|secret| signed_by(secret)) {
                    assert!(verify(&headers(&pairs), BODY, &read, at(NOW)).is_ok(), "{value:?}");
                }
            }
            (Err(error), Some(fault)) => {
                assert_eq!(error.to_string(), *fault, "{value:?}");
                let shown = |part: &&str| part.len() > 7 && fault.contains(part);
                assert_eq!(value.split(|c: char| !c.is_alphanumeric()).find(shown), None, "{value:?}");
                faults.insert(fault.trim_start_matches(|character| character != ' ').to_owned());
            }
            (read, _) => panic!("{value:?} gave {read:?}, expected {fault:?}"),
        }
    }
    assert!(faults.len() > 20, "{faults:?}");
}

#[test]
fn the_variable_follows_the_rules_of_a_stored_value() {
    for Row { value, fault, .. } in rows() {
        let Some(value) = value else { continue };
        let read = config::secret(|name| (name == "WEBHOOK_SECRET").then(|| value.clone()));
        match (read, fault) {
            (Ok(Source::Given(_)), None) => {}
            (Err(ConfigError::NoSecret), Some(_)) => assert!(value.trim_ascii().is_empty(), "{value:?}"),
            (Err(error), Some(fault)) => assert_eq!(error.to_string(), format!("WEBHOOK_SECRET {fault}")),
            (read, fault) => panic!("{value:?} gave {read:?}, expected {fault:?}"),
        }
    }
}

#[test]
fn refuses_a_value_with_any_unusable_word() {
    for unusable in ["#", "production", "changeme", "whsec_AA==", "correct-horse-staple", "v1,whsec_AA==", "\u{200b}"] {
        for position in 1..=3 {
            let mut words = [SECRET, OTHER].map(str::to_owned).to_vec();
            words.insert(position - 1, unusable.into());
            let error = Secrets::parse(&words.join("\n")).unwrap_err();
            assert!(error.to_string().starts_with(&format!("secret number {position} ")), "{unusable}: {error}");
        }
    }
}

#[test]
fn secrets_have_at_least_sixteen_bytes_or_characters() {
    for length in 0..=2 * MIN_LENGTH {
        let bytes = vec![b'k'; length];
        let prefixed = format!("whsec_{}", data_encoding::BASE64.encode(&bytes));
        let plain = String::from_utf8(bytes).unwrap();
        for value in [&prefixed, prefixed.trim_end_matches('='), &plain] {
            assert_eq!(Secrets::parse(value).is_ok(), length >= MIN_LENGTH, "{value}");
        }
    }
    // Without the prefix, the decoded bytes are a key only if they have the minimum length.
    let short = "AAAAAAAAAAAAAAAAAAAA";
    let [decoded, _] = signed_by(&format!("whsec_{short}"));
    let read = Secrets::parse(short).unwrap();
    assert_eq!(verify(&headers(&decoded), BODY, &read, at(NOW)).unwrap_err(), Rejection::Mismatch);
    for pairs in signed_by(short) {
        assert!(verify(&headers(&pairs), BODY, &read, at(NOW)).is_ok());
    }
}

#[test]
fn a_secret_without_padding_verifies_in_both_schemes() {
    for bytes in 16..20 {
        let whole = format!("whsec_{}", data_encoding::BASE64.encode(&vec![7; bytes]));
        let pasted = Secrets::parse(whole.trim_end_matches('=')).unwrap();
        for pairs in signed_by(&whole) {
            assert!(verify(&headers(&pairs), BODY, &pasted, at(NOW)).is_ok(), "{whole}");
        }
    }
}

#[test]
fn a_secret_without_its_prefix_verifies_as_text_and_as_base64() {
    let bare = SECRET.strip_prefix("whsec_").unwrap();
    // SendPilot signs with the whole text, even if the stored copy has lost the prefix.
    for pairs in [standard("svix", SECRET, "msg_1", NOW, BODY), documented(SECRET, NOW, BODY)] {
        assert!(verify(&headers(&pairs), BODY, &Secrets::parse(bare).unwrap(), at(NOW)).is_ok(), "{pairs:?}");
    }
    let (whole, bare) = ("whsec_AQIDBAUGBwgJCgsMDQ4PEA==", "AQIDBAUGBwgJCgsMDQ4PEA");
    for pairs in [standard("svix", whole, "msg_1", NOW, BODY), documented(whole, NOW, BODY)] {
        assert!(verify(&headers(&pairs), BODY, &Secrets::parse(bare).unwrap(), at(NOW)).is_ok(), "{pairs:?}");
    }
    let pairs = documented("a-plain-text-secret", NOW, BODY);
    assert!(verify(&headers(&pairs), BODY, &Secrets::parse("a-plain-text-secret").unwrap(), at(NOW)).is_ok());
}

fn flipped(text: &str, bit: usize) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let bit = bit % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    String::from_utf8(bytes).ok()
}

/// Covers every bit of the body, the headers and the secret.
#[test]
fn refuses_any_flipped_bit() {
    for pairs in [standard("svix", SECRET, "msg_1", NOW, BODY), documented(SECRET, NOW, BODY)] {
        for bit in 0..BODY.len() * 8 {
            let mut body = BODY.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&headers(&pairs), &body, &secrets(), at(NOW)).is_err(), "bit {bit} of the body");
        }
        for (index, (name, value)) in pairs.iter().enumerate() {
            for value in (0..value.len() * 8).filter_map(|bit| flipped(value, bit)) {
                // Hexadecimal in another letter case is the same signature.
                let hex = value.split_once("s=").zip(pairs[index].1.split_once("s="));
                if hex.is_some_and(|(new, old)| new.0 == old.0 && new.1.eq_ignore_ascii_case(old.1)) {
                    continue;
                }
                let mut map = headers(&pairs);
                let Ok(changed) = HeaderValue::from_str(&value) else { continue };
                map.insert(pairs[index].0.parse::<lambda_http::http::HeaderName>().unwrap(), changed);
                assert!(verify(&map, BODY, &secrets(), at(NOW)).is_err(), "{name}: {value}");
            }
        }
        for secret in (0..SECRET.len() * 8).filter_map(|bit| flipped(SECRET, bit)) {
            // A flip to white space splits the secret into two words, and one of them is refused.
            let Ok(secrets) = Secrets::parse(&secret) else { continue };
            assert!(verify(&headers(&pairs), BODY, &secrets, at(NOW)).is_err(), "{secret}");
        }
    }
}

proptest! {
    #[test]
    fn uses_or_refuses_a_value_as_a_whole(
        words in proptest::collection::vec("(whsec_)?[!-~]{0,40}|.{0,20}", 0..4),
        separator in "[ \\t\\r\\n]{1,2}",
    ) {
        let value = words.join(&separator);
        let usable = |word: &str| Secrets::parse(word).is_ok();
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        let prefixed = words.iter().filter(|word| word.starts_with("whsec_")).count();
        match Secrets::parse(&value) {
            Ok(secrets) => {
                prop_assert_eq!(secrets.count(), words.len());
                prop_assert!(words.iter().all(|word| usable(word)));
                prop_assert!(prefixed == 0 || prefixed == words.len());
            }
            Err(error) => {
                let mixed = prefixed > 0 && prefixed < words.len();
                prop_assert!(words.is_empty() || mixed || !words.iter().all(|word| usable(word)), "{}", error);
            }
        }
    }

    #[test]
    fn never_panics_on_any_bytes(
        id in proptest::collection::vec(any::<u8>(), 0..40),
        timestamp in proptest::collection::vec(any::<u8>(), 0..24),
        signature in proptest::collection::vec(any::<u8>(), 0..120),
        grammar in "(v1,)?(t=[0-9+-]{0,21},?)?(s=[0-9a-fA-F]{0,70})?( v1,[A-Za-z0-9+/=]{0,50})*",
        body in proptest::collection::vec(any::<u8>(), 0..200),
        now in any::<u64>(),
    ) {
        for signature in [&signature[..], grammar.as_bytes()] {
            let mut map = HeaderMap::new();
            for (name, value) in [("svix-id", &id[..]), ("svix-timestamp", &timestamp[..]), ("svix-signature", signature), ("webhook-signature", signature)] {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    map.insert(name, value);
                }
            }
            prop_assert!(verify(&map, &body, &secrets(), Timestamp::from_millis(now)).is_err());
        }
    }
}
