//! Header values that a dialog needs: name-addr, tags, parameters (RFC 3261 section 25.1).

/// The URI of a `name-addr` or `addr-spec`: what stands in the brackets, else all before the first parameter.
pub fn uri_of(value: &str) -> &str {
    let value = value.trim();
    match after_display_name(value).split_once('<') {
        Some((_, rest)) => rest.split_once('>').map_or(rest, |(uri, _)| uri).trim(),
        None => value.split(';').next().unwrap_or(value).trim(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
