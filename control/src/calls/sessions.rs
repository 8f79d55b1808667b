//! Who is signed in: browsers that can be called by a number, and that hear of their calls.

use std::collections::HashMap;

use sallyport_plan::CallId;
use sallyport_proto::{CallEvent, Party};
use tokio::sync::mpsc::{Sender, channel};

use crate::message::{SessionEvent, SessionId, SignIn, SignInError, SignedIn};
use crate::random;

/// Events that wait for a slow browser; one that is slower is signed out.
const EVENTS: usize = 256;
/// Browsers signed in at once, and under one number.
const SESSIONS: usize = 10_000;
const PER_NUMBER: usize = 16;

/// One browser.
#[derive(Debug)]
struct Session {
    /// Who it is; nobody in particular may not be called.
    party: Option<Party>,
    events: Sender<SessionEvent>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sessions {
    all: HashMap<SessionId, Session>,
    numbers: HashMap<String, Vec<SessionId>>,
}

impl Sessions {
    /// Takes a browser in.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn sign_in(&mut self, sign_in: SignIn) -> Result<SignedIn, SignInError> {
        if self.all.len() >= SESSIONS {
            return Err(SignInError::Full);
        }
        let id = SessionId(u128::from_be_bytes(random::octets()));
        if let Some(party) = &sign_in.party {
            let same = self.numbers.entry(party.user.clone()).or_default();
            if same.len() >= PER_NUMBER {
                return Err(SignInError::TooMany);
            }
            same.push(id);
        }
        let (events, inbox) = channel(EVENTS);
        self.all.insert(id, Session { party: sign_in.party, events });
        Ok(SignedIn { id, events: inbox })
    }

    /// Forgets a browser; whose number it had.
    pub fn sign_out(&mut self, id: SessionId) -> Option<Party> {
        let party = self.all.remove(&id)?.party?;
        if let Some(same) = self.numbers.get_mut(&party.user) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.numbers.remove(&party.user);
            }
        }
        Some(party)
    }

    /// Browsers that a number rings.
    pub fn by_number(&self, number: &str) -> &[SessionId] {
        self.numbers.get(number).map_or(&[], Vec::as_slice)
    }

    /// Who it is; `None` where it is nobody in particular or not signed in.
    pub fn party(&self, id: SessionId) -> Option<&Party> {
        self.all.get(&id)?.party.as_ref()
    }

    /// How many are signed in.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Tells a browser; whether it hears.
    pub fn tell(&self, id: SessionId, event: SessionEvent) -> bool {
        self.all.get(&id).is_some_and(|session| session.events.try_send(event).is_ok())
    }

    /// Tells a browser what happened to a call of its.
    pub fn tell_of(&self, id: SessionId, call: CallId, event: CallEvent) -> bool {
        self.tell(id, SessionEvent::Call { call, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: &str) -> SignIn {
        SignIn { party: Some(Party { user: number.into(), ..Party::default() }) }
    }

    #[test]
    fn a_number_rings_all_who_signed_in_with_it() {
        let mut sessions = Sessions::default();
        let (first, second) = (sessions.sign_in(agent("1")).unwrap(), sessions.sign_in(agent("1")).unwrap());
        let nobody = sessions.sign_in(SignIn { party: None }).unwrap();
        assert_eq!(sessions.by_number("1"), [first.id, second.id]);
        assert!(sessions.party(nobody.id).is_none() && sessions.len() == 3);
        assert_eq!(sessions.sign_out(first.id).unwrap().user, "1");
        assert_eq!(sessions.by_number("1"), [second.id]);
        sessions.sign_out(second.id);
        assert!(sessions.by_number("1").is_empty() && sessions.sign_out(second.id).is_none());
    }

    #[test]
    fn one_number_holds_so_many_and_no_more() {
        let mut sessions = Sessions::default();
        let held: Vec<_> = (0..PER_NUMBER).map(|_| sessions.sign_in(agent("1")).unwrap()).collect();
        assert!(matches!(sessions.sign_in(agent("1")), Err(SignInError::TooMany)));
        assert!(sessions.sign_in(agent("2")).is_ok());
        drop(held);
    }
}
