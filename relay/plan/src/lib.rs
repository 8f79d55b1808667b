//! Contract 1: what control asks of the relay ([`Command`]), and what the relay reports ([`Event`]).
//!
//! A [`Plan`] is the whole media truth of one call at one version: its directions, whose packets feed them, the keys,
//! and the ICE consent that the relay keeps alive by itself. Setup decides, the packet path obeys: a change is a new
//! version of the plan, swapped as a whole.
//!
//! The crate holds data and its checks, no behaviour. Messages cross a local stream socket, each as a four-byte
//! big-endian length and a postcard body ([`encode`], [`decode`]); both sides open with a `Hello` and must agree on
//! [`VERSION`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod clock;
mod extension;
mod flow;
mod fork;
mod id;
mod key;
mod message;
mod plan;
mod quality;
mod wire;

pub use clock::Clock;
pub use extension::{ExtensionMap, Extensions, Mid};
pub use flow::{FlowKey, Zone};
pub use fork::Fork;
pub use id::{CallId, ParseCallIdError};
pub use key::{KeyMaterial, Profile, Protection, SALT_MAX};
pub use message::{Command, Counter, DirectionReport, Event, InterfaceStatus, PortPair, Refusal, Status};
pub use plan::{
    Consent, Digits, Direction, DirectionIndex, Format, IceRole, Medium, Mute, Passage, Plan, Pt, PtMap,
    Resend, Ssrc,
};
pub use quality::{Quality, STAYS, Told};
pub use wire::{DecodeError, MESSAGE_MAX, bytes, decode, encode};

/// Version of this contract. Both sides send it first and refuse any other.
pub const VERSION: u16 = 7;
