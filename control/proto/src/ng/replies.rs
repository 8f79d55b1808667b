//! Replies by cookie, so that a request that comes again gets the same reply and does nothing twice.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a reply is kept: longer than any client retries.
const KEEP: Duration = Duration::from_secs(30);
/// Replies that are kept.
const COUNT_MAX: usize = 8192;
/// Octets of all of them.
const OCTETS_MAX: usize = 16 * 1024 * 1024;

/// What is known of a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: the request is to be obeyed, and is now under way.
    First,
    /// It is under way: its reply will come.
    UnderWay,
    /// It was answered by this.
    Answered(Vec<u8>),
}

/// The replies, by who asked and cookie.
#[derive(Debug)]
pub struct Replies<K> {
    known: HashMap<K, Option<Vec<u8>>>,
    order: VecDeque<(Instant, K)>,
    octets: usize,
}

impl<K> Default for Replies<K> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), octets: 0 }
    }
}

impl<K: Hash + Eq + Clone> Replies<K> {
    /// A request came; the first of its cookie is under way from now on.
    pub fn ask(&mut self, key: K, now: Instant) -> Seen {
        self.expire(now);
        match self.known.get(&key) {
            Some(None) => Seen::UnderWay,
            Some(Some(reply)) => Seen::Answered(reply.clone()),
            None => {
                self.known.insert(key.clone(), None);
                self.order.push_back((now, key));
                Seen::First
            }
        }
    }

    /// The request was answered.
    pub fn answer(&mut self, key: &K, reply: &[u8]) {
        if let Some(slot) = self.known.get_mut(key)
            && slot.is_none()
        {
            *slot = Some(reply.to_vec());
            self.octets += reply.len();
        }
    }

    /// Cookies that are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, _)) = self.order.front() {
            let old = now.saturating_duration_since(*at) >= KEEP;
            if !old && self.known.len() < COUNT_MAX && self.octets <= OCTETS_MAX {
                return;
            }
            if let Some((_, key)) = self.order.pop_front()
                && let Some(Some(reply)) = self.known.remove(&key)
            {
                self.octets -= reply.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cookie_gets_the_same_reply_until_it_is_old() {
        let (mut replies, now) = (Replies::default(), Instant::now());
        assert_eq!(replies.ask("a", now), Seen::First);
        assert_eq!(replies.ask("a", now), Seen::UnderWay);
        replies.answer(&"a", b"a pong");
        assert_eq!(replies.ask("a", now), Seen::Answered(b"a pong".to_vec()));
        replies.answer(&"a", b"another");
        assert_eq!(replies.ask("a", now), Seen::Answered(b"a pong".to_vec()));
        assert_eq!(replies.ask("b", now), Seen::First);
        assert_eq!(replies.ask("a", now + KEEP), Seen::First);
        assert_eq!((replies.len(), replies.is_empty()), (1, false));
        replies.answer(&"b", b"too late to be kept");
        assert_eq!(replies.octets, 0);
    }

    #[test]
    fn neither_count_nor_octets_grow_without_bound() {
        let (mut replies, now) = (Replies::default(), Instant::now());
        for number in 0..3 * COUNT_MAX {
            replies.ask(number, now);
            replies.answer(&number, &[0; 10]);
        }
        assert!(replies.len() <= COUNT_MAX && replies.order.len() <= COUNT_MAX);
        let large = vec![0; 1 << 20];
        for number in 0..40 {
            replies.ask(1_000_000 + number, now);
            replies.answer(&(1_000_000 + number), &large);
        }
        assert!(replies.octets <= OCTETS_MAX + large.len());
    }
}
