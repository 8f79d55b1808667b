//! What browsers that are signed in hear by server-sent events: kept while nobody reads, and for those who come back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::message::{Handle, Message, SessionEvent, SessionId, SignedIn};

/// Events that are kept for one browser.
const KEPT: usize = 256;

/// One browser's events.
#[derive(Debug)]
pub struct Mailbox {
    state: Mutex<State>,
    /// Changes with every event, with everyone who comes or goes, and with the end.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// Events with their numbers, which begin with 1.
    events: VecDeque<(u64, SessionEvent)>,
    next: u64,
    readers: usize,
    /// Since when nobody reads.
    deserted: Instant,
    over: bool,
}

/// Somebody who reads a mailbox.
pub struct Reader {
    mailbox: Arc<Mailbox>,
    changes: watch::Receiver<()>,
    /// Number of the last event read.
    last: u64,
}

/// All mailboxes.
#[derive(Debug, Clone, Default)]
pub struct Mailboxes(Arc<Mutex<HashMap<SessionId, Arc<Mailbox>>>>);

impl Mailboxes {
    /// Keeps the events of a browser until it is signed out, which it is when nobody has read for `grace`.
    pub fn keep(&self, signed_in: SignedIn, calls: Handle, grace: Duration) {
        let SignedIn { id, mut events, .. } = signed_in;
        let mailbox = Arc::new(Mailbox::new());
        self.lock().insert(id, mailbox.clone());
        let all = self.clone();
        tokio::spawn(async move {
            let mut changes = mailbox.changed.subscribe();
            let mut told = false;
            loop {
                let until = mailbox.deserted().map(|since| since + grace).filter(|_| !told);
                tokio::select! {
                    event = events.recv() => match event {
                        Some(event) => mailbox.put(event),
                        None => break,
                    },
                    _ = changes.changed() => {}
                    () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                        told = true;
                        calls.tell(Message::SignOut(id));
                    }
                }
            }
            mailbox.lock().over = true;
            mailbox.changed.send_replace(());
            all.lock().remove(&id);
        });
    }

    /// Reads the events of a browser behind the one of this number; `None` where nobody is signed in under this name, or
    /// not by REST.
    pub fn read(&self, id: SessionId, last: u64) -> Option<Reader> {
        let mailbox = self.lock().get(&id).cloned()?;
        let changes = mailbox.changed.subscribe();
        mailbox.lock().readers += 1;
        mailbox.changed.send_replace(());
        Some(Reader { mailbox, changes, last })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Mailbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    fn new() -> Self {
        let deserted = Instant::now();
        let state = State { events: VecDeque::new(), next: 1, readers: 0, deserted, over: false };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, event: SessionEvent) {
        let mut state = self.lock();
        if state.events.len() == KEPT {
            state.events.pop_front();
        }
        let number = state.next;
        state.next += 1;
        state.events.push_back((number, event));
        drop(state);
        self.changed.send_replace(());
    }

    fn deserted(&self) -> Option<Instant> {
        let state = self.lock();
        (state.readers == 0).then_some(state.deserted)
    }
}

impl Reader {
    /// The next event with its number; `None` after the last.
    pub async fn next(&mut self) -> Option<(u64, SessionEvent)> {
        loop {
            // What changes from here on wakes us.
            self.changes.mark_unchanged();
            let (found, over) = {
                let state = self.mailbox.lock();
                let found = state.events.iter().find(|(number, _)| *number > self.last).cloned();
                (found, state.over)
            };
            if let Some((number, event)) = found {
                self.last = number;
                return Some((number, event));
            }
            if over {
                return None;
            }
            self.changes.changed().await.ok()?;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.mailbox.lock();
        state.readers -= 1;
        state.deserted = Instant::now();
        drop(state);
        self.mailbox.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    const GRACE: Duration = Duration::from_millis(200);

    fn event(reason: &'static str) -> SessionEvent {
        SessionEvent::SignedOut { reason }
    }

    fn reason(read: Option<(u64, SessionEvent)>) -> (u64, &'static str) {
        match read {
            Some((number, SessionEvent::SignedOut { reason })) => (number, reason),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn events_wait_for_who_comes_back_and_nobody_for_ever() {
        let (calls, mut asked) = mpsc::unbounded_channel();
        let (told, events) = mpsc::channel(16);
        let (mailboxes, id) = (Mailboxes::default(), SessionId(7));
        mailboxes.keep(SignedIn { id, events, until: None }, Handle(calls), GRACE);
        told.send(event("a")).await.unwrap();
        told.send(event("b")).await.unwrap();
        let mut reader = mailboxes.read(id, 0).unwrap();
        assert_eq!((reason(reader.next().await), reason(reader.next().await)), ((1, "a"), (2, "b")));
        // As long as somebody reads, nothing ends.
        tokio::time::sleep(3 * GRACE).await;
        assert!(asked.try_recv().is_err());
        told.send(event("c")).await.unwrap();
        let mut other = mailboxes.read(id, 1).unwrap();
        drop(reader);
        assert_eq!((reason(other.next().await), reason(other.next().await)), ((2, "b"), (3, "c")));
        tokio::time::sleep(3 * GRACE).await;
        assert!(asked.try_recv().is_err());
        drop(other);
        assert!(matches!(asked.recv().await, Some(Message::SignOut(name)) if name == id));
        // The owner of the calls lets go of it.
        let mut reader = mailboxes.read(id, 3).unwrap();
        drop(told);
        assert!(reader.next().await.is_none());
        while mailboxes.read(id, 0).is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn so_many_events_are_kept_and_no_more() {
        let (calls, _asked) = mpsc::unbounded_channel();
        let (told, events) = mpsc::channel(16);
        let (mailboxes, id) = (Mailboxes::default(), SessionId(7));
        mailboxes.keep(SignedIn { id, events, until: None }, Handle(calls), Duration::from_secs(60));
        for _ in 0..KEPT + 10 {
            told.send(event("x")).await.unwrap();
        }
        let mut reader = mailboxes.read(id, u64::try_from(KEPT).unwrap() + 9).unwrap();
        reader.next().await.unwrap();
        assert_eq!(reason(mailboxes.read(id, 0).unwrap().next().await).0, 11);
    }
}
