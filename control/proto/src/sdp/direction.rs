//! Directions of media (RFC 3264 sections 5.1, 6.1 and 8.4).

use serde::{Deserialize, Serialize};

/// Who sends, seen from whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Direction {
    /// Both.
    #[default]
    SendRecv,
    /// The writer only.
    SendOnly,
    /// The reader only.
    RecvOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];

    /// As an attribute.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// From an attribute's name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.name() == name)
    }

    /// Whether the writer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the writer receives.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    const fn from_parts(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The answer to an offer of this direction by one who wants `wanted` (RFC 3264 section 6.1).
    #[must_use]
    pub const fn answer(self, wanted: Self) -> Self {
        Self::from_parts(self.receives() && wanted.sends(), self.sends() && wanted.receives())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};

    /// RFC 3264 section 6.1, every pair.
    #[test]
    fn answers_follow_the_table() {
        let table = [
            (SendRecv, [SendRecv, SendOnly, RecvOnly, Inactive]),
            (SendOnly, [RecvOnly, Inactive, RecvOnly, Inactive]),
            (RecvOnly, [SendOnly, SendOnly, Inactive, Inactive]),
            (Inactive, [Inactive; 4]),
        ];
        for (offer, answers) in table {
            for (wanted, answer) in Direction::ALL.into_iter().zip(answers) {
                assert_eq!(offer.answer(wanted), answer, "{offer:?} wanted {wanted:?}");
            }
        }
    }
}
