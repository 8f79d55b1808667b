//! What can go wrong, in words for people.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError as AyaMapError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;

use crate::PROGRAM_NAME;

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bpffs, or a file in it.
    #[error("no bpffs with pins of ours at {path}: {source}")]
    Pins {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The object or its maps.
    #[error("the kernel does not take the program or its maps: {0}")]
    Object(#[from] aya::EbpfError),
    /// The verifier or an attachment.
    #[error("the kernel refuses the program: {0}")]
    Program(#[from] ProgramError),
    /// A link.
    #[error("the kernel does not keep the program on the interface: {0}")]
    Link(#[from] LinkError),
    /// Another XDP program, which is none of ours, sits on the interface.
    #[error("another XDP program sits on interface {ifindex}")]
    Busy {
        /// Index of the interface.
        ifindex: u32,
    },
    /// A map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The object has no program of our name.
    #[error("the object holds no program {PROGRAM_NAME}")]
    NoProgram,
    /// More interfaces than the socket map has places for.
    #[error("more interfaces than the socket map has places for")]
    TooManyInterfaces,
}

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("map {name}: {source}")]
pub struct MapError {
    /// Which map.
    pub name: &'static str,
    /// What the kernel said.
    #[source]
    pub source: AyaMapError,
}

/// Why the pins cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The folder of the pins.
    #[error("the pins cannot be listed: {0}")]
    Pins(#[from] io::Error),
    /// The maps are of another version.
    #[error("the pinned maps are of version {found}, this program reads version {ours}")]
    Version {
        /// Theirs.
        found: u32,
        /// Ours.
        ours: u32,
    },
}

/// Names the map of an error.
pub(crate) fn of(name: &'static str) -> impl Fn(AyaMapError) -> MapError {
    move |source| MapError { name, source }
}

/// A map, or an entry of one, that is not there.
pub(crate) fn missing(name: &'static str) -> MapError {
    MapError { name, source: AyaMapError::ElementNotFound }
}
