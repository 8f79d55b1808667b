//! SDP both ways: the browser's offer and our answer (RFC 8829, RFC 8839), our offer and the answers inside (RFC 3264).

mod browser;
mod codec;
mod crypto;
mod direction;
mod extension;
mod fragment;
mod inside;
mod keying;
mod receiver;
mod video;

use sdp_types::Media;

pub use browser::{AnswerParts, AnswerVideo, BrowserVideo};
pub use browser::{BrowserOffer, Setup, UFRAG_MAX, browser_answer, browser_offer, browser_reoffer};
pub use codec::{Chosen, Codec, Inward, Kind};
pub use crypto::{Crypto, Flaw};
pub use direction::Direction;
pub use extension::{Agreed, Extension, Extensions};
pub use fragment::parse_fragment;
pub(crate) use inside::place;
pub use inside::{InsideAnswer, InsideOffer, MediaLine};
pub use keying::{InsideProfile, Keying};
pub use video::{ChosenVideo, VideoFormat, VideoSection};
pub(crate) use video::{
    choose as choose_video, describe, describe_rtx, formats as video_formats, payload_types, renumbered,
};

/// Octets that an SDP or a fragment of one may have.
pub const OFFER_MAX: usize = 64 * 1024;
/// Characters of our own user fragment.
pub(crate) const OUR_UFRAG: usize = 16;

/// Values of a section's attributes of this name, in their order; empty ones of those without.
fn values<'a>(media: &'a Media, name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = media.attributes.iter().filter(move |attribute| attribute.attribute == name);
    named.map(|attribute| attribute.value.as_deref().unwrap_or_default())
}
