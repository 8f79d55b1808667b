//! The value of FINGERPRINT (RFC 8489 section 14.7).

/// What the CRC is combined with, so that it differs from that of a protocol inside.
const XOR: u32 = 0x5354_554e;

/// The value over all octets before the attribute, whose length is counted already.
pub(super) fn fingerprint(bytes: &[u8]) -> [u8; 4] {
    (crc32(bytes) ^ XOR).to_be_bytes()
}

/// CRC-32 of ITU V.42 (reflected, 0xedb88320), as FINGERPRINT uses it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc = (crc >> 8) ^ CRC_TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    !crc
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        #[allow(clippy::cast_possible_truncation)]
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_check_value_of_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
