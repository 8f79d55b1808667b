//! Offer and answer (RFC 3264 sections 4 and 8, RFC 3261 section 14, RFC 3311 section 5, RFC 6337): which message may
//! carry what, as one pure function.

/// How far the exchange of a dialog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// Our offer waits for its answer.
    Ours,
    /// Their offer waits for our answer.
    Theirs,
    /// Nobody's offer is open, and one was answered.
    Settled,
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// INVITE within the dialog.
    Invite,
    /// UPDATE.
    Update,
    /// PRACK.
    Prack,
    /// ACK to a 2xx of ours.
    Ack,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its offer gets an answer in the 2xx.
    Answer,
    /// Its 2xx has an offer of ours.
    Offer,
    /// It brings the answer to our offer.
    Take,
    /// It is not about media.
    Nothing,
    /// 491: ours comes first (RFC 3261 section 14.2, RFC 3311 section 5.2).
    Pending,
    /// 500 with Retry-After: theirs has no answer yet (RFC 3311 section 5.2).
    Later,
}

/// What a request with or without a description means; `early`: the INVITE that began the dialog has no final answer.
pub const fn judge(exchange: Exchange, carrier: Carrier, described: bool, early: bool) -> Verdict {
    match (carrier, described) {
        (Carrier::Invite, _) if early => match exchange {
            Exchange::Theirs => Verdict::Later,
            Exchange::Ours | Exchange::Settled => Verdict::Pending,
        },
        (Carrier::Ack, true) if matches!(exchange, Exchange::Ours) => Verdict::Take,
        (Carrier::Ack, _) | (Carrier::Update | Carrier::Prack, false) => Verdict::Nothing,
        (Carrier::Invite | Carrier::Update | Carrier::Prack, described) => match exchange {
            Exchange::Ours => Verdict::Pending,
            Exchange::Theirs => Verdict::Later,
            Exchange::Settled if described => Verdict::Answer,
            Exchange::Settled => Verdict::Offer,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Carrier, Exchange, Verdict, judge};
    use Carrier::{Ack, Invite, Prack, Update};
    use Exchange::{Ours, Settled, Theirs};
    use Verdict::{Answer, Later, Nothing, Offer, Pending, Take};

    /// Every carrier, with and without a description, in every state, early and confirmed: 48 cases.
    #[test]
    fn every_message_in_every_state_has_its_verdict() {
        // Columns: ours open, theirs open, settled.
        let table = [
            (Invite, true, true, [Pending, Later, Pending]),
            (Invite, false, true, [Pending, Later, Pending]),
            (Invite, true, false, [Pending, Later, Answer]),
            (Invite, false, false, [Pending, Later, Offer]),
            (Update, true, true, [Pending, Later, Answer]),
            (Update, false, true, [Nothing, Nothing, Nothing]),
            (Update, true, false, [Pending, Later, Answer]),
            (Update, false, false, [Nothing, Nothing, Nothing]),
            (Prack, true, true, [Pending, Later, Answer]),
            (Prack, false, true, [Nothing, Nothing, Nothing]),
            (Prack, true, false, [Pending, Later, Answer]),
            (Prack, false, false, [Nothing, Nothing, Nothing]),
            (Ack, true, true, [Take, Nothing, Nothing]),
            (Ack, false, true, [Nothing, Nothing, Nothing]),
            (Ack, true, false, [Take, Nothing, Nothing]),
            (Ack, false, false, [Nothing, Nothing, Nothing]),
        ];
        for (carrier, described, early, expected) in table {
            for (exchange, expected) in [Ours, Theirs, Settled].into_iter().zip(expected) {
                let verdict = judge(exchange, carrier, described, early);
                assert_eq!(verdict, expected, "{exchange:?} {carrier:?} {described} {early}");
            }
        }
    }
}
