//! Who is signed in: browsers that can be called by a number, and that hear of their calls.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use sallyport_plan::{CallId, InterfaceStatus, Zone};
use sallyport_proto::{CallEvent, Input, Party, Transfer};
use tokio::sync::mpsc::{Sender, channel};

use super::Calls;
use crate::message::{
    By, CallError, Caller, CreateError, Reach, RenewError, Renewal, SessionEvent, SessionId, SignIn,
    SignInError, SignedIn,
};
use crate::random;

/// Events that wait for a slow browser; one that is slower is signed out.
const EVENTS: usize = 256;
/// Browsers signed in at once, under one number, and of one client without a token.
const SESSIONS: usize = 10_000;
const PER_NUMBER: usize = 16;
const PER_CLIENT: usize = 64;

/// One browser.
#[derive(Debug)]
struct Session {
    /// Who it is; nobody in particular may not be called.
    party: Option<Party>,
    reach: Reach,
    client: Option<IpAddr>,
    events: Sender<SessionEvent>,
    /// When its token is worth nothing any more.
    until: Option<Instant>,
    /// Whether it has come to that: what runs goes on, nothing begins.
    expired: bool,
    /// Whether it was too slow for what it was to hear.
    overrun: Cell<bool>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sessions {
    all: HashMap<SessionId, Session>,
    numbers: HashMap<String, Vec<SessionId>>,
    clients: HashMap<IpAddr, usize>,
}

impl Sessions {
    /// Takes a browser in.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn sign_in(&mut self, sign_in: SignIn) -> Result<SignedIn, SignInError> {
        self.has_room(&sign_in)?;
        let SignIn { party, reach, client, verify: _, until } = sign_in;
        let id = SessionId(u128::from_be_bytes(random::octets()));
        if let Some(party) = &party {
            self.numbers.entry(party.user.clone()).or_default().push(id);
        }
        if let Some(client) = client {
            *self.clients.entry(client).or_default() += 1;
        }
        let (events, inbox) = channel(EVENTS);
        let overrun = Cell::new(false);
        self.all.insert(id, Session { party, reach, client, events, until, expired: false, overrun });
        Ok(SignedIn { id, events: inbox, until })
    }

    /// Whether there is room for one more like this.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn has_room(&self, sign_in: &SignIn) -> Result<(), SignInError> {
        if self.all.len() >= SESSIONS {
            return Err(SignInError::Full);
        }
        let same = sign_in.party.as_ref().map_or(0, |party| self.by_number(&party.user).len());
        let near = sign_in.client.and_then(|client| self.clients.get(&client)).copied().unwrap_or(0);
        if same >= PER_NUMBER || near >= PER_CLIENT { Err(SignInError::TooMany) } else { Ok(()) }
    }

    /// Forgets a browser; whose number it had.
    pub fn sign_out(&mut self, id: SessionId) -> Option<Party> {
        let Session { party, client, .. } = self.all.remove(&id)?;
        if let Some(client) = client
            && let Some(near) = self.clients.get_mut(&client)
        {
            *near -= 1;
            if *near == 0 {
                self.clients.remove(&client);
            }
        }
        let party = party?;
        self.silence(&party.user, id);
        Some(party)
    }

    /// A number does not ring there any more.
    fn silence(&mut self, number: &str, id: SessionId) {
        if let Some(same) = self.numbers.get_mut(number) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.numbers.remove(number);
            }
        }
    }

    /// Browsers whose tokens are worth nothing any more.
    fn overdue(&self, now: Instant) -> Vec<SessionId> {
        let over = |session: &Session| session.until.is_some_and(|until| until <= now);
        self.all.iter().filter(|(_, session)| over(session)).map(|(id, _)| *id).collect()
    }

    /// Nothing begins there any more; whether that is news.
    fn expire(&mut self, id: SessionId) -> bool {
        let Some(session) = self.all.get_mut(&id) else { return false };
        let news = !std::mem::replace(&mut session.expired, true);
        let number = session.party.as_ref().map(|party| party.user.clone());
        if let Some(number) = number.filter(|_| news) {
            self.silence(&number, id);
        }
        news
    }

    /// Whether its token is worth nothing any more.
    pub fn is_expired(&self, id: SessionId) -> bool {
        self.all.get(&id).is_some_and(|session| session.expired)
    }

    /// Another token; whose number rings there again, where it did not.
    ///
    /// # Errors
    /// [`RenewError`].
    fn renew(&mut self, id: SessionId, renewal: Renewal) -> Result<Option<Party>, RenewError> {
        let session = self.all.get_mut(&id).ok_or(RenewError::Unknown)?;
        let number = session.party.as_ref().map(|party| &party.user);
        if renewal.of.is_some_and(|of| of.as_ref() != number) {
            return Err(RenewError::OtherNumber);
        }
        (session.reach, session.until) = (renewal.reach, renewal.until);
        let party = session.party.clone().filter(|_| session.expired);
        session.expired = false;
        if let Some(party) = &party {
            self.numbers.entry(party.user.clone()).or_default().push(id);
        }
        Ok(party)
    }

    /// Browsers that a number rings.
    pub fn by_number(&self, number: &str) -> &[SessionId] {
        self.numbers.get(number).map_or(&[], Vec::as_slice)
    }

    /// Who it is; `None` where it is nobody in particular or not signed in.
    pub fn party(&self, id: SessionId) -> Option<&Party> {
        self.all.get(&id)?.party.as_ref()
    }

    /// Whether a browser is signed in under this name.
    pub fn is_signed_in(&self, id: SessionId) -> bool {
        self.all.contains_key(&id)
    }

    /// Whom it may call, and whose calls are counted as one client's; `None` where it is not signed in.
    pub fn reach(&self, id: SessionId) -> Option<(&Reach, Option<IpAddr>)> {
        self.all.get(&id).map(|session| (&session.reach, session.client))
    }

    /// How many are signed in.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Tells a browser; whether it hears. One that is too slow to hear everything is signed out soon.
    pub fn tell(&self, id: SessionId, event: SessionEvent) -> bool {
        let Some(session) = self.all.get(&id) else { return false };
        let told = session.events.try_send(event).is_ok();
        session.overrun.set(session.overrun.get() || !told);
        told
    }

    /// Tells all browsers.
    pub fn tell_all(&self, event: &SessionEvent) {
        for id in self.all.keys() {
            self.tell(*id, event.clone());
        }
    }

    /// Browsers that went away without a word, or were too slow.
    pub fn deaf(&self) -> Vec<SessionId> {
        let deaf = |session: &Session| session.overrun.get() || session.events.is_closed();
        self.all.iter().filter(|(_, session)| deaf(session)).map(|(id, _)| *id).collect()
    }

    /// Tells a browser what happened to a call of its.
    pub fn tell_of(&self, id: SessionId, call: CallId, event: CallEvent) -> bool {
        self.tell(id, SessionEvent::Call { call, event })
    }
}

impl Calls {
    /// Who places a call to `to`: whose it is that is signed in is known better here than where the call came in.
    ///
    /// # Errors
    /// [`CreateError::UnknownSession`] and [`CreateError::Forbidden`].
    pub(super) fn place(&self, caller: Caller, to: &str) -> Result<Caller, CreateError> {
        let caller = self.met(caller);
        let Some(session) = caller.session else { return Ok(caller) };
        self.may_call(session, to)?;
        let client = self.sessions.reach(session).and_then(|(_, client)| client);
        Ok(Caller { client, ..caller })
    }

    /// Whether a browser may call there.
    pub(super) fn may_call(&self, session: SessionId, to: &str) -> Result<(), CreateError> {
        let (reach, _) = self.sessions.reach(session).ok_or(CreateError::UnknownSession)?;
        if self.sessions.is_expired(session) {
            return Err(CreateError::Expired);
        }
        if reach.allows(to) { Ok(()) } else { Err(CreateError::Forbidden) }
    }

    /// Where a browser is met: inside only where the relay serves browsers inside.
    pub(super) fn met(&self, caller: Caller) -> Caller {
        let inside = |interface: &InterfaceStatus| interface.browsers.is_some();
        let serves = self.status.as_ref().is_some_and(|status| status.interfaces.iter().any(inside));
        Caller { zone: if serves { caller.zone } else { Zone::Outside }, ..caller }
    }

    /// Something is wanted of a call: where it leads to somebody else, its browser has to be allowed to call there.
    pub(super) fn want(&mut self, id: CallId, input: Input) -> Result<(), CallError> {
        let runtime = self.calls.get(&id).ok_or(CallError::Unknown)?;
        if let (Input::Transfer(Transfer::To(to)), Some(owner)) = (&input, runtime.owner) {
            match self.may_call(owner, to) {
                Err(CreateError::Forbidden) => return Err(CallError::Forbidden),
                Err(CreateError::Expired) => return Err(CallError::Expired),
                _ => {}
            }
        }
        if let Input::Record(wish) = &input {
            let may = runtime.call.may_record(wish);
            may.map_err(|busy| if busy { CallError::NotRecordable } else { CallError::NoRecorder })?;
        }
        self.input(id, input);
        Ok(())
    }

    /// Signs out whoever does not hear any more, or has no token any more and no call left.
    pub(super) fn sweep(&mut self, now: Instant) {
        for id in self.sessions.deaf() {
            self.sign_out(id);
        }
        for id in self.sessions.overdue(now) {
            if self.sessions.expire(id) {
                self.ring_off(id);
                let number = self.sessions.party(id).map(|party| party.user.clone());
                number.iter().for_each(|number| self.unregister_if_unused(number));
            }
            // People who talk are not cut off because a page did not renew a token.
            if !self.calls.values().any(|runtime| runtime.owner == Some(id)) {
                self.sessions.tell(id, SessionEvent::SignedOut { reason: "expired" });
                self.sign_out(id);
            }
        }
    }

    /// A browser has another token.
    pub(super) fn renew(&mut self, session: SessionId, renewal: Renewal) -> Result<(), RenewError> {
        if let Some(party) = self.sessions.renew(session, renewal)? {
            self.register_again(party);
        }
        Ok(())
    }

    /// A call of a former control is a browser's again. Who placed it knows its name, which is a secret; calls that came in
    /// were told to all browsers of their number.
    pub(super) fn claim(&mut self, id: CallId, session: SessionId) -> Result<(), CallError> {
        let settled = self.status.is_some() && self.adopting.is_none();
        let unknown = if settled { CallError::Unknown } else { CallError::NotYet };
        let runtime = self.calls.get_mut(&id).ok_or(unknown)?;
        let view = runtime.call.view();
        let number = self.sessions.party(session).map(|party| party.user.as_str());
        let own = !view.incoming || number == Some(view.to.as_str());
        let free = runtime.owner.is_none_or(|owner| owner == session);
        if !(runtime.adopted && free && own && self.sessions.is_signed_in(session)) {
            return Err(CallError::Unknown);
        }
        runtime.owner = Some(session);
        Ok(())
    }

    /// Tells all browsers that they are signed out, and takes their numbers back: we end.
    pub(super) fn dismiss(&mut self) {
        self.sessions.tell_all(&SessionEvent::SignedOut { reason: "ending" });
        self.unregister_all();
    }

    /// Whether somebody may ask something of a call.
    pub(super) fn may(&self, id: CallId, by: By) -> Result<(), CallError> {
        let runtime = self.calls.get(&id).ok_or(CallError::Unknown)?;
        let free = runtime.owner.is_none() && !runtime.call.view().incoming;
        let may = match by {
            By::Administrator => true,
            By::Session(session) => runtime.owner == Some(session) || free,
            By::Anybody => free,
        };
        if may { Ok(()) } else { Err(CallError::Unknown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Option<Instant> = None;

    fn agent(number: &str) -> SignIn {
        let party = Some(Party { user: number.into(), ..Party::default() });
        SignIn { party, reach: Reach::Anybody, client: None, verify: false, until: NEVER }
    }

    fn customer(client: &str) -> SignIn {
        let reach = Reach::Only(vec!["1000".into()]);
        SignIn { party: None, reach, client: Some(client.parse().unwrap()), verify: false, until: NEVER }
    }

    #[test]
    fn a_number_rings_all_who_signed_in_with_it() {
        let mut sessions = Sessions::default();
        let (first, second) = (sessions.sign_in(agent("1")).unwrap(), sessions.sign_in(agent("1")).unwrap());
        let nobody = sessions.sign_in(customer("10.0.0.1")).unwrap();
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

    #[test]
    fn one_client_without_a_token_holds_so_many_and_no_more() {
        let mut sessions = Sessions::default();
        let held: Vec<_> = (0..PER_CLIENT).map(|_| sessions.sign_in(customer("10.0.0.1")).unwrap()).collect();
        assert!(matches!(sessions.sign_in(customer("10.0.0.1")), Err(SignInError::TooMany)));
        assert!(sessions.sign_in(customer("10.0.0.2")).is_ok());
        let (reach, client) = sessions.reach(held[0].id).unwrap();
        assert!(reach.allows("1000") && !reach.allows("10000") && client.is_some());
        sessions.sign_out(held[0].id);
        assert!(sessions.reach(held[0].id).is_none());
        assert!(sessions.sign_in(customer("10.0.0.1")).is_ok());
    }

    #[test]
    fn a_token_that_is_over_silences_its_number_until_another_one_comes() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        let held = sessions.sign_in(SignIn { until: Some(now), ..agent("1") }).unwrap();
        let lasting = sessions.sign_in(agent("1")).unwrap();
        assert_eq!(sessions.overdue(now), [held.id]);
        assert!(sessions.expire(held.id) && !sessions.expire(held.id));
        assert!(sessions.is_expired(held.id) && sessions.by_number("1") == [lasting.id]);
        let renewal = |number: &str| Renewal {
            of: Some(Some(number.to_owned())),
            reach: Reach::Only(vec!["7".into()]),
            until: NEVER,
        };
        assert_eq!(sessions.renew(held.id, renewal("2")).unwrap_err(), RenewError::OtherNumber);
        assert_eq!(sessions.renew(held.id, renewal("1")).unwrap().unwrap().user, "1");
        assert!(!sessions.is_expired(held.id) && sessions.by_number("1") == [lasting.id, held.id]);
        assert!(!sessions.reach(held.id).unwrap().0.allows("8") && sessions.overdue(now).is_empty());
        assert!(sessions.renew(held.id, renewal("1")).unwrap().is_none(), "it rings already");
    }
}
