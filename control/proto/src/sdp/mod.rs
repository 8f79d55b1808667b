//! SDP both ways: the browser's offer and our answer (RFC 8829, RFC 8839), our offer and the answers inside (RFC 3264).

mod browser;
mod codec;
mod crypto;
mod direction;
mod fragment;
mod inside;
mod video;

pub use browser::{AnswerParts, AnswerVideo, BrowserVideo};
pub use browser::{BrowserOffer, Setup, UFRAG_MAX, browser_answer, browser_offer};
pub use codec::{Chosen, Codec, Inward, Kind};
pub use crypto::{Crypto, Flaw};
pub use direction::Direction;
pub use fragment::parse_fragment;
pub use inside::{InsideAnswer, InsideOffer, InsideProfile, MediaLine, Secrecy};
pub(crate) use video::choose as choose_video;
pub use video::{ChosenVideo, VideoFormat, VideoSection};

/// Octets that an SDP or a fragment of one may have.
pub const OFFER_MAX: usize = 64 * 1024;
/// Characters of our own user fragment.
pub(crate) const OUR_UFRAG: usize = 16;
