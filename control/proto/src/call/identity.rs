//! Who calls, as the inside says and hears it (RFC 3325, RFC 3323), and headers that pass.

use crate::api::Party;
use crate::settings::{Assertion, SipSettings};
use crate::sip::Request;
use crate::sip::header::{display_name_of, uri_of, user_of};

/// Octets that the value of a header that passes may have.
const VALUE_MAX: usize = 1024;
/// What those who want to be unknown are called.
const ANONYMOUS: &str = "anonymous";

/// Who an INVITE of the inside is from: who it says, or where that is trusted whom it asserts; nobody in particular where
/// it asks for privacy.
pub fn caller(request: &Request, sip: &SipSettings) -> Party {
    let party = |value: &str| Party {
        user: user_of(uri_of(value)).to_owned(),
        display_name: display_name_of(value),
        password: String::new(),
    };
    let private = ["id", "user", "header"];
    let asks = request.header("Privacy").flat_map(|value| value.split([';', ','])).map(str::trim);
    let hides = asks.filter(|one| private.iter().any(|known| known.eq_ignore_ascii_case(one))).count() > 0;
    if hides {
        return Party { user: ANONYMOUS.into(), ..Party::default() };
    }
    let asserted = request.header("P-Asserted-Identity").next().filter(|_| sip.policy.trust_identity);
    let said = asserted.map(party).filter(|party| !party.user.is_empty());
    said.unwrap_or_else(|| party(&request.from))
}

/// The header that asserts who calls; `None` where the configuration does not want it.
pub fn assertion(party: &Party, sip: &SipSettings) -> Option<(String, String)> {
    let name = match sip.policy.assert_identity {
        Assertion::None => return None,
        Assertion::Asserted => "P-Asserted-Identity",
        Assertion::Preferred => "P-Preferred-Identity",
    };
    Some((name.to_owned(), format!("<sip:{}@{}>", party.user, sip.domain)))
}

/// Those headers that the configuration lets pass, in order.
pub fn passed(headers: &[(String, String)], sip: &SipSettings) -> Vec<(String, String)> {
    let named = |name: &str| sip.policy.pass_headers.iter().any(|known| known.eq_ignore_ascii_case(name));
    let clean = |value: &str| value.len() <= VALUE_MAX && !value.chars().any(char::is_control);
    headers.iter().filter(|(name, value)| named(name) && clean(value)).cloned().collect()
}
