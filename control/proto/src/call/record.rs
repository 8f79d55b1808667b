//! What a new control needs to go on with a call: it travels in the plan, opaque to the relay.

use sallyport_plan::Profile;
use serde::{Deserialize, Serialize};

use super::recording::Kept;
use super::secrecy::Noted;
use super::video::Video;
use crate::api::CallEvent;
use crate::error::RestoreError;
use crate::sdp::{Agreed, Chosen, Codec, Direction, InsideAnswer, InsideOffer, Setup};
use crate::sip::Dialog;

/// Version of the form; another one is not read.
const VERSION: u8 = 9;

/// The part of a call that cannot be told from its plan. Keys are in the plan, but for one that is not sealed with yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub incoming: bool,
    pub from: String,
    pub to: String,
    pub created: u64,
    pub dialog: Dialog,
    pub answered: bool,
    pub inside: InsideOffer,
    pub inside_version: u32,
    pub answer: InsideAnswer,
    pub chosen: Vec<Chosen>,
    pub outside: Vec<Codec>,
    pub outside_version: u32,
    pub direction: Direction,
    pub agreed: Agreed,
    /// SHA-256 over the browser's certificate.
    pub fingerprint: Option<[u8; 32]>,
    /// And over ours.
    pub identity: [u8; 32],
    /// What its first offer said of the ClientHello.
    pub setup: Setup,
    /// What the inside was told that the browser does with the sound.
    pub told: Direction,
    /// Seconds of the session timer, and whether we refresh it.
    pub timer: (u32, bool),
    /// Session id of our answers to the browser.
    pub session: u64,
    /// Whether the Call-ID is ours.
    pub owner: bool,
    pub ssrc: (u32, u32),
    pub video: Video,
    pub profile: Option<Profile>,
    /// Keys inside, of sound and picture, where they have any.
    pub crypto: [Option<Noted>; 2],
    pub sip_status: Option<u16>,
    pub past: Vec<CallEvent>,
    pub recording: Kept,
}

impl Record {
    /// As octets: a version, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = vec![VERSION];
        // Plain data into a vector: there is nothing that could fail.
        octets.extend(postcard::to_allocvec(self).unwrap_or_default());
        octets
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`RestoreError::Version`] or [`RestoreError::Malformed`].
    pub fn decode(octets: &[u8]) -> Result<Self, RestoreError> {
        match octets.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| RestoreError::Malformed),
            Some(_) => Err(RestoreError::Version),
            None => Err(RestoreError::Malformed),
        }
    }
}
