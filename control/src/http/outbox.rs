//! What waits to be told to a browser whose connection may drop: numbered, bounded, told again from any number on.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

/// Messages that are kept, and their octets: those not read yet, and those that may have been lost on the way.
const MESSAGES: usize = 256;
const OCTETS: usize = 512 * 1024;

/// The queue of one browser.
#[derive(Debug)]
pub struct Outbox {
    /// Member of a message that has its number.
    key: &'static str,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// Number of the first message kept; numbers begin at 1.
    first: u64,
    kept: VecDeque<String>,
    octets: usize,
    /// Number of the last message that a reader has got.
    given: u64,
    /// The latest reader; earlier ones get no more.
    reader: u64,
    /// Since when nobody reads; `None` while somebody does.
    alone_since: Option<Instant>,
    over: bool,
}

/// Who reads, from where on.
#[derive(Debug)]
pub struct Reader {
    number: u64,
    cursor: u64,
    changed: watch::Receiver<()>,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A message with its number.
    Message(u64, String),
    /// Another reader has come.
    Replaced,
    /// There will be no more.
    Over,
}

impl Outbox {
    /// An empty one that nobody reads yet; messages have their numbers as member `key`.
    pub fn new(key: &'static str) -> Self {
        let state = State {
            first: 1,
            kept: VecDeque::new(),
            octets: 0,
            given: 0,
            reader: 0,
            alone_since: Some(Instant::now()),
            over: false,
        };
        Self { key, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message, an object that gets its number. Whether there was room: messages that nobody has read
    /// are never dropped for it.
    pub fn push(&self, mut message: Value) -> bool {
        let mut state = self.state();
        if state.over {
            return true;
        }
        let number = state.first + state.kept.len() as u64;
        message[self.key] = number.into();
        let text = message.to_string();
        while state.kept.len() >= MESSAGES || state.octets + text.len() > OCTETS {
            if state.first > state.given {
                return false;
            }
            let Some(read) = state.kept.pop_front() else { return false };
            state.octets -= read.len();
            state.first += 1;
        }
        state.octets += text.len();
        state.kept.push_back(text);
        drop(state);
        self.changed.send_replace(());
        true
    }

    /// There will be no more; what is kept may still be read.
    pub fn close(&self) {
        self.state().over = true;
        self.changed.send_replace(());
    }

    /// Reads behind message number `after`, instead of whoever read before; `None` where messages since then are lost.
    pub fn read_after(&self, after: u64) -> Option<Reader> {
        let mut state = self.state();
        let last = state.first + state.kept.len() as u64 - 1;
        if after + 1 < state.first || after > last {
            return None;
        }
        state.reader += 1;
        state.alone_since = None;
        let reader = Reader { number: state.reader, cursor: after, changed: self.changed.subscribe() };
        drop(state);
        // The former reader is to see that it is none any more.
        self.changed.send_replace(());
        Some(reader)
    }

    /// Number of the last message that a reader has got.
    pub fn given(&self) -> u64 {
        self.state().given
    }

    /// A reader goes away.
    pub fn leave(&self, reader: &Reader) {
        let mut state = self.state();
        if state.reader == reader.number {
            state.alone_since = Some(Instant::now());
        }
    }

    /// How long nobody has read.
    pub fn alone_for(&self) -> Duration {
        self.state().alone_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits for the next message. Dropping the future loses none.
    pub async fn next(&self, reader: &mut Reader) -> Next {
        loop {
            reader.changed.borrow_and_update();
            if let Some(next) = self.at(reader) {
                return next;
            }
            if reader.changed.changed().await.is_err() {
                return Next::Over;
            }
        }
    }

    fn at(&self, reader: &mut Reader) -> Option<Next> {
        let mut state = self.state();
        if state.reader != reader.number {
            return Some(Next::Replaced);
        }
        let index = usize::try_from((reader.cursor + 1).checked_sub(state.first)?).ok()?;
        match state.kept.get(index).cloned() {
            Some(text) => {
                reader.cursor += 1;
                state.given = state.given.max(reader.cursor);
                Some(Next::Message(reader.cursor, text))
            }
            None => state.over.then_some(Next::Over),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn seq(outbox: &Outbox, reader: &mut Reader) -> u64 {
        match outbox.next(reader).await {
            Next::Message(seq, text) => {
                assert!(text.contains(&format!("\"seq\":{seq}")), "{text}");
                seq
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_was_lost_on_the_way_is_told_again() {
        let outbox = Outbox::new("seq");
        (0..3).for_each(|_| assert!(outbox.push(json!({}))));
        let mut first = outbox.read_after(0).unwrap();
        assert_eq!((seq(&outbox, &mut first).await, seq(&outbox, &mut first).await), (1, 2));
        let mut second = outbox.read_after(1).unwrap();
        assert_eq!(outbox.next(&mut first).await, Next::Replaced);
        outbox.leave(&first);
        assert_eq!(outbox.alone_for(), Duration::ZERO, "the second one reads");
        assert_eq!((seq(&outbox, &mut second).await, seq(&outbox, &mut second).await), (2, 3));
        assert!(outbox.read_after(9).is_none(), "from another time");
        outbox.close();
        assert_eq!(outbox.next(&mut second).await, Next::Over);
    }

    #[tokio::test]
    async fn what_was_read_makes_room_and_what_was_not_does_not() {
        let outbox = Outbox::new("seq");
        (0..MESSAGES).for_each(|_| assert!(outbox.push(json!({}))));
        assert!(!outbox.push(json!({})), "nobody has read any");
        let mut reader = outbox.read_after(0).unwrap();
        assert_eq!(seq(&outbox, &mut reader).await, 1);
        assert!(outbox.push(json!({})));
        assert!(!outbox.push(json!({})));
        assert!(outbox.read_after(0).is_none(), "the first is gone");
        assert!(outbox.read_after(1).is_some());
        let large = Outbox::new("seq");
        assert!(!large.push(json!({ "text": "x".repeat(OCTETS) })));
    }

    #[tokio::test]
    async fn a_message_wakes_who_waits() {
        let outbox = std::sync::Arc::new(Outbox::new("seq"));
        let mut reader = outbox.read_after(0).unwrap();
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.next(&mut reader).await }
        });
        tokio::task::yield_now().await;
        outbox.push(json!({ "type": "pong" }));
        assert!(matches!(waiting.await.unwrap(), Next::Message(1, _)));
    }
}
