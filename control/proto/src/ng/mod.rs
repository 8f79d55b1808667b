//! rtpengine's NG protocol: others' signalling drives our media plane.
//!
//! A message is `cookie SP dictionary`, the dictionary in bencode or JSON ([`frame`]). A [`Request`] with an SDP goes to a
//! [`Bridge`], the counterpart of [`crate::Call`] for calls whose signalling is somebody else's: the same inputs, the
//! same commands, the same plan.

pub mod bencode;
mod bridge;
mod emit;
mod flags;
pub mod frame;
pub mod json;
mod peer;
mod replies;
mod request;
mod sdp;
mod value;

pub use bridge::{Bridge, BridgeMedium, BridgeSettings, BridgeTag};
pub use flags::{Flags, Profile, Protection};
pub use frame::{Form, Frame};
pub use replies::{Replies, Seen};
pub use request::{Request, Verb, error, ok, pong, unknown_call};
pub use value::{DEPTH_MAX, DecodeError, Dict, Value};
