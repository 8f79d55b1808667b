//! Unpredictable octets from the operating system.

/// Fills an array with unpredictable octets.
pub fn octets<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    if getrandom::fill(&mut octets).is_err() {
        // Without randomness there are no secrets, and nothing may go on without them.
        std::process::abort();
    }
    octets
}

/// `2 * N` hexadecimal digits.
pub fn hex<const N: usize>() -> String {
    octets::<N>().iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_alike() {
        assert_ne!(octets::<16>(), octets::<16>());
        assert_eq!(hex::<8>().len(), 16);
    }
}
