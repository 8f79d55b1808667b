//! `--path`: the way that packets are to take through the appliance.

use clap::ValueEnum;
use sallyport_lab::appliance::Way;

/// Way that packets are to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PathChoice {
    /// Native XDP and AF_XDP.
    Xdp,
    /// Generic XDP and AF_XDP.
    Generic,
    /// UDP sockets.
    Socket,
}

impl From<PathChoice> for Way {
    fn from(choice: PathChoice) -> Self {
        match choice {
            PathChoice::Xdp => Self::Xdp,
            PathChoice::Generic => Self::Generic,
            PathChoice::Socket => Self::Socket,
        }
    }
}
