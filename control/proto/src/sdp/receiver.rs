//! What a receiver of video can decode, told to who sends it: the level of its profile and its `max-` parameters (RFC 6184 section
//! 8.1, RFC 7741 section 6.1, RFC 7798 section 7.1). A gateway that lets the picture pass has to let these pass, too.

use super::video::VideoFormat;

/// Of H.265 and AV1, where the level goes by a number of its own.
const LEVELS: [&str; 2] = ["level-id", "level-idx"];
/// Parameters of H.264.
const PROFILE: &str = "profile-level-id";
const ASYMMETRY: &str = "level-asymmetry-allowed";
/// `constraint_set3_flag`, with which level 11 of the lower profiles is level 1b, and what we say then: level 1.0 is below it.
const SET3: u32 = 0x10_00;
const LEVEL_1: u32 = 10;

impl VideoFormat {
    /// The format as it is told to somebody who is to send to `receiver`, in the own profile. Of H.264, where not both let the
    /// levels differ, neither way goes beyond the lower one (RFC 6184 section 8.2.2). Who names no level at all means the lowest
    /// by that document, but hardly ever by intention: then it stays what it is.
    pub fn toward(&self, receiver: &Self) -> Self {
        let mut own: Vec<String> = Vec::new();
        for pair in pairs(&self.parameters).filter(|pair| !is_limit(name_of(pair))) {
            own.push(if name_of(pair).eq_ignore_ascii_case(PROFILE) {
                format!("{PROFILE}={:06x}", self.h264_level(receiver))
            } else {
                pair.to_owned()
            });
        }
        let limits = pairs(&receiver.parameters).filter(|pair| is_limit(name_of(pair)));
        own.extend(limits.map(str::to_owned));
        Self { parameters: own.join(";"), ..self.clone() }
    }

    /// `profile-level-id` of the own profile and the level that both sides are told.
    fn h264_level(&self, receiver: &Self) -> u32 {
        let (own, theirs) = (self.profile_level(), receiver.profile_level());
        let asymmetric = [self, receiver].iter().all(|format| format.parameter(ASYMMETRY) == Some("1"));
        let theirs = if theirs & SET3 != 0 && theirs & 0xff == 11 { LEVEL_1 } else { theirs & 0xff };
        if receiver.parameter(PROFILE).is_none() {
            return own;
        }
        let level = if asymmetric { theirs } else { theirs.min(own & 0xff) };
        own & 0xff_ff_00 | level
    }

    /// Value of `profile-level-id`, or what it is by default (RFC 6184 section 8.1).
    pub(super) fn profile_level(&self) -> u32 {
        let id = self.parameter(PROFILE).unwrap_or("42000a");
        u32::from_str_radix(id, 16).unwrap_or(0x42_00_0a)
    }
}

fn pairs(parameters: &str) -> impl Iterator<Item = &str> {
    parameters.split(';').map(str::trim).filter(|pair| !pair.is_empty())
}

fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name.trim())
}

fn is_limit(name: &str) -> bool {
    let max = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("max-"));
    max || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toward(name: &str, own: &str, receiver: &str) -> String {
        let format = |parameters: &str| VideoFormat {
            name: name.into(),
            parameters: parameters.into(),
            payload_type: 96,
            rtx: None,
        };
        format(own).toward(&format(receiver)).parameters
    }

    #[test]
    fn h264_goes_no_further_than_its_receiver_and_stays_in_its_profile() {
        let h264 = |own: &str, receiver: &str| toward("H264/90000", own, receiver);
        let both = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=";
        assert_eq!(h264(&format!("{both}42e01f"), &format!("{both}42800c")), format!("{both}42e00c"));
        assert_eq!(h264(&format!("{both}42e01f"), &format!("{both}428028")), format!("{both}42e028"));
        // One of both wants the levels to be the same.
        let one = "packetization-mode=1;profile-level-id=";
        assert_eq!(h264(&format!("{both}42e01f"), &format!("{one}428028")), format!("{both}42e01f"));
        assert_eq!(h264(&format!("{both}42e01f"), &format!("{one}42800c")), format!("{both}42e00c"));
        // Level 1b is below 1.1.
        assert_eq!(h264(&format!("{both}42e01f"), &format!("{both}42f00b")), format!("{both}42e00a"));
        assert_eq!(h264(&format!("{both}42e01f"), "packetization-mode=1"), format!("{both}42e01f"));
        assert_eq!(
            h264(
                "max-fs=8000; profile-level-id=42E01F",
                "profile-level-id=42801F;max-fs=3600;max-mbps=108000"
            ),
            "profile-level-id=42e01f;max-fs=3600;max-mbps=108000"
        );
    }

    #[test]
    fn the_limits_of_others_are_their_receivers() {
        assert_eq!(toward("VP8/90000", "max-fr=60;max-fs=8160", "max-fr=15"), "max-fr=15");
        assert_eq!(toward("VP8/90000", "", ""), "");
        assert_eq!(toward("VP9/90000", "profile-id=0", "profile-id=0"), "profile-id=0");
        assert_eq!(
            toward("H265/90000", "profile-id=1;level-id=93", "level-id=60; profile-id=1"),
            "profile-id=1;level-id=60"
        );
        assert_eq!(toward("AV1/90000", "level-idx=5;tier=0", "level-idx=2"), "tier=0;level-idx=2");
        assert_eq!(toward("AV1/90000", "x;;", "levels=é"), "x");
    }
}
