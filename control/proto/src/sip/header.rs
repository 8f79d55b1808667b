//! Header values that a dialog needs: name-addr, tags, parameters (RFC 3261 section 25.1).

/// The URI of a `name-addr` or `addr-spec`: what stands in the brackets, else all before the first parameter.
pub fn uri_of(value: &str) -> &str {
    let value = value.trim();
    match after_display_name(value).split_once('<') {
        Some((_, rest)) => rest.split_once('>').map_or(rest, |(uri, _)| uri).trim(),
        None => value.split(';').next().unwrap_or(value).trim(),
    }
}

/// The address without its parameters: display name and URI in brackets.
pub fn name_addr(value: &str) -> String {
    let value = value.trim();
    let rest = after_display_name(value);
    match rest.find('>').filter(|_| rest.contains('<')) {
        Some(end) => value.get(..value.len() - rest.len() + end + 1).unwrap_or(value).to_owned(),
        None => format!("<{}>", uri_of(value)),
    }
}

/// The user part of a URI, without its password and parameters; empty for none.
pub fn user_of(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let user = rest.split_once('@').map_or("", |(user, _)| user);
    user.split([':', ';']).next().unwrap_or_default()
}

/// The display name of a From or To, without quotes; empty for none.
pub fn display_name_of(value: &str) -> String {
    let value = value.trim();
    let rest = after_display_name(value);
    if let Some(quoted) = value.strip_prefix('"') {
        let inner = quoted.get(..quoted.len().saturating_sub(rest.len() + 1)).unwrap_or_default();
        return inner.replace("\\\"", "\"").replace("\\\\", "\\");
    }
    value.split_once('<').map_or("", |(name, _)| name).trim().to_owned()
}

/// The rest behind a quoted display name, whose text may hold brackets and escaped quotes.
fn after_display_name(value: &str) -> &str {
    let Some(quoted) = value.strip_prefix('"') else { return value };
    let mut escaped = false;
    for (at, octet) in quoted.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return quoted.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

/// Header parameters behind the address.
fn parameters(value: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let rest = after_display_name(value.trim());
    let tail = match rest.split_once('<') {
        Some((_, bracketed)) => bracketed.split_once('>').map_or("", |(_, tail)| tail),
        None => rest.split_once(';').map_or("", |(_, tail)| tail),
    };
    tail.split(';').map(str::trim).filter(|part| !part.is_empty()).map(|part| match part.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (part, None),
    })
}

/// The `tag` parameter of From or To.
pub fn tag_of(value: &str) -> Option<&str> {
    parameters(value).find(|(name, _)| name.eq_ignore_ascii_case("tag")).and_then(|(_, tag)| tag)
}

/// A parameter behind the address; the empty text where it has no value.
pub fn address_parameter_of<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let found = parameters(value).find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    found.map(|(_, value)| value.unwrap_or_default())
}

/// What stands before the first parameter of a header that has no address.
pub fn token_of(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// A parameter of a header that has no address; the empty text where it has no value.
pub fn parameter_of<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    value.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_addr_is_parted() {
        let cases = [
            (
                "\"A \\\"x\\\" <b>\" <sip:a@b;p=1>;tag=x",
                "\"A \\\"x\\\" <b>\" <sip:a@b;p=1>",
                "A \"x\" <b>",
                "a",
            ),
            ("sip:a:pw@b;tag=x", "<sip:a:pw@b>", "", "a"),
            ("Bob <sip:b@c>;tag=x;y", "Bob <sip:b@c>", "Bob", "b"),
            ("<tel:+1;phone-context=x>", "<tel:+1;phone-context=x>", "", ""),
        ];
        for (value, address, name, user) in cases {
            assert_eq!(name_addr(value), address, "{value}");
            assert_eq!(display_name_of(value), name, "{value}");
            assert_eq!(user_of(uri_of(value)), user, "{value}");
        }
    }

    #[test]
    fn addresses_and_tags_are_found_in_all_their_forms() {
        let cases = [
            ("<sip:a@b;lr>;tag=x", "sip:a@b;lr", Some("x")),
            ("sip:a@b;tag=x", "sip:a@b", Some("x")),
            ("\"A <b> \\\" ;tag=no\" <sip:a@b> ; Tag = y", "sip:a@b", Some("y")),
            ("Bob <sip:a@b;tag=inner>", "sip:a@b;tag=inner", None),
            ("<sip:a@b", "sip:a@b", None),
            ("\"open", "\"open", None),
            ("", "", None),
        ];
        for (value, uri, tag) in cases {
            assert_eq!((uri_of(value), tag_of(value)), (uri, tag), "{value}");
        }
    }
}
