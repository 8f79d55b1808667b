//! Project Wycheproof's vectors for AES-GCM, through our call path: the salt is the nonce, since source and index 0 leave
//! it as it is; what is in front of the payload is associated data.

use sallyport_srtp::suites::{Desc, Suite, protect, unprotect};

use crate::support::backends;

struct Vector<'a> {
    name: &'a str,
    valid: bool,
    key: Vec<u8>,
    nonce: [u8; 12],
    header: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

fn hex(text: &str) -> Vec<u8> {
    let text = text.trim_matches('-');
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn vectors() -> impl Iterator<Item = Vector<'static>> {
    let lines = include_str!("aes_gcm.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let words: [&str; 8] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let [name, result, key, nonce, header, plain, cipher, tag] = words;
        Vector {
            name,
            valid: result == "valid",
            key: hex(key),
            nonce: hex(nonce).try_into().unwrap(),
            header: hex(header),
            plain: hex(plain),
            sealed: [hex(header), hex(cipher), hex(tag)].concat(),
        }
    })
}

#[test]
fn aes_gcm() {
    let mut seen = (0, 0);
    for vector in vectors() {
        for backend in backends() {
            let suite = Suite::gcm(backend, &vector.key, &vector.nonce).unwrap();
            let header = vector.header.len();
            let mut packet = vector.sealed.clone();
            let desc = Desc::rtp(&suite, &mut packet, header, 0, 0).unwrap();
            assert_eq!(unprotect(&mut [desc]) == 0, vector.valid, "{backend:?} {}", vector.name);
            if vector.valid {
                assert_eq!(packet[header..header + vector.plain.len()], vector.plain);
                packet[header + vector.plain.len()..].fill(0);
                assert_eq!(protect(&mut [Desc::rtp(&suite, &mut packet, header, 0, 0).unwrap()]), 0);
                assert_eq!(packet, vector.sealed, "{backend:?} {}", vector.name);
            }
        }
        seen = if vector.valid { (seen.0 + 1, seen.1) } else { (seen.0, seen.1 + 1) };
    }
    assert_eq!(seen, (79, 54));
}
